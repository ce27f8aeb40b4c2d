// The gradient of blocks that are several weights high and wide, with vectors along the width of a block. The width
// fills at least a quarter of a vector.
//
// A vector of sums holds WIDE = LANES / P neighbouring weights of a row of a block, for P tokens. Inputs are multiplied
// as they lie in memory, and each gradient is repeated WIDE times. The sums of up to 8 rows of several blocks stay in
// registers.
#pragma once
#include "gather.hpp"

namespace evergraft {

template <class Mac, int P> struct Squares {
  static constexpr int WIDE = LANES / P, MOST = 6, WEIGHTS = SUMS * WIDE;
  using Registers = NoRegisters;

  // Not a power of two, with which all rows would share a few sets of the cache.
  static int64_t stride(int64_t features) { return features * P + LANES; }
  static int64_t group_words(int64_t features, int T) { return stride(features) * (T / P); }

  // Packs all features of the T tokens from t0 as [feature / WIDE][T][WIDE].
  template <class Source>
  static void pack_tile(Source x, int64_t t0, int64_t tokens, int64_t features, int T, float* to) {
    for (int t = 0; t < T; t += LANES)
      for (int64_t f = 0; f < features; f += LANES) {
        Vec v[LANES];
        load_square(x, t0 + t, tokens, f, features, v);
        EG_UNROLL_FOR (int g = 0; g < P; g++)
          EG_UNROLL_FOR (int i = 0; i < LANES; i++)
            memcpy(to + (f + g * WIDE) * T + (t + i) * WIDE, (const char*)(v + i) + 4 * g * WIDE, 4 * WIDE);
      }
  }

  // Packs the features f0 ... f1 as [T / P][features of a group][P].
  template <class Source>
  static void pack_group(Source x, int64_t t0, int64_t tokens, int64_t f0, int64_t f1, int64_t features, int T,
                         int64_t group, float* to) {
    for (int t = 0; t < T; t += LANES)
      for (int64_t f = f0; f < f1; f += LANES) {
        Vec v[LANES];
        load_square(x, t0 + t, tokens, f, features, v);
        EG_UNROLL_FOR (int q = 0; q < LANES; q += P) {
          interleave<P>(v + q);
          EG_UNROLL_FOR (int g = 0; g < P; g++)
            store(to + (t + q) / P * stride(group) + (f - f0) * P + g * LANES, v[q + g]);
        }
      }
  }

  // Sums ROWS rows of W vectors over T tokens, and adds them to the gradient, whose rows are `width` apart.
  template <int ROWS, int W>
  static EG_INLINE void some(const float* rows, int64_t stride, int T, const float* const* xs, float* const* sums,
                             int width) {
    Vec sum[ROWS][W] = {};
    for (int t = 0; t < T; t += P, rows += stride) {
      Vec x[W];
      EG_UNROLL_FOR (int w = 0; w < W; w++) x[w] = load(xs[w] + t * WIDE);
      EG_UNROLL_FOR (int r = 0; r < ROWS; r++) {
        const Vec g = spread<P>(rows + r * P);
        EG_UNROLL_FOR (int w = 0; w < W; w++) sum[r][w] = Mac::add(sum[r][w], g, x[w]);
      }
    }
    EG_UNROLL_FOR (int w = 0; w < W; w++)
      EG_UNROLL_FOR (int r = 0; r < ROWS; r += P) {
        Vec parts[P];
        EG_UNROLL_FOR (int p = 0; p < P; p++) parts[p] = sum[r + p][w];
        const Vec total = fold<P, WIDE>(parts);
        float* to = sums[w] + r * width;
        if (P == 1 || width == WIDE) store(to, load(to) + total);
        else {
          float each[LANES];
          store(each, total);
          for (int p = 0; p < P; p++)
            for (int i = 0; i < WIDE; i++) to[p * width + i] += each[p * WIDE + i];
        }
      }
  }

  // Adds the sums of a block row, whose first feature is number `f` of its group.
  //   gradient: blocks as [outs][ins].
  template <class Between>
  static void sum(const float* packed, int64_t f, int64_t group, const float* tile, int T, BlockRow row,
                  BlockShape block, float* gradient, Between between) {
    const int a_block = block.ins / WIDE, total = row.count * a_block;
    in_runs(block.outs, [&](auto run, int r) {
      constexpr int ROWS = decltype(run)::value, LIMIT = std::min(MOST, SUMS / ROWS);
      if constexpr (ROWS % P == 0) {
        int b = 0, c = 0;
        for (int done = 0, calls = (total + LIMIT - 1) / LIMIT; calls > 0; calls--) {
          between();
          const int count = (total - done + calls - 1) / calls;
          const float* xs[LIMIT];
          float* sums[LIMIT];
          for (int w = 0; w < count; w++) {
            xs[w] = tile + ((int64_t)row.others[b] * a_block + c) * WIDE * T;
            sums[w] = gradient + (row.slot(b) * block.outs + r) * block.ins + c * WIDE;
            if (++c == a_block) c = 0, b++;
          }
          with_count<LIMIT>(count, [&](auto w) {
            some<ROWS, decltype(w)::value>(packed + (f + r) * P, stride(group), T, xs, sums, block.ins);
          });
          done += count;
        }
      }
    });
  }
};

}  // namespace evergraft
