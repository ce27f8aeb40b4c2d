// The feed-forward network of a transformer's layer, y = down(gelu(up(x))), slab by slab of tokens. What a slab's
// hidden numbers are needed for is done while they are in the level-2 cache (L2).
#pragma once
#include <numeric>
#include <optional>
#include "gelu.hpp"
#include "matrix_product.hpp"
#include "outer_product.hpp"

namespace evergraft {

// Numbers between the rows of a slab, so that they do not all share a few sets of the cache.
constexpr int64_t ROW_GAP = 16;

inline thread_local Buffer<float> up_words, down_words, bias_sums_buffer;
template <class S> inline thread_local Buffer<S> hidden_buffer;
template <class S> inline thread_local Buffer<S> gradient_buffer;

// A sparse layer: values [active, R, C], and a bias that may be null.
template <class S> struct Layer {
  const Topology& topology;
  const S* values;
  const float* bias;
  int64_t in() const { return topology.block_columns * topology.width; }
  int64_t out() const { return topology.block_rows * topology.height; }
};

// The tokens of a slab: two tiles of the kernels, or one where there would be too few slabs for all threads.
template <class S> int64_t slab_tokens(int64_t tokens, const Threads& threads) {
  constexpr int64_t TILE = Multiplier<S>::NEIGHBOURS * STEP;
  return tokens < 2 * TILE * threads.count ? TILE : 2 * TILE;
}

template <class S> Matrix<const S> from_row(Matrix<const S> x, int64_t row) {
  return {x.data + row * x.stride, x.stride};
}

// Turns `tokens` rows of h into gelu(h), and copies h to `copy`, unless that is null.
template <class S> void gelu_rows(Matrix<S> h, S* copy, int64_t tokens, int64_t hidden) {
  for (int64_t t = 0; t < tokens; t++) {
    S* row = h.data + t * h.stride;
    S* kept = copy ? copy + t * hidden : nullptr;
    each(row, hidden, 0, [&](int64_t f, Vec v, int count) {
      if (kept) put(kept + f, v, count);
      put(row + f, gelu(v).value, count);
    });
  }
}

// y = down(gelu(h)) with h = up(x), which is stored unless it is null.
template <class S>
void feed_forward(const Layer<S>& up, const Layer<S>& down, Matrix<const S> x, S* h, S* y, int64_t tokens,
                  const Threads& threads) {
  const int64_t hidden = up.out(), out = down.out(), stride = hidden + ROW_GAP;
  const ReadyMatrix<S> up_matrix(up.topology, false, up.values, x, tokens, up_words);
  const ReadyMatrix<S> down_matrix(down.topology, false, down.values, {nullptr, stride}, tokens, down_words);
  const int64_t slab = slab_tokens<S>(tokens, threads);
  const Threads alone{nullptr, 1};
  parallel(threads, (tokens + slab - 1) / slab, [&](int64_t i) {
    const int64_t t0 = i * slab, n = std::min(slab, tokens - t0);
    const Matrix<S> a{hidden_buffer<S>.at_least(slab * stride), stride};
    up_matrix.multiply({from_row(x, t0), up.bias, a, n, alone});
    gelu_rows(a, h ? h + t0 * hidden : nullptr, n, hidden);
    down_matrix.multiply({{a.data, stride}, down.bias, {y + t0 * out, out}, n, alone});
  });
}

// Numbers as they are once they have been stored as S.
template <class S> EG_INLINE Vec rounded(Vec v) {
  if constexpr (std::is_same_v<S, float>) return v;
  S stored[LANES];
  store(stored, v);
  return load(stored);
}

// Turns the gradient of gelu(h) into that of h, for `tokens` rows. gelu(h) is stored in `a`, unless that is null, and
// the sum of the gradients over the tokens in `sums`, unless that is null.
template <class S>
void gelu_rows_backward(const S* h, Matrix<S> gradient, Matrix<S> a, float* sums, int64_t tokens, int64_t hidden) {
  if (sums) std::fill_n(sums, hidden, 0.0f);
  for (int64_t t = 0; t < tokens; t++) {
    S* row = gradient.data + t * gradient.stride;
    S* value = a.data ? a.data + t * a.stride : nullptr;
    each(h + t * hidden, hidden, 0, [&](int64_t f, Vec v, int count) {
      const Gelu both = gelu(v);
      const Vec product = rounded<S>(get(row + f, count) * rounded<S>(both.slope));
      put(row + f, product, count);
      if (value) put(value + f, both.value, count);
      if (sums) put(sums + f, get(sums + f, count) + product, count);
    });
  }
}

// The gradients of a feed-forward network, those of parameters in fp32. Each may be null, and is then not computed.
template <class S> struct FeedForwardGradients {
  S* x;
  float *up_values, *up_bias, *down_values;
};

// Gradients of weights need more tokens at a time than a slab has: they are summed batch by batch of slabs. A batch
// consists of whole tiles of the outer products, so that the sums are the same as those over all tokens at once.
template <class S>
void feed_forward_backward(const Layer<S>& up, const Layer<S>& down, Matrix<const S> grad, Matrix<const S> x,
                           const S* h, const FeedForwardGradients<S>& to, int64_t tokens, const Threads& threads) {
  const int64_t hidden = up.out(), in = up.in(), stride = hidden + ROW_GAP;
  const ReadyMatrix<S> down_matrix(down.topology, true, down.values, grad, tokens, down_words);
  const ReadyMatrix<S> up_matrix(up.topology, true, up.values, {nullptr, stride}, tokens, up_words);
  std::optional<WeightGradient<S>> of_up, of_down;
  if (to.up_values) of_up.emplace(up.topology, tokens, to.up_values);
  if (to.down_values) of_down.emplace(down.topology, tokens, to.down_values);
  if (to.up_bias) std::fill_n(to.up_bias, hidden, 0.0f);

  const int64_t slab = slab_tokens<S>(tokens, threads),
                tiles = std::lcm(of_up ? of_up->tile() : slab, of_down ? of_down->tile() : slab);
  const int64_t batch = std::min(tokens, round_up(2 * slab * threads.count, tiles)), slabs = (batch + slab - 1) / slab;
  const Matrix<S> dh{gradient_buffer<S>.at_least(batch * stride), stride};
  const Matrix<S> a{of_down ? hidden_buffer<S>.at_least(batch * stride) : nullptr, stride};
  float* sums = to.up_bias ? bias_sums_buffer.at_least(slabs * hidden) : nullptr;
  const Threads alone{nullptr, 1};
  for (int64_t b0 = 0; b0 < tokens; b0 += batch) {
    const int64_t n = std::min(batch, tokens - b0), count = (n + slab - 1) / slab;
    parallel(threads, count, [&](int64_t i) {
      const int64_t at = i * slab, t0 = b0 + at, some = std::min(slab, n - at);
      const Matrix<S> d{dh.data + at * stride, stride}, value{a.data ? a.data + at * stride : nullptr, stride};
      down_matrix.multiply({from_row(grad, t0), nullptr, d, some, alone});
      gelu_rows_backward(h + t0 * hidden, d, value, sums ? sums + i * hidden : nullptr, some, hidden);
      if (to.x) up_matrix.multiply({{d.data, stride}, nullptr, {to.x + t0 * in, in}, some, alone});
    });
    if (of_down) of_down->add(from_row(grad, b0), {a.data, stride}, n, threads);
    if (of_up) of_up->add({dh.data, stride}, from_row(x, b0), n, threads);
    for (int64_t i = 0; sums && i < count; i++)
      for (int64_t f = 0; f < hidden; f++) to.up_bias[f] += sums[i * hidden + f];
  }
  if (of_down) of_down->finish(threads);
  if (of_up) of_up->finish(threads);
}

}  // namespace evergraft
