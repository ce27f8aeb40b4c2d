// The three products of a block-sparse linear layer, for one instruction set; a plain C interface.
#include <atomic>
#include <cstdlib>
#include <limits>
#include "outer.hpp"
#include "scatter.hpp"

#define EXPORT __attribute__((visibility("default")))

extern "C" {
// The blocks of a matrix [out, in]: `BlockTopology` of topology.py, field by field.
struct Topology {
  int64_t block_rows, block_columns, height, width, active;
  const int32_t *row_offsets, *columns, *transposed_offsets, *transposed_order;
};
// Torch's own OpenMP, so that its threads and ours are the same; null runs everything on the calling thread.
struct Threads {
  void (*parallel)(void (*)(void*), void*, unsigned count, unsigned flags);  // GOMP_parallel
  int count;
};
}

namespace {

enum Status { OK, OUT_OF_MEMORY, MALFORMED };
enum Dtype { FLOAT32, BFLOAT16 };

constexpr int64_t TILE_BYTES = 600 << 10;     // of a second-level cache, for the tile that is read at random
constexpr int64_t STREAM_BYTES = 8 << 20;     // outputs above this are written past the caches
constexpr int GROUP = 64;                     // features packed or unpacked at a time, at least: whole cache lines

// Memory of a thread that is kept from call to call, so that no page is touched for the first time twice.
template <class T> struct Buffer {
  T* data = nullptr;
  size_t size = 0;
  ~Buffer() { free(data); }
  T* at_least(size_t n) {
    if (n > size) {
      free(data);
      data = (T*)aligned_alloc(64, (n * sizeof(T) + 63) / 64 * 64);
      size = data ? n : 0;
      if (!data) throw OUT_OF_MEMORY;
    }
    return data;
  }
};
thread_local Buffer<float> tile_buffer, group_buffer, values_buffer, gradient_buffer;
thread_local Buffer<int32_t> rows_buffer, cursor_buffer;

// Run work(i) for i = 0 ... n - 1, each once, on as many threads as there are.
template <class F> void parallel(const Threads& threads, int64_t n, F work) {
  struct Shared {
    F& work;
    int64_t n;
    std::atomic<int64_t> next{0};
    std::atomic<int> failed{0};
  } shared{work, n};
  auto run = [](void* data) {
    auto& s = *(Shared*)data;
    try {
      for (int64_t i; (i = s.next++) < s.n;) s.work(i);
    } catch (Status) { s.failed = 1; }
  };
  int count = (int)std::min<int64_t>(threads.count, n);
  if (threads.parallel && count > 1) threads.parallel(run, &shared, count, 0);
  else run(&shared);
  if (shared.failed) throw OUT_OF_MEMORY;
}

// One of the two orders of a topology.
struct Index {
  int64_t rows, columns;
  const int32_t *offsets, *others, *slots;
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
  return {t.block_rows, t.block_columns, t.row_offsets, t.columns, nullptr};
}

// The transposed order; the row of each block is found by counting, as the order itself was made.
Index by_columns(const Topology& t) {
  by_rows(t);
  if (!offsets_fit(t.transposed_offsets, t.block_columns, t.active)) throw MALFORMED;
  int32_t* rows = rows_buffer.at_least(t.active);
  int32_t* next = cursor_buffer.at_least(t.block_columns);
  std::copy_n(t.transposed_offsets, t.block_columns, next);
  for (int64_t i = 0; i < t.block_rows; i++)
    for (int32_t slot = t.row_offsets[i]; slot < t.row_offsets[i + 1]; slot++) {
      const int32_t column = t.columns[slot], place = next[column]++;
      if (place >= t.transposed_offsets[column + 1] || t.transposed_order[place] != slot) throw MALFORMED;
      rows[place] = (int32_t)i;
    }
  return {t.block_columns, t.block_rows, t.transposed_offsets, rows, t.transposed_order};
}

const float* in_fp32(const float* values, int64_t, Buffer<float>&) { return values; }
const float* in_fp32(const Bf16* values, int64_t n, Buffer<float>& buffer) {
  float* to = buffer.at_least(n);
  for (int64_t i = 0; i < n; i++) to[i] = widen(values[i]);
  return to;
}

// Tokens of a tile of so many features: as many as the cache holds, no more than each thread has.
int tile_tokens(int64_t features, int64_t tokens, const Threads& threads, int most) {
  const int64_t fit = TILE_BYTES / (4 * std::max<int64_t>(features, 1)), share = (tokens + threads.count - 1) / std::max(threads.count, 1);
  const int64_t T = std::min({fit, share + STEP - 1, (int64_t)most}) / STEP * STEP;
  return (int)std::max<int64_t>(T >= 2 * STEP ? T / (2 * STEP) * (2 * STEP) : T, STEP);
}

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Call f with N as a compile-time constant: one of the block sides that have kernels of their own, else 0.
template <class F> void with_side(int n, F f) {
  switch (n) {
    case 1: return f(std::integral_constant<int, 1>{});
    case 4: return f(std::integral_constant<int, 4>{});
    case 8: return f(std::integral_constant<int, 8>{});
    case 16: return f(std::integral_constant<int, 16>{});
    case 32: return f(std::integral_constant<int, 32>{});
    case 64: return f(std::integral_constant<int, 64>{});
    default: return f(std::integral_constant<int, 0>{});
  }
}

// y = x M, M the matrix of `index` seen from its output side: rows are outputs.
template <class S, int INS, int OUT_STEP>
void gather_product(const Index& index, BlockShape block, Matrix<const S> x, const float* values, const float* bias, Matrix<S> y, int64_t tokens, const Threads& threads) {
  const int64_t ins = index.columns * block.ins, outs = index.rows * block.outs, per_group = (GROUP + block.outs - 1) / block.outs;
  const int T = tile_tokens(ins, tokens, threads, 4 * STEP);
  const bool past_caches = tokens * outs * (int64_t)sizeof(S) > STREAM_BYTES;
  parallel(threads, (tokens + T - 1) / T, [&](int64_t i) {
    const int64_t t0 = i * T;
    float* tile = tile_buffer.at_least(round_up(ins, LANES) * T);
    float* group = group_buffer.at_least(per_group * block.outs * T);
    pack(x, t0, tokens, 0, ins, ins, T, tile);
    for (int64_t r = 0; r < index.rows; r += per_group) {
      const int count = (int)std::min(per_group, index.rows - r);
      for (int k = 0; k < count; k++)
        gather<INS, OUT_STEP>(tile, T, index.row(r + k), block, values, group + (int64_t)k * block.outs * T);
      unpack(group, T, count * block.outs, bias, y, t0, tokens, r * block.outs, past_caches);
    }
  });
}

// y = x M, M the matrix of `index` seen from its input side: rows are inputs.
template <class S, int IN_STEP>
void scatter_product(const Index& index, BlockShape block, Matrix<const S> x, const float* values, const float* bias, Matrix<S> y, int64_t tokens, const Threads& threads) {
  const int64_t ins = index.rows * block.ins, outs = index.columns * block.outs, per_group = (GROUP + block.ins - 1) / block.ins;
  const int T = tile_tokens(outs, tokens, threads, 4 * STEP);
  const bool past_caches = tokens * outs * (int64_t)sizeof(S) > STREAM_BYTES;
  parallel(threads, (tokens + T - 1) / T, [&](int64_t i) {
    const int64_t t0 = i * T;
    float* tile = tile_buffer.at_least(outs * T);
    float* group = group_buffer.at_least(round_up(per_group * block.ins, LANES) * T);
    std::fill_n(tile, outs * T, 0.0f);
    for (int64_t r = 0; r < index.rows; r += per_group) {
      const int count = (int)std::min(per_group, index.rows - r);
      pack(x, t0, tokens, r * block.ins, (r + count) * block.ins, ins, T, group);
      for (int k = 0; k < count; k++)
        scatter<IN_STEP>(group + (int64_t)k * block.ins * T, T, index.row(r + k), block, values, tile);
    }
    unpack(tile, T, (int)outs, bias, y, t0, tokens, 0, past_caches);
  });
}

// A product seen from its outputs if blocks are wide enough on that side to fill registers, else from its inputs.
template <class S>
void multiply(const Topology& t, bool transposed, Matrix<const S> x, const S* stored, const float* bias, Matrix<S> y, int64_t tokens, const Threads& threads) {
  const int height = (int)t.height, width = (int)t.width;
  const float* values = in_fp32(stored, t.active * height * width, values_buffer);
  const BlockShape block = transposed ? BlockShape{width, height, 1, width} : BlockShape{height, width, width, 1};
  if (block.outs >= 4 || block.outs >= block.ins) {
    const Index index = transposed ? by_columns(t) : by_rows(t);
    with_side(block.ins, [&](auto side) {
      constexpr int INS = decltype(side)::value;
      if (block.out_step == 1) gather_product<S, INS, 1>(index, block, x, values, bias, y, tokens, threads);
      else gather_product<S, INS, INS>(index, block, x, values, bias, y, tokens, threads);
    });
  } else {
    const Index index = transposed ? by_rows(t) : by_columns(t);
    if (block.in_step == 1) scatter_product<S, 1>(index, block, x, values, bias, y, tokens, threads);
    else scatter_product<S, 0>(index, block, x, values, bias, y, tokens, threads);
  }
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

// gradient += rows^T x at the blocks of `index`, whose rows are those of `rows`; blocks come out as [wide][tall].
template <class S, int P>
void outer_product(const Index& index, BlockShape block, Matrix<const S> rows, Matrix<const S> x, int64_t tokens, float* gradient, const Threads& threads) {
  constexpr int ROWS = LANES / P;
  const int64_t tall = index.rows * block.outs, wide = index.columns * block.ins;
  const int T = tile_tokens(wide, tokens, Threads{nullptr, 1}, 8 * STEP);
  // A share is a run of block rows with about as many blocks as any other; it starts where a group of features does.
  const int64_t per_group = round_up(GROUP, block.outs) % LANES ? LANES * block.outs : round_up(GROUP, block.outs);
  const int64_t rows_per_group = per_group / block.outs, groups = (index.rows + rows_per_group - 1) / rows_per_group;
  const int64_t blocks = index.offsets[index.rows];
  const int shares = (int)std::max<int64_t>(1, std::min<int64_t>(threads.count, groups));
  auto share_start = [&](int s) {
    if (s == shares) return groups;
    int64_t g = 0;
    while (g < groups && index.offsets[std::min(g * rows_per_group, index.rows)] < blocks * s / shares) g++;
    return g;
  };
  parallel(threads, shares, [&](int64_t s) {
    const int64_t g0 = share_start((int)s), g1 = share_start((int)s + 1);
    float* tile = tile_buffer.at_least(round_up(wide, LANES) * T);
    float* packed = group_buffer.at_least(round_up(per_group, LANES) * T);
    for (int64_t t0 = 0; t0 < tokens; t0 += T) {
      pack(x, t0, tokens, 0, wide, wide, T, tile);
      for (int64_t g = g0; g < g1; g++) {
        const int64_t f0 = g * per_group, f1 = std::min(tall, f0 + per_group);
        for (int64_t f = f0; f < f1; f += LANES) pack_rows<S, P>(rows, t0, tokens, f, tall, T, packed + (f - f0) * T);
        for (int64_t f = f0; f < f1; f += ROWS)
          outer<P>(packed + (f - f0) * T, tile, T, index.row(f / block.outs), block, (int)(f % block.outs), gradient);
      }
    }
  });
}

int common_divisor(int a, int b) { return b ? common_divisor(b, a % b) : a; }

// The gradient in fp32, whichever side of the blocks fills vectors better.
template <class S>
void weight_gradient(const Topology& t, Matrix<const S> grad, Matrix<const S> x, int64_t tokens, float* gradient, const Threads& threads) {
  const int height = (int)t.height, width = (int)t.width;
  const bool mirrored = common_divisor(width, LANES) > common_divisor(height, LANES);
  const Index index = mirrored ? by_columns(t) : by_rows(t);
  const BlockShape block = mirrored ? BlockShape{width, height, 1, 1} : BlockShape{height, width, 1, 1};
  std::fill_n(gradient, t.active * block.area(), 0.0f);
  auto run = [&](auto p) {
    if (mirrored) outer_product<S, decltype(p)::value>(index, block, x, grad, tokens, gradient, threads);
    else outer_product<S, decltype(p)::value>(index, block, grad, x, tokens, gradient, threads);
  };
  switch (LANES / common_divisor(block.outs, LANES)) {
    case 1: run(std::integral_constant<int, 1>{}); break;
    case 2: run(std::integral_constant<int, 2>{}); break;
    case 4: run(std::integral_constant<int, 4>{}); break;
    case 8: if constexpr (LANES >= 8) run(std::integral_constant<int, 8>{}); break;
    case 16: if constexpr (LANES >= 16) run(std::integral_constant<int, 16>{}); break;
  }
  if (!mirrored && height > 1 && width > 1) transpose_blocks(gradient, t.active, height, width, threads);
}

template <class S> const float* bias_in_fp32(const S* bias, int64_t n, Buffer<float>& buffer) {
  return bias ? in_fp32(bias, n, buffer) : nullptr;
}

template <class F> int guarded(F work) {
  try { work(); } catch (Status status) { return status; }
  return OK;
}

template <class F> void with_dtype(int dtype, F work) {
  if (dtype == BFLOAT16) work(Bf16{}); else work(0.0f);
}

}  // namespace

extern "C" {

// y [tokens, out] = x W^T + bias; x_stride numbers from one token to the next. Returns a Status.
EXPORT int evergraft_forward(const Topology* t, const void* x, int64_t x_stride, const void* values, const void* bias, void* y, int64_t tokens, int dtype, const Threads* threads) {
  return guarded([&] { with_dtype(dtype, [&](auto s) {
    using S = decltype(s);
    const int64_t out = t->block_rows * t->height;
    multiply<S>(*t, false, {(const S*)x, x_stride}, (const S*)values, bias_in_fp32((const S*)bias, out, gradient_buffer), {(S*)y, out}, tokens, *threads);
  }); });
}

// dx [tokens, in] = grad W.
EXPORT int evergraft_input_gradient(const Topology* t, const void* grad, int64_t grad_stride, const void* values, void* dx, int64_t tokens, int dtype, const Threads* threads) {
  return guarded([&] { with_dtype(dtype, [&](auto s) {
    using S = decltype(s);
    multiply<S>(*t, true, {(const S*)grad, grad_stride}, (const S*)values, nullptr, {(S*)dx, t->block_columns * t->width}, tokens, *threads);
  }); });
}

// dvalues [active, R, C] = the blocks of grad^T x.
EXPORT int evergraft_weight_gradient(const Topology* t, const void* grad, int64_t grad_stride, const void* x, int64_t x_stride, void* dvalues, int64_t tokens, int dtype, const Threads* threads) {
  return guarded([&] { with_dtype(dtype, [&](auto s) {
    using S = decltype(s);
    const int64_t n = t->active * t->height * t->width;
    float* gradient = std::is_same_v<S, float> ? (float*)dvalues : gradient_buffer.at_least(n);
    weight_gradient<S>(*t, {(const S*)grad, grad_stride}, {(const S*)x, x_stride}, tokens, gradient, *threads);
    if constexpr (!std::is_same_v<S, float>) for (int64_t i = 0; i < n; i++) narrow(gradient[i], (S*)dvalues + i);
  }); });
}
}
