// Gather with outputs in the lanes, for blocks whose outputs fill vectors: sums are rows of the result as they are stored,
// so nothing is transposed on the way out.
#pragma once
#include "gather.hpp"

// TOKENS tokens of W vectors of outputs.
//   in: a tile.  values: blocks as [ins][outs].  out: [TOKENS][..], `stride` apart.
template <class Mac, int TOKENS, int W>
INLINE void gather_lanes(const float* in, int T, BlockRow row, BlockShape block, const float* values, float* out, int stride) {
  // A register of weights alone takes a load for each sum, more than a processor has; so some tokens come four by four.
  constexpr int BY_FOURS = W == 1 ? 8 : 0;
  Vec sum[TOKENS][W] = {};
  for (int b = 0; b < row.count; b++) {
    const float* w = values + row.slot(b) * block.area();
    const float* x = in + (int64_t)row.others[b] * block.ins * T;
    for (int i = 0; i < block.ins; i++, w += block.outs, x += T) {
      Vec ws[W], fours = {};
      UNROLL for (int v = 0; v < W; v++) ws[v] = load(w + v * LANES);
      UNROLL for (int t = 0; t < TOKENS; t++) {
        if (t < BY_FOURS && t % 4 == 0) fours = repeat<4>(x + t);
        const Vec xs = t < BY_FOURS ? one_of_fours(fours, t % 4) : repeat<1>(x + t);
        UNROLL for (int v = 0; v < W; v++) sum[t][v] = Mac::add(sum[t][v], ws[v], xs);
      }
    }
  }
  UNROLL for (int t = 0; t < TOKENS; t++) UNROLL for (int v = 0; v < W; v++) store(out + t * stride + v * LANES, sum[t][v]);
}

// As products gather by rows of the result: packed, and block row by block row.
template <class Mac, int W> struct GatherLanes {
  static constexpr int TOKENS = SUMS / W;
  using Registers = NoRegisters;

  template <class Source> static void pack_tile(Source x, int64_t t0, int64_t tokens, int64_t features, int T, float* to) {
    pack(x, t0, tokens, 0, features, features, T, to);
  }

  // TOKENS tokens from t of a block row.  values: blocks as [ins][outs].  out: [TOKENS][..], `stride` apart.
  static void sum(const float* tile, int64_t t, int T, BlockRow row, BlockShape block, const float* values, float* out, int stride) {
    for (int o = 0; o < block.outs; o += W * LANES) gather_lanes<Mac, TOKENS, W>(tile + t, T, row, block, values + o, out + o, stride);
  }
};
