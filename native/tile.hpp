// A tile holds some tokens of an activation feature by feature: tile[feature * T + token], a 32-bit word each.
//
// A word is one number in fp32, or two in bf16. These are of two neighbouring features, when a matrix in bf16 is read
// as a matrix of words that is half as wide, or of two neighbouring tokens (`TokenPairs`).
#pragma once
#include <algorithm>
#include "element.hpp"

namespace evergraft {

// An activation [tokens, features], with `stride` numbers from one token to the next.
template <class S> struct Matrix {
  S* data;
  int64_t stride;
};

// Loads LANES tokens from t0 on of LANES features from f0 on, one token a vector. Tokens past `tokens` and features
// past `features` are zero.
template <class S>
EG_INLINE void load_square(Matrix<const S> x, int64_t t0, int64_t tokens, int64_t f0, int64_t features, Vec* v) {
  const S* p = x.data + t0 * x.stride + f0;
  int n = (int)std::min<int64_t>(LANES, features - f0), m = (int)std::min<int64_t>(LANES, tokens - t0);
  if (n == LANES && m == LANES) {
    EG_UNROLL_FOR (int t = 0; t < LANES; t++) v[t] = load(p + t * x.stride);
  } else {
    for (int t = 0; t < LANES; t++) v[t] = t < m ? load_some(p + t * x.stride, n) : Vec{};
  }
}

// An activation of which a word holds two neighbouring tokens. Words are in the order from which `unpack_pairs` gives
// tokens in their own order: every four words hold two pairs of the first vector, then two of the second.
struct TokenPairs {
  Matrix<const Bf16> x;
  static constexpr int at(int word) { return word / 4 * 2 + word % 2 + word % 4 / 2 * (LANES / 2); }
};
EG_INLINE void load_square(TokenPairs pairs, int64_t t0, int64_t tokens, int64_t f0, int64_t features, Vec* v) {
  const int64_t stride = pairs.x.stride;
  const Bf16* p = pairs.x.data + 2 * t0 * stride + f0;
  int n = (int)std::min<int64_t>(LANES, features - f0), m = (int)std::min<int64_t>(2 * LANES, tokens - 2 * t0);
  if (n == LANES && m == 2 * LANES) {
    EG_UNROLL_FOR (int t = 0; t < LANES; t++) {
      const Bf16* first = p + 2 * TokenPairs::at(t) * stride;
      v[t] = pair(*(const LooseHalves*)first, *(const LooseHalves*)(first + stride));
    }
  } else {
    for (int t = 0; t < LANES; t++) {
      const int first = 2 * TokenPairs::at(t);
      Words low = first < m ? (Words)load_some(p + first * stride, n) : Words{};
      Words high = first + 1 < m ? (Words)load_some(p + (first + 1) * stride, n) : Words{};
      v[t] = (Vec)(low >> 16 | high);
    }
  }
}

// A matrix of numbers that are stored as S, read as pairs of tokens where this tier multiplies pairs of such numbers.
template <class S> using TokenWords = std::conditional_t<Multiplier<S>::NEIGHBOURS == 2, TokenPairs, Matrix<const S>>;

// A rectangle of a matrix that is prefetched into the level-2 cache (L2), some lines at a time, during other work.
class Ahead {
 public:
  template <class S>
  Ahead(Matrix<const S> x, int64_t t0, int64_t T, int64_t tokens, int64_t f0, int64_t f1)
      : row((const char*)(x.data + t0 * x.stride + f0)), stride(x.stride * sizeof(S)), bytes((f1 - f0) * sizeof(S)),
        rows(f0 < f1 ? std::min(T, tokens - t0) : 0) {}
  Ahead(TokenPairs pairs, int64_t t0, int64_t T, int64_t tokens, int64_t f0, int64_t f1)
      : Ahead(pairs.x, 2 * t0, 2 * T, tokens, f0, f1) {}

  // How many lines to fetch at each of n turns.
  int64_t share(int64_t n) const { return std::max<int64_t>(rows, 0) * ((bytes + LINE - 1) / LINE) / n + 1; }
  void fetch(int64_t lines) {
    for (; lines > 0 && rows > 0; lines--) {
      __builtin_prefetch(row + at, 0, 2);
      if ((at += LINE) >= bytes) at = 0, row += stride, rows--;
    }
  }

 private:
  static constexpr int LINE = 64;
  const char* row;
  int64_t stride, bytes, rows, at = 0;
};

// Packs the features f0 ... f1 of the T tokens from t0 into a tile. Features past `features` and tokens past `tokens`
// are zero.
template <class Source>
void pack(Source x, int64_t t0, int64_t tokens, int64_t f0, int64_t f1, int64_t features, int T, float* tile) {
  for (int t = 0; t < T; t += LANES)
    for (int64_t f = f0; f < f1; f += LANES) {
      Vec v[LANES];
      load_square(x, t0 + t, tokens, f, features, v);
      interleave<LANES>(v);
      float* to = tile + (f - f0) * T + t;
      EG_UNROLL_FOR (int i = 0; i < LANES; i++) store(to + i * T, v[i]);
    }
}

// Writes the sums of `tokens` tokens, which are `stride` apart, to the first `count` features of y. `bias`, unless
// null, is added.
template <class S>
void write_rows(const float* sums, int stride, int64_t tokens, int count, const float* bias, Matrix<S> y,
                bool past_caches) {
  constexpr int VECTORS = SUMS_A_LINE<S>, LINE = VECTORS * LANES;
  for (int64_t t = 0; t < tokens; t++) {
    const float* from = sums + t * stride;
    S* to = y.data + t * y.stride;
    int f = 0;
    for (; f + LINE <= count; f += LINE) {
      Vec line[VECTORS];
      EG_UNROLL_FOR (int q = 0; q < VECTORS; q++) {
        line[q] = load(from + f + q * LANES);
        if (bias) line[q] += load(bias + f + q * LANES);
      }
      store_line(to + f, line, past_caches);
    }
    for (; f < count; f += LANES) {
      const int n = std::min(LANES, count - f);
      Vec some = load(from + f);
      if (bias) some += get(bias + f, n);
      put(to + f, some, n);
    }
  }
}

// Writes `count` features of `tokens` tokens, one token a vector. `bias`, unless null, is added.
template <class S> EG_INLINE void write_square(Vec* v, int count, int tokens, const float* bias, Matrix<S> y) {
  if (bias) {
    const Vec b = get(bias, count);
    EG_UNROLL_FOR (int i = 0; i < LANES; i++) v[i] += b;
  }
  if (count == LANES && tokens == LANES)
    EG_UNROLL_FOR (int i = 0; i < LANES; i++) store(y.data + i * y.stride, v[i]);
  else
    for (int i = 0; i < tokens; i++) put(y.data + i * y.stride, v[i], count);
}

// Loads LANES features from f on of LANES tokens from t on out of a tile in fp32, one token a vector. Features past
// `count` are zero.
EG_INLINE void load_tokens(const float* tile, int T, int count, int f, int t, Vec* v) {
  EG_UNROLL_FOR (int i = 0; i < LANES; i++) v[i] = f + i < count ? load(tile + (int64_t)(f + i) * T + t) : Vec{};
  interleave<LANES>(v);
}

// Writes the first `count` features of a tile in fp32 to the features from f0 on of the tokens from t0 on. `bias`,
// unless null, is added. To write past the caches, rows are first put together elsewhere, so that whole cache lines are
// written one after another: half lines are slow there.
template <class S>
void unpack(const float* tile, int T, int count, const float* bias, Matrix<S> y, int64_t t0, int64_t tokens, int64_t f0,
            bool past_caches) {
  constexpr int FEATURES = 64;
  const int T_used = (int)std::min<int64_t>(T, tokens - t0);
  alignas(64) float rows[LANES * FEATURES];
  for (int f = 0; f < count; f += FEATURES) {
    const int n = std::min(FEATURES, count - f);
    for (int t = 0; t < T_used; t += LANES) {
      const int used = std::min(LANES, T_used - t);
      const Matrix<S> to{y.data + (t0 + t) * y.stride + f0 + f, y.stride};
      const float* b = bias ? bias + f0 + f : nullptr;
      for (int g = 0; g < n; g += LANES) {
        Vec v[LANES];
        load_tokens(tile, T, count, f + g, t, v);
        if (past_caches)
          EG_UNROLL_FOR (int i = 0; i < LANES; i++) store(rows + i * FEATURES + g, v[i]);
        else write_square(v, std::min(LANES, n - g), used, b ? b + g : nullptr, Matrix<S>{to.data + g, to.stride});
      }
      if (past_caches) write_rows(rows, FEATURES, used, n, b, to, true);
    }
  }
}

}  // namespace evergraft
