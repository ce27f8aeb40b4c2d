// The sums of the columns of a matrix: the gradient of a bias.
#include <memory>
#include "threads.hpp"

namespace evergraft {
namespace {

// Shares of the rows whose sums are made apart. Their number is fixed, so that results do not depend on that of
// threads.
constexpr int64_t SUM_SHARES = 16;
constexpr int ROWS_AT_ONCE = 8;  // for which the sums are read and written once

// Adds R rows, `stride` apart, to the sums of n columns.
template <int R, class S> void add_rows(const S* rows, int64_t stride, int64_t n, float* sums) {
  auto add = [&](int64_t i, int count) {
    Vec total = get(rows + i, count);
    EG_UNROLL_FOR (int r = 1; r < R; r++) total += get(rows + r * stride + i, count);
    put(sums + i, get(sums + i, count) + total, count);
  };
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) add(i, LANES);
  if (i < n) add(i, (int)(n - i));
}

}  // namespace

// sums [columns] = the sums over the rows of a matrix [rows, columns], in fp32 before they are rounded; `stride`
// numbers from one row to the next. Returns a Status.
extern "C" EG_EXPORT int evergraft_column_sums(const void* matrix, int64_t stride, void* sums, int64_t rows,
                                               int64_t columns, int dtype, const Threads* threads) {
  return guarded(dtype, [&](auto s) {
    using S = decltype(s);
    const std::unique_ptr<float[]> parts(new (std::nothrow) float[SUM_SHARES * columns]());
    if (!parts) throw OUT_OF_MEMORY;
    parallel(*threads, SUM_SHARES, [&](int64_t share) {
      float* own = parts.get() + share * columns;
      int64_t row = rows * share / SUM_SHARES;
      const int64_t end = rows * (share + 1) / SUM_SHARES;
      for (; row + ROWS_AT_ONCE <= end; row += ROWS_AT_ONCE)
        add_rows<ROWS_AT_ONCE>((const S*)matrix + row * stride, stride, columns, own);
      for (; row < end; row++) add_rows<1>((const S*)matrix + row * stride, stride, columns, own);
    });
    for (int64_t i = 0; i < columns; i++) {
      float total = 0;
      for (int64_t share = 0; share < SUM_SHARES; share++) total += parts[share * columns + i];
      narrow(total, (S*)sums + i);
    }
  });
}

}  // namespace evergraft
