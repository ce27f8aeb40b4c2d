// The softmax of a row and its gradient, and what they are made of: exponentials, and sums over the lanes of a vector.
#pragma once
#include <cmath>
#include "element.hpp"

namespace evergraft {

template <int WIDTH, int... I> EG_INLINE Vec swapped(Vec v, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(v, v, (I ^ WIDTH)...);
}
// Reduces all lanes of a vector with op, half by half.
template <int WIDTH = LANES / 2, class F> EG_INLINE float reduce(Vec v, F op) {
  if constexpr (WIDTH == 0) return v[0];
  else return reduce<WIDTH / 2>(op(v, swapped<WIDTH>(v, Lanes{})), op);
}
EG_INLINE float sum(Vec v) {
  return reduce(v, [](Vec a, Vec b) { return a + b; });
}

// exp(x) for x <= 0, exact to two units in the last place: 2^n e^r with |r| <= ln 2 / 2. Below -87 it is e^-87.
EG_INLINE Vec exponential(Vec x) {
  constexpr float ROUND = 12582912;  // 1.5 * 2^23: adding it rounds to an integer, in the lowest bits
  x = x < -87 ? -87 - Vec{} : x;
  const Vec shifted = x * 1.44269504f + ROUND, n = shifted - ROUND;
  const Vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
  Vec p = 1.9875691500e-4f - Vec{};  // the polynomial of expf in the Cephes library
  EG_UNROLL_FOR (float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
    p = p * r + c;
  p = p * r * r + r + 1;
  return (Vec)((Ints)p + ((Ints)shifted << 23));
}

// Calls work(i, x, count) for each vector of a row. The last one may hold fewer than LANES numbers; its other lanes
// hold `padding`.
template <class S, class F> EG_INLINE void each(const S* row, int64_t n, float padding, F work) {
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) work(i, load(row + i), LANES);
  if (i == n) return;
  Vec v = load_some(row + i, (int)(n - i));
  for (int lane = (int)(n - i); lane < LANES; lane++) v[lane] = padding;
  work(i, v, (int)(n - i));
}

template <class S> float highest(const S* row, int64_t n) {
  Vec found = -INFINITY - Vec{};
  each(row, n, -INFINITY, [&](int64_t, Vec v, int) { found = v > found ? v : found; });
  return reduce(found, [](Vec a, Vec b) { return a > b ? a : b; });
}

// `exponentials` is memory for a row in whole vectors.
template <class S> void softmax_row(const S* scores, S* probabilities, int64_t n, float* exponentials) {
  const float most = highest(scores, n);
  Vec total = {};
  each(scores, n, -INFINITY, [&](int64_t i, Vec v, int) {
    const Vec e = exponential(v - most);
    store(exponentials + i, e);
    total += e;
  });
  const float share = 1 / sum(total);
  each(exponentials, n, 0, [&](int64_t i, Vec e, int count) { put(probabilities + i, e * share, count); });
}

// Computes the gradient of the scores from that of the probabilities. `dscores` may be `grad`.
template <class S> void softmax_row_backward(const S* grad, const S* probabilities, S* dscores, int64_t n) {
  Vec products = {};
  each(probabilities, n, 0, [&](int64_t i, Vec p, int count) { products += p * get(grad + i, count); });
  const float mean = sum(products);
  each(probabilities, n, 0,
       [&](int64_t i, Vec p, int count) { put(dscores + i, p * (get(grad + i, count) - mean), count); });
}

}  // namespace evergraft
