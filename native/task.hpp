// What the products of a layer share: the sizes of their tiles and the memory that holds them.
#pragma once
#include "threads.hpp"
#include "tile.hpp"
#include "topology.hpp"

namespace evergraft {

constexpr int64_t TILE_BYTES = 300 << 10;   // of the level-2 cache (L2), for the tile that is read at random
constexpr int64_t OUTER_BYTES = 600 << 10;  // the same for the outer product, where a tile costs more to begin
constexpr int GROUP = 64;                   // the fewest features packed or unpacked at a time: whole cache lines
constexpr int MAX_TOKENS = 8 * STEP;        // of a tile

// Outputs larger than this are written past the caches. The sizes were measured on AMD Zen 5 and Zen 3.
constexpr int64_t STREAM_BYTES = LANES == 16 ? 8 << 20 : 1 << 20;

inline thread_local Buffer<float> tile_buffer, group_buffer;

// A product y = x M + bias under way.
template <class S> struct Task {
  Matrix<const S> x;
  const float* bias;
  Matrix<S> y;
  int64_t tokens;
  const Threads& threads;
  bool past_caches() const { return tokens * y.stride * (int64_t)sizeof(S) > STREAM_BYTES; }
};

inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// How many tokens a tile of so many words a token holds: as many as fit into the cache, at most MAX_TOKENS and at most
// the share of a thread; a multiple of `unit`, and of twice that where it can be.
inline int tile_tokens(int64_t words, int64_t tokens, const Threads& threads, int unit = STEP,
                       int64_t bytes = TILE_BYTES) {
  const int64_t fit = bytes / (4 * std::max<int64_t>(words, 1)), share = round_up(tokens / threads.count + 1, unit);
  const int64_t T = std::min<int64_t>({fit, share, MAX_TOKENS});
  return (int)(T >= 2 * unit ? T / (2 * unit) * (2 * unit) : unit);
}

}  // namespace evergraft
