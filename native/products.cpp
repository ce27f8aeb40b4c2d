// The three products of a block-sparse linear layer, for one instruction set; a plain C interface.
#include <cstdlib>
#include "amx.hpp"
#include "chunks.hpp"
#include "lanes.hpp"
#include "outer.hpp"
#include "scatter.hpp"
#include "squares.hpp"

extern "C" {
// The blocks of a matrix [out, in]: `BlockTopology` of topology.py, field by field.
struct Topology {
  int64_t block_rows, block_columns, height, width, active;
  const int32_t *row_offsets, *columns, *transposed_offsets, *transposed_order;
};
}

namespace {

constexpr int64_t TILE_BYTES = 300 << 10;     // of a second-level cache, for the tile that is read at random
constexpr int64_t OUTER_BYTES = 600 << 10;    // the same for the outer product, where a tile costs more to begin
constexpr int64_t STREAM_BYTES = LANES == 16 ? 8 << 20 : 1 << 20;  // outputs above this are written past the caches: measured on Zen 5, Zen 3
constexpr int BLOCKS_A_ROW = 8;               // that fill a register of 32 well enough
constexpr int WEIGHTS_A_LIST = 4, USES_A_LIST = 8, WEIGHTS_A_COPY = 1 << 19;  // of weights copied in chunks
constexpr int GROUP = 64;                     // features packed or unpacked at a time, at least: whole cache lines

thread_local Buffer<float> tile_buffer, group_buffer, inputs_buffer, values_buffer, gradient_buffer;
thread_local Buffer<int32_t> cursor_buffer;

// One of the two orders of a topology.
struct Index {
  int64_t rows, columns;
  const int32_t *offsets, *others, *slots;
  std::unique_ptr<int32_t[]> owned = nullptr;  // `others`, where they are made for the call and gone after it
  BlockRow row(int64_t i) const {
    const int first = offsets[i];
    return {others + first, slots ? slots + first : nullptr, first, offsets[i + 1] - first};
  }
};

bool in_range(const int32_t* p, int64_t n, int64_t limit) {
  uint32_t worst = 0;
  for (int64_t i = 0; i < n; i++) worst = std::max(worst, (uint32_t)p[i]);
  return worst < limit;
}
bool offsets_fit(const int32_t* offsets, int64_t rows, int64_t active) {
  for (int64_t i = 0; i < rows; i++) if (offsets[i + 1] < offsets[i]) return false;
  return offsets[0] == 0 && offsets[rows] == active;
}

Index by_rows(const Topology& t) {
  if (!offsets_fit(t.row_offsets, t.block_rows, t.active) || !in_range(t.columns, t.active, t.block_columns)) throw MALFORMED;
  return {t.block_rows, t.block_columns, t.row_offsets, t.columns, nullptr, nullptr};
}

// The transposed order; the row of each block is found by counting, as the order itself was made.
Index by_columns(const Topology& t) {
  by_rows(t);
  if (!offsets_fit(t.transposed_offsets, t.block_columns, t.active)) throw MALFORMED;
  std::unique_ptr<int32_t[]> rows(new (std::nothrow) int32_t[t.active]);
  if (!rows) throw OUT_OF_MEMORY;
  int32_t* next = cursor_buffer.at_least(t.block_columns);
  std::copy_n(t.transposed_offsets, t.block_columns, next);
  for (int64_t i = 0; i < t.block_rows; i++)
    for (int32_t slot = t.row_offsets[i]; slot < t.row_offsets[i + 1]; slot++) {
      const int32_t column = t.columns[slot], place = next[column]++;
      if (place >= t.transposed_offsets[column + 1] || t.transposed_order[place] != slot) throw MALFORMED;
      rows[place] = (int32_t)i;
    }
  const int32_t* others = rows.get();
  return {t.block_columns, t.block_rows, t.transposed_offsets, others, t.transposed_order, std::move(rows)};
}

const float* in_fp32(const float* values, int64_t, Buffer<float>&) { return values; }
const float* in_fp32(const Bf16* values, int64_t n, Buffer<float>& buffer) {
  float* to = buffer.at_least(n);
  for (int64_t i = 0; i < n; i++) to[i] = widen(values[i]);
  return to;
}

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Tokens of a tile of so many words a token: as many as the cache holds, at most MAX_TOKENS, no more than a thread's
// share; a multiple of `unit`, and of twice that where it can be.
constexpr int MAX_TOKENS = 8 * STEP;
int tile_tokens(int64_t words, int64_t tokens, const Threads& threads, int unit = STEP, int64_t bytes = TILE_BYTES) {
  const int64_t fit = bytes / (4 * std::max<int64_t>(words, 1)), share = round_up(tokens / threads.count + 1, unit);
  const int64_t T = std::min<int64_t>({fit, share, MAX_TOKENS});
  return (int)(T >= 2 * unit ? T / (2 * unit) * (2 * unit) : unit);
}

// Call f with n as a compile-time constant if it is a side of blocks that have kernels of their own, else with 0.
template <class F> void with_side(int n, F f) {
  switch (n) {
    case 1: return f(std::integral_constant<int, 1>{});
    case 2: return f(std::integral_constant<int, 2>{});
    case 4: return f(std::integral_constant<int, 4>{});
    case 8: return f(std::integral_constant<int, 8>{});
    case 16: return f(std::integral_constant<int, 16>{});
    case 32: return f(std::integral_constant<int, 32>{});
    case 64: return f(std::integral_constant<int, 64>{});
    default: return f(std::integral_constant<int, 0>{});
  }
}

// Whether blocks are better gathered with outputs in the lanes, given 32 registers. fp32 is where they already are
// [ins][outs]: a copy would be a quarter of what the layer holds.
bool lanes_of_outputs(BlockShape block) { return block.outs % LANES == 0 && block.ins >= 4; }

// A product y = x M + bias under way.
template <class S> struct Task {
  Matrix<const S> x;
  const float* bias;
  Matrix<S> y;
  int64_t tokens;
  const Threads& threads;
  bool past_caches() const { return tokens * y.stride * (int64_t)sizeof(S) > STREAM_BYTES; }
};

// M seen from its output side: a tile of x, and for each block row of outputs run(tile, t, T, row number, sums) for `step`
// tokens from t.
//   words: of a tile's token.  outs: of a block row.  fill(t0, T, tile) packs the tile.
template <class Registers, class S, class Fill, class Run>
void gather_product(const Index& index, int outs, int64_t words, const Task<S>& task, int T, int step, Fill fill, Run run) {
  const int64_t per_group = (GROUP + outs - 1) / outs;
  parallel(task.threads, (task.tokens + T - 1) / T, [&](int64_t i) {
    const int64_t t0 = i * T;
    float* tile = tile_buffer.at_least(words * T);
    float* group = group_buffer.at_least(per_group * outs * step);
    [[maybe_unused]] const Registers registers;
    fill(t0, T, tile);
    for (int64_t r = 0; r < index.rows; r += per_group) {
      const int count = (int)std::min(per_group, index.rows - r);
      for (int t = 0; t < std::min<int64_t>(T, task.tokens - t0); t += step) {
        for (int k = 0; k < count; k++) run(tile, t, T, r + k, group + (int64_t)k * outs * step);
        unpack(group, step, count * outs, task.bias, task.y, t0 + t, task.tokens, r * outs, task.past_caches());
      }
    }
  });
}

// The same by rows of the result, of blocks as [ins][outs], by Kernel: GatherLanes or GatherTiles.
template <class Kernel, class S, class Source>
void gather_rows(const Index& index, BlockShape block, Source x, const float* values, const Task<S>& task) {
  constexpr int TOKENS = Kernel::TOKENS;
  const int64_t ins = index.columns * block.ins, words = round_up(ins, LANES), per_group = (GROUP + block.outs - 1) / block.outs;
  const int T = tile_tokens(words, task.tokens, task.threads), stride = (int)per_group * block.outs;
  parallel(task.threads, (task.tokens + T - 1) / T, [&](int64_t i) {
    const int64_t t0 = i * T, t1 = std::min(task.tokens, t0 + T);
    float* tile = tile_buffer.at_least(words * T);
    float* sums = group_buffer.at_least(TOKENS * stride);
    [[maybe_unused]] const typename Kernel::Registers registers;
    Kernel::pack_tile(x, t0, task.tokens, ins, T, tile);
    for (int64_t r = 0; r < index.rows; r += per_group) {
      const int count = (int)std::min(per_group, index.rows - r);
      for (int64_t t = t0; t < t1; t += TOKENS) {
        for (int k = 0; k < count; k++)
          Kernel::sum(tile, t - t0, T, index.row(r + k), block, values, sums + k * block.outs, stride);
        const Matrix<S> y{task.y.data + t * task.y.stride + r * block.outs, task.y.stride};
        const float* bias = task.bias ? task.bias + r * block.outs : nullptr;
        write_rows(sums, stride, std::min<int64_t>(TOKENS, t1 - t), count * block.outs, bias, y, task.past_caches());
      }
    }
  });
}

// x is the task's input, or its words.
template <class Mac, class S, class Source>
void gather_words(const Index& index, BlockShape block, Source x, const float* values, const Task<S>& task) {
  if constexpr (REGISTERS == 32)
    if (lanes_of_outputs(block) && block.out_step == 1) {
#if defined(__AMX_BF16__)
      if constexpr (Mac::NEIGHBOURS == 2)
        if (with_depth(block.ins, [&](auto depth) { gather_rows<GatherTiles<decltype(depth)::value>>(index, block, x, values, task); })) return;
#endif
      if (block.outs % (2 * LANES) == 0) return gather_rows<GatherLanes<Mac, 2>>(index, block, x, values, task);
      return gather_rows<GatherLanes<Mac, 1>>(index, block, x, values, task);
    }
  const int64_t ins = index.columns * block.ins, words = round_up(ins, LANES);
  auto fill = [&](int64_t t0, int T, float* tile) { pack(x, t0, task.tokens, 0, ins, ins, T, tile); };
  with_side(block.ins, [&](auto side) {
    constexpr int INS = decltype(side)::value;
    const int T = tile_tokens(words, task.tokens, task.threads);
    gather_product<NoRegisters>(index, block.outs, words, task, T, T, fill, [&](const float* tile, int, int T, int64_t r, float* out) {
      if (block.out_step == 1) gather<Mac, INS, 1>(tile, T, index.row(r), block, values, out);
      else gather<Mac, INS, INS>(tile, T, index.row(r), block, values, out);
    });
  });
}

// M seen from its input side: a tile of y, to which every block row of inputs is added by run(in, T, row number, tile).
template <class Registers, class S, class Source, class Run>
void scatter_product(const Index& index, BlockShape block, Source x, const Task<S>& task, Run run) {
  const int64_t ins = index.rows * block.ins, outs = index.columns * block.outs, per_group = (GROUP + block.ins - 1) / block.ins;
  const int T = tile_tokens(outs, task.tokens, task.threads);
  parallel(task.threads, (task.tokens + T - 1) / T, [&](int64_t i) {
    const int64_t t0 = i * T;
    float* tile = tile_buffer.at_least(outs * T);
    float* group = group_buffer.at_least(round_up(per_group * block.ins, LANES) * T);
    [[maybe_unused]] const Registers registers;
    std::fill_n(tile, outs * T, 0.0f);
    for (int64_t r = 0; r < index.rows; r += per_group) {
      const int count = (int)std::min(per_group, index.rows - r);
      pack(x, t0, task.tokens, r * block.ins, (r + count) * block.ins, ins, T, group);
      const int64_t next = r + per_group < index.rows ? r + per_group : 0;
      Ahead ahead(x, next ? t0 : t0 + (int64_t)task.threads.count * T, T, task.tokens, next * block.ins, std::min(index.rows, next + per_group) * block.ins);
      const int64_t share = ahead.share(count);
      for (int k = 0; k < count; k++) {
        ahead.fetch(share);
        run(group + (int64_t)k * block.ins * T, T, r + k, tile);
      }
    }
    unpack(tile, T, (int)outs, task.bias, task.y, t0, task.tokens, 0, task.past_caches());
  });
}

template <class Mac, class S, class Source>
void scatter_words(const Index& index, BlockShape block, Source x, const float* values, const Task<S>& task) {
#if defined(__AMX_BF16__)
  if constexpr (Mac::NEIGHBOURS == 2)
    if (block.outs == 1 && with_depth(block.ins, [&](auto depth) {
          using Kernel = ScatterTiles<decltype(depth)::value>;
          scatter_product<typename Kernel::Registers>(index, block, x, task, [&](const float* in, int T, int64_t r, float* tile) {
            Kernel::add(in, T, index.row(r), block.ins, values, tile);
          });
        }))
      return;
#endif
  scatter_product<NoRegisters>(index, block, x, task, [&](const float* in, int T, int64_t r, float* tile) {
    if (block.outs == 1) scatter<Mac, 1>(in, T, index.row(r), block, values, tile);
    else scatter<Mac, 0>(in, T, index.row(r), block, values, tile);
  });
}

#if defined(__AVX512BF16__)
float as_word(Bf16 first, Bf16 second) {
  const uint32_t bits = first.bits | (uint32_t)second.bits << 16;
  float word;
  memcpy(&word, &bits, 4);
  return word;
}

// Where the weights of block row r begin when those of two blocks share a word.
int64_t pairs_before(const Index& index, int64_t r) { return (index.offsets[r] + r + 1) / 2; }

// Blocks one input wide: the weights of every two blocks of a row as words [pair][outs].
const float* pair_blocks(const Index& index, int outs, const Bf16* values) {
  float* words = values_buffer.at_least((pairs_before(index, index.rows) + 1) * outs);
  for (int64_t r = 0; r < index.rows; r++) {
    const BlockRow row = index.row(r);
    float* to = words + pairs_before(index, r) * outs;
    for (int b = 0; b < row.count; b += 2, to += outs) {
      const Bf16 *first = values + row.slot(b) * outs, *second = b + 1 < row.count ? values + row.slot(b + 1) * outs : nullptr;
      for (int o = 0; o < outs; o++) to[o] = as_word(first[o], second ? second[o] : Bf16{0});
    }
  }
  return words;
}

#if defined(__AMX_BF16__)
// The same as GatherPairTiles takes them, where a row's begin in `starts`.
const float* group_blocks(const Index& index, int outs, const Bf16* values, int64_t* starts) {
  using Kernel = GatherPairTiles;
  starts[0] = 0;
  for (int64_t r = 0; r < index.rows; r++) starts[r + 1] = starts[r] + (int64_t)Kernel::groups(index.row(r).count) * Kernel::PAIRS * outs;
  float* words = values_buffer.at_least(starts[index.rows]);
  std::fill_n(words, starts[index.rows], 0.0f);
  for (int64_t r = 0; r < index.rows; r++) {
    const BlockRow row = index.row(r);
    for (int b = 0; b < row.count; b++) {
      const Bf16* from = values + row.slot(b) * outs;
      Bf16* to = (Bf16*)(words + starts[r] + (int64_t)b / Kernel::BLOCKS * Kernel::PAIRS * outs) + b % Kernel::BLOCKS;
      for (int o = 0; o < outs; o++) memcpy(to + (int64_t)o * Kernel::BLOCKS, from + o, sizeof *from);
    }
  }
  return words;
}
#endif

// The weights of every two neighbouring inputs of a block as words [ins / 2][outs], and that shape.
const float* pair_inputs(int64_t active, BlockShape& block, const Bf16* values) {
  float* words = values_buffer.at_least(active * block.area() / 2);
  float* to = words;
  for (const Bf16* v = values; v < values + active * block.area(); v += block.area())
    for (int i = 0; i < block.ins; i += 2)
      for (int o = 0; o < block.outs; o++, to++) {
        const Bf16* first = v + (int64_t)o * block.out_step + (int64_t)i * block.in_step;
        *to = as_word(first[0], first[block.in_step]);
      }
  block = {block.outs, block.ins / 2, 1, block.outs};
  return words;
}

// The product in bf16 words, if the shapes allow it.
bool multiply_dot(const Index& index, BlockShape block, bool from_outputs, const Bf16* values, int64_t active, const Task<Bf16>& task) {
  if (from_outputs && block.ins == 1) {
    const int64_t ins = index.columns, words_a_token = (round_up(ins, LANES) + 1) / 2;
    const int T = tile_tokens(words_a_token, task.tokens, task.threads, 2 * STEP);
    auto fill = [&](int64_t t0, int T, float* tile) { pack(TokenPairs{task.x}, t0 / 2, task.tokens, 0, ins, ins, T / 2, tile); };
#if defined(__AMX_BF16__)
    if (block.outs % SIDE == 0 && active >= BLOCKS_A_ROW * index.rows) {
      using Kernel = GatherPairTiles;
      std::unique_ptr<int64_t[]> starts(new (std::nothrow) int64_t[index.rows + 1]);
      if (!starts) throw OUT_OF_MEMORY;
      const float* words = group_blocks(index, block.outs, values, starts.get());
      gather_product<Kernel::Registers>(index, block.outs, words_a_token, task, T, Kernel::TOKENS, fill, [&](const float* tile, int t, int T, int64_t r, float* out) {
        float* inputs = inputs_buffer.at_least((int64_t)Kernel::groups(index.row(r).count) * Kernel::PAIRS * Kernel::TOKENS);
        Kernel::sum(tile + t / 2, T, index.row(r), block.outs, words + starts[r], inputs, out);
      });
      return true;
    }
#endif
    const float* words = pair_blocks(index, block.outs, values);
    gather_product<NoRegisters>(index, block.outs, words_a_token, task, T, T, fill, [&](const float* tile, int, int T, int64_t r, float* out) {
      gather_pairs(tile, T, index.row(r), block.outs, words + pairs_before(index, r) * block.outs, out);
    });
    return true;
  }
  if (block.ins % 2 || task.x.stride % 2 || (uintptr_t)task.x.data % 4) return false;
  const float* words = (const float*)values;
  const BlockShape halved{block.outs, block.ins / 2, block.out_step / 2, 1};
  if (block.in_step == 1 && !(from_outputs && lanes_of_outputs(halved))) block = halved;
  else words = pair_inputs(active, block, values);
  const Matrix<const float> x{(const float*)task.x.data, task.x.stride / 2};
  if (from_outputs) gather_words<Dot>(index, block, x, words, task);
  else scatter_words<Dot>(index, block, x, words, task);
  return true;
}
#endif

// Whether single weights come out faster in chunks: a list of them must hold some weights, and be used some times.
bool worth_chunks(const Topology& t, int64_t tokens) {
  const int64_t lists = t.block_rows * ((t.block_columns + CHUNK - 1) / CHUNK);
  return t.active >= WEIGHTS_A_LIST * lists && tokens >= USES_A_LIST * STEP;
}

// The product of single weights; `rows` in row-major order. Outputs come in parts, for their sums to stay in the
// second-level cache, and for the copy of the weights to be no more than half of what a large layer holds.
template <class S> void multiply_chunks(const Index& rows, bool transposed, const S* values, const Task<S>& task) {
#if defined(__AVX512BF16__)
  using W = S;
  using Source = std::conditional_t<std::is_same_v<S, Bf16>, TokenPairs, Matrix<const S>>;
#else
  using W = float;
  using Source = Matrix<const S>;
#endif
  constexpr int NEIGHBOURS = std::is_same_v<W, Bf16> ? 2 : 1, T = NEIGHBOURS * STEP;
  const Source x{task.x};
  const int64_t ins = transposed ? rows.rows : rows.columns, outs = transposed ? rows.columns : rows.rows;
  const int64_t chunks = (ins + CHUNK - 1) / CHUNK, weights = rows.offsets[rows.rows];
  const int64_t parts = std::max<int64_t>((outs * T * 4 + OUTER_BYTES - 1) / OUTER_BYTES, weights > WEIGHTS_A_COPY ? 2 : 1);
  const int64_t a_part = round_up((outs + parts - 1) / parts, GROUP);
  for (int64_t first = 0; first < outs; first += a_part) {
    const int count = (int)std::min(a_part, outs - first);
    const ChunkedWeights<W> chunked(rows, transposed, values, first, count);
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
}

// A product seen from its outputs if blocks have enough of them to fill registers, else from its inputs.
template <class S> void multiply(const Topology& t, bool transposed, const S* stored, const Task<S>& task) {
  const int height = (int)t.height, width = (int)t.width;
  const BlockShape block = transposed ? BlockShape{width, height, 1, width} : BlockShape{height, width, width, 1};
  if (block.area() == 1 && worth_chunks(t, task.tokens)) return multiply_chunks(by_rows(t), transposed, stored, task);
  const bool from_outputs = block.outs >= 4 || block.outs >= block.ins;
  const Index index = from_outputs == transposed ? by_columns(t) : by_rows(t);
#if defined(__AVX512BF16__)
  if constexpr (std::is_same_v<S, Bf16>)
    if (multiply_dot(index, block, from_outputs, stored, t.active, task)) return;
#endif
  const float* values = in_fp32(stored, t.active * block.area(), values_buffer);
  if (from_outputs) gather_words<Plain>(index, block, task.x, values, task);
  else scatter_words<Plain>(index, block, task.x, values, task);
}

// Blocks [wide][tall] -> [tall][wide], each in its place.
void transpose_blocks(float* gradient, int64_t blocks, int tall, int wide, const Threads& threads) {
  const int64_t area = (int64_t)tall * wide, chunk = std::max<int64_t>(1, (64 << 10) / area);
  parallel(threads, (blocks + chunk - 1) / chunk, [&](int64_t i) {
    float* copy = group_buffer.at_least(area);
    for (int64_t b = i * chunk; b < std::min(blocks, (i + 1) * chunk); b++) {
      float* block = gradient + b * area;
      std::copy_n(block, area, copy);
      for (int r = 0; r < tall; r++) for (int c = 0; c < wide; c++) block[r * wide + c] = copy[c * tall + r];
    }
  });
}

// gradient += rows^T x at the blocks of `index`, whose rows are those of `rows`, by Kernel: Columns, Squares, OuterTiles or OuterRowTiles.
//   words: of a feature's tokens.  bytes: of a tile.
template <class Kernel, class Source>
void outer_product(const Index& index, BlockShape block, Source rows, Source x, int64_t tokens, int64_t words, int64_t bytes, float* gradient, const Threads& threads) {
  const int64_t tall = index.rows * block.outs, wide = index.columns * block.ins;
  const int T = tile_tokens(round_up(wide, LANES), words, Threads{nullptr, 1}, STEP, bytes);
  // A share is a run of block rows with about as many blocks as any other; it starts where a group of features does.
  int64_t per_group = round_up(GROUP, block.outs);
  if (per_group % LANES) per_group = (int64_t)LANES * block.outs;
  const int64_t rows_per_group = per_group / block.outs, groups = (index.rows + rows_per_group - 1) / rows_per_group;
  const int64_t blocks = index.offsets[index.rows], shares = std::max<int64_t>(1, std::min<int64_t>(threads.count, groups));
  auto share_start = [&](int64_t s) {
    int64_t g = s == shares ? groups : 0;
    while (g < groups && index.offsets[g * rows_per_group] < blocks * s / shares) g++;
    return g;
  };
  parallel(threads, shares, [&](int64_t s) {
    const int64_t g0 = share_start(s), g1 = share_start(s + 1);
    float* tile = tile_buffer.at_least(round_up(wide, LANES) * T);
    float* packed = group_buffer.at_least(Kernel::group_words(per_group, T));
    [[maybe_unused]] const typename Kernel::Registers registers;
    for (int64_t t0 = 0; t0 < words; t0 += T) {
      Kernel::pack_tile(x, t0, tokens, wide, T, tile);
      for (int64_t g = g0; g < g1; g++) {
        const int64_t f0 = g * per_group, f1 = std::min(tall, f0 + per_group);
        Kernel::pack_group(rows, t0, tokens, f0, f1, tall, T, per_group, packed);
        const bool last = g + 1 == g1;
        const int64_t next = last ? g0 * per_group : f1;
        Ahead ahead(rows, last ? t0 + T : t0, T, tokens, next, std::min(tall, next + per_group));
        const int64_t weights = (index.offsets[f1 / block.outs] - index.offsets[f0 / block.outs]) * block.area();
        const int64_t share = ahead.share(weights / Kernel::WEIGHTS + 1);
        for (int64_t f = f0; f < f1; f += block.outs)
          Kernel::sum(packed, f - f0, per_group, tile, T, index.row(f / block.outs), block, gradient, [&] { ahead.fetch(share); });
      }
    }
  });
}

int common_divisor(int a, int b) { return b ? common_divisor(b, a % b) : a; }

// Call f(P) with P as a constant, for vectors that hold LANES / P weights of P tokens.
template <class F> void with_tokens_a_vector(int P, F f) {
  if (P == 1) f(std::integral_constant<int, 1>{});
  if (P == 2) f(std::integral_constant<int, 2>{});
  if (P == 4) f(std::integral_constant<int, 4>{});
  if constexpr (LANES >= 8) if (P == 8) f(std::integral_constant<int, 8>{});
  if constexpr (LANES >= 16) if (P == 16) f(std::integral_constant<int, 16>{});
}

// The gradient in fp32. `filled` is the side of blocks that fills vectors better; if both do, the one that leaves the
// smaller matrix to be read at random.
template <class Mac, class Source>
void weight_gradient(const Topology& t, Source grad, Source x, int64_t tokens, float* gradient, const Threads& threads) {
  const int height = (int)t.height, width = (int)t.width;
  const int rows_fill = common_divisor(height, LANES), columns_fill = common_divisor(width, LANES);
  const bool wide = t.block_columns * width > t.block_rows * height, tie = rows_fill == columns_fill;
  const int64_t words = (tokens + Mac::NEIGHBOURS - 1) / Mac::NEIGHBOURS;
  std::fill_n(gradient, t.active * height * width, 0.0f);
  const bool filled_by_rows = tie ? wide : rows_fill > columns_fill;
  const int P = LANES / std::max(rows_fill, columns_fill), other = filled_by_rows ? width : height;
  const bool squares = P <= 4 && other >= 4 && other % P == 0, mirrored = squares ? filled_by_rows : tie ? wide : !filled_by_rows;
  const Index index = mirrored ? by_columns(t) : by_rows(t);
  const BlockShape block = mirrored ? BlockShape{width, height, 0, 0} : BlockShape{height, width, 0, 0};
  const Source rows = mirrored ? x : grad, others = mirrored ? grad : x;
  with_tokens_a_vector(P, [&](auto p) {
    constexpr int P = decltype(p)::value;
#if defined(__AMX_BF16__)
    if constexpr (P == 1 && Mac::NEIGHBOURS == 2) {
      if (squares && tie) return outer_product<OuterTiles>(index, block, rows, others, tokens, words, TILE_BYTES, gradient, threads);
      if (block.ins == 1) return outer_product<OuterRowTiles>(index, block, rows, others, tokens, words, OUTER_BYTES, gradient, threads);
    }
#endif
    if constexpr (P <= 4)
      if (squares) return outer_product<Squares<Mac, P>>(index, block, rows, others, tokens, words, TILE_BYTES, gradient, threads);
    outer_product<Columns<Mac, P>>(index, block, rows, others, tokens, words, OUTER_BYTES, gradient, threads);
  });
  if (mirrored == squares && height > 1 && width > 1) transpose_blocks(gradient, t.active, height, width, threads);
}

void any_weight_gradient(const Topology& t, Matrix<const float> grad, Matrix<const float> x, int64_t tokens, float* gradient, const Threads& threads) {
  weight_gradient<Plain>(t, grad, x, tokens, gradient, threads);
}
void any_weight_gradient(const Topology& t, Matrix<const Bf16> grad, Matrix<const Bf16> x, int64_t tokens, Bf16* gradient, const Threads& threads) {
  const int64_t n = t.active * t.height * t.width;
  float* sums = gradient_buffer.at_least(n);
#if defined(__AVX512BF16__)
  weight_gradient<Dot>(t, TokenPairs{grad}, TokenPairs{x}, tokens, sums, threads);
#else
  weight_gradient<Plain>(t, grad, x, tokens, sums, threads);
#endif
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) store(gradient + i, load(sums + i));
  for (; i < n; i++) narrow(sums[i], gradient + i);
}

template <class S> const float* bias_in_fp32(const S* bias, int64_t n, Buffer<float>& buffer) {
  return bias ? in_fp32(bias, n, buffer) : nullptr;
}

}  // namespace

extern "C" {

// y [tokens, out] = x W^T + bias; x_stride numbers from one token to the next. Returns a Status.
EXPORT int evergraft_forward(const Topology* t, const void* x, int64_t x_stride, const void* values, const void* bias, void* y, int64_t tokens, int dtype, const Threads* threads) {
  return guarded([&] { with_dtype(dtype, [&](auto s) {
    using S = decltype(s);
    const int64_t out = t->block_rows * t->height;
    multiply<S>(*t, false, (const S*)values, {{(const S*)x, x_stride}, bias_in_fp32((const S*)bias, out, gradient_buffer), {(S*)y, out}, tokens, *threads});
  }); });
}

// dx [tokens, in] = grad W.
EXPORT int evergraft_input_gradient(const Topology* t, const void* grad, int64_t grad_stride, const void* values, void* dx, int64_t tokens, int dtype, const Threads* threads) {
  return guarded([&] { with_dtype(dtype, [&](auto s) {
    using S = decltype(s);
    multiply<S>(*t, true, (const S*)values, {{(const S*)grad, grad_stride}, nullptr, {(S*)dx, t->block_columns * t->width}, tokens, *threads});
  }); });
}

// dvalues [active, R, C] = the blocks of grad^T x.
EXPORT int evergraft_weight_gradient(const Topology* t, const void* grad, int64_t grad_stride, const void* x, int64_t x_stride, void* dvalues, int64_t tokens, int dtype, const Threads* threads) {
  return guarded([&] { with_dtype(dtype, [&](auto s) {
    using S = decltype(s);
    any_weight_gradient(*t, Matrix<const S>{(const S*)grad, grad_stride}, Matrix<const S>{(const S*)x, x_stride}, tokens, (S*)dvalues, *threads);
  }); });
}
}
