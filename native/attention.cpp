// Attention of whole sequences in fp32, and its gradient, one head at a time.
//
// Of the scores no more than those of some queries exist at once; the gradient computes them again from the logarithm of
// their sum. What is multiplied is first laid out for it: queries scaled, keys and values feature by feature where queries
// are multiplied with them, token by token where probabilities are.
#include "random.hpp"
#include "softmax.hpp"
#include "threads.hpp"
#include "tile.hpp"

extern "C" {
// Query, key, value, what comes out and their gradients are [batch, length, heads, size]; `size` is a multiple of LANES.
struct Heads {
  int64_t batch, length, heads, size;
};
}

namespace {

constexpr int QUERIES = 24;  // at a time, at most
constexpr int WIDEST = REGISTERS == 32 ? 4 : 2, TALLEST = 8;  // vectors of columns, and rows, that a product sums in registers

// A matrix of which element (i, j) is data[i * row + j * column].
struct Operand {
  const float* data;
  int64_t row, column;
};

// ROWS rows and W vectors of columns of a * b.
template <int ROWS, int W>
INLINE void multiply_some(Operand a, const float* b, int64_t b_row, int64_t depth, float* c, int64_t c_row, bool add) {
  Vec sum[ROWS][W] = {};
  const float* rows[ROWS];
  UNROLL for (int r = 0; r < ROWS; r++) rows[r] = a.data + r * a.row;
  for (int64_t k = 0; k < depth; k++, b += b_row) {
    Vec bs[W];
    UNROLL for (int w = 0; w < W; w++) bs[w] = load(b + w * LANES);
    UNROLL for (int r = 0; r < ROWS; r++) {
      const Vec as = repeat<1>(rows[r] + k * a.column);
      UNROLL for (int w = 0; w < W; w++) sum[r][w] += as * bs[w];
    }
  }
  UNROLL for (int r = 0; r < ROWS; r++) UNROLL for (int w = 0; w < W; w++) {
    float* to = c + r * c_row + w * LANES;
    store(to, add ? load(to) + sum[r][w] : sum[r][w]);
  }
}

// c = a b, or c += a b: [rows, depth] x [depth, columns], with columns a multiple of LANES.
void multiply(Operand a, const float* b, int64_t b_row, int64_t rows, int64_t depth, int64_t columns, float* c, int64_t c_row, bool add = false) {
  for (int64_t column = 0; column < columns;) {
    const int vectors = (int)std::min<int64_t>(WIDEST, (columns - column) / LANES);
    with_count<WIDEST>(vectors, [&](auto w) {
      constexpr int W = decltype(w)::value, MOST = std::min(TALLEST, SUMS / W);
      int64_t row = 0;
      for (int64_t runs = (rows + MOST - 1) / MOST; runs > 0; runs--) {
        const int count = (int)((rows - row + runs - 1) / runs);
        with_count<MOST>(count, [&](auto r) {
          multiply_some<decltype(r)::value, W>({a.data + row * a.row, a.row, a.column}, b + column, b_row, depth, c + row * c_row + column, c_row, add);
        });
        row += count;
      }
    });
    column += vectors * LANES;
  }
}

thread_local Buffer<float> attention_buffer;

// One head of one sequence.
struct Head {
  int64_t length, size, stride;  // `stride` from token to token
  int64_t padded;                // length in whole vectors, for rows of scores
  float scale;
  Dropout dropout;
  int64_t number;                // among all heads

  Head(const Heads& heads, float scale, Dropout dropout, int64_t number)
      : length(heads.length), size(heads.size), stride(heads.heads * heads.size), padded((heads.length + LANES - 1) / LANES * LANES),
        scale(scale), dropout(dropout), number(number) {}

  // work(first, count) for as many queries at a time as QUERIES, or as near to it as makes them equal.
  template <class F> void each_queries(F work) const {
    int64_t first = 0;
    for (int64_t runs = (length + QUERIES - 1) / QUERIES; runs > 0; runs--) {
      const int64_t count = (length - first + runs - 1) / runs;
      work(first, count);
      first += count;
    }
  }

  // [length, size] -> [size, padded], zero where there is no token.
  void transpose(const float* from, float* to) const {
    pack(Matrix<const float>{from, stride}, 0, length, 0, size, size, (int)padded, to);
  }
  void copy(const float* from, int64_t from_row, float* to, int64_t to_row, int64_t rows, float factor = 1) const {
    for (int64_t t = 0; t < rows; t++)
      for (int64_t f = 0; f < size; f += LANES) store(to + t * to_row + f, load(from + t * from_row + f) * factor);
  }

  // The bits of the scores of a query from key j, a multiple of DRAW.
  void draw(int64_t query, int64_t j, uint16_t* bits) const {
    const int64_t draws = (length + DRAW - 1) / DRAW;
    dropout.draw((number * length + query) * draws + j / DRAW, bits);
  }

  // Scores of a query -> their exponentials, dropped, of which the sum is `total`; returns the logarithm of the sum.
  float exponentials(int64_t query, float* scores, float* total) const {
    Vec highest = -INFINITY - Vec{}, sums = {};
    each(scores, length, -INFINITY, [&](int64_t, Vec v, int) { highest = v > highest ? v : highest; });
    const float most = reduce(highest, [](Vec a, Vec b) { return a > b ? a : b; });
    alignas(64) uint16_t bits[DRAW];
    each(scores, length, -INFINITY, [&](int64_t j, Vec v, int count) {
      Vec e = exponential(v - most);
      if (count < LANES) for (int lane = count; lane < LANES; lane++) e[lane] = 0;
      sums += e;
      if (dropout.dropped && j % DRAW == 0) draw(query, j, bits);
      store(scores + j, dropout.dropped ? dropout.apply(e, bits + j % DRAW) : e);
    });
    *total = sum(sums);
    return most + logf(*total);
  }

  void forward(const float* query, const float* key, const float* value, float* out, float* logarithms) const {
    float* keys = attention_buffer.at_least(size * padded + length * size + QUERIES * (size + padded));
    float *values = keys + size * padded, *queries = values + length * size, *scores = queries + QUERIES * size;
    transpose(key, keys);
    copy(value, stride, values, size, length);
    each_queries([&](int64_t first, int64_t count) {
      copy(query + first * stride, stride, queries, size, count, scale);
      multiply({queries, size, 1}, keys, padded, count, size, padded, scores, padded);
      float total[QUERIES];
      for (int64_t i = 0; i < count; i++) logarithms[first + i] = exponentials(first + i, scores + i * padded, total + i);
      float* to = out + first * stride;
      multiply({scores, padded, 1}, values, size, count, length, size, to, stride);
      for (int64_t i = 0; i < count; i++) copy(to + i * stride, stride, to + i * stride, stride, 1, 1 / total[i]);
    });
  }

  // Scores of a query and the gradient of what is kept of its probabilities -> what is kept of them, and the gradient of
  // the scores. `mean` is the sum of each probability times its gradient.
  void score_gradient(int64_t query, float* scores, float* gradient, float logarithm, float mean) const {
    alignas(64) uint16_t bits[DRAW];
    for (int64_t j = 0; j < padded; j += LANES) {
      Vec p = exponential(load(scores + j) - logarithm), g = load(gradient + j), kept = p;
      if (dropout.dropped) {
        if (j % DRAW == 0) draw(query, j, bits);
        kept = dropout.apply(p, bits + j % DRAW);
        g = dropout.apply(g, bits + j % DRAW);
      }
      store(scores + j, kept);
      store(gradient + j, p * (g - mean));
    }
  }

  void backward(const float* query, const float* key, const float* value, const float* out, const float* logarithms, const float* grad,
                float* dquery, float* dkey, float* dvalue) const {
    const int64_t all = length * size, some = QUERIES * size, row = QUERIES * padded;
    float* keys = attention_buffer.at_least(2 * size * padded + 3 * all + 2 * some + 2 * row);
    float *values = keys + size * padded, *key_rows = values + size * padded, *key_sums = key_rows + all, *value_sums = key_sums + all;
    float *queries = value_sums + all, *grads = queries + some, *scores = grads + some, *gradients = scores + row;
    transpose(key, keys);
    transpose(value, values);
    copy(key, stride, key_rows, size, length, scale);
    each_queries([&](int64_t first, int64_t count) {
      const int64_t at = first * stride;
      copy(query + at, stride, queries, size, count, scale);
      copy(grad + at, stride, grads, size, count);
      multiply({queries, size, 1}, keys, padded, count, size, padded, scores, padded);
      multiply({grads, size, 1}, values, padded, count, size, padded, gradients, padded);
      for (int64_t i = 0; i < count; i++) {
        Vec products = {};
        for (int64_t f = 0; f < size; f += LANES) products += load(grads + i * size + f) * load(out + at + i * stride + f);
        score_gradient(first + i, scores + i * padded, gradients + i * padded, logarithms[first + i], sum(products));
      }
      multiply({gradients, padded, 1}, key_rows, size, count, length, size, dquery + at, stride);
      multiply({scores, 1, padded}, grads, size, length, count, size, value_sums, size, first > 0);
      multiply({gradients, 1, padded}, queries, size, length, count, size, key_sums, size, first > 0);
    });
    copy(key_sums, size, dkey, stride, length);
    copy(value_sums, size, dvalue, stride, length);
  }
};

// work(head, where it begins) for each head of each sequence.
template <class F> int each_head(const Heads& heads, float scale, Dropout dropout, const Threads& threads, F work) {
  return guarded([&] {
    parallel(threads, heads.batch * heads.heads, [&](int64_t i) {
      const int64_t sequence = i / heads.heads, head = i % heads.heads;
      work(Head(heads, scale, dropout, i), (sequence * heads.length * heads.heads + head) * heads.size);
    });
  });
}

}  // namespace

extern "C" {

// out = dropout(softmax(scale query key^T)) value; and the logarithm of the sum of the exponentials [batch, heads, length].
EXPORT int evergraft_attention(const Heads* heads, float scale, const float* query, const float* key, const float* value, float* out, float* logarithms, uint64_t seed, int64_t dropped, const Threads* threads) {
  return each_head(*heads, scale, {seed, (uint32_t)dropped}, *threads, [&](const Head& head, int64_t at) {
    head.forward(query + at, key + at, value + at, out + at, logarithms + head.number * head.length);
  });
}

EXPORT int evergraft_attention_backward(const Heads* heads, float scale, const float* query, const float* key, const float* value, const float* out, const float* logarithms, const float* grad, float* dquery, float* dkey, float* dvalue, uint64_t seed, int64_t dropped, const Threads* threads) {
  return each_head(*heads, scale, {seed, (uint32_t)dropped}, *threads, [&](const Head& head, int64_t at) {
    head.backward(query + at, key + at, value + at, out + at, logarithms + head.number * head.length, grad + at, dquery + at, dkey + at, dvalue + at);
  });
}
}
