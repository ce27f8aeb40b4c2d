// Products y = x M of many single weights, which are first copied in the order of their use (CHUNKS).
#pragma once
#include "chunks.hpp"
#include "task.hpp"

namespace evergraft {

constexpr int WEIGHTS_A_COPY = 1 << 19;  // more than these are copied in two parts

// The weights of outputs first ... first + count, and how they are multiplied.
template <class S> class ChunkedPart {
 public:
  static constexpr int NEIGHBOURS = Multiplier<S>::NEIGHBOURS, T = NEIGHBOURS * STEP;  // T: the tokens of a tile

  ChunkedPart(const Index& rows, bool transposed, const S* values, int64_t first, int count)
      : ins(transposed ? rows.rows : rows.columns), first(first), count(count),
        chunked(rows, transposed, values, first, count) {}

  // Computes the part's outputs of y.
  void multiply(const Task<S>& task) const {
    const TokenWords<S> x{task.x};
    const int64_t chunks = (ins + CHUNK - 1) / CHUNK;
    parallel(task.threads, (task.tokens + T - 1) / T, [&](int64_t i) {
      const int64_t t0 = i * T, step = (int64_t)task.threads.count * T;
      float* tile = tile_buffer.at_least(NOTHING + STEP);
      float* sums = group_buffer.at_least((int64_t)count * T);
      std::fill_n(tile + NOTHING, STEP, 0.0f);
      for (int64_t c = 0; c < chunks; c++) {
        const int64_t f0 = c * CHUNK, next = c + 1 < chunks ? f0 + CHUNK : 0;
        pack(x, t0 / NEIGHBOURS, task.tokens, f0, std::min(ins, f0 + CHUNK), ins, STEP, tile);
        Ahead ahead(x, (next ? t0 : t0 + step) / NEIGHBOURS, STEP, task.tokens, next, std::min(ins, next + CHUNK));
        const int64_t share = ahead.share(count / 8 + 1);
        const int32_t* starts = chunked.starts(c);
        const auto* all = chunked.all();
        for (int o = 0; o < count; o++) {
          if (o % 8 == 0) ahead.fetch(share);
          add_weights(tile, all + starts[o], all + starts[o + 1], sums + (int64_t)o * T, c == 0);
        }
      }
      unpack(sums, T, count, task.bias, task.y, t0, task.tokens, first, task.past_caches());
    });
  }

 private:
  using Weight = std::conditional_t<NEIGHBOURS == 2, S, float>;
  int64_t ins, first;
  int count;
  ChunkedWeights<Weight> chunked;
};

// Calls work(part) for each part of the outputs, one after another. There are as many parts as it takes for the sums of
// one to stay in the level-2 cache (L2), and for its copy of weights to be no more than half of what a large layer
// holds. `rows` is in row-major order.
template <class S, class F> void each_part(const Index& rows, bool transposed, const S* values, F work) {
  const int64_t outs = transposed ? rows.columns : rows.rows, weights = rows.offsets[rows.rows];
  const int64_t sums = outs * ChunkedPart<S>::T * 4;
  const int64_t parts = std::max<int64_t>((sums + OUTER_BYTES - 1) / OUTER_BYTES, weights > WEIGHTS_A_COPY ? 2 : 1);
  const int64_t a_part = round_up((outs + parts - 1) / parts, GROUP);
  for (int64_t first = 0; first < outs; first += a_part)
    work(ChunkedPart<S>(rows, transposed, values, first, (int)std::min(a_part, outs - first)));
}

}  // namespace evergraft
