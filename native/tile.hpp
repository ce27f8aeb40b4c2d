// A tile holds some tokens of an activation feature by feature: tile[feature * T + token], a 32-bit word each.
//
// A word is a number in fp32, or two in bf16: of two neighbouring features (a matrix of bf16 is then read as one of
// words, half as wide), or of two neighbouring tokens (`TokenPairs`).
#pragma once
#include <algorithm>
#include "element.hpp"

// A token-major activation [tokens, features], `stride` numbers from one token to the next.
template <class S> struct Matrix {
  S* data;
  int64_t stride;
};

// LANES tokens from t0 of LANES features from f0, one token a vector; zero outside [.., tokens) and [.., features).
template <class S> INLINE void load_square(Matrix<const S> x, int64_t t0, int64_t tokens, int64_t f0, int64_t features, Vec* v) {
  const S* p = x.data + t0 * x.stride + f0;
  int n = (int)std::min<int64_t>(LANES, features - f0), m = (int)std::min<int64_t>(LANES, tokens - t0);
  if (n == LANES && m == LANES) {
    UNROLL for (int t = 0; t < LANES; t++) v[t] = load(p + t * x.stride);
  } else {
    for (int t = 0; t < LANES; t++) v[t] = t < m ? load_some(p + t * x.stride, n) : Vec{};
  }
}

// Fetch the same square into the second-level cache ahead of its use.
template <class S> INLINE void prefetch_square(Matrix<const S> x, int64_t t0, int64_t tokens, int64_t f0, int64_t features) {
  if (f0 >= features || t0 + LANES > tokens) return;
  UNROLL for (int t = 0; t < LANES; t++) __builtin_prefetch(x.data + (t0 + t) * x.stride + f0, 0, 2);
}

// An activation of which a "token" is two neighbouring ones.
struct TokenPairs {
  Matrix<const Bf16> x;
};
INLINE void load_square(TokenPairs pairs, int64_t t0, int64_t tokens, int64_t f0, int64_t features, Vec* v) {
  const int64_t stride = pairs.x.stride;
  const Bf16* p = pairs.x.data + 2 * t0 * stride + f0;
  int n = (int)std::min<int64_t>(LANES, features - f0), m = (int)std::min<int64_t>(2 * LANES, tokens - 2 * t0);
  if (n == LANES && m == 2 * LANES) {
    UNROLL for (int t = 0; t < LANES; t++) {
      Words first = __builtin_convertvector(*(const LooseHalves*)(p + 2 * t * stride), Words);
      Words second = (Words)load(p + (2 * t + 1) * stride);
      v[t] = (Vec)(first | second);
    }
  } else {
    for (int t = 0; t < LANES; t++) {
      Words first = 2 * t < m ? (Words)load_some(p + 2 * t * stride, n) : Words{};
      Words second = 2 * t + 1 < m ? (Words)load_some(p + (2 * t + 1) * stride, n) : Words{};
      v[t] = (Vec)(first >> 16 | second);
    }
  }
}

INLINE void prefetch_square(TokenPairs pairs, int64_t t0, int64_t tokens, int64_t f0, int64_t features) {
  prefetch_square(pairs.x, 2 * t0, tokens, f0, features);
  prefetch_square(pairs.x, 2 * t0 + LANES, tokens, f0, features);
}

// Features f0 ... f1 of the T tokens from t0 into a tile; features past `features` and tokens past `tokens` are zero.
template <class Source>
void pack(Source x, int64_t t0, int64_t tokens, int64_t f0, int64_t f1, int64_t features, int T, float* tile) {
  for (int t = 0; t < T; t += LANES)
    for (int64_t f = f0; f < f1; f += LANES) {
      Vec v[LANES];
      load_square(x, t0 + t, tokens, f, features, v);
      interleave<LANES>(v);
      float* to = tile + (f - f0) * T + t;
      UNROLL for (int i = 0; i < LANES; i++) store(to + i * T, v[i]);
    }
}

// The first `count` features of a tile in fp32, plus bias if there is one, to features f0 ... of the tokens from t0.
template <class S>
void unpack(const float* tile, int T, int count, const float* bias, Matrix<S> y, int64_t t0, int64_t tokens, int64_t f0, bool past_caches) {
  constexpr int SQUARES = SUMS_A_LINE<S>, LINE = SQUARES * LANES;
  const int T_used = (int)std::min<int64_t>(T, tokens - t0);
  for (int t = 0; t < T_used; t += LANES)
    for (int f = 0; f < count; f += LINE) {
      const int n = std::min(LINE, count - f), m = std::min(LANES, T_used - t);
      Vec v[SQUARES][LANES], b[SQUARES] = {};
      UNROLL for (int q = 0; q < SQUARES; q++) {
        const int have = std::min(LANES, n - q * LANES);
        if (have <= 0) break;
        if (bias) b[q] = load_some(bias + f0 + f + q * LANES, have);
        UNROLL for (int i = 0; i < LANES; i++) v[q][i] = i < have ? load(tile + (int64_t)(f + q * LANES + i) * T + t) : Vec{};
        interleave<LANES>(v[q]);
      }
      S* to = y.data + (t0 + t) * y.stride + f0 + f;
      for (int i = 0; i < m; i++, to += y.stride) {
        Vec line[SQUARES];
        UNROLL for (int q = 0; q < SQUARES; q++) line[q] = v[q][i] + b[q];
        if (n == LINE) store_line(to, line, past_caches);
        else for (int q = 0; q * LANES < n; q++) store_some(to + q * LANES, line[q], std::min(LANES, n - q * LANES));
      }
    }
}
