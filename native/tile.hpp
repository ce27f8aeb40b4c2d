// A tile holds some tokens of an activation feature by feature, in fp32: tile[feature * T + token].
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

// Features f0 ... f1 of the T tokens from t0 into a tile; features past `features` and tokens past `tokens` are zero.
template <class S>
void pack(Matrix<const S> x, int64_t t0, int64_t tokens, int64_t f0, int64_t f1, int64_t features, int T, float* tile) {
  for (int t = 0; t < T; t += LANES)
    for (int64_t f = f0; f < f1; f += LANES) {
      Vec v[LANES];
      load_square(x, t0 + t, tokens, f, features, v);
      interleave<LANES>(v);
      float* to = tile + (f - f0) * T + t;
      UNROLL for (int i = 0; i < LANES; i++) store(to + i * T, v[i]);
    }
}

// The first `count` features of a tile, plus bias if there is one, to features f0 ... of the tokens from t0.
template <class S>
void unpack(const float* tile, int T, int count, const float* bias, Matrix<S> y, int64_t t0, int64_t tokens, int64_t f0, bool past_caches) {
  int T_used = (int)std::min<int64_t>(T, tokens - t0);
  for (int t = 0; t < T_used; t += LANES)
    for (int f = 0; f < count; f += LANES) {
      int n = std::min(LANES, count - f), m = std::min(LANES, T_used - t);
      Vec v[LANES], b = bias ? load_some(bias + f0 + f, n) : Vec{};
      S* to = y.data + (t0 + t) * y.stride + f0 + f;
      if (n == LANES && m == LANES) {
        UNROLL for (int i = 0; i < LANES; i++) v[i] = load(tile + (f + i) * T + t);
        interleave<LANES>(v);
        if (past_caches) { UNROLL for (int i = 0; i < LANES; i++) stream(to + i * y.stride, v[i] + b); }
        else { UNROLL for (int i = 0; i < LANES; i++) store(to + i * y.stride, v[i] + b); }
      } else {
        for (int i = 0; i < LANES; i++) v[i] = i < n ? load(tile + (f + i) * T + t) : Vec{};
        interleave<LANES>(v);
        for (int i = 0; i < m; i++) store_some(to + i * y.stride, v[i] + b, n);
      }
    }
}
