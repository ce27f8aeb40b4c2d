// Vectors of 32-bit lanes at the width of the instruction set this file is compiled for, and the shuffles between them.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define UNROLL _Pragma("GCC unroll 32")
#define INLINE inline __attribute__((always_inline))

#if defined(__AVX512F__)
constexpr int LANES = 16, REGISTERS = 32;
#elif defined(__AVX__)
constexpr int LANES = 8, REGISTERS = 16;
#else
constexpr int LANES = 4, REGISTERS = 16;
#endif

constexpr int SUMS = REGISTERS == 32 ? 24 : 12;  // registers that hold sums; the rest hold what is multiplied

typedef float Vec __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef float LooseVec __attribute__((vector_size(4 * LANES), aligned(2), may_alias));  // two bf16 may be what a lane holds

INLINE Vec load(const float* p) { return *(const LooseVec*)p; }
INLINE void store(float* p, Vec v) { *(LooseVec*)p = v; }

// Store past the caches where the address allows it: for outputs that are too large to be found there again.
INLINE void stream(float* p, Vec v) {
#if defined(__AVX512F__)
  if (((uintptr_t)p & 63) == 0) return _mm512_stream_ps(p, v);
#elif defined(__AVX__)
  if (((uintptr_t)p & 31) == 0) return _mm256_stream_ps(p, v);
#endif
  store(p, v);
}

// The P numbers at p, LANES / P times over.
template <int P> INLINE Vec repeat(const float* p) {
  if constexpr (P == LANES) return load(p);
  else if constexpr (P == 1) return *p - Vec{};
#if defined(__AVX512F__)
  else if constexpr (P == 8) return _mm512_broadcast_f32x8(_mm256_loadu_ps(p));
  else if constexpr (P == 4) return _mm512_broadcast_f32x4(_mm_loadu_ps(p));
#elif defined(__AVX__)
  else if constexpr (P == 4) return _mm256_broadcast_ps((const __m128*)p);
#endif
  else {
    static_assert(P == 2);
    double pair;
    memcpy(&pair, p, 8);
#if defined(__AVX512F__)
    return (Vec)_mm512_set1_pd(pair);
#elif defined(__AVX__)
    return (Vec)_mm256_set1_pd(pair);
#else
    return (Vec)(pair - (__attribute__((vector_size(4 * LANES))) double){});
#endif
  }
}

template <int... I> INLINE Vec zip(Vec a, Vec b, int half, std::integer_sequence<int, I...>) {
  return half ? __builtin_shufflevector(a, b, ((I % 2) * LANES + LANES / 2 + I / 2)...)
              : __builtin_shufflevector(a, b, ((I % 2) * LANES + I / 2)...);
}
// Every second run of UNIT lanes of a and b, the first one first; and the others.
template <int UNIT, int... I> INLINE Vec evens(Vec a, Vec b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (I / UNIT * 2 * UNIT + I % UNIT)...);
}
template <int UNIT, int... I> INLINE Vec odds(Vec a, Vec b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (I / UNIT * 2 * UNIT + UNIT + I % UNIT)...);
}
template <int P, int... I> INLINE Vec spread(Vec v, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(v, v, (I / 4 * 4 + I * P / LANES)...);
}
template <int K, int... I> INLINE Vec one_of_fours(Vec v, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(v, v, (I / 4 * 4 + K)...);
}
using Lanes = std::make_integer_sequence<int, LANES>;

// The P numbers at p, at most four, LANES / P times each.
template <int P> INLINE Vec spread(const float* p) {
  if constexpr (P == 1) return repeat<1>(p);
  else return spread<P>(repeat<P>(p), Lanes{});
}

// In place of each four lanes, the one at k.
INLINE Vec one_of_fours(Vec v, int k) {
  return k == 0 ? one_of_fours<0>(v, Lanes{}) : k == 1 ? one_of_fours<1>(v, Lanes{}) : k == 2 ? one_of_fours<2>(v, Lanes{}) : one_of_fours<3>(v, Lanes{});
}

// N vectors of LANES columns -> N vectors, each of LANES / N columns with the N numbers of a column side by side.
// N = LANES is the transpose; N = 1 does nothing.
template <int N> INLINE void interleave(Vec* v) {
  UNROLL for (int width = N; width > 1; width /= 2) {
    Vec next[N];
    UNROLL for (int i = 0; i < N / 2; i++) {
      next[2 * i] = zip(v[i], v[i + N / 2], 0, Lanes{});
      next[2 * i + 1] = zip(v[i], v[i + N / 2], 1, Lanes{});
    }
    UNROLL for (int i = 0; i < N; i++) v[i] = next[i];
  }
}

// N vectors, each of LANES / N sums in N parts -> one vector of all the sums, those of v[0] first. The parts of UNIT sums
// lie side by side.
template <int N, int UNIT = 1> INLINE Vec fold(Vec* v) {
  UNROLL for (int count = N; count > 1; count /= 2)
    UNROLL for (int i = 0; i < count / 2; i++)
      v[i] = evens<UNIT>(v[2 * i], v[2 * i + 1], Lanes{}) + odds<UNIT>(v[2 * i], v[2 * i + 1], Lanes{});
  return v[0];
}

// Call f(n) with n, 1 ... MOST, as a constant.
template <int MOST, class F> INLINE void with_count(int n, F f) {
  if constexpr (MOST > 0) n == MOST ? f(std::integral_constant<int, MOST>{}) : with_count<MOST - 1>(n, f);
}
