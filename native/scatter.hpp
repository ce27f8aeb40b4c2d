// Scatter: the inputs of a block row stay in registers, and their products are added to the outputs that the row's
// blocks name.
#pragma once
#include "gather.hpp"

namespace evergraft {

// Adds the products of ROWS inputs of V vectors of tokens. OUTS is that of the block, or 0 if it is not known when this
// is compiled. The weights of one output lie side by side where OUTS is 1.
template <class Mac, int ROWS, int OUTS>
EG_INLINE void scatter_some(const float* in, int T, BlockRow row, BlockShape block, const float* values, float* out) {
  constexpr int CHAINS = ROWS >= 8 ? 2 : 1;
  const int outs = OUTS ? OUTS : block.outs;
  const int64_t in_step = OUTS == 1 ? 1 : block.in_step, area = (int64_t)outs * block.ins;
  Vec xs[ROWS][V];
  EG_UNROLL_FOR (int r = 0; r < ROWS; r++)
    EG_UNROLL_FOR (int v = 0; v < V; v++) xs[r][v] = load(in + r * T + v * LANES);
  auto add_block = [&](const float* w, int32_t other) __attribute__((always_inline)) {
    float* y = out + (int64_t)other * outs * T;
    for (int o = 0; o < outs; o++, w += block.out_step, y += T) {
      Vec sum[CHAINS][V] = {};
      EG_UNROLL_FOR (int v = 0; v < V; v++) sum[0][v] = load(y + v * LANES);
      EG_UNROLL_FOR (int r = 0; r < ROWS; r++)
        EG_UNROLL_FOR (int v = 0; v < V; v++)
          sum[r % CHAINS][v] = Mac::add(sum[r % CHAINS][v], w + r * in_step, xs[r][v]);
      EG_UNROLL_FOR (int v = 0; v < V; v++) store(y + v * LANES, CHAINS == 2 ? sum[0][v] + sum[1][v] : sum[0][v]);
    }
  };
  if (row.slots)
    for (int b = 0; b < row.count; b++) add_block(values + row.slots[b] * area, row.others[b]);
  else {
    const float* w = values + row.first * area;
    for (int b = 0; b < row.count; b++, w += area) add_block(w, row.others[b]);
  }
}

template <class Mac, int OUTS>
void scatter(const float* in, int T, BlockRow row, BlockShape block, const float* values, float* out) {
  for (int t = 0; t < T; t += STEP)
    in_runs(block.ins, [&](auto rows, int i) {
      scatter_some<Mac, decltype(rows)::value, OUTS>(in + (int64_t)i * T + t, T, row, block, values + i * block.in_step,
                                                     out + t);
    });
}

}  // namespace evergraft
