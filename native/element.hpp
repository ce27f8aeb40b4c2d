// How numbers are stored (fp32 or bf16) and multiplied. Sums are always in fp32.
#pragma once
#include "vector.hpp"

namespace evergraft {

struct Bf16 {
  uint16_t bits;
};

EG_INLINE float widen(float x) { return x; }
EG_INLINE float widen(Bf16 x) {
  uint32_t bits = (uint32_t)x.bits << 16;
  float f;
  memcpy(&f, &bits, 4);
  return f;
}

EG_INLINE void narrow(float x, float* to) { *to = x; }
EG_INLINE void narrow(float x, Bf16* to) {  // rounds to nearest, ties to even, as torch does
  uint32_t bits;
  memcpy(&bits, &x, 4);
  if (x != x) to->bits = 0x7fc0;
  else to->bits = (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));
typedef uint16_t LooseHalves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));

EG_INLINE Vec load(const Bf16* p) { return (Vec)(__builtin_convertvector(*(const LooseHalves*)p, Words) << 16); }

// Words of two numbers in bf16, of which the first is the lower half.
template <int... I> EG_INLINE Vec pair(Halves first, Halves second, std::integer_sequence<int, I...>) {
  return (Vec)__builtin_shufflevector(first, second, (I % 2 * LANES + I / 2)...);
}
EG_INLINE Vec pair(Halves first, Halves second) {
  return pair(first, second, std::make_integer_sequence<int, 2 * LANES>{});
}

EG_INLINE Halves narrow(Vec v) {
#if defined(__AVX512BF16__)
  return (Halves)_mm512_cvtneps_pbh(v);
#else
  Words bits = (Words)v, rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  Words nan = (Words)(v != v);
  return __builtin_convertvector((rounded & ~nan) | (nan & 0x7fc0), Halves);
#endif
}
EG_INLINE void store(Bf16* p, Vec v) { *(LooseHalves*)p = narrow(v); }

// SUMS_A_LINE vectors of sums fill one vector when they are stored. store_line stores them, past the caches if they are
// not to be read soon.
template <class S> constexpr int SUMS_A_LINE = 4 / sizeof(S);
EG_INLINE void store_line(float* p, const Vec* v, bool past_caches) { past_caches ? stream(p, v[0]) : store(p, v[0]); }
EG_INLINE void store_line(Bf16* p, const Vec* v, bool past_caches) {
#if defined(__AVX512BF16__)
  Vec line = (Vec)_mm512_cvtne2ps_pbh(v[1], v[0]);
#else
  const Halves halves[2] = {narrow(v[0]), narrow(v[1])};
  Vec line;
  memcpy(&line, halves, sizeof line);
#endif
  past_caches ? stream((float*)p, line) : store((float*)p, line);
}

// Load and store the first n of LANES numbers, where n < LANES. The other lanes are zero.
template <class S> EG_INLINE Vec load_some(const S* p, int n) {
  float some[LANES] = {};
  for (int i = 0; i < n; i++) some[i] = widen(p[i]);
  return load(some);
}
template <class S> EG_INLINE void store_some(S* p, Vec v, int n) {
  float some[LANES];
  store(some, v);
  for (int i = 0; i < n; i++) narrow(some[i], p + i);
}

// The first n numbers at `from` in fp32, for n <= LANES; the other lanes hold zero.
template <class S> EG_INLINE Vec get(const S* from, int n) { return n == LANES ? load(from) : load_some(from, n); }
template <class S> EG_INLINE void put(S* to, Vec v, int n) { n == LANES ? store(to, v) : store_some(to, v, n); }

// How weights multiply inputs. Plain multiplies fp32 by fp32. Dot multiplies words of two bf16 and sums both products
// in fp32: every 32-bit word of weights and inputs then holds two neighbours of what is summed over.
struct Plain {
  static constexpr int NEIGHBOURS = 1;
  static EG_INLINE Vec add(Vec sum, const float* w, Vec x) { return sum + *w * x; }
  static EG_INLINE Vec add(Vec sum, Vec w, Vec x) { return sum + w * x; }
};
// Multiplier<S> is the fastest of them, on this tier, for numbers that are stored as S.
#if defined(__AVX512BF16__)
struct Dot {
  static constexpr int NEIGHBOURS = 2;
  static EG_INLINE Vec add(Vec sum, Vec w, Vec x) { return _mm512_dpbf16_ps(sum, (__m512bh)w, (__m512bh)x); }
  static EG_INLINE Vec add(Vec sum, const float* w, Vec x) { return add(sum, _mm512_set1_ps(*w), x); }
};
template <class S> using Multiplier = std::conditional_t<std::is_same_v<S, Bf16>, Dot, Plain>;
#else
template <class S> using Multiplier = Plain;
#endif

}  // namespace evergraft
