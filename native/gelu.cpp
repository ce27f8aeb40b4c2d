// GELU and its slope in one pass.
#include "gelu.hpp"
#include "threads.hpp"

namespace evergraft {

static constexpr int64_t RUN = 1 << 15;  // elements that a thread takes at a time; a multiple of LANES

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
