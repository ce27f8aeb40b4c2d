// Gather: each output of a block row is summed in registers over the inputs that its blocks name.
#pragma once
#include "tile.hpp"

constexpr int V = 3;                             // vectors of tokens that share a weight in registers
constexpr int MAX_ROWS = SUMS / V;
constexpr int STEP = V * LANES;                  // a tile's tokens are a multiple of this

// The blocks of one block row.
struct BlockRow {
  const int32_t* others;  // [count] the block's place on the other side: which inputs it multiplies, or adds to
  const int32_t* slots;   // [count] where its values are; null: one after another from `first`
  int first, count;
  INLINE int64_t slot(int i) const { return slots ? slots[i] : first + i; }
};

// A block as a product sees it: outs x ins words of weights, out_step and in_step apart in memory.
struct BlockShape {
  int outs, ins, out_step, in_step;
  INLINE int64_t area() const { return (int64_t)outs * ins; }
};

// What a kernel's thread sets up for as long as this lives: nothing, where it has no registers but the usual ones.
struct NoRegisters {};

// Call f(ROWS, first) for runs of rows that together are `count`: as many at a time as registers hold, ROWS a constant.
template <class F> INLINE void in_runs(int count, F f) {
  int first = 0;
  auto runs = [&](auto rows) {
    for (; first + rows <= count; first += rows) f(rows, first);
  };
  if constexpr (MAX_ROWS == 8) runs(std::integral_constant<int, 8>{});
  runs(std::integral_constant<int, 4>{});
  runs(std::integral_constant<int, 2>{});
  runs(std::integral_constant<int, 1>{});
}

// ROWS outputs of W vectors of tokens. INS and OUT_STEP are the block's if they are known when compiling, else 0.
template <class Mac, int ROWS, int W, int INS, int OUT_STEP>
INLINE void gather_some(const float* in, int T, BlockRow row, BlockShape block, const float* values, float* out) {
  const int ins = INS ? INS : block.ins;
  const int64_t out_step = OUT_STEP ? OUT_STEP : block.out_step, in_step = OUT_STEP == 1 ? block.in_step : 1;
  Vec sum[ROWS][W] = {};
  for (int b = 0; b < row.count; b++) {
    const float* w = values + row.slot(b) * block.area();
    const float* x = in + (int64_t)row.others[b] * ins * T;
    _Pragma("GCC unroll 4") for (int i = 0; i < ins; i++, w += in_step, x += T) {
      Vec xs[W];
      UNROLL for (int v = 0; v < W; v++) xs[v] = load(x + v * LANES);
      UNROLL for (int r = 0; r < ROWS; r++) UNROLL for (int v = 0; v < W; v++) sum[r][v] = Mac::add(sum[r][v], w + r * out_step, xs[v]);
    }
  }
  UNROLL for (int r = 0; r < ROWS; r++) UNROLL for (int v = 0; v < W; v++) store(out + r * T + v * LANES, sum[r][v]);
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
// Pairs of tokens of two features -> pairs of those features, for tokens in their own order.
INLINE void unpack_pairs(Vec first, Vec second, Vec* to) {
  to[0] = (Vec)_mm512_unpacklo_epi16((__m512i)first, (__m512i)second);
  to[1] = (Vec)_mm512_unpackhi_epi16((__m512i)first, (__m512i)second);
}

// Blocks one input wide, in bf16: every two of a row are multiplied together, their inputs brought side by side here.
//   in: a tile of token pairs, T / 2 words a feature.  values: [(count + 1) / 2][outs], the weights of two blocks a word.
template <int ROWS, int W>
INLINE void gather_pairs_some(const float* in, int T, BlockRow row, int outs, const float* values, float* out) {
  static constexpr float NONE[W * LANES] = {};
  Vec sum[ROWS][2 * W] = {};
  for (int b = 0; b < row.count; b += 2, values += outs) {
    const float* x0 = in + (int64_t)row.others[b] * (T / 2);
    const float* x1 = b + 1 < row.count ? in + (int64_t)row.others[b + 1] * (T / 2) : NONE;
    Vec xs[2 * W];
    UNROLL for (int v = 0; v < W; v++) unpack_pairs(load(x0 + v * LANES), load(x1 + v * LANES), xs + 2 * v);
    UNROLL for (int r = 0; r < ROWS; r++)
      UNROLL for (int v = 0; v < 2 * W; v++) sum[r][v] = Dot::add(sum[r][v], values + r, xs[v]);
  }
  UNROLL for (int r = 0; r < ROWS; r++) UNROLL for (int v = 0; v < 2 * W; v++) store(out + r * T + v * LANES, sum[r][v]);
}

inline void gather_pairs(const float* in, int T, BlockRow row, int outs, const float* values, float* out) {
  in_runs(outs, [&](auto rows, int o) {
    constexpr int ROWS = decltype(rows)::value, W = ROWS == 8 ? 1 : V;
    for (int t = 0; t < T; t += 2 * W * LANES)
      gather_pairs_some<ROWS, W>(in + t / 2, T, row, outs, values + o, out + (int64_t)o * T + t);
  });
}
#endif
