// Products y = x M of any kernel. What a kernel needs of M is made ready once, for products with any tokens.
#pragma once
#include <vector>
#include "chunk_product.hpp"
#include "dispatch.hpp"
#include "gather_product.hpp"
#include "scatter_product.hpp"

namespace evergraft {

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

// A matrix M with the kernel that multiplies by it, and its weights as that kernel takes them.
template <class S> class ReadyMatrix {
 public:
  // M is the matrix of the topology or, for the forward product, its transpose. The kernel is chosen for all the
  // tokens of x. `buffer` holds the words of the weights, as long as this object lives.
  ReadyMatrix(const Topology& t, bool transposed, const S* values, Matrix<const S> x, int64_t tokens,
              Buffer<float>& buffer)
      : block(block_of(t, transposed)), product(matrix_product(t, transposed, block, x, tokens)),
        kernel(choose(MATRIX_PRODUCTS, product)), index(index_of(t, transposed, kernel)) {
    if (kernel == CHUNKS)
      each_part<S>(index, transposed, values, [&](ChunkedPart<S> part) { parts.push_back(std::move(part)); });
    else if (product.packing == FLOATS) words = in_fp32(values, product.blocks * block.area(), buffer);
#if defined(__AVX512BF16__)
    else if constexpr (std::is_same_v<S, Bf16>) pair(values, buffer);
#endif
  }

  // y = x M + bias.
  void multiply(const Task<S>& task) const {
    if (kernel == CHUNKS) {
      for (const auto& part : parts) part.multiply(task);
      return;
    }
#if defined(__AVX512BF16__)
    if constexpr (std::is_same_v<S, Bf16>)
      if (product.packing != FLOATS) return multiply_pairs(task);
#endif
    multiply_words<Plain>(kernel, index, block, task.x, words, task);
  }

  // Computes y = x M + bias once. Of single weights no more than one part is copied at a time.
  static void multiply_once(const Topology& t, bool transposed, const S* values, const Task<S>& task) {
    static thread_local Buffer<float> buffer;
    const MatrixProduct product = matrix_product(t, transposed, block_of(t, transposed), task.x, task.tokens);
    if (choose(MATRIX_PRODUCTS, product) != CHUNKS)
      return ReadyMatrix(t, transposed, values, task.x, task.tokens, buffer).multiply(task);
    each_part<S>(by_rows(t), transposed, values, [&](const ChunkedPart<S>& part) { part.multiply(task); });
  }

 private:
  static BlockShape block_of(const Topology& t, bool transposed) {
    const int height = (int)t.height, width = (int)t.width;
    return transposed ? BlockShape{width, height, 1, width} : BlockShape{height, width, width, 1};
  }
  static Index index_of(const Topology& t, bool transposed, MatrixKernel kernel) {
    return kernel != CHUNKS && takes_outputs(kernel) == transposed ? by_columns(t) : by_rows(t);
  }

#if defined(__AVX512BF16__)
  // Puts two numbers into each word.
  void pair(const Bf16* values, Buffer<float>& buffer) {
    switch (kernel) {
#if defined(__AMX_BF16__)
      case GATHER_PAIR_TILES:
        starts.resize(index.rows + 1);
        words = group_blocks(index, block.outs, values, starts.data(), buffer);
        return;
#endif
      case GATHER_PAIRS: words = pair_blocks(index, block.outs, values, buffer); return;
      default: break;
    }
    const WordBlocks paired = pair_inputs(product.blocks, block, values, wants_outs_adjacent(kernel), buffer);
    words = paired.words;
    block = paired.block;
  }

  // y = x M + bias by a kernel that takes pairs of numbers.
  void multiply_pairs(const Task<Bf16>& task) const {
    switch (kernel) {
#if defined(__AMX_BF16__)
      case GATHER_PAIR_TILES: return multiply_by_gather_pair_tiles(index, block.outs, words, starts.data(), task);
#endif
      case GATHER_PAIRS: return multiply_by_gather_pairs(index, block.outs, words, task);
      default: break;
    }
    const Matrix<const float> x{(const float*)task.x.data, task.x.stride / 2};
    multiply_words<Dot>(kernel, index, block, x, words, task);
  }
#endif

  BlockShape block;
  MatrixProduct product;
  MatrixKernel kernel;
  Index index;
  const float* words = nullptr;
  std::vector<ChunkedPart<S>> parts;  // of single weights in chunks
  std::vector<int64_t> starts;        // where the words of each block row begin, for GATHER_PAIR_TILES
};

}  // namespace evergraft
