// Outer for single weights (LISTS): the inputs are taken in chunks that fit into the level-1 cache (L1).
//
// The weights of one row in one chunk are a list. Each vector of the row is loaded once for up to LIST of them, and
// multiplies vectors of their inputs, which come from L1. Lists are taken in the order of their lengths, chunk after
// chunk, so that the processor seldom guesses wrong where one ends. The places of the inputs and the sums of the
// weights are kept in the order of their use; the sums are copied to the gradient at the end.
#pragma once
#include <optional>
#include <vector>
#include "task.hpp"

namespace evergraft {

constexpr int LIST = 8;               // weights that share a vector of their row
constexpr int LIST_INPUTS = 64;       // in a chunk
constexpr int LIST_WORDS = 64;        // of tokens in a chunk, which takes 16 KB with them
constexpr int LIST_WEIGHTS = 180000;  // of a share, whose lists take 6 bytes a weight: about 1 MB
constexpr int ROWS_AHEAD = 2;         // a row is prefetched so many lists before it is used

// The weights of `rows` rows from `first` on, and a sum for each.
class WeightLists {
 public:
  const Index& index;
  const int64_t first, rows;
  std::unique_ptr<uint16_t[]> order;   // [chunk][rows] the rows of a chunk, by the lengths of their lists
  std::unique_ptr<uint8_t[]> lengths;  // [chunk][rows] these lengths
  std::unique_ptr<uint16_t[]> at;      // [weights] where in the chunk's tile the input of a weight begins
  std::unique_ptr<float[]> sums;       // [weights]

  WeightLists(const Index& index, int64_t first, int64_t rows) : index(index), first(first), rows(rows) {
    const int64_t chunks = (index.columns + LIST_INPUTS - 1) / LIST_INPUTS, lists = chunks * rows;
    const int64_t weights = index.offsets[first + rows] - index.offsets[first];
    order.reset(new (std::nothrow) uint16_t[lists + ROWS_AHEAD]());
    lengths.reset(new (std::nothrow) uint8_t[lists]);
    at.reset(new (std::nothrow) uint16_t[weights]);
    sums.reset(new (std::nothrow) float[weights]());
    next.reset(new (std::nothrow) int32_t[lists]());
    if (!order || !lengths || !at || !sums || !next) throw OUT_OF_MEMORY;
    for (int64_t r = 0; r < rows; r++)
      for (int32_t slot = index.offsets[first + r]; slot < index.offsets[first + r + 1]; slot++) next_of(r, slot)++;
    int32_t place = 0;
    for (int64_t c = 0; c < chunks; c++) place = sort(c * rows, place);
    for (int64_t r = 0; r < rows; r++)
      for (int32_t slot = index.offsets[first + r]; slot < index.offsets[first + r + 1]; slot++)
        at[next_of(r, slot)++] = (uint16_t)(index.others[slot] % LIST_INPUTS * LIST_WORDS);
  }

  // Copies the sums to their slots of the gradient. The place after each list is known: hence backwards.
  void write(float* gradient) {
    for (int64_t r = rows - 1; r >= 0; r--)
      for (int32_t slot = index.offsets[first + r + 1] - 1; slot >= index.offsets[first + r]; slot--)
        gradient[slot] = sums[--next_of(r, slot)];
  }

 private:
  int32_t& next_of(int64_t r, int32_t slot) { return next[index.others[slot] / LIST_INPUTS * rows + r]; }

  // Sorts the lists of a chunk, whose lengths are in `next`, by counting. Gives each list its first place, from `place`
  // on, and returns the place after the last.
  int32_t sort(int64_t list, int32_t place) {
    int32_t* of_row = next.get() + list;
    int32_t before[LIST_INPUTS + 2] = {};
    for (int64_t r = 0; r < rows; r++) {
      if (of_row[r] > LIST_INPUTS) throw MALFORMED;
      before[of_row[r] + 1]++;
    }
    for (int length = 1; length <= LIST_INPUTS; length++) before[length] += before[length - 1];
    for (int64_t r = 0; r < rows; r++) order[list + before[of_row[r]]++] = (uint16_t)r;
    for (int64_t i = list; i < list + rows; i++) {
      int32_t& start = of_row[order[i]];
      lengths[i] = (uint8_t)start;
      start = place;
      place += lengths[i];
    }
    return place;
  }

  std::unique_ptr<int32_t[]> next;  // [chunk][rows] the place of the next weight of each list
};

// Adds the sums over a chunk's tokens of COUNT weights of a row.
template <class Mac, int COUNT>
EG_INLINE void add_list(const float* row, const float* tile, const uint16_t* at, float* sums) {
  Vec sum[(COUNT + 3) / 4 * 4] = {};
  for (int t = 0; t < LIST_WORDS; t += 2 * LANES)
    EG_UNROLL_FOR (int u = 0; u < 2; u++) {
      const Vec r = load(row + t + u * LANES);
      EG_UNROLL_FOR (int k = 0; k < COUNT; k++) sum[k] = Mac::add(sum[k], r, load(tile + at[k] + t + u * LANES));
    }
  add_totals<COUNT>(sum, sums);
}

// Adds the sums over a run of tokens of the rows and inputs that `lists` names.
//   words: of the tokens of a feature.
template <class Mac, class Source>
void add_lists(WeightLists& lists, Source rows, Source x, int64_t tokens, int64_t words) {
  constexpr int T = LIST_WORDS;
  const Index& index = lists.index;
  const int64_t first = lists.first, count = lists.rows;
  float* tile = tile_buffer.at_least(round_up(count, LANES) * T);
  float* chunk = group_buffer.at_least(LIST_INPUTS * T);
  for (int64_t t0 = 0; t0 < words; t0 += T) {
    pack(rows, t0, tokens, first, first + count, index.rows, T, tile);
    const uint16_t *row = lists.order.get(), *at = lists.at.get();
    const uint8_t* length = lists.lengths.get();
    float* sums = lists.sums.get();
    for (int64_t f0 = 0; f0 < index.columns; f0 += LIST_INPUTS) {
      const int64_t next = f0 + LIST_INPUTS < index.columns ? f0 + LIST_INPUTS : 0;
      pack(x, t0, tokens, f0, std::min(index.columns, f0 + LIST_INPUTS), index.columns, T, chunk);
      Ahead ahead(x, next ? t0 : t0 + T, T, tokens, next, std::min(index.columns, next + LIST_INPUTS));
      const int64_t lines = ahead.share(count);
      for (int64_t r = 0; r < count; r++, row++, length++) {
        ahead.fetch(lines);
        for (int t = 0; t < T; t += 16) __builtin_prefetch(tile + (int64_t)row[ROWS_AHEAD] * T + t);
        const float* from = tile + (int64_t)*row * T;
        for (int left = *length; left > 0; left -= LIST) {
          const int n = std::min(left, LIST);
          with_count<LIST>(n, [&](auto count) { add_list<Mac, decltype(count)::value>(from, chunk, at, sums); });
          at += n, sums += n;
        }
      }
    }
  }
}

// Rows are dealt out in shares whose tile fits the level-2 cache (L2), whose lists take little memory, and of which
// each thread has one.
inline int64_t share_rows(const Index& index, const Threads& threads) {
  const int64_t weights_a_row = index.offsets[index.rows] / std::max<int64_t>(index.rows, 1) + 1;
  const int64_t fit = std::min(TILE_BYTES / (4 * LIST_WORDS), std::max<int64_t>(LIST_WEIGHTS / weights_a_row, LANES));
  const int64_t shares = std::max<int64_t>((index.rows + fit - 1) / fit, threads.count);
  return round_up((index.rows + shares - 1) / shares, LANES);
}

// gradient = rows^T x at the single weights of the index. The lists of a share exist only while it is summed.
template <class Mac, class Source>
void sum_lists(const Index& index, Source rows, Source x, int64_t tokens, int64_t words, float* gradient,
               const Threads& threads) {
  const int64_t share = share_rows(index, threads);
  parallel(threads, (index.rows + share - 1) / share, [&](int64_t i) {
    WeightLists lists(index, i * share, std::min(share, index.rows - i * share));
    add_lists<Mac>(lists, rows, x, tokens, words);
    lists.write(gradient);
  });
}

// The same over several runs of tokens, between which all lists are kept.
template <class Mac> class ListedGradient {
 public:
  ListedGradient(const Index& index, const Threads& threads) {
    const int64_t share = share_rows(index, threads);
    shares.resize((index.rows + share - 1) / share);
    parallel(threads, (int64_t)shares.size(),
             [&](int64_t i) { shares[i].emplace(index, i * share, std::min(share, index.rows - i * share)); });
  }

  // Adds a run of tokens.
  template <class Source> void add(Source rows, Source x, int64_t tokens, int64_t words, const Threads& threads) {
    parallel(threads, (int64_t)shares.size(), [&](int64_t i) { add_lists<Mac>(*shares[i], rows, x, tokens, words); });
  }

  // Copies the sums to the gradient, once and at last.
  void write(float* gradient) {
    for (auto& lists : shares) lists->write(gradient);
  }

 private:
  std::vector<std::optional<WeightLists>> shares;
};

}  // namespace evergraft
