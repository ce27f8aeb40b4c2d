// Random bits that depend on a seed and a position alone, so that a mask of dropout need not be stored.
#pragma once
#include "element.hpp"

namespace evergraft {

constexpr int COUNTERS = 16;            // of Philox in one draw, on every instruction set
constexpr int DRAW = 4 * 2 * COUNTERS;  // elements that one draw decides on: 4 words a counter, 2 elements a word
constexpr uint32_t LEVELS = 1 << 16;    // the probability of dropout is a multiple of 1 / LEVELS

typedef uint64_t Longs __attribute__((vector_size(4 * LANES)));

// Multiplies the lower half of every long of `a` by b.
EG_INLINE Longs product(Longs a, uint32_t b) {
#if defined(__AVX512F__)
  return (Longs)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64(b));
#elif defined(__AVX2__)
  return (Longs)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(b));
#else
  return (a & 0xffffffff) * b;
#endif
}

EG_INLINE void multiply(Words a, uint32_t b, Words& high, Words& low) {
  constexpr uint64_t LOW = 0xffffffff;
  const Longs even = product((Longs)a, b), odd = product((Longs)a >> 32, b);
  high = (Words)((even >> 32) | (odd & ~LOW));
  low = (Words)((even & LOW) | (odd << 32));
}

// Philox4x32-7 of LANES counters (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011).
// Seven is the smallest number of rounds that passes BigCrush.
EG_INLINE void philox(Words (&word)[4], uint64_t seed) {
  uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
  EG_UNROLL_FOR (int round = 0; round < 7; round++) {
    Words high0, low0, high2, low2;
    multiply(word[0], 0xD2511F53, high0, low0);
    multiply(word[2], 0xCD9E8D57, high2, low2);
    word[0] = high2 ^ word[1] ^ key[0];
    word[1] = low2;
    word[2] = high0 ^ word[3] ^ key[1];
    word[3] = low0;
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
}

// Keeps each element with the probability p = 1 - dropped / LEVELS, and scales it by 1 / p.
struct Dropout {
  uint64_t seed;
  uint32_t dropped;
  float scale() const { return (float)LEVELS / (LEVELS - dropped); }

  // Draws the 16 bits of each element of group number `group`: word 0 of all counters, which is two elements a counter,
  // then word 1, and so on.
  EG_INLINE void draw(int64_t group, uint16_t* bits) const {
    EG_UNROLL_FOR (int part = 0; part < COUNTERS; part += LANES) {
      const uint64_t first = (uint64_t)group * COUNTERS + part;  // a multiple of LANES: no carry within a vector
      Words word[4] = {};
      EG_UNROLL_FOR (int i = 0; i < LANES; i++) word[0][i] = (uint32_t)first + i;
      word[1] += (uint32_t)(first >> 32);
      philox(word, seed);
      EG_UNROLL_FOR (int w = 0; w < 4; w++) memcpy(bits + 2 * (w * COUNTERS + part), &word[w], sizeof word[w]);
    }
  }
  EG_INLINE Vec apply(Vec x, const uint16_t* bits) const {
    const Words kept = (Words)(__builtin_convertvector(*(const LooseHalves*)bits, Words) >= dropped);
    return (Vec)(kept & (Words)(x * scale()));
  }
  EG_INLINE float apply(float x, uint16_t bits) const { return bits >= dropped ? x * scale() : 0.0f; }
};

}  // namespace evergraft
