// Scatter: the inputs of a block row stay in registers and are added to the outputs that its blocks name.
#pragma once
#include "gather.hpp"

// ROWS inputs of V vectors of tokens. IN_STEP is the block's if it is known when compiling, else 0.
template <class Mac, int ROWS, int IN_STEP>
INLINE void scatter_some(const float* in, int T, BlockRow row, BlockShape block, const float* values, float* out) {
  constexpr int CHAINS = ROWS >= 8 ? 2 : 1;
  const int64_t in_step = IN_STEP ? IN_STEP : block.in_step;
  Vec xs[ROWS][V];
  UNROLL for (int r = 0; r < ROWS; r++) UNROLL for (int v = 0; v < V; v++) xs[r][v] = load(in + r * T + v * LANES);
  for (int b = 0; b < row.count; b++) {
    const float* w = values + row.slot(b) * block.area();
    float* y = out + (int64_t)row.others[b] * block.outs * T;
    for (int o = 0; o < block.outs; o++, w += block.out_step, y += T) {
      Vec sum[CHAINS][V] = {};
      UNROLL for (int v = 0; v < V; v++) sum[0][v] = load(y + v * LANES);
      UNROLL for (int r = 0; r < ROWS; r++) UNROLL for (int v = 0; v < V; v++) sum[r % CHAINS][v] = Mac::add(sum[r % CHAINS][v], w + r * in_step, xs[r][v]);
      UNROLL for (int v = 0; v < V; v++) store(y + v * LANES, CHAINS == 2 ? sum[0][v] + sum[1][v] : sum[0][v]);
    }
  }
}

template <class Mac, int IN_STEP>
void scatter(const float* in, int T, BlockRow row, BlockShape block, const float* values, float* out) {
  const int64_t in_step = IN_STEP ? IN_STEP : block.in_step;
  for (int t = 0; t < T; t += STEP)
    in_runs(block.ins, [&](auto rows, int i) {
      scatter_some<Mac, decltype(rows)::value, IN_STEP>(in + (int64_t)i * T + t, T, row, block, values + i * in_step, out + t);
    });
}
