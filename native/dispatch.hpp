// Which kernel computes which product: MATRIX_PRODUCTS holds the choices for y = x M, which is the forward product or
// the input gradient, and OUTER_PRODUCTS those for the gradient of the weights.
//
// The first row of a table that applies is taken; the last row always applies. A row applies if the library is compiled
// for the row's tier or a higher one, if the product's packing is the row's, and if the condition holds.
#pragma once
#include <numeric>
#include "chunks.hpp"
#include "outer_lists.hpp"
#include "tile.hpp"
#include "topology.hpp"

namespace evergraft {

// What a 32-bit word of activations and weights holds. Numbers in bf16 are widened to FLOATS where the tier has no
// products of bf16, and where the inputs of a block cannot be read in pairs.
enum Packing {
  ANY,            // In a table: the kernel takes every packing.
  FLOATS,         // One number in fp32.
  FEATURE_PAIRS,  // Two numbers in bf16: neighbouring features of one token.
  TOKEN_PAIRS,    // Two numbers in bf16: one feature of neighbouring tokens.
};

// A product y = x M. A block of R x C weights has R outs and C ins in the forward product; it has C outs and R ins in
// the input gradient.
struct MatrixProduct {
  Packing packing;
  int outs, ins;
  bool outs_adjacent;  // The weights of neighbouring outputs lie side by side in a block.
  int64_t blocks;      // The number of active blocks.
  int64_t block_rows;  // The number of block rows of outputs.
  int64_t lists;       // The number of lists that ChunkedWeights would make of the weights.
  int64_t tokens;
};

// A gradient of weights. A vector holds the sums of LANES / tokens_a_vector weights, for tokens_a_vector tokens.
struct OuterProduct {
  Packing packing;
  bool filled_by_rows;  // `filled` is the height of a block.
  bool tie;             // Both sides of a block fill vectors equally.
  int filled, other;    // The sides of a block: the one that fills vectors better, and the other one.
  int tokens_a_vector;
  int64_t blocks;  // The number of active blocks.
  int64_t lists;   // The number of lists that WeightLists would make of single weights.
  int64_t tokens;
};

enum MatrixKernel {
  CHUNKS,             // chunks.hpp
  GATHER,             // gather.hpp
  GATHER_PAIRS,       // gather.hpp
  GATHER_LANES,       // lanes.hpp
  GATHER_TILES,       // amx.hpp
  GATHER_PAIR_TILES,  // amx.hpp
  SCATTER,            // scatter.hpp
  SCATTER_TILES,      // amx.hpp
};

enum OuterKernel {
  COLUMNS,          // outer.hpp
  LISTS,            // outer_lists.hpp
  SQUARES,          // squares.hpp
  OUTER_TILES,      // amx.hpp
  OUTER_ROW_TILES,  // amx.hpp
};

// A row of a table. `packing` is the one that the kernel needs, or ANY.
template <class Kernel, class Product> struct Choice {
  Kernel kernel;
  Tier tier;
  Packing packing;
  bool (*condition)(const Product&);
};

constexpr int BLOCKS_A_ROW = 8;          // From here on a register of 32 blocks is filled well enough.
constexpr int WEIGHTS_A_LIST = 4;        // From here on a list is worth its own cost.
constexpr int TOKENS_A_LIST = 8 * STEP;  // From here on lists are worth the copy of the weights.
constexpr int TOKENS_A_WEIGHT = 256;     // From here on LISTS is worth the sorting. It was not measured with AVX-512.

// clang-format off
constexpr Choice<MatrixKernel, MatrixProduct> MATRIX_PRODUCTS[] = {
  // kernel           tier        packing        condition
  {CHUNKS,            PORTABLE,   ANY,           [](auto& p) { return p.outs == 1 && p.ins == 1 &&
                                                                      p.tokens >= TOKENS_A_LIST &&
                                                                      p.blocks >= WEIGHTS_A_LIST * p.lists; }},
  {GATHER_PAIR_TILES, AMX,        TOKEN_PAIRS,   [](auto& p) { return p.outs % 16 == 0 &&
                                                                      p.blocks >= BLOCKS_A_ROW * p.block_rows; }},
  {GATHER_PAIRS,      AVX512BF16, TOKEN_PAIRS,   [](auto&) { return true; }},
  {GATHER_TILES,      AMX,        FEATURE_PAIRS, [](auto& p) { return p.outs % 16 == 0 && p.ins % 16 == 0; }},
  {GATHER_LANES,      AVX512BF16, FEATURE_PAIRS, [](auto& p) { return p.outs % 16 == 0 && p.ins >= 8; }},
  {GATHER_LANES,      AVX512,     FLOATS,        [](auto& p) { return p.outs % 16 == 0 && p.ins >= 4 &&
                                                                      p.outs_adjacent; }},
  {SCATTER_TILES,     AMX,        FEATURE_PAIRS, [](auto& p) { return p.outs == 1 && p.ins % 16 == 0; }},
  {GATHER,            PORTABLE,   ANY,           [](auto& p) { return p.outs >= 4 || p.outs >= p.ins; }},
  {SCATTER,           PORTABLE,   ANY,           [](auto&) { return true; }},
};

constexpr Choice<OuterKernel, OuterProduct> OUTER_PRODUCTS[] = {
  // kernel           tier        packing        condition
  {OUTER_TILES,       AMX,        TOKEN_PAIRS,   [](auto& p) { return p.filled % 16 == 0 && p.other % 16 == 0; }},
  {OUTER_ROW_TILES,   AMX,        TOKEN_PAIRS,   [](auto& p) { return p.filled % 16 == 0 && p.other == 1; }},
  {SQUARES,           PORTABLE,   ANY,           [](auto& p) { return p.tokens_a_vector <= 4 && p.other >= 4 &&
                                                                      p.other % p.tokens_a_vector == 0; }},
  {LISTS,             PORTABLE,   ANY,           [](auto& p) { return TIER <= AVX2 &&
                                                                      p.filled == 1 && p.other == 1 &&
                                                                      p.tokens >= TOKENS_A_WEIGHT &&
                                                                      p.blocks >= p.lists; }},
  {COLUMNS,           PORTABLE,   ANY,           [](auto&) { return true; }},
};
// clang-format on

template <class Kernel, class Product, size_t N>
Kernel choose(const Choice<Kernel, Product> (&table)[N], const Product& product) {
  auto applies = [&](const Choice<Kernel, Product>& row) {
    return row.tier <= TIER && (row.packing == ANY || row.packing == product.packing) && row.condition(product);
  };
  return std::find_if(table, table + N - 1, applies)->kernel;
}

// Whether a kernel takes M block row by block row of its outputs, rather than of its inputs.
inline bool takes_outputs(MatrixKernel kernel) { return kernel != SCATTER && kernel != SCATTER_TILES; }

// Whether a kernel reads the weights of neighbouring outputs side by side.
inline bool wants_outs_adjacent(MatrixKernel kernel) { return kernel == GATHER_LANES || kernel == GATHER_TILES; }

// The packing of y = x M for numbers that are stored as S.
template <class S> Packing matrix_packing(BlockShape block, Matrix<const S> x) {
  if (TIER < AVX512BF16 || !std::is_same_v<S, Bf16>) return FLOATS;
  if (block.ins == 1) return TOKEN_PAIRS;
  return block.ins % 2 == 0 && x.stride % 2 == 0 && (uintptr_t)x.data % 4 == 0 ? FEATURE_PAIRS : FLOATS;
}

// Describes the product with the matrix of the topology or, for the forward product, with its transpose.
template <class S>
MatrixProduct matrix_product(const Topology& t, bool transposed, BlockShape block, Matrix<const S> x, int64_t tokens) {
  const int64_t lists = t.block_rows * ((t.block_columns + CHUNK - 1) / CHUNK);
  const int64_t block_rows = transposed ? t.block_columns : t.block_rows;
  const bool outs_adjacent = block.out_step == 1;
  return {matrix_packing(block, x), block.outs, block.ins, outs_adjacent, t.active, block_rows, lists, tokens};
}

// Describes the gradient of the weights. `filled` is the side of blocks along which weights fill vectors better. Where
// both sides fill them equally, it is the side of the smaller matrix.
template <class S> OuterProduct outer_product(const Topology& t, int64_t tokens) {
  const int height = (int)t.height, width = (int)t.width;
  const int rows_fill = std::gcd(height, LANES), columns_fill = std::gcd(width, LANES);
  const bool tie = rows_fill == columns_fill, wide = t.block_columns * width > t.block_rows * height;
  const bool filled_by_rows = tie ? wide : rows_fill > columns_fill;
  const int filled = filled_by_rows ? height : width, other = filled_by_rows ? width : height;
  const Packing packing = TIER >= AVX512BF16 && std::is_same_v<S, Bf16> ? TOKEN_PAIRS : FLOATS;
  const int64_t lists = t.block_rows * ((t.block_columns + LIST_INPUTS - 1) / LIST_INPUTS);
  return {packing,  filled_by_rows, tie,   filled, other, LANES / std::max(rows_fill, columns_fill),
          t.active, lists,          tokens};
}

}  // namespace evergraft
