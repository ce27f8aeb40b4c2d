// Gather: each output of a block row is summed in registers, over the inputs that the row's blocks name.
#pragma once
#include "tile.hpp"
#include "topology.hpp"

namespace evergraft {

constexpr int V = 3;  // vectors of tokens that share a weight in registers
constexpr int MAX_ROWS = SUMS / V;
constexpr int STEP = V * LANES;  // a tile's tokens are a multiple of this

// What a kernel configures for as long as this object lives: nothing, except on AMX (TileRegisters).
struct NoRegisters {};

// Calls f(ROWS, first) for runs that together are `count` rows, with ROWS as a constant: as many rows as registers
// hold.
template <class F> EG_INLINE void in_runs(int count, F f) {
  int first = 0;
  auto runs = [&](auto rows) {
    for (; first + rows <= count; first += rows) f(rows, first);
  };
  if constexpr (MAX_ROWS == 8) runs(std::integral_constant<int, 8>{});
  runs(std::integral_constant<int, 4>{});
  runs(std::integral_constant<int, 2>{});
  runs(std::integral_constant<int, 1>{});
}

// Sums ROWS outputs of W vectors of tokens. INS and OUT_STEP are those of the block, or 0 if they are not known when
// this is compiled.
template <class Mac, int ROWS, int W, int INS, int OUT_STEP>
EG_INLINE void gather_some(const float* in, int T, BlockRow row, BlockShape block, const float* values, float* out) {
  const int ins = INS ? INS : block.ins;
  const int64_t out_step = OUT_STEP ? OUT_STEP : block.out_step, in_step = OUT_STEP == 1 ? block.in_step : 1;
  Vec sum[ROWS][W] = {};
  for (int b = 0; b < row.count; b++) {
    const float* w = values + row.slot(b) * block.area();
    const float* x = in + (int64_t)row.others[b] * ins * T;
    _Pragma("GCC unroll 4") for (int i = 0; i < ins; i++, w += in_step, x += T) {
      Vec xs[W];
      EG_UNROLL_FOR (int v = 0; v < W; v++) xs[v] = load(x + v * LANES);
      EG_UNROLL_FOR (int r = 0; r < ROWS; r++)
        EG_UNROLL_FOR (int v = 0; v < W; v++) sum[r][v] = Mac::add(sum[r][v], w + r * out_step, xs[v]);
    }
  }
  EG_UNROLL_FOR (int r = 0; r < ROWS; r++)
    EG_UNROLL_FOR (int v = 0; v < W; v++) store(out + r * T + v * LANES, sum[r][v]);
}

template <class Mac, int INS, int OUT_STEP>
void gather(const float* in, int T, BlockRow row, BlockShape block, const float* values, float* out) {
  const int64_t out_step = OUT_STEP ? OUT_STEP : block.out_step;
  const bool twice = T % (2 * STEP) == 0;
  for (int t = 0; t < T; t += twice ? 2 * STEP : STEP)
    in_runs(block.outs, [&](auto rows, int o) {
      constexpr int ROWS = decltype(rows)::value;
      const float* w = values + o * out_step;
      float* to = out + (int64_t)o * T + t;
      if constexpr (ROWS * 2 * V <= SUMS)
        if (twice) return gather_some<Mac, ROWS, 2 * V, INS, OUT_STEP>(in + t, T, row, block, w, to);
      gather_some<Mac, ROWS, V, INS, OUT_STEP>(in + t, T, row, block, w, to);
      if (twice) gather_some<Mac, ROWS, V, INS, OUT_STEP>(in + t + STEP, T, row, block, w, to + STEP);
    });
}

#if defined(__AVX512BF16__)
// Turns pairs of tokens of two features into pairs of these features, with the tokens in their own order.
EG_INLINE void unpack_pairs(Vec first, Vec second, Vec* to) {
  to[0] = (Vec)_mm512_unpacklo_epi16((__m512i)first, (__m512i)second);
  to[1] = (Vec)_mm512_unpackhi_epi16((__m512i)first, (__m512i)second);
}

// Sums blocks that are one input wide, in bf16. Every two blocks of a row are multiplied together, after their inputs
// have been brought side by side.
//   in: a tile of token pairs, T / 2 words a feature.
//   values: words [(count + 1) / 2][outs], each with the weights of two blocks.
template <int ROWS, int W>
EG_INLINE void gather_pairs_some(const float* in, int T, BlockRow row, int outs, const float* values, float* out) {
  static constexpr float NONE[W * LANES] = {};
  Vec sum[ROWS][2 * W] = {};
  for (int b = 0; b < row.count; b += 2, values += outs) {
    const float* x0 = in + (int64_t)row.others[b] * (T / 2);
    const float* x1 = b + 1 < row.count ? in + (int64_t)row.others[b + 1] * (T / 2) : NONE;
    Vec xs[2 * W];
    EG_UNROLL_FOR (int v = 0; v < W; v++) unpack_pairs(load(x0 + v * LANES), load(x1 + v * LANES), xs + 2 * v);
    EG_UNROLL_FOR (int r = 0; r < ROWS; r++)
      EG_UNROLL_FOR (int v = 0; v < 2 * W; v++) sum[r][v] = Dot::add(sum[r][v], values + r, xs[v]);
  }
  EG_UNROLL_FOR (int r = 0; r < ROWS; r++)
    EG_UNROLL_FOR (int v = 0; v < 2 * W; v++) store(out + r * T + v * LANES, sum[r][v]);
}

inline void gather_pairs(const float* in, int T, BlockRow row, int outs, const float* values, float* out) {
  in_runs(outs, [&](auto rows, int o) {
    constexpr int ROWS = decltype(rows)::value, W = ROWS == 8 ? 1 : V;
    for (int t = 0; t < T; t += 2 * W * LANES)
      gather_pairs_some<ROWS, W>(in + t / 2, T, row, outs, values + o, out + (int64_t)o * T + t);
  });
}
#endif

}  // namespace evergraft
