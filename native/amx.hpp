// Products of blocks of 16 x 16, 16 x 1 and multiples of them on the processor's matrix unit (AMX), in bf16.
//
// Eight registers hold 16 rows of 64 bytes each; one instruction adds to 16 x 16 sums in fp32 the products of 16 rows of up
// to 16 words (two bf16 each) and as many rows of 16 words. All of it is written in assembly, since the number of a register
// is part of an instruction.
#pragma once
#include "lanes.hpp"
#include "outer.hpp"
#include "scatter.hpp"
#include "squares.hpp"

#if defined(__AMX_BF16__)
constexpr int SIDE = 16;  // of the sums in a register
static_assert(SIDE == LANES && STEP == V * SIDE);

template <int R> INLINE void tile_zero() { asm volatile("tilezero %%tmm%c0" ::"i"(R)); }
template <int R> INLINE void tile_load(const float* from, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride * 4), "i"(R) : "memory");
}
template <int R> INLINE void tile_store(float* to, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride * 4), "i"(R) : "memory");
}
template <int SUM, int A, int B> INLINE void tile_multiply() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(SUM), "i"(A), "i"(B));
}

constexpr int SUM_TILES = 6, LEFT = 6, RIGHT = 7;  // of the registers

// A thread's registers, set up for as long as this lives: SUM_TILES of sums, LEFT of 16 x DEPTH words and RIGHT of DEPTH x 16.
template <int DEPTH> struct TileRegisters {
  TileRegisters() {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } config;
    for (int r = 0; r < 8; r++) config.row_bytes[r] = r == LEFT ? 4 * DEPTH : 64, config.rows[r] = r == RIGHT ? DEPTH : SIDE;
    asm volatile("ldtilecfg %0" ::"m"(config));
  }
  ~TileRegisters() { asm volatile("tilerelease"); }
};

template <int... I, class F> INLINE void each_of(std::integer_sequence<int, I...>, F f) { (f(std::integral_constant<int, I>{}), ...); }
// Call f with 0 ... N - 1, each a constant.
template <int N, class F> INLINE void each(F f) { each_of(std::make_integer_sequence<int, N>{}, f); }

// Call f with how many words of inputs a register takes at a time, as a constant, if that divides a block's.
template <class F> bool with_depth(int ins, F f) {
  if (ins % SIDE == 0) f(std::integral_constant<int, SIDE>{});
  else if (ins % (SIDE / 2) == 0) f(std::integral_constant<int, SIDE / 2>{});
  else return false;
  return true;
}

// Gather by rows of the result, DEPTH words of inputs at a time: GatherLanes on the matrix unit.
template <int DEPTH> struct GatherTiles {
  static constexpr int TOKENS = V * SIDE;
  using Registers = TileRegisters<DEPTH>;

  // [feature / DEPTH][T][DEPTH], in words.
  template <class Source> static void pack_tile(Source x, int64_t t0, int64_t tokens, int64_t features, int T, float* to) {
    Squares<Dot, LANES / DEPTH>::pack_tile(x, t0, tokens, features, T, to);
  }

  // TOKENS tokens from t of a block row.  values: blocks as [ins][outs].  out: [TOKENS][..], `stride` apart.
  static void sum(const float* tile, int64_t t, int T, BlockRow row, BlockShape block, const float* values, float* out, int stride) {
    for (int o = 0; o < block.outs; o += SIDE) {
      each<V>([](auto s) { tile_zero<s>(); });
      for (int b = 0; b < row.count; b++) {
        const float* w = values + row.slot(b) * block.area() + o;
        const float* x = tile + (int64_t)row.others[b] * block.ins * T + t * DEPTH;
        for (int i = 0; i < block.ins; i += DEPTH, w += (int64_t)DEPTH * block.outs, x += (int64_t)DEPTH * T) {
          tile_load<RIGHT>(w, block.outs);
          each<V>([&](auto s) {
            tile_load<LEFT>(x + s * SIDE * DEPTH, DEPTH);
            tile_multiply<s, LEFT, RIGHT>();
          });
        }
      }
      each<V>([&](auto s) { tile_store<s>(out + o + (int64_t)s * SIDE * stride, stride); });
    }
  }
};

// The gradient of a block row's values, summed over tokens, two a word: 16 x 16 of them a register. Inputs are packed as
// squares are, [feature / 16][T][16].
struct OuterTiles : Squares<Dot, 1> {
  static constexpr int WEIGHTS = SUM_TILES * SIDE * SIDE;
  using Registers = TileRegisters<SIDE>;

  static int64_t group_words(int64_t features, int T) { return features * T; }

  // Features f0 ... f1, feature by feature.
  template <class Source>
  static void pack_group(Source x, int64_t t0, int64_t tokens, int64_t f0, int64_t f1, int64_t features, int T, int64_t, float* to) {
    pack(x, t0, tokens, f0, f1, features, T, to);
  }

  // COUNT squares of sums over T words are added to where they belong, `width` apart from row to row.
  template <int COUNT>
  static INLINE void some(const float* rows, int T, const float* const* xs, float* const* sums, int width) {
    each<COUNT>([](auto s) { tile_zero<s>(); });
    for (int t = 0; t < T; t += SIDE) {
      tile_load<LEFT>(rows + t, T);
      each<COUNT>([&](auto s) {
        tile_load<RIGHT>(xs[s] + t * SIDE, SIDE);
        tile_multiply<s, LEFT, RIGHT>();
      });
    }
    each<COUNT>([&](auto s) {
      alignas(64) float square[SIDE * SIDE];
      tile_store<s>(square, SIDE);
      for (int r = 0; r < SIDE; r++) store(sums[s] + r * width, load(sums[s] + r * width) + load(square + r * SIDE));
    });
  }

  // The sums of a block row, the first of whose features is `f` of its group.  gradient: blocks as [outs][ins].
  template <class Between>
  static void sum(const float* packed, int64_t f, int64_t, const float* tile, int T, BlockRow row, BlockShape block, float* gradient, Between between) {
    const int a_block = block.ins / SIDE, total = row.count * a_block;
    for (int o = 0; o < block.outs; o += SIDE)
      for (int first = 0; first < total; first += SUM_TILES) {
        between();
        const int count = std::min(SUM_TILES, total - first);
        const float* xs[SUM_TILES];
        float* sums[SUM_TILES];
        for (int s = 0; s < count; s++) {
          const int b = (first + s) / a_block, c = (first + s) % a_block;
          xs[s] = tile + ((int64_t)row.others[b] * a_block + c) * SIDE * T;
          sums[s] = gradient + (row.slot(b) * block.outs + o) * block.ins + c * SIDE;
        }
        with_count<SUM_TILES>(count, [&](auto n) { some<decltype(n)::value>(packed + (f + o) * T, T, xs, sums, block.ins); });
      }
  }
};

// Blocks one input wide, gathered: the weights of 32 blocks of a row are a register of [outs][pair of blocks].
struct GatherPairTiles {
  static constexpr int PAIRS = SIDE, BLOCKS = 2 * PAIRS, STRIPS = SUM_TILES, TOKENS = STRIPS * SIDE;
  using Registers = TileRegisters<SIDE>;

  static int groups(int count) { return (count + BLOCKS - 1) / BLOCKS; }

  // The inputs of a row's blocks, those of two side by side: [group][strip][pair][16 tokens].
  //   in: a tile of token pairs, T / 2 words a feature.
  static void bring(const float* in, int T, BlockRow row, float* to) {
    static constexpr float NONE[STRIPS / 2 * LANES] = {};
    auto input = [&](int b) { return b < row.count ? in + (int64_t)row.others[b] * (T / 2) : NONE; };
    for (int b = 0; b < groups(row.count) * BLOCKS; b += 2) {
      const float *x0 = input(b), *x1 = input(b + 1);
      float* pair = to + ((int64_t)b / BLOCKS * STRIPS * PAIRS + b % BLOCKS / 2) * LANES;
      UNROLL for (int v = 0; v < STRIPS / 2; v++) {
        Vec two[2];
        unpack_pairs(load(x0 + v * LANES), load(x1 + v * LANES), two);
        UNROLL for (int i = 0; i < 2; i++) store(pair + (2 * v + i) * PAIRS * LANES, two[i]);
      }
    }
  }

  // The sums of TOKENS tokens of a block row: [outs][TOKENS].
  //   values: [group][outs][pair], two weights a word.  inputs: memory for groups(row.count) x PAIRS x TOKENS words.
  static void sum(const float* in, int T, BlockRow row, int outs, const float* values, float* inputs, float* out) {
    bring(in, T, row, inputs);
    for (int o = 0; o < outs; o += SIDE) {
      each<STRIPS>([](auto s) { tile_zero<s>(); });
      for (int g = 0; g < groups(row.count); g++) {
        tile_load<LEFT>(values + ((int64_t)g * outs + o) * PAIRS, PAIRS);
        each<STRIPS>([&](auto s) {
          tile_load<RIGHT>(inputs + ((int64_t)g * STRIPS + s) * PAIRS * LANES, LANES);
          tile_multiply<s, LEFT, RIGHT>();
        });
      }
      each<STRIPS>([&](auto s) { tile_store<s>(out + o * TOKENS + s * SIDE, TOKENS); });
    }
  }
};

// Blocks one output high, scattered: what 16 blocks of a row add to the outputs they name is a register of [block][token].
template <int DEPTH> struct ScatterTiles {
  using Registers = TileRegisters<DEPTH>;

  // The inputs of a block row, in words: [ins][T].  values: blocks as [ins].  out: [feature][T].
  static void add(const float* in, int T, BlockRow row, int ins, const float* values, float* out) {
    for (int b = 0; b < row.count; b += SIDE) {
      const int valid = std::min(SIDE, row.count - b);
      float* ys[SIDE];
      for (int k = 0; k < valid; k++) ys[k] = out + (int64_t)row.others[b + k] * T;
      const bool side_by_side = !row.slots && valid == SIDE;
      for (int t = 0; t < T; t += V * SIDE) {
        each<V>([](auto s) { tile_zero<s>(); });
        for (int i = 0; i < ins; i += DEPTH) {
          if (side_by_side) tile_load<LEFT>(values + row.slot(b) * ins + i, ins);
          else {
            alignas(64) float weights[SIDE * DEPTH] = {};
            for (int k = 0; k < valid; k++) memcpy(weights + k * DEPTH, values + row.slot(b + k) * ins + i, DEPTH * 4);
            tile_load<LEFT>(weights, DEPTH);
          }
          each<V>([&](auto s) {
            tile_load<RIGHT>(in + (int64_t)i * T + t + s * SIDE, T);
            tile_multiply<s, LEFT, RIGHT>();
          });
        }
        alignas(64) float sums[SIDE * V * SIDE];
        each<V>([&](auto s) { tile_store<s>(sums + s * SIDE, V * SIDE); });
        for (int k = 0; k < valid; k++)
          UNROLL for (int v = 0; v < V; v++) store(ys[k] + t + v * LANES, load(ys[k] + t + v * LANES) + load(sums + (k * V + v) * LANES));
      }
    }
  }
};

// The gradient of blocks one weight wide, packed as their columns are: 16 blocks a register of [block][outs].
struct OuterRowTiles : Columns<Dot, 1> {
  static constexpr int WEIGHTS = SUM_TILES * SIDE * SIDE;
  using Registers = TileRegisters<SIDE>;

  // COUNT times 16 blocks: sums over T words are added to where they belong, `valid` of them.
  template <int COUNT> static INLINE void some(const float* rows, int T, const float* const* xs, float* const* sums, int valid) {
    alignas(64) float inputs[COUNT][SIDE * SIDE], square[SIDE * SIDE];
    each<COUNT>([](auto s) { tile_zero<s>(); });
    for (int t = 0; t < T; t += SIDE) {
      tile_load<RIGHT>(rows + t * SIDE, SIDE);
      each<COUNT>([&](auto s) {
        UNROLL for (int k = 0; k < SIDE; k++) store(inputs[s] + k * SIDE, load(xs[s * SIDE + k] + t));
        tile_load<LEFT>(inputs[s], SIDE);
        tile_multiply<s, LEFT, RIGHT>();
      });
    }
    each<COUNT>([&](auto s) {
      tile_store<s>(square, SIDE);
      for (int k = 0; k < SIDE && s * SIDE + k < valid; k++)
        store(sums[s * SIDE + k], load(sums[s * SIDE + k]) + load(square + k * SIDE));
    });
  }

  // The sums of a block row, the first of whose features is `f` of its group.  gradient: blocks as [outs].
  template <class Between>
  static void sum(const float* packed, int64_t f, int64_t, const float* tile, int T, BlockRow row, BlockShape block, float* gradient, Between between) {
    constexpr int MOST = SUM_TILES * SIDE;
    for (int o = 0; o < block.outs; o += SIDE)
      for (int first = 0; first < row.count; first += MOST) {
        between();
        const int valid = std::min(MOST, row.count - first), count = (valid + SIDE - 1) / SIDE;
        const float* xs[MOST];
        float* sums[MOST];
        for (int k = 0; k < count * SIDE; k++) {
          const int b = first + std::min(k, valid - 1);
          xs[k] = tile + (int64_t)row.others[b] * T;
          sums[k] = gradient + row.slot(b) * block.outs + o;
        }
        with_count<SUM_TILES>(count, [&](auto n) { some<decltype(n)::value>(packed + (f + o) * T, T, xs, sums, valid); });
      }
  }
};
#endif
