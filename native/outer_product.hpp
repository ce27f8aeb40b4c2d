// The gradient of the weights: gradient += rows^T x at the active blocks, summed over tokens.
#pragma once
#include "amx.hpp"
#include "dispatch.hpp"
#include "outer.hpp"
#include "squares.hpp"
#include "task.hpp"

namespace evergraft {

// Copies the blocks [wide][tall] to [tall][wide], each in its place.
inline void transpose_blocks(float* gradient, int64_t blocks, int tall, int wide, const Threads& threads) {
  const int64_t area = (int64_t)tall * wide, chunk = std::max<int64_t>(1, (64 << 10) / area);
  parallel(threads, (blocks + chunk - 1) / chunk, [&](int64_t i) {
    float* copy = group_buffer.at_least(area);
    for (int64_t b = i * chunk; b < std::min(blocks, (i + 1) * chunk); b++) {
      float* block = gradient + b * area;
      std::copy_n(block, area, copy);
      for (int r = 0; r < tall; r++)
        for (int c = 0; c < wide; c++) block[r * wide + c] = copy[c * tall + r];
    }
  });
}

// A gradient under way, to which rows^T x is added. The block rows of `index` are those of `rows`.
template <class Source> struct OuterTask {
  const Index& index;
  BlockShape block;
  Source rows, x;
  int64_t tokens, words;  // words: of the tokens of a feature
  int T;                  // words of a tile
  float* gradient;
  const Threads& threads;
};

// By a kernel: Columns, Squares, OuterTiles or OuterRowTiles.
template <class Kernel, class Source> void add_outer_product(const OuterTask<Source>& task) {
  const Index& index = task.index;
  const BlockShape block = task.block;
  const int64_t tokens = task.tokens, tall = index.rows * block.outs, wide = index.columns * block.ins;
  const int T = task.T;
  // A share is a run of block rows with about as many blocks as any other; it starts where a group of features does.
  int64_t per_group = round_up(GROUP, block.outs);
  if (per_group % LANES) per_group = (int64_t)LANES * block.outs;
  const int64_t rows_per_group = per_group / block.outs, groups = (index.rows + rows_per_group - 1) / rows_per_group;
  const int64_t shares = std::max<int64_t>(1, std::min<int64_t>(task.threads.count, groups));
  const int64_t blocks = index.offsets[index.rows];
  auto share_start = [&](int64_t s) {
    int64_t g = s == shares ? groups : 0;
    while (g < groups && index.offsets[g * rows_per_group] < blocks * s / shares) g++;
    return g;
  };
  parallel(task.threads, shares, [&](int64_t s) {
    const int64_t g0 = share_start(s), g1 = share_start(s + 1);
    float* tile = tile_buffer.at_least(round_up(wide, LANES) * T);
    float* packed = group_buffer.at_least(Kernel::group_words(per_group, T));
    [[maybe_unused]] const typename Kernel::Registers registers;
    for (int64_t t0 = 0; t0 < task.words; t0 += T) {
      Kernel::pack_tile(task.x, t0, tokens, wide, T, tile);
      for (int64_t g = g0; g < g1; g++) {
        const int64_t f0 = g * per_group, f1 = std::min(tall, f0 + per_group);
        Kernel::pack_group(task.rows, t0, tokens, f0, f1, tall, T, per_group, packed);
        const bool last = g + 1 == g1;
        const int64_t next = last ? g0 * per_group : f1;
        Ahead ahead(task.rows, last ? t0 + T : t0, T, tokens, next, std::min(tall, next + per_group));
        const int64_t weights = (index.offsets[f1 / block.outs] - index.offsets[f0 / block.outs]) * block.area();
        const int64_t share = ahead.share(weights / Kernel::WEIGHTS + 1);
        for (int64_t f = f0; f < f1; f += block.outs)
          Kernel::sum(packed, f - f0, per_group, tile, T, index.row(f / block.outs), block, task.gradient,
                      [&] { ahead.fetch(share); });
      }
    }
  });
}

// Calls f(P) with P as a constant, for vectors that hold LANES / P weights of P tokens.
template <class F> void with_tokens_a_vector(int P, F f) {
  if (P == 1) f(std::integral_constant<int, 1>{});
  if (P == 2) f(std::integral_constant<int, 2>{});
  if (P == 4) f(std::integral_constant<int, 4>{});
  if constexpr (LANES >= 8)
    if (P == 8) f(std::integral_constant<int, 8>{});
  if constexpr (LANES >= 16)
    if (P == 16) f(std::integral_constant<int, 16>{});
}

// The gradient [active, R, C] of the weights of a layer, the blocks of grad^T x, summed in fp32 over any number of runs
// of tokens.
template <class S> class WeightGradient {
  using Mac = Multiplier<S>;
  static constexpr int NEIGHBOURS = Mac::NEIGHBOURS;

 public:
  // tokens: of all runs.  sums: where they are summed.
  WeightGradient(const Topology& t, int64_t tokens, float* sums)
      : height((int)t.height), width((int)t.width), active(t.active), product(outer_product<S>(t, tokens)),
        kernel(choose(OUTER_PRODUCTS, product)), squares(kernel == SQUARES || kernel == OUTER_TILES),
        mirrored(kernel != LISTS && (squares || product.tie) == product.filled_by_rows),
        index(mirrored ? by_columns(t) : by_rows(t)), sums(sums) {
    const int64_t wide = index.columns * (mirrored ? height : width);
    const int64_t bytes = squares ? TILE_BYTES : OUTER_BYTES;
    T = kernel == LISTS ? LIST_WORDS
                        : tile_tokens(round_up(wide, LANES), in_words(tokens), Threads{nullptr, 1}, STEP, bytes);
    std::fill_n(sums, active * height * width, 0.0f);
  }

  // How many tokens a tile holds. Sums are the same for all runs of a multiple of it.
  int64_t tile() const { return (int64_t)T * NEIGHBOURS; }

  // Adds a run of tokens.
  void add(Matrix<const S> grad, Matrix<const S> x, int64_t tokens, const Threads& threads) {
    const BlockShape block = mirrored ? BlockShape{width, height, 0, 0} : BlockShape{height, width, 0, 0};
    const TokenWords<S> rows{mirrored ? x : grad}, others{mirrored ? grad : x};
    if constexpr (TIER <= AVX2)
      if (kernel == LISTS) {
        if (tokens == product.tokens)
          return sum_lists<Mac>(index, rows, others, tokens, in_words(tokens), sums, threads);
        if (!listed) listed.emplace(index, threads);
        return listed->add(rows, others, tokens, in_words(tokens), threads);
      }
    const OuterTask<TokenWords<S>> task{index, block, rows, others, tokens, in_words(tokens), T, sums, threads};
    with_tokens_a_vector(product.tokens_a_vector, [&](auto p) {
      constexpr int P = decltype(p)::value;
      switch (kernel) {
#if defined(__AMX_BF16__)
        case OUTER_TILES:
          if constexpr (P == 1 && NEIGHBOURS == 2) add_outer_product<OuterTiles>(task);
          return;
        case OUTER_ROW_TILES:
          if constexpr (P == 1 && NEIGHBOURS == 2) add_outer_product<OuterRowTiles>(task);
          return;
#endif
        case SQUARES:
          if constexpr (P <= 4) add_outer_product<Squares<Mac, P>>(task);
          return;
        default: return add_outer_product<Columns<Mac, P>>(task);  // COLUMNS
      }
    });
  }

  // Puts the sums where they belong.
  void finish(const Threads& threads) {
    if constexpr (TIER <= AVX2)
      if (listed) return listed->write(sums);
    if (mirrored == squares && height > 1 && width > 1) transpose_blocks(sums, active, height, width, threads);
  }

 private:
  static int64_t in_words(int64_t tokens) { return (tokens + NEIGHBOURS - 1) / NEIGHBOURS; }

  int height, width;
  int64_t active;
  OuterProduct product;
  OuterKernel kernel;
  // SQUARES and OUTER_TILES take the filled side as the inputs of a block, the other kernels as its outputs. Where both
  // sides fill vectors equally, the outputs are those of the larger matrix, because the inputs are read at random.
  bool squares, mirrored;
  Index index;
  float* sums;
  int T;                                      // words of a tile
  std::optional<ListedGradient<Mac>> listed;  // LISTS, where there are several runs
};

}  // namespace evergraft
