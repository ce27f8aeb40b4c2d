// Gather with outputs in the lanes, for blocks whose outputs fill vectors. The sums are rows of the result as it is
// stored, so that nothing has to be transposed.
#pragma once
#include "gather.hpp"

namespace evergraft {

// Sums TOKENS tokens of W vectors of outputs.
//   in: a tile.  values: blocks as [ins][outs].  out: [TOKENS][..], `stride` apart.
template <class Mac, int TOKENS, int W>
EG_INLINE void gather_lanes(const float* in, int T, BlockRow row, BlockShape block, const float* values, float* out,
                            int stride) {
  // One register of weights would need one load for each sum, which is more than processors can do: some tokens are
  // therefore loaded four at a time.
  constexpr int BY_FOURS = W == 1 ? 8 : 0;
  Vec sum[TOKENS][W] = {};
  for (int b = 0; b < row.count; b++) {
    const float* w = values + row.slot(b) * block.area();
    const float* x = in + (int64_t)row.others[b] * block.ins * T;
    for (int i = 0; i < block.ins; i++, w += block.outs, x += T) {
      Vec ws[W], fours = {};
      EG_UNROLL_FOR (int v = 0; v < W; v++) ws[v] = load(w + v * LANES);
      EG_UNROLL_FOR (int t = 0; t < TOKENS; t++) {
        if (t < BY_FOURS && t % 4 == 0) fours = repeat<4>(x + t);
        const Vec xs = t < BY_FOURS ? one_of_fours(fours, t % 4) : repeat<1>(x + t);
        EG_UNROLL_FOR (int v = 0; v < W; v++) sum[t][v] = Mac::add(sum[t][v], ws[v], xs);
      }
    }
  }
  EG_UNROLL_FOR (int t = 0; t < TOKENS; t++)
    EG_UNROLL_FOR (int v = 0; v < W; v++) store(out + t * stride + v * LANES, sum[t][v]);
}

// The kernel as gather_rows calls it.
template <class Mac, int W> struct GatherLanes {
  static constexpr int TOKENS = SUMS / W;
  using Registers = NoRegisters;

  template <class Source>
  static void pack_tile(Source x, int64_t t0, int64_t tokens, int64_t features, int T, float* to) {
    pack(x, t0, tokens, 0, features, features, T, to);
  }

  // Sums TOKENS tokens, from t on, of a block row.
  //   values: blocks as [ins][outs].  out: [TOKENS][..], `stride` apart.
  static void sum(const float* tile, int64_t t, int T, BlockRow row, BlockShape block, const float* values, float* out,
                  int stride) {
    for (int o = 0; o < block.outs; o += W * LANES)
      gather_lanes<Mac, TOKENS, W>(tile + t, T, row, block, values + o, out + o, stride);
  }
};

}  // namespace evergraft
