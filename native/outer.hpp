// Outer: the gradient of a block row's values, summed over tokens, for blocks of any shape.
//
// A block is taken column by column. A vector of sums holds ROWS numbers of a column for P = LANES / ROWS tokens side
// by side, so that no lane is idle, however low the block is.
#pragma once
#include "gather.hpp"

namespace evergraft {

// Where the inputs and the sums of the columns of a block row are, if every block has one column and the values of the
// blocks lie one after another.
struct FlatColumns {
  const float* tile;
  int T;
  const int32_t* others;
  float* first;
  int tall;
  EG_INLINE const float* x(int j) const { return tile + (int64_t)others[j] * T; }
  EG_INLINE float* sums(int j) const { return first + (int64_t)j * tall; }
};

// Where the inputs and the sums of up to COUNT columns of a block row are, for blocks of any shape.
template <int COUNT> struct ListedColumns {
  const float* xs[COUNT];
  float* sum[COUNT];
  EG_INLINE const float* x(int j) const { return xs[j]; }
  EG_INLINE float* sums(int j) const { return sum[j]; }
};

// Sums H vectors of each of COUNT columns over T tokens, U x P tokens at a time, and adds the first `valid` columns to
// the gradient.
//   rows: [H][T / P] vectors.
template <class Mac, int P, int H, int U, int COUNT, class Columns>
EG_INLINE void outer_some(const float* rows, int T, const Columns& columns, int valid) {
  constexpr int ROWS = LANES / P;
  Vec sum[H][COUNT] = {};
  for (int t = 0; t < T; t += U * P) {
    Vec r[H][U];
    EG_UNROLL_FOR (int h = 0; h < H; h++)
      EG_UNROLL_FOR (int i = 0; i < U; i++) r[h][i] = load(rows + (h * T + t + i * P) * ROWS);
    EG_UNROLL_FOR (int u = 0; u < COUNT; u++) {
      const float* x = columns.x(u) + t;
      EG_UNROLL_FOR (int i = 0; i < U; i++) {
        const Vec xs = repeat<P>(x + i * P);
        EG_UNROLL_FOR (int h = 0; h < H; h++) sum[h][u] = Mac::add(sum[h][u], r[h][i], xs);
      }
    }
  }
  EG_UNROLL_FOR (int u = 0; u < COUNT; u += P)
    EG_UNROLL_FOR (int h = 0; h < H; h++) {
      Vec total = fold<P>(sum[h] + u);
      float* to = columns.sums(u) + h * ROWS;
      if (u + P <= valid && columns.sums(u + P - 1) == columns.sums(u) + (P - 1) * ROWS) store(to, load(to) + total);
      else {
        float some[LANES];
        store(some, total);
        for (int k = 0; k < P && u + k < valid; k++)
          for (int r = 0; r < ROWS; r++) columns.sums(u + k)[h * ROWS + r] += some[k * ROWS + r];
      }
    }
}

// Adds the sums of ROWS numbers of every column of a block row.
//   tile: the other activation, feature by feature.  T: a multiple of 3 x P.
//   gradient: blocks as [wide][tall].  offset: where the ROWS numbers begin in a column.
//   between: called from time to time, so that the caller can prefetch.
template <class Mac, int P, int H, class Between>
void outer(const float* rows, const float* tile, int T, BlockRow row, BlockShape block, int offset, float* gradient,
           Between between) {
  constexpr int COUNT = H == 2 ? SUMS / 2 : REGISTERS == 32 ? 16 : 8;
  constexpr int FEW = H == 2 && REGISTERS == 16 ? 1 : 3, MANY = REGISTERS == 32 && P == LANES ? 12 : FEW;
  auto some = [&](const auto& columns, int valid) {
    between();
    if (T % (MANY * P) == 0) outer_some<Mac, P, H, MANY, COUNT>(rows, T, columns, valid);
    else outer_some<Mac, P, H, FEW, COUNT>(rows, T, columns, valid);
  };
  const int total = row.count * block.ins;
  int j = 0, b = 0, c = 0;
  if (block.ins == 1 && !row.slots) {
    float* first = gradient + (int64_t)row.first * block.outs + offset;
    for (; j + COUNT <= total; j += COUNT, b += COUNT)
      some(FlatColumns{tile, T, row.others + j, first + (int64_t)j * block.outs, block.outs}, COUNT);
  }
  for (; j < total; j += COUNT) {
    const int valid = std::min(COUNT, total - j);
    ListedColumns<COUNT> columns;
    for (int u = 0; u < valid; u++) {
      columns.xs[u] = tile + ((int64_t)row.others[b] * block.ins + c) * T;
      columns.sum[u] = gradient + (row.slot(b) * block.ins + c) * block.outs + offset;
      if (++c == block.ins) c = 0, b++;
    }
    for (int u = valid; u < COUNT; u++) columns.xs[u] = columns.xs[0], columns.sum[u] = columns.sum[0];
    some(columns, valid);
  }
}

// The kernel as add_outer_product calls it.
template <class Mac, int P> struct Columns {
  static constexpr int ROWS = LANES / P, WEIGHTS = 16 * ROWS;
  using Registers = NoRegisters;

  static int64_t group_words(int64_t features, int T) { return features * T; }

  // Packs all features of the T tokens from t0, feature by feature.
  template <class Source>
  static void pack_tile(Source x, int64_t t0, int64_t tokens, int64_t features, int T, float* to) {
    pack(x, t0, tokens, 0, features, features, T, to);
  }

  // Packs the features f0 ... f1 as vectors [feature / ROWS][t / P], each of ROWS features of P tokens.
  template <class Source>
  static void pack_group(Source x, int64_t t0, int64_t tokens, int64_t f0, int64_t f1, int64_t features, int T, int64_t,
                         float* to) {
    for (int t = 0; t < T; t += LANES)
      for (int64_t f = f0; f < f1; f += LANES) {
        Vec v[LANES];
        load_square(x, t0 + t, tokens, f, features, v);
        EG_UNROLL_FOR (int q = 0; q < LANES; q += P) interleave<P>(v + q);
        EG_UNROLL_FOR (int g = 0; g < P; g++)
          EG_UNROLL_FOR (int q = 0; q < LANES; q += P) store(to + ((f - f0) + g * ROWS) * T + (t + q) * ROWS, v[q + g]);
      }
  }

  // Adds the sums of a block row, whose first feature is number `f` of its group.
  //   gradient: blocks as [ins][outs].
  template <class Between>
  static void sum(const float* packed, int64_t f, int64_t, const float* tile, int T, BlockRow row, BlockShape block,
                  float* gradient, Between between) {
    int offset = 0;
    if constexpr (P == 1)
      for (; offset + 2 * ROWS <= block.outs; offset += 2 * ROWS)
        outer<Mac, P, 2>(packed + (f + offset) * T, tile, T, row, block, offset, gradient, between);
    for (; offset < block.outs; offset += ROWS)
      outer<Mac, P, 1>(packed + (f + offset) * T, tile, T, row, block, offset, gradient, between);
  }
};

}  // namespace evergraft
