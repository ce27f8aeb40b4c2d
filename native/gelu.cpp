// GELU, which is x times the probability that a standard normal number lies below x, and its slope, in one pass.
#include "softmax.hpp"
#include "threads.hpp"

namespace evergraft {
namespace {

constexpr int64_t RUN = 1 << 15;             // elements that a thread takes at a time; a multiple of LANES
constexpr float FAR = 13.2f;                 // beyond it the density is below what fp32 holds, and `exponential` stops
constexpr float DENSITY_AT_0 = 0.39894228f;  // 1 / sqrt(2 pi)

// The probability that a standard normal number lies above |x| is exp(-x^2 / 2) t P(t) with t = 1 / (1 + 0.3 |x|), to a
// relative error of 1.2e-7. P is the polynomial of its degree that comes closest for |x| in [0, FAR], by weighted least
// squares.
constexpr float TAIL[] = {0.0360901617f, -0.158939272f, 0.20935601f, -0.0564590283f,
                          0.130037397f,  0.0994635969f, 0.12082655f, 0.119624525f};

template <class S> void gelu(const S* x, S* y, S* slope, int64_t n) {
  each(x, n, 0, [&](int64_t i, Vec v, int count) {
    v = v < -FAR ? -FAR - Vec{} : v;
    const Vec near = v > FAR ? FAR - Vec{} : v, away = near < 0 ? -near : near;
    const Vec e = exponential(near * near * -0.5f), t = 1 / (0.3f * away + 1);
    Vec p = {};
    EG_UNROLL_FOR (float c : TAIL) p = p * t + c;
    const Vec above = e * t * p, below = v < 0 ? above : 1 - above;
    put(y + i, v * below, count);
    if (slope) put(slope + i, near * e * DENSITY_AT_0 + below, count);
  });
}

}  // namespace

// y = gelu(x) and, unless `slope` is null, slope = gelu'(x), for n numbers. Returns a Status.
extern "C" EG_EXPORT int evergraft_gelu(const void* x, void* y, void* slope, int64_t n, int dtype,
                                        const Threads* threads) {
  return guarded(dtype, [&](auto s) {
    using S = decltype(s);
    parallel(*threads, (n + RUN - 1) / RUN, [&](int64_t i) {
      const int64_t at = i * RUN;
      gelu((const S*)x + at, (S*)y + at, slope ? (S*)slope + at : nullptr, std::min(n - at, RUN));
    });
  });
}

}  // namespace evergraft
