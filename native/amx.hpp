// Products of blocks of 16 x 16, 16 x 1 and multiples of them on the processor's matrix unit (AMX), in bf16.
//
// AMX has eight registers of 16 rows of 64 bytes. One instruction multiplies 16 rows of up to 16 words (two bf16 each)
// by as many rows of 16 words, and adds the products to 16 x 16 sums in fp32. The instructions are written in assembly,
// because the number of a register is part of an instruction.
#pragma once
#include "lanes.hpp"
#include "outer.hpp"
#include "scatter.hpp"
#include "squares.hpp"

#if defined(__AMX_BF16__)
namespace evergraft {

constexpr int SIDE = 16;  // rows and columns of sums in a register
static_assert(SIDE == LANES && STEP == V * SIDE);

template <int R> EG_INLINE void tile_zero() { asm volatile("tilezero %%tmm%c0" ::"i"(R)); }
template <int R> EG_INLINE void tile_load(const float* from, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride * 4), "i"(R) : "memory");
}
template <int R> EG_INLINE void tile_store(float* to, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride * 4), "i"(R) : "memory");
}
template <int SUM, int A, int B> EG_INLINE void tile_multiply() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(SUM), "i"(A), "i"(B));
}

constexpr int SUM_TILES = 6, LEFT = 6, RIGHT = 7;  // the registers: six hold sums, one each operand

// Configures the registers of a thread for as long as this object lives: SUM_TILES registers of sums, LEFT with 16 x
// DEPTH words and RIGHT with DEPTH x 16.
template <int DEPTH> struct TileRegisters {
  TileRegisters() {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } config;
    for (int r = 0; r < 8; r++)
      config.row_bytes[r] = r == LEFT ? 4 * DEPTH : 64, config.rows[r] = r == RIGHT ? DEPTH : SIDE;
    asm volatile("ldtilecfg %0" ::"m"(config));
  }
  ~TileRegisters() { asm volatile("tilerelease"); }
};

template <int... I, class F> EG_INLINE void each_of(std::integer_sequence<int, I...>, F f) {
  (f(std::integral_constant<int, I>{}), ...);
}
// Calls f with 0 ... N - 1, each as a constant.
template <int N, class F> EG_INLINE void each(F f) { each_of(std::make_integer_sequence<int, N>{}, f); }

// Calls f with the number of words of inputs that a register takes at a time, as a constant. `ins`, in words, is a
// multiple of 8.
template <class F> void with_depth(int ins, F f) {
  if (ins % SIDE == 0) f(std::integral_constant<int, SIDE>{});
  else f(std::integral_constant<int, SIDE / 2>{});
}

// GatherLanes on AMX, with DEPTH words of inputs at a time.
template <int DEPTH> struct GatherTiles {
  static constexpr int TOKENS = V * SIDE;
  using Registers = TileRegisters<DEPTH>;

  // Packs the inputs as words [feature / DEPTH][T][DEPTH].
  template <class Source>
  static void pack_tile(Source x, int64_t t0, int64_t tokens, int64_t features, int T, float* to) {
    Squares<Dot, LANES / DEPTH>::pack_tile(x, t0, tokens, features, T, to);
  }

  // Sums TOKENS tokens, from t on, of a block row.
  //   values: blocks as [ins][outs].  out: [TOKENS][..], `stride` apart.
  static void sum(const float* tile, int64_t t, int T, BlockRow row, BlockShape block, const float* values, float* out,
                  int stride) {
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

// The gradient of blocks of 16 x 16 weights and multiples of them, summed over tokens, of which a word holds two. A
// register holds 16 x 16 sums. Inputs are packed as Squares packs them, [feature / 16][T][16].
struct OuterTiles : Squares<Dot, 1> {
  static constexpr int WEIGHTS = SUM_TILES * SIDE * SIDE;
  using Registers = TileRegisters<SIDE>;

  static int64_t group_words(int64_t features, int T) { return features * T; }

  // Packs the features f0 ... f1, feature by feature.
  template <class Source>
  static void pack_group(Source x, int64_t t0, int64_t tokens, int64_t f0, int64_t f1, int64_t features, int T, int64_t,
                         float* to) {
    pack(x, t0, tokens, f0, f1, features, T, to);
  }

  // Sums COUNT squares over T words, and adds them to the gradient, whose rows are `width` apart.
  template <int COUNT>
  static EG_INLINE void some(const float* rows, int T, const float* const* xs, float* const* sums, int width) {
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

  // Adds the sums of a block row, whose first feature is number `f` of its group.
  //   gradient: blocks as [outs][ins].
  template <class Between>
  static void sum(const float* packed, int64_t f, int64_t, const float* tile, int T, BlockRow row, BlockShape block,
                  float* gradient, Between between) {
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
        with_count<SUM_TILES>(count,
                              [&](auto n) { some<decltype(n)::value>(packed + (f + o) * T, T, xs, sums, block.ins); });
      }
  }
};

// Gathers blocks that are one input wide: a register holds the weights of 32 blocks of a row, as [outs][pair of
// blocks].
struct GatherPairTiles {
  static constexpr int PAIRS = SIDE, BLOCKS = 2 * PAIRS, STRIPS = SUM_TILES, TOKENS = STRIPS * SIDE;
  using Registers = TileRegisters<SIDE>;

  static int groups(int count) { return (count + BLOCKS - 1) / BLOCKS; }

  // Copies the inputs of a row's blocks, those of two blocks side by side, to [group][strip][pair][16 tokens].
  //   in: a tile of token pairs, T / 2 words a feature.
  static void bring(const float* in, int T, BlockRow row, float* to) {
    static constexpr float NONE[STRIPS / 2 * LANES] = {};
    auto input = [&](int b) { return b < row.count ? in + (int64_t)row.others[b] * (T / 2) : NONE; };
    for (int b = 0; b < groups(row.count) * BLOCKS; b += 2) {
      const float *x0 = input(b), *x1 = input(b + 1);
      float* pair = to + ((int64_t)b / BLOCKS * STRIPS * PAIRS + b % BLOCKS / 2) * LANES;
      EG_UNROLL_FOR (int v = 0; v < STRIPS / 2; v++) {
        Vec two[2];
        unpack_pairs(load(x0 + v * LANES), load(x1 + v * LANES), two);
        EG_UNROLL_FOR (int i = 0; i < 2; i++) store(pair + (2 * v + i) * PAIRS * LANES, two[i]);
      }
    }
  }

  // Sums TOKENS tokens of a block row, as [outs][TOKENS].
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

// Scatters blocks that are one output high: a register holds what 16 blocks of a row add to their outputs, as
// [block][token].
template <int DEPTH> struct ScatterTiles {
  using Registers = TileRegisters<DEPTH>;

  // Adds a block row to `out`.
  //   in: its inputs, words [ins][T].  values: blocks as [ins].  out: [feature][T].
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
          EG_UNROLL_FOR (int v = 0; v < V; v++)
            store(ys[k] + t + v * LANES, load(ys[k] + t + v * LANES) + load(sums + (k * V + v) * LANES));
      }
    }
  }
};

// The gradient of blocks that are one weight wide, packed as Columns packs them. A register holds the sums of 16
// blocks, as [block][outs].
struct OuterRowTiles : Columns<Dot, 1> {
  static constexpr int WEIGHTS = SUM_TILES * SIDE * SIDE;
  using Registers = TileRegisters<SIDE>;

  // Sums COUNT x 16 blocks over T words, and adds the first `valid` of them to the gradient.
  template <int COUNT>
  static EG_INLINE void some(const float* rows, int T, const float* const* xs, float* const* sums, int valid) {
    alignas(64) float inputs[COUNT][SIDE * SIDE], square[SIDE * SIDE];
    each<COUNT>([](auto s) { tile_zero<s>(); });
    for (int t = 0; t < T; t += SIDE) {
      tile_load<RIGHT>(rows + t * SIDE, SIDE);
      each<COUNT>([&](auto s) {
        EG_UNROLL_FOR (int k = 0; k < SIDE; k++) store(inputs[s] + k * SIDE, load(xs[s * SIDE + k] + t));
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

  // Adds the sums of a block row, whose first feature is number `f` of its group.
  //   gradient: blocks as [outs].
  template <class Between>
  static void sum(const float* packed, int64_t f, int64_t, const float* tile, int T, BlockRow row, BlockShape block,
                  float* gradient, Between between) {
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
        with_count<SUM_TILES>(count,
                              [&](auto n) { some<decltype(n)::value>(packed + (f + o) * T, T, xs, sums, valid); });
      }
  }
};

}  // namespace evergraft
#endif
