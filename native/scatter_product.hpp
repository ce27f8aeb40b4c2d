// Products y = x M that take M from its inputs: a thread adds one block row after another to a tile of y.
#pragma once
#include "amx.hpp"
#include "scatter.hpp"
#include "task.hpp"

namespace evergraft {

// Calls run(in, T, row number, tile) for each block row of inputs.
template <class Registers, class S, class Source, class Run>
void scatter_product(const Index& index, BlockShape block, Source x, const Task<S>& task, Run run) {
  const int64_t ins = index.rows * block.ins, outs = index.columns * block.outs;
  const int64_t per_group = (GROUP + block.ins - 1) / block.ins;
  const int T = tile_tokens(outs, task.tokens, task.threads);
  parallel(task.threads, (task.tokens + T - 1) / T, [&](int64_t i) {
    const int64_t t0 = i * T;
    float* tile = tile_buffer.at_least(outs * T);
    float* group = group_buffer.at_least(round_up(per_group * block.ins, LANES) * T);
    [[maybe_unused]] const Registers registers;
    std::fill_n(tile, outs * T, 0.0f);
    for (int64_t r = 0; r < index.rows; r += per_group) {
      const int count = (int)std::min(per_group, index.rows - r);
      pack(x, t0, task.tokens, r * block.ins, (r + count) * block.ins, ins, T, group);
      const int64_t next = r + per_group < index.rows ? r + per_group : 0;
      const int64_t next_t0 = next ? t0 : t0 + (int64_t)task.threads.count * T;
      Ahead ahead(x, next_t0, T, task.tokens, next * block.ins, std::min(index.rows, next + per_group) * block.ins);
      const int64_t share = ahead.share(count);
      for (int k = 0; k < count; k++) {
        ahead.fetch(share);
        run(group + (int64_t)k * block.ins * T, T, r + k, tile);
      }
    }
    unpack(tile, T, (int)outs, task.bias, task.y, t0, task.tokens, 0, task.past_caches());
  });
}

// SCATTER. x is the task's input, or its words.
template <class Mac, class S, class Source>
void multiply_by_scatter(const Index& index, BlockShape block, Source x, const float* values, const Task<S>& task) {
  scatter_product<NoRegisters>(index, block, x, task, [&](const float* in, int T, int64_t r, float* tile) {
    if (block.outs == 1) scatter<Mac, 1>(in, T, index.row(r), block, values, tile);
    else scatter<Mac, 0>(in, T, index.row(r), block, values, tile);
  });
}

#if defined(__AMX_BF16__)
// SCATTER_TILES.
template <class S, class Source>
void multiply_by_scatter_tiles(const Index& index, BlockShape block, Source x, const float* values,
                               const Task<S>& task) {
  with_depth(block.ins, [&](auto depth) {
    using Kernel = ScatterTiles<decltype(depth)::value>;
    using Registers = typename Kernel::Registers;
    scatter_product<Registers>(index, block, x, task, [&](const float* in, int T, int64_t r, float* tile) {
      Kernel::add(in, T, index.row(r), block.ins, values, tile);
    });
  });
}
#endif

}  // namespace evergraft
