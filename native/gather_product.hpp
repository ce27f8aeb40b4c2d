// Products y = x M that take M from its outputs: a thread packs a tile of x, and sums one block row after another.
#pragma once
#include "amx.hpp"
#include "gather.hpp"
#include "lanes.hpp"
#include "task.hpp"
#include "values.hpp"

namespace evergraft {

// Calls run(tile, t, T, row number, sums) for each block row of outputs and for `step` tokens from t at a time.
//   words: of a tile's token.  outs: of a block row.  fill(t0, T, tile) packs the tile.
template <class Registers, class S, class Fill, class Run>
void gather_product(const Index& index, int outs, int64_t words, const Task<S>& task, int T, int step, Fill fill,
                    Run run) {
  const int64_t per_group = (GROUP + outs - 1) / outs;
  parallel(task.threads, (task.tokens + T - 1) / T, [&](int64_t i) {
    const int64_t t0 = i * T;
    float* tile = tile_buffer.at_least(words * T);
    float* group = group_buffer.at_least(per_group * outs * step);
    [[maybe_unused]] const Registers registers;
    fill(t0, T, tile);
    for (int64_t r = 0; r < index.rows; r += per_group) {
      const int count = (int)std::min(per_group, index.rows - r);
      for (int t = 0; t < std::min<int64_t>(T, task.tokens - t0); t += step) {
        for (int k = 0; k < count; k++) run(tile, t, T, r + k, group + (int64_t)k * outs * step);
        unpack(group, step, count * outs, task.bias, task.y, t0 + t, task.tokens, r * outs, task.past_caches());
      }
    }
  });
}

// Calls f with n as a constant if it is a side of blocks for which there is a variant of its own, else with 0.
template <class F> void with_side(int n, F f) {
  switch (n) {
    case 1: return f(std::integral_constant<int, 1>{});
    case 2: return f(std::integral_constant<int, 2>{});
    case 4: return f(std::integral_constant<int, 4>{});
    case 8: return f(std::integral_constant<int, 8>{});
    case 16: return f(std::integral_constant<int, 16>{});
    case 32: return f(std::integral_constant<int, 32>{});
    case 64: return f(std::integral_constant<int, 64>{});
    default: return f(std::integral_constant<int, 0>{});
  }
}

// GATHER. x is the task's input, or its words.
template <class Mac, class S, class Source>
void multiply_by_gather(const Index& index, BlockShape block, Source x, const float* values, const Task<S>& task) {
  const int64_t ins = index.columns * block.ins, words = round_up(ins, LANES);
  auto fill = [&](int64_t t0, int T, float* tile) { pack(x, t0, task.tokens, 0, ins, ins, T, tile); };
  with_side(block.ins, [&](auto side) {
    constexpr int INS = decltype(side)::value;
    const int T = tile_tokens(words, task.tokens, task.threads);
    auto run = [&](const float* tile, int, int T, int64_t r, float* out) {
      if (block.out_step == 1) gather<Mac, INS, 1>(tile, T, index.row(r), block, values, out);
      else gather<Mac, INS, INS>(tile, T, index.row(r), block, values, out);
    };
    gather_product<NoRegisters>(index, block.outs, words, task, T, T, fill, run);
  });
}

// The product by rows of the result, for kernels that take blocks as [ins][outs]: GatherLanes and GatherTiles.
template <class Kernel, class S, class Source>
void gather_rows(const Index& index, BlockShape block, Source x, const float* values, const Task<S>& task) {
  constexpr int TOKENS = Kernel::TOKENS;
  const int64_t ins = index.columns * block.ins, words = round_up(ins, LANES);
  const int64_t per_group = (GROUP + block.outs - 1) / block.outs;
  const int T = tile_tokens(words, task.tokens, task.threads), stride = (int)per_group * block.outs;
  parallel(task.threads, (task.tokens + T - 1) / T, [&](int64_t i) {
    const int64_t t0 = i * T, t1 = std::min(task.tokens, t0 + T);
    float* tile = tile_buffer.at_least(words * T);
    float* sums = group_buffer.at_least(TOKENS * stride);
    [[maybe_unused]] const typename Kernel::Registers registers;
    Kernel::pack_tile(x, t0, task.tokens, ins, T, tile);
    for (int64_t r = 0; r < index.rows; r += per_group) {
      const int count = (int)std::min(per_group, index.rows - r);
      for (int64_t t = t0; t < t1; t += TOKENS) {
        for (int k = 0; k < count; k++)
          Kernel::sum(tile, t - t0, T, index.row(r + k), block, values, sums + k * block.outs, stride);
        const Matrix<S> y{task.y.data + t * task.y.stride + r * block.outs, task.y.stride};
        const float* bias = task.bias ? task.bias + r * block.outs : nullptr;
        write_rows(sums, stride, std::min<int64_t>(TOKENS, t1 - t), count * block.outs, bias, y, task.past_caches());
      }
    }
  });
}

// GATHER_LANES.
template <class Mac, class S, class Source>
void multiply_by_gather_lanes(const Index& index, BlockShape block, Source x, const float* values,
                              const Task<S>& task) {
  if (block.outs % (2 * LANES) == 0) gather_rows<GatherLanes<Mac, 2>>(index, block, x, values, task);
  else gather_rows<GatherLanes<Mac, 1>>(index, block, x, values, task);
}

#if defined(__AVX512BF16__)
// What GATHER_PAIRS and GATHER_PAIR_TILES have in common: a tile of T tokens, which are T / 2 words a feature.
template <class Registers, class Run>
void gather_token_pairs(const Index& index, int outs, const Task<Bf16>& task, int step, Run run) {
  const int64_t ins = index.columns, words_a_token = (round_up(ins, LANES) + 1) / 2;
  const int T = tile_tokens(words_a_token, task.tokens, task.threads, 2 * STEP);
  auto fill = [&](int64_t t0, int T, float* tile) {
    pack(TokenPairs{task.x}, t0 / 2, task.tokens, 0, ins, ins, T / 2, tile);
  };
  gather_product<Registers>(index, outs, words_a_token, task, T, step ? step : T, fill, run);
}

// GATHER_PAIRS, with the words of pair_blocks.
inline void multiply_by_gather_pairs(const Index& index, int outs, const float* words, const Task<Bf16>& task) {
  auto run = [&](const float* tile, int, int T, int64_t r, float* out) {
    gather_pairs(tile, T, index.row(r), outs, words + pairs_before(index, r) * outs, out);
  };
  gather_token_pairs<NoRegisters>(index, outs, task, 0, run);
}
#endif

#if defined(__AMX_BF16__)
inline thread_local Buffer<float> inputs_buffer;

// GATHER_PAIR_TILES, with the words of group_blocks.
inline void multiply_by_gather_pair_tiles(const Index& index, int outs, const float* words, const int64_t* starts,
                                          const Task<Bf16>& task) {
  using Kernel = GatherPairTiles;
  auto run = [&](const float* tile, int t, int T, int64_t r, float* out) {
    const BlockRow row = index.row(r);
    float* inputs = inputs_buffer.at_least((int64_t)Kernel::groups(row.count) * Kernel::PAIRS * Kernel::TOKENS);
    Kernel::sum(tile + t / 2, T, row, outs, words + starts[r], inputs, out);
  };
  gather_token_pairs<Kernel::Registers>(index, outs, task, Kernel::TOKENS, run);
}

// GATHER_TILES.
template <class S, class Source>
void multiply_by_gather_tiles(const Index& index, BlockShape block, Source x, const float* values,
                              const Task<S>& task) {
  with_depth(block.ins,
             [&](auto depth) { gather_rows<GatherTiles<decltype(depth)::value>>(index, block, x, values, task); });
}
#endif

}  // namespace evergraft
