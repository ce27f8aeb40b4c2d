// GELU, which is x times the probability that a standard normal number lies below x, and its slope.
#pragma once
#include "softmax.hpp"

namespace evergraft {

constexpr float FAR = 13.2f;                 // beyond it the density is below what fp32 holds, and `exponential` stops
constexpr float DENSITY_AT_0 = 0.39894228f;  // 1 / sqrt(2 pi)

// The probability that a standard normal number lies above |x| is exp(-x^2 / 2) t P(t) with t = 1 / (1 + 0.3 |x|), to a
// relative error of 1.2e-7. P is the polynomial of its degree that comes closest for |x| in [0, FAR], by weighted least
// squares.
constexpr float TAIL[] = {0.0360901617f, -0.158939272f, 0.20935601f, -0.0564590283f,
                          0.130037397f,  0.0994635969f, 0.12082655f, 0.119624525f};

struct Gelu {
  Vec value, slope;
};

EG_INLINE Gelu gelu(Vec v) {
  v = v < -FAR ? -FAR - Vec{} : v;
  const Vec near = v > FAR ? FAR - Vec{} : v, away = near < 0 ? -near : near;
  const Vec e = exponential(near * near * -0.5f), t = 1 / (0.3f * away + 1);
  Vec p = {};
  EG_UNROLL_FOR (float c : TAIL) p = p * t + c;
  const Vec above = e * t * p, below = v < 0 ? above : 1 - above;
  return {v * below, near * e * DENSITY_AT_0 + below};
}

// y = gelu(x) and, unless `slope` is null, slope = gelu'(x), for n numbers. y may be x.
template <class S> void gelu(const S* x, S* y, S* slope, int64_t n) {
  each(x, n, 0, [&](int64_t i, Vec v, int count) {
    const Gelu both = gelu(v);
    put(y + i, both.value, count);
    if (slope) put(slope + i, both.slope, count);
  });
}

}  // namespace evergraft
