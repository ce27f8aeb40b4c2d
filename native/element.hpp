// How numbers are stored (fp32 or bf16) and how they are multiplied: in fp32, always summed in fp32.
#pragma once
#include "vector.hpp"

struct Bf16 {
  uint16_t bits;
};

INLINE float widen(float x) { return x; }
INLINE float widen(Bf16 x) {
  uint32_t bits = (uint32_t)x.bits << 16;
  float f;
  memcpy(&f, &bits, 4);
  return f;
}

INLINE void narrow(float x, float* to) { *to = x; }
INLINE void narrow(float x, Bf16* to) {  // to nearest, ties to even, as torch
  uint32_t bits;
  memcpy(&bits, &x, 4);
  if (x != x) to->bits = 0x7fc0;
  else to->bits = (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));
typedef uint16_t LooseHalves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));

INLINE Vec load(const Bf16* p) { return (Vec)(__builtin_convertvector(*(const LooseHalves*)p, Words) << 16); }

INLINE Halves narrow(Vec v) {
#if defined(__AVX512BF16__)
  return (Halves)_mm512_cvtneps_pbh(v);
#else
  Words bits = (Words)v, rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  Words nan = (Words)(v != v);
  return __builtin_convertvector((rounded & ~nan) | (nan & 0x7fc0), Halves);
#endif
}
INLINE void store(Bf16* p, Vec v) { *(LooseHalves*)p = narrow(v); }
INLINE void stream(Bf16* p, Vec v) {
#if defined(__AVX512F__)
  if (((uintptr_t)p & 31) == 0) return _mm256_stream_si256((__m256i*)p, (__m256i)narrow(v));
#endif
  store(p, v);
}

// The first n of LANES numbers, the others zero; and back.
template <class S> INLINE Vec load_some(const S* p, int n) {
  float some[LANES] = {};
  for (int i = 0; i < n; i++) some[i] = widen(p[i]);
  return load(some);
}
template <class S> INLINE void store_some(S* p, Vec v, int n) {
  float some[LANES];
  store(some, v);
  for (int i = 0; i < n; i++) narrow(some[i], p + i);
}
