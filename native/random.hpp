// Random bits that are a pure function of a seed and a place, so that no mask of dropout is ever stored.
#pragma once
#include "element.hpp"

namespace {

constexpr int COUNTERS = 16;             // of Philox, side by side, whatever the instruction set
constexpr int DRAW = 4 * 2 * COUNTERS;   // elements that a draw decides about: 4 words a counter, 2 elements a word
constexpr uint32_t LEVELS = 1 << 16;     // of the probability

typedef uint64_t Longs __attribute__((vector_size(4 * LANES)));

// The lower half of every long of `a` times b.
INLINE Longs product(Longs a, uint32_t b) {
#if defined(__AVX512F__)
  return (Longs)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64(b));
#elif defined(__AVX2__)
  return (Longs)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(b));
#else
  return (a & 0xffffffff) * b;
#endif
}

INLINE void multiply(Words a, uint32_t b, Words& high, Words& low) {
  constexpr uint64_t LOW = 0xffffffff;
  const Longs even = product((Longs)a, b), odd = product((Longs)a >> 32, b);
  high = (Words)((even >> 32) | (odd & ~LOW));
  low = (Words)((even & LOW) | (odd << 32));
}

// Philox4x32-7 of LANES counters (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011): the
// fewest rounds that pass BigCrush.
INLINE void philox(Words (&word)[4], uint64_t seed) {
  uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
  UNROLL for (int round = 0; round < 7; round++) {
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

// Which elements are kept and how they are scaled: each with the probability 1 - dropped / LEVELS, by its inverse.
struct Dropout {
  uint64_t seed;
  uint32_t dropped;
  float scale() const { return (float)LEVELS / (LEVELS - dropped); }

  // The 16 bits of each element of draw number `group`: word 0 of all counters, two elements each, then word 1 ...
  INLINE void draw(int64_t group, uint16_t* bits) const {
    UNROLL for (int part = 0; part < COUNTERS; part += LANES) {
      const uint64_t first = (uint64_t)group * COUNTERS + part;  // a multiple of LANES: no carry within a vector
      Words word[4] = {};
      UNROLL for (int i = 0; i < LANES; i++) word[0][i] = (uint32_t)first + i;
      word[1] += (uint32_t)(first >> 32);
      philox(word, seed);
      UNROLL for (int w = 0; w < 4; w++) memcpy(bits + 2 * (w * COUNTERS + part), &word[w], sizeof word[w]);
    }
  }
  INLINE Vec apply(Vec x, const uint16_t* bits) const {
    const Words kept = (Words)(__builtin_convertvector(*(const LooseHalves*)bits, Words) >= dropped);
    return (Vec)(kept & (Words)(x * scale()));
  }
  INLINE float apply(float x, uint16_t bits) const { return bits >= dropped ? x * scale() : 0.0f; }
};

}  // namespace
