// Vectors of 32-bit lanes, as wide as the instruction set allows that the file is compiled for, and their shuffles.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define EG_UNROLL_FOR _Pragma("GCC unroll 32") for
#define EG_INLINE inline __attribute__((always_inline))

namespace evergraft {

// The instruction sets for which a library is built, in ascending order. tier.cpp gives them the same numbers.
enum Tier { PORTABLE, AVX2, AVX512, AVX512BF16, AMX };

#if defined(__AMX_BF16__)
constexpr Tier TIER = AMX;
#elif defined(__AVX512BF16__)
constexpr Tier TIER = AVX512BF16;
#elif defined(__AVX512F__)
constexpr Tier TIER = AVX512;
#elif defined(__AVX__)
constexpr Tier TIER = AVX2;
#else
constexpr Tier TIER = PORTABLE;
#endif

constexpr int LANES = TIER >= AVX512 ? 16 : TIER == AVX2 ? 8 : 4;
constexpr int REGISTERS = TIER >= AVX512 ? 32 : 16;
constexpr int SUMS = REGISTERS == 32 ? 24 : 12;  // registers that hold sums; the others hold operands

typedef float Vec __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
// A lane may hold two bf16, hence the alignment.
typedef float LooseVec __attribute__((vector_size(4 * LANES), aligned(2), may_alias));

EG_INLINE Vec load(const float* p) { return *(const LooseVec*)p; }
EG_INLINE void store(float* p, Vec v) { *(LooseVec*)p = v; }

// Stores past the caches where the address allows it, for outputs that are too large to stay in them.
EG_INLINE void stream(float* p, Vec v) {
#if defined(__AVX512F__)
  if (((uintptr_t)p & 63) == 0) return _mm512_stream_ps(p, v);
#elif defined(__AVX__)
  if (((uintptr_t)p & 31) == 0) return _mm256_stream_ps(p, v);
#endif
  store(p, v);
}

// Repeats the P numbers at p LANES / P times.
template <int P> EG_INLINE Vec repeat(const float* p) {
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

template <int... I> EG_INLINE Vec zip(Vec a, Vec b, int half, std::integer_sequence<int, I...>) {
  return half ? __builtin_shufflevector(a, b, ((I % 2) * LANES + LANES / 2 + I / 2)...)
              : __builtin_shufflevector(a, b, ((I % 2) * LANES + I / 2)...);
}
// `evens` takes every second run of UNIT lanes of a and b, from the first on; `odds` takes the others.
template <int UNIT, int... I> EG_INLINE Vec evens(Vec a, Vec b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (I / UNIT * 2 * UNIT + I % UNIT)...);
}
template <int UNIT, int... I> EG_INLINE Vec odds(Vec a, Vec b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (I / UNIT * 2 * UNIT + UNIT + I % UNIT)...);
}
template <int P, int... I> EG_INLINE Vec spread(Vec v, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(v, v, (I / 4 * 4 + I * P / LANES)...);
}
template <int K, int... I> EG_INLINE Vec one_of_fours(Vec v, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(v, v, (I / 4 * 4 + K)...);
}
using Lanes = std::make_integer_sequence<int, LANES>;

// Repeats each of the P <= 4 numbers at p LANES / P times.
template <int P> EG_INLINE Vec spread(const float* p) {
  if constexpr (P == 1) return repeat<1>(p);
  else return spread<P>(repeat<P>(p), Lanes{});
}

// Replaces every four lanes by copies of lane k among them.
EG_INLINE Vec one_of_fours(Vec v, int k) {
  return k == 0   ? one_of_fours<0>(v, Lanes{})
         : k == 1 ? one_of_fours<1>(v, Lanes{})
         : k == 2 ? one_of_fours<2>(v, Lanes{})
                  : one_of_fours<3>(v, Lanes{});
}

// Turns N vectors of LANES columns into N vectors of LANES / N columns each, with the N numbers of a column side by
// side. N = LANES is the transpose; N = 1 does nothing.
template <int N> EG_INLINE void interleave(Vec* v) {
  EG_UNROLL_FOR (int width = N; width > 1; width /= 2) {
    Vec next[N];
    EG_UNROLL_FOR (int i = 0; i < N / 2; i++) {
      next[2 * i] = zip(v[i], v[i + N / 2], 0, Lanes{});
      next[2 * i + 1] = zip(v[i], v[i + N / 2], 1, Lanes{});
    }
    EG_UNROLL_FOR (int i = 0; i < N; i++) v[i] = next[i];
  }
}

// Adds up N vectors, each of LANES / N sums in N parts, to one vector of all the sums, those of v[0] first. Each part
// is of UNIT neighbouring sums.
template <int N, int UNIT = 1> EG_INLINE Vec fold(Vec* v) {
  EG_UNROLL_FOR (int count = N; count > 1; count /= 2)
    EG_UNROLL_FOR (int i = 0; i < count / 2; i++)
      v[i] = evens<UNIT>(v[2 * i], v[2 * i + 1], Lanes{}) + odds<UNIT>(v[2 * i], v[2 * i + 1], Lanes{});
  return v[0];
}

typedef float Four __attribute__((vector_size(16)));

// Adds every two neighbouring lanes. Of every four sums two are of a, and then two of b.
template <int... I> EG_INLINE Vec add_neighbours(Vec a, Vec b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (I / 4 * 4 + I % 2 * 2 + (I % 4 < 2 ? 0 : LANES))...) +
         __builtin_shufflevector(a, b, (I / 4 * 4 + I % 2 * 2 + (I % 4 < 2 ? 0 : LANES) + 1)...);
}

// Adds up every fourth lane.
template <int... I> EG_INLINE Four add_fours(Vec v, std::integer_sequence<int, I...>) {
  Four sum = __builtin_shufflevector(v, v, I...);
  if constexpr (LANES >= 8) sum += __builtin_shufflevector(v, v, (4 + I)...);
  if constexpr (LANES >= 16)
    sum += __builtin_shufflevector(v, v, (8 + I)...) + __builtin_shufflevector(v, v, (12 + I)...);
  return sum;
}

// Adds up the lanes of each of COUNT vectors, and adds these totals to the numbers at `to`.
//   v: the vectors, and zeros up to a multiple of four.
template <int COUNT> EG_INLINE void add_totals(const Vec* v, float* to) {
  EG_UNROLL_FOR (int k = 0; k < COUNT; k += 4) {
    const Vec sums =
        add_neighbours(add_neighbours(v[k], v[k + 1], Lanes{}), add_neighbours(v[k + 2], v[k + 3], Lanes{}), Lanes{});
    const Four total = add_fours(sums, std::make_integer_sequence<int, 4>{});
    if (k + 4 <= COUNT) {
      Four all;
      memcpy(&all, to + k, sizeof all);
      all += total;
      memcpy(to + k, &all, sizeof all);
    } else {
      for (int i = 0; k + i < COUNT; i++) to[k + i] += total[i];
    }
  }
}

// Calls f(n) with n, which is 1 ... MOST, as a constant.
template <int MOST, class F> EG_INLINE void with_count(int n, F f) {
  if constexpr (MOST > 0) n == MOST ? f(std::integral_constant<int, MOST>{}) : with_count<MOST - 1>(n, f);
}

}  // namespace evergraft
