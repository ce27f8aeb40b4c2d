// The blocks of a matrix and their two orders: by rows as they are stored, and by columns.
#pragma once
#include <algorithm>
#include <memory>
#include "threads.hpp"

namespace evergraft {

extern "C" {
// The active blocks of a matrix [out, in]: `BlockTopology` in Python (src/evergraft/sparse/topology.py),
// field by field.
struct Topology {
  int64_t block_rows, block_columns, height, width, active;
  const int32_t *row_offsets, *columns, *transposed_offsets, *transposed_order;
};
}

// The blocks of one block row.
struct BlockRow {
  const int32_t* others;  // [count] the place of each block on the other side: which inputs it multiplies, or adds to
  const int32_t* slots;   // [count] where the values of each block are; null if they follow one another from `first`
  int first, count;
  EG_INLINE int64_t slot(int i) const { return slots ? slots[i] : first + i; }
};

// A block as a product sees it: outs x ins weights, which lie out_step and in_step apart in memory.
struct BlockShape {
  int outs, ins, out_step, in_step;
  EG_INLINE int64_t area() const { return (int64_t)outs * ins; }
};

// One of the two orders of a topology.
struct Index {
  int64_t rows, columns;
  const int32_t *offsets, *others, *slots;
  std::unique_ptr<int32_t[]> owned = nullptr;  // holds `others` where they are made for one call
  BlockRow row(int64_t i) const {
    const int first = offsets[i];
    return {others + first, slots ? slots + first : nullptr, first, offsets[i + 1] - first};
  }
};

inline bool in_range(const int32_t* p, int64_t n, int64_t limit) {
  uint32_t worst = 0;
  for (int64_t i = 0; i < n; i++) worst = std::max(worst, (uint32_t)p[i]);
  return worst < limit;
}
inline bool offsets_fit(const int32_t* offsets, int64_t rows, int64_t active) {
  for (int64_t i = 0; i < rows; i++)
    if (offsets[i + 1] < offsets[i]) return false;
  return offsets[0] == 0 && offsets[rows] == active;
}

// The order by rows. Throws MALFORMED if the indices contradict each other.
inline Index by_rows(const Topology& t) {
  const bool fits = offsets_fit(t.row_offsets, t.block_rows, t.active);
  if (!fits || !in_range(t.columns, t.active, t.block_columns)) throw MALFORMED;
  return {t.block_rows, t.block_columns, t.row_offsets, t.columns, nullptr, nullptr};
}

inline thread_local Buffer<int32_t> cursor_buffer;

// The order by columns. The row of each block is found by counting, in the way that the order itself was made. Throws
// MALFORMED if the indices contradict each other.
inline Index by_columns(const Topology& t) {
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

}  // namespace evergraft
