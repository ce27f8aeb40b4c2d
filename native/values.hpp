// Copies of the values of blocks, in the words that kernels multiply.
#pragma once
#include "amx.hpp"
#include "topology.hpp"

namespace evergraft {

inline const float* in_fp32(const float* values, int64_t, Buffer<float>&) { return values; }
inline const float* in_fp32(const Bf16* values, int64_t n, Buffer<float>& buffer) {
  float* to = buffer.at_least(n);
  for (int64_t i = 0; i < n; i++) to[i] = widen(values[i]);
  return to;
}

inline float as_word(Bf16 first, Bf16 second) {
  const uint32_t bits = first.bits | (uint32_t)second.bits << 16;
  float word;
  memcpy(&word, &bits, 4);
  return word;
}

// Where the weights of block row r begin when those of two blocks share a word.
inline int64_t pairs_before(const Index& index, int64_t r) { return (index.offsets[r] + r + 1) / 2; }

// The weights of blocks one input wide, for GATHER_PAIRS: those of every two blocks of a row as words [pair][outs].
inline const float* pair_blocks(const Index& index, int outs, const Bf16* values, Buffer<float>& buffer) {
  float* words = buffer.at_least((pairs_before(index, index.rows) + 1) * outs);
  for (int64_t r = 0; r < index.rows; r++) {
    const BlockRow row = index.row(r);
    float* to = words + pairs_before(index, r) * outs;
    for (int b = 0; b < row.count; b += 2, to += outs) {
      const Bf16* first = values + row.slot(b) * outs;
      const Bf16* second = b + 1 < row.count ? values + row.slot(b + 1) * outs : nullptr;
      for (int o = 0; o < outs; o++) to[o] = as_word(first[o], second ? second[o] : Bf16{0});
    }
  }
  return words;
}

#if defined(__AMX_BF16__)
// Puts the weights of each block row into the order in which GATHER_PAIR_TILES takes them; those of block row r begin
// at starts[r].
inline const float* group_blocks(const Index& index, int outs, const Bf16* values, int64_t* starts,
                                 Buffer<float>& buffer) {
  constexpr int BLOCKS = GatherPairTiles::BLOCKS, PAIRS = GatherPairTiles::PAIRS;
  starts[0] = 0;
  for (int64_t r = 0; r < index.rows; r++)
    starts[r + 1] = starts[r] + (int64_t)GatherPairTiles::groups(index.row(r).count) * PAIRS * outs;
  float* words = buffer.at_least(starts[index.rows]);
  std::fill_n(words, starts[index.rows], 0.0f);
  for (int64_t r = 0; r < index.rows; r++) {
    const BlockRow row = index.row(r);
    for (int b = 0; b < row.count; b++) {
      const Bf16* from = values + row.slot(b) * outs;
      Bf16* to = (Bf16*)(words + starts[r] + (int64_t)b / BLOCKS * PAIRS * outs) + b % BLOCKS;
      for (int o = 0; o < outs; o++) memcpy(to + (int64_t)o * BLOCKS, from + o, sizeof *from);
    }
  }
  return words;
}
#endif

// Blocks whose inputs are paired: words, and their shape in words.
struct WordBlocks {
  const float* words;
  BlockShape block;
};

// The weights of every two neighbouring inputs of a block as a word: as they lie where that serves, else copied to
// [ins / 2][outs].
inline WordBlocks pair_inputs(int64_t active, BlockShape block, const Bf16* values, bool outs_adjacent,
                              Buffer<float>& buffer) {
  if (block.in_step == 1 && !outs_adjacent)
    return {(const float*)values, {block.outs, block.ins / 2, block.out_step / 2, 1}};
  float* words = buffer.at_least(active * block.area() / 2);
  float* to = words;
  for (const Bf16* v = values; v < values + active * block.area(); v += block.area())
    for (int i = 0; i < block.ins; i += 2)
      for (int o = 0; o < block.outs; o++, to++) {
        const Bf16* first = v + (int64_t)o * block.out_step + (int64_t)i * block.in_step;
        *to = as_word(first[0], first[block.in_step]);
      }
  return {words, {block.outs, block.ins / 2, 1, block.outs}};
}

}  // namespace evergraft
