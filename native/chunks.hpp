// Products with single weights. The inputs are taken in chunks that fit into the level-1 cache (L1), and the weights
// are copied in the order of their use, chunk after chunk.
#pragma once
#include "gather.hpp"
#include "threads.hpp"

namespace evergraft {

constexpr int CHUNK = (36 << 10) / (4 * STEP) / LANES * LANES;  // inputs in a chunk, of STEP words each
constexpr int NOTHING = CHUNK * STEP;  // where a tile holds zeros, for weights that fill up a pair

// Two weights of one output, in fp32 or bf16, and where in the chunk's tile their inputs begin.
template <class W> struct WeightPair {
  uint16_t at[2];
  W values[2];
};
static_assert(NOTHING + STEP <= 1 << 16, "places are 16 bits");

// The weights of outputs first ... first + outs in lists: one list for each chunk of inputs and each output.
template <class W> class ChunkedWeights {
 public:
  // `rows` is an index in row-major order. Outputs are its rows or, if `transposed`, its columns.
  template <class S>
  ChunkedWeights(const Index& rows, bool transposed, const S* values, int64_t first, int64_t outs)
      : outs(outs), lists(((transposed ? rows.rows : rows.columns) + CHUNK - 1) / CHUNK * outs),
        ends(new (std::nothrow) int32_t[lists + 1]()) {
    if (!ends) throw OUT_OF_MEMORY;
    auto each_weight = [&](auto f) {
      for (int64_t i = transposed ? 0 : first; i < (transposed ? rows.rows : first + outs); i++)
        for (int32_t slot = rows.offsets[i]; slot < rows.offsets[i + 1]; slot++) {
          const uint32_t other = rows.others[slot], input = transposed ? i : other,
                         output = (transposed ? other : i) - first;
          if (output < outs) f(ends[(int64_t)(input / CHUNK) * outs + output + 1], input % CHUNK, slot);
        }
    };
    each_weight([](int32_t& count, uint32_t, int32_t) { count++; });
    int32_t total = 0;
    for (int64_t l = 1; l <= lists; l++) total += (ends[l] + 1) / 2;
    pairs.reset(new (std::nothrow) WeightPair<W>[total]);
    if (!pairs) throw OUT_OF_MEMORY;
    int32_t next = 0;
    for (int64_t l = 1; l <= lists; l++) {
      const int32_t count = ends[l];
      ends[l] = 2 * next;
      next += (count + 1) / 2;
      if (count % 2) pairs[next - 1] = {{0, NOTHING}, {}};
    }
    each_weight([&](int32_t& end, uint32_t input, int32_t slot) {
      WeightPair<W>& pair = pairs[end / 2];
      pair.at[end % 2] = (uint16_t)(input * STEP);
      assign(pair.values[end % 2], values[slot]);
      end++;
    });
    for (int64_t l = 1; l <= lists; l++) ends[l] = (ends[l] + 1) / 2;
  }
  // Where the pairs of a chunk begin for each output: those of output o are all()[starts[o]] ... all()[starts[o + 1]].
  const int32_t* starts(int64_t chunk) const { return ends.get() + chunk * outs; }
  const WeightPair<W>* all() const { return pairs.get(); }

 private:
  static void assign(float& to, float from) { to = from; }
  static void assign(float& to, Bf16 from) { to = widen(from); }
  static void assign(Bf16& to, Bf16 from) { to = from; }

  int64_t outs, lists;
  std::unique_ptr<int32_t[]> ends;  // the end of each list, in weights while lists are filled, in pairs afterwards
  std::unique_ptr<WeightPair<W>[]> pairs;
};

// Adds the products of the weights of one output and one chunk to the sums of STEP tokens, or begins these sums.
EG_INLINE void add_weights(const float* tile, const WeightPair<float>* w, const WeightPair<float>* end, float* sums,
                           bool begin) {
  Vec sum[2][V] = {};
  if (!begin)
    EG_UNROLL_FOR (int v = 0; v < V; v++) sum[0][v] = load(sums + v * LANES);
  for (; w != end; w++)
    EG_UNROLL_FOR (int i = 0; i < 2; i++)
      EG_UNROLL_FOR (int v = 0; v < V; v++)
        sum[i][v] = Plain::add(sum[i][v], w->values + i, load(tile + w->at[i] + v * LANES));
  EG_UNROLL_FOR (int v = 0; v < V; v++) store(sums + v * LANES, sum[0][v] + sum[1][v]);
}

#if defined(__AVX512BF16__)
// Adds the products of the weights of one output and one chunk to the sums of twice as many tokens, of which a word
// holds two, or begins these sums.
EG_INLINE void add_weights(const float* tile, const WeightPair<Bf16>* w, const WeightPair<Bf16>* end, float* sums,
                           bool begin) {
  Vec sum[V][2] = {};
  if (!begin)
    EG_UNROLL_FOR (int v = 0; v < V; v++)
      EG_UNROLL_FOR (int h = 0; h < 2; h++) sum[v][h] = load(sums + (2 * v + h) * LANES);
  for (; w != end; w++) {
    const Vec both = repeat<1>((const float*)w->values);
    EG_UNROLL_FOR (int v = 0; v < V; v++) {
      Vec xs[2];
      unpack_pairs(load(tile + w->at[0] + v * LANES), load(tile + w->at[1] + v * LANES), xs);
      EG_UNROLL_FOR (int h = 0; h < 2; h++) sum[v][h] = Dot::add(sum[v][h], both, xs[h]);
    }
  }
  EG_UNROLL_FOR (int v = 0; v < V; v++)
    EG_UNROLL_FOR (int h = 0; h < 2; h++) store(sums + (2 * v + h) * LANES, sum[v][h]);
}
#endif

}  // namespace evergraft
