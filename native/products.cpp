// The three products of a block-sparse linear layer, for one instruction set, behind a plain C interface.
#include "chunk_product.hpp"
#include "dispatch.hpp"
#include "gather_product.hpp"
#include "outer_product.hpp"
#include "scatter_product.hpp"

namespace evergraft {
namespace {

thread_local Buffer<float> gradient_buffer;

// y = x M by a kernel that takes FLOATS (Mac is Plain) or FEATURE_PAIRS (Mac is Dot). x and values are in those words.
template <class Mac, class S, class Source>
void multiply_words(MatrixKernel kernel, const Index& index, BlockShape block, Source x, const float* values,
                    const Task<S>& task) {
  switch (kernel) {
#if defined(__AMX_BF16__)
    case GATHER_TILES:
      if constexpr (Mac::NEIGHBOURS == 2) multiply_by_gather_tiles(index, block, x, values, task);
      return;
    case SCATTER_TILES:
      if constexpr (Mac::NEIGHBOURS == 2) multiply_by_scatter_tiles(index, block, x, values, task);
      return;
#endif
    case GATHER_LANES:
      if constexpr (TIER >= AVX512) multiply_by_gather_lanes<Mac>(index, block, x, values, task);
      return;
    case SCATTER: return multiply_by_scatter<Mac>(index, block, x, values, task);
    default: return multiply_by_gather<Mac>(index, block, x, values, task);  // GATHER
  }
}

#if defined(__AVX512BF16__)
// y = x M by a kernel that takes pairs of numbers in bf16.
void multiply_pairs(MatrixKernel kernel, const Index& index, BlockShape block, const Bf16* values, int64_t active,
                    const Task<Bf16>& task) {
  switch (kernel) {
#if defined(__AMX_BF16__)
    case GATHER_PAIR_TILES: return multiply_by_gather_pair_tiles(index, block.outs, values, task);
#endif
    case GATHER_PAIRS: return multiply_by_gather_pairs(index, block.outs, values, task);
    default: break;
  }
  const WordBlocks paired = pair_inputs(active, block, values, wants_outs_adjacent(kernel));
  const Matrix<const float> x{(const float*)task.x.data, task.x.stride / 2};
  multiply_words<Dot>(kernel, index, paired.block, x, paired.words, task);
}
#endif

// y = x M, where M is the matrix of the topology or, for the forward product, its transpose.
template <class S> void multiply(const Topology& t, bool transposed, const S* values, const Task<S>& task) {
  const int height = (int)t.height, width = (int)t.width;
  const BlockShape block = transposed ? BlockShape{width, height, 1, width} : BlockShape{height, width, width, 1};
  const MatrixProduct product = matrix_product(t, transposed, block, task.x, task.tokens);
  const MatrixKernel kernel = choose(MATRIX_PRODUCTS, product);
  if (kernel == CHUNKS) return multiply_by_chunks(by_rows(t), transposed, values, task);
  const Index index = takes_outputs(kernel) == transposed ? by_columns(t) : by_rows(t);
#if defined(__AVX512BF16__)
  if constexpr (std::is_same_v<S, Bf16>)
    if (product.packing != FLOATS) return multiply_pairs(kernel, index, block, values, t.active, task);
#endif
  multiply_words<Plain>(kernel, index, block, task.x, in_fp32(values, t.active * block.area(), values_buffer), task);
}

// gradient [active, R, C] = the blocks of grad^T x, summed in fp32.
template <class S>
void sum_weight_gradient(const Topology& t, Matrix<const S> grad, Matrix<const S> x, int64_t tokens, float* gradient,
                         const Threads& threads) {
  using Mac = Multiplier<S>;
  const OuterProduct product = outer_product<S>(t);
  const OuterKernel kernel = choose(OUTER_PRODUCTS, product);
  // SQUARES and OUTER_TILES take the filled side as the inputs of a block, the other kernels as its outputs. Where both
  // sides fill vectors equally, the outputs are those of the larger matrix, because the inputs are read at random.
  const bool squares = kernel == SQUARES || kernel == OUTER_TILES;
  const bool mirrored = (squares || product.tie) == product.filled_by_rows;
  const int height = (int)t.height, width = (int)t.width;
  std::fill_n(gradient, t.active * height * width, 0.0f);
  const Index index = mirrored ? by_columns(t) : by_rows(t);
  const BlockShape block = mirrored ? BlockShape{width, height, 0, 0} : BlockShape{height, width, 0, 0};
  const TokenWords<S> rows{mirrored ? x : grad}, others{mirrored ? grad : x};
  const int64_t words = (tokens + Mac::NEIGHBOURS - 1) / Mac::NEIGHBOURS;
  const OuterTask<TokenWords<S>> task{index, block, rows, others, tokens, words, gradient, threads};
  with_tokens_a_vector(product.tokens_a_vector, [&](auto p) {
    constexpr int P = decltype(p)::value;
    switch (kernel) {
#if defined(__AMX_BF16__)
      case OUTER_TILES:
        if constexpr (P == 1 && Mac::NEIGHBOURS == 2) add_outer_product<OuterTiles>(task, TILE_BYTES);
        return;
      case OUTER_ROW_TILES:
        if constexpr (P == 1 && Mac::NEIGHBOURS == 2) add_outer_product<OuterRowTiles>(task, OUTER_BYTES);
        return;
#endif
      case SQUARES:
        if constexpr (P <= 4) add_outer_product<Squares<Mac, P>>(task, TILE_BYTES);
        return;
      default: return add_outer_product<Columns<Mac, P>>(task, OUTER_BYTES);  // COLUMNS
    }
  });
  if (mirrored == squares && height > 1 && width > 1) transpose_blocks(gradient, t.active, height, width, threads);
}

// gradient [active, R, C] = the blocks of grad^T x.
template <class S>
void weight_gradient(const Topology& t, Matrix<const S> grad, Matrix<const S> x, int64_t tokens, S* gradient,
                     const Threads& threads) {
  if constexpr (std::is_same_v<S, float>) sum_weight_gradient(t, grad, x, tokens, gradient, threads);
  else {
    const int64_t n = t.active * t.height * t.width;
    float* sums = gradient_buffer.at_least(n);
    sum_weight_gradient(t, grad, x, tokens, sums, threads);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) store(gradient + i, load(sums + i));
    for (; i < n; i++) narrow(sums[i], gradient + i);
  }
}

template <class S> const float* bias_in_fp32(const S* bias, int64_t n) {
  return bias ? in_fp32(bias, n, gradient_buffer) : nullptr;
}

}  // namespace

extern "C" {

// y [tokens, out] = x W^T + bias; x_stride numbers from one token to the next. Returns a Status.
EG_EXPORT int evergraft_forward(const Topology* t, const void* x, int64_t x_stride, const void* values,
                                const void* bias, void* y, int64_t tokens, int dtype, const Threads* threads) {
  return guarded(dtype, [&](auto s) {
    using S = decltype(s);
    const int64_t out = t->block_rows * t->height;
    multiply<S>(*t, false, (const S*)values,
                {{(const S*)x, x_stride}, bias_in_fp32((const S*)bias, out), {(S*)y, out}, tokens, *threads});
  });
}

// dx [tokens, in] = grad W.
EG_EXPORT int evergraft_input_gradient(const Topology* t, const void* grad, int64_t grad_stride, const void* values,
                                       void* dx, int64_t tokens, int dtype, const Threads* threads) {
  return guarded(dtype, [&](auto s) {
    using S = decltype(s);
    multiply<S>(*t, true, (const S*)values,
                {{(const S*)grad, grad_stride}, nullptr, {(S*)dx, t->block_columns * t->width}, tokens, *threads});
  });
}

// dvalues [active, R, C] = the blocks of grad^T x.
EG_EXPORT int evergraft_weight_gradient(const Topology* t, const void* grad, int64_t grad_stride, const void* x,
                                        int64_t x_stride, void* dvalues, int64_t tokens, int dtype,
                                        const Threads* threads) {
  return guarded(dtype, [&](auto s) {
    using S = decltype(s);
    weight_gradient<S>(*t, {(const S*)grad, grad_stride}, {(const S*)x, x_stride}, tokens, (S*)dvalues, *threads);
  });
}
}

}  // namespace evergraft
