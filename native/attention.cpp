// Attention of whole sequences, and its gradient, one head at a time.
//
// Only the scores of a few queries exist at a time. The gradient computes them again, from the logarithm of the sum of
// their exponentials. Operands are first laid out in words of one number or, in bf16, of two neighbours of what is
// summed over: keys and values feature by feature for products with queries, and token by token for products with
// probabilities. Scores, the sums of probabilities, and sums over queries are in fp32.
#include "random.hpp"
#include "softmax.hpp"
#include "threads.hpp"
#include "tile.hpp"

namespace evergraft {

extern "C" {
// Queries, keys, values, outputs and their gradients are [batch, length, heads, size]. `size` is a multiple of LANES.
// `stride` is that of queries, keys, values and their gradients from one token to the next: heads * size where each of
// them lies by itself, more where they lie side by side. Outputs and their gradients lie by themselves.
struct Heads {
  int64_t batch, length, heads, size, stride;
};
}

namespace {

constexpr int QUERIES = 24;                      // the most that are taken at a time
constexpr int WIDEST = REGISTERS == 32 ? 4 : 2;  // vectors of columns that a product sums in registers
constexpr int TALLEST = 8;                       // rows that a product sums in registers

// A matrix of words, whose element (i, j) is data[i * row + j * column].
struct Operand {
  const float* data;
  int64_t row, column;
};

int64_t whole(int64_t n, int64_t unit) { return (n + unit - 1) / unit; }

// Calls work(first, count) for runs of at most `most` that together are n and are as equal as possible.
template <class F> EG_INLINE void in_equal_runs(int64_t n, int64_t most, F work) {
  int64_t first = 0;
  for (int64_t runs = whole(n, most); runs > 0; runs--) {
    const int64_t count = whole(n - first, runs);
    work(first, count);
    first += count;
  }
}

// Computes ROWS rows and W vectors of columns of factor * a * b.
template <class Mac, int ROWS, int W>
EG_INLINE void multiply_some(Operand a, const float* b, int64_t b_row, int64_t depth, float factor, float* c,
                             int64_t c_row, bool add) {
  Vec sum[ROWS][W] = {};
  const float* rows[ROWS];
  EG_UNROLL_FOR (int r = 0; r < ROWS; r++) rows[r] = a.data + r * a.row;
  for (int64_t k = 0; k < depth; k++, b += b_row) {
    Vec bs[W];
    EG_UNROLL_FOR (int w = 0; w < W; w++) bs[w] = load(b + w * LANES);
    EG_UNROLL_FOR (int r = 0; r < ROWS; r++) {
      const Vec as = repeat<1>(rows[r] + k * a.column);
      EG_UNROLL_FOR (int w = 0; w < W; w++) sum[r][w] = Mac::add(sum[r][w], as, bs[w]);
    }
  }
  EG_UNROLL_FOR (int r = 0; r < ROWS; r++)
    EG_UNROLL_FOR (int w = 0; w < W; w++) {
      float* to = c + r * c_row + w * LANES;
      store(to, add ? load(to) + sum[r][w] * factor : sum[r][w] * factor);
    }
}

// c = factor a b, or c += factor a b if `add`: [rows, depth] x [depth, columns] words. `columns` is a multiple of
// LANES.
template <class Mac>
void multiply(Operand a, const float* b, int64_t b_row, int64_t rows, int64_t depth, int64_t columns, float factor,
              float* c, int64_t c_row, bool add = false) {
  for (int64_t column = 0; column < columns;) {
    const int vectors = (int)std::min<int64_t>(WIDEST, (columns - column) / LANES);
    with_count<WIDEST>(vectors, [&](auto w) {
      constexpr int W = decltype(w)::value, MOST = std::min(TALLEST, SUMS / W);
      in_equal_runs(rows, MOST, [&](int64_t row, int64_t count) {
        with_count<MOST>((int)count, [&](auto r) {
          multiply_some<Mac, decltype(r)::value, W>({a.data + row * a.row, a.row, a.column}, b + column, b_row, depth,
                                                    factor, c + row * c_row + column, c_row, add);
        });
      });
    });
    column += vectors * LANES;
  }
}

thread_local Buffer<float> attention_buffer;

// One head of one sequence, for numbers that are stored as S.
template <class S> struct Head {
  using Mac = Multiplier<S>;
  static constexpr int NEIGHBOURS = Mac::NEIGHBOURS;  // in a word

  int64_t length, size;
  int64_t stride, out_stride;   // from one token to the next, the latter in outputs and their gradients
  int64_t padded, pairs;        // padded: `length` in whole vectors, for rows of scores; pairs: `length` in words
  int64_t words, padded_words;  // words: `size` in words; padded_words: those in whole vectors
  float scale;
  Dropout dropout;
  int64_t number;  // among all heads

  Head(const Heads& heads, float scale, Dropout dropout, int64_t number)
      : length(heads.length), size(heads.size), stride(heads.stride), out_stride(heads.heads * heads.size),
        padded(whole(length, LANES) * LANES), pairs(whole(length, NEIGHBOURS)), words(size / NEIGHBOURS),
        padded_words(whole(words, LANES) * LANES), scale(scale), dropout(dropout), number(number) {}

  // Lays out tokens [length, size] as words [words, padded], which are zero where there is no token.
  void transpose(const S* from, float* to) const {
    if constexpr (NEIGHBOURS == 1) pack(Matrix<const S>{from, stride}, 0, length, 0, size, size, (int)padded, to);
    else pack(Matrix<const float>{(const float*)from, stride / 2}, 0, length, 0, words, words, (int)padded, to);
  }
  // Lays out tokens [n, size], `by` apart, as words [n, words]; in bf16 a word holds two neighbouring features.
  void lay_rows(const S* from, int64_t by, int64_t n, float* to) const {
    for (int64_t t = 0; t < n; t++, from += by, to += words) {
      if constexpr (NEIGHBOURS == 1)
        for (int64_t f = 0; f < size; f += LANES) store(to + f, load(from + f));
      else memcpy(to, from, size * sizeof(S));
    }
  }
  // Lays out tokens [n, size], `by` apart, as words [n / NEIGHBOURS, size]; in bf16 a word holds two neighbouring
  // tokens.
  void lay_pairs(const S* from, int64_t by, int64_t n, float* to) const {
    if constexpr (NEIGHBOURS == 1) lay_rows(from, by, n, to);
    else
      for (int64_t t = 0; t < n; t += 2, from += 2 * by, to += size)
        for (int64_t f = 0; f < size; f += LANES)
          store(to + f,
                pair(*(const LooseHalves*)(from + f), t + 1 < n ? *(const LooseHalves*)(from + by + f) : Halves{}));
  }
  // Lays out as pairs of tokens what lay_rows has laid out already: in fp32 its rows serve as they are.
  const float* lay_pairs(const S* from, int64_t by, const float* rows, int64_t n, float* to) const {
    if constexpr (NEIGHBOURS == 1) return rows;
    lay_pairs(from, by, n, to);
    return to;
  }
  // Turns rows [n, padded] of numbers into words [n / NEIGHBOURS, padded]; in bf16 a word holds two neighbouring rows,
  // in fp32 the rows stay as they are.
  const float* row_pairs(const float* from, int64_t n, float* to) const {
    if constexpr (NEIGHBOURS == 1) return from;
    else {
      for (int64_t i = 0; i < n; i += 2, from += 2 * padded)
        for (int64_t j = 0; j < padded; j += LANES)
          store(to + i / 2 * padded + j,
                pair(narrow(load(from + j)), i + 1 < n ? narrow(load(from + padded + j)) : Halves{}));
      return to;
    }
  }
  // Turns rows [n, padded] of numbers into words of two neighbours in bf16, at the beginning of each row; in fp32 the
  // rows stay as they are.
  void narrow_rows(float* rows, int64_t n) const {
    if constexpr (NEIGHBOURS == 2)
      for (int64_t i = 0; i < n; i++, rows += padded)
        for (int64_t j = 0; j < padded; j += LANES) store((Bf16*)rows + j, load(rows + j));
  }
  // Writes the sums [size] of a token, times `factor`.
  void put_token(const float* sums, float factor, S* to) const {
    for (int64_t f = 0; f < size; f += LANES) store(to + f, load(sums + f) * factor);
  }

  // Draws the bits for the scores of a query from key j on, which is a multiple of DRAW.
  void draw(int64_t query, int64_t j, uint16_t* bits) const {
    dropout.draw((number * length + query) * whole(length, DRAW) + j / DRAW, bits);
  }

  // Replaces the scores of a query by their exponentials, relative to that of the highest score, after dropout. `total`
  // receives their sum before dropout. Returns the logarithm of the sum of the scores' own exponentials.
  float exponentials(int64_t query, float* scores, float* total) const {
    const float most = highest(scores, length);
    Vec sums = {};
    alignas(64) uint16_t bits[DRAW];
    each(scores, length, -INFINITY, [&](int64_t j, Vec v, int count) {
      Vec e = exponential(v - most);
      for (int lane = count; lane < LANES; lane++) e[lane] = 0;
      sums += e;
      if (dropout.dropped && j % DRAW == 0) draw(query, j, bits);
      store(scores + j, dropout.dropped ? dropout.apply(e, bits + j % DRAW) : e);
    });
    *total = sum(sums);
    return most + logf(*total);
  }

  void forward(const S* query, const S* key, const S* value, S* out, float* logarithms) const {
    float* keys = attention_buffer.at_least(padded_words * padded + pairs * size + QUERIES * (2 * size + padded));
    float *values = keys + padded_words * padded, *queries = values + pairs * size, *mixed = queries + QUERIES * size,
          *scores = mixed + QUERIES * size;
    transpose(key, keys);
    lay_pairs(value, stride, length, values);
    in_equal_runs(length, QUERIES, [&](int64_t first, int64_t count) {
      lay_rows(query + first * stride, stride, count, queries);
      multiply<Mac>({queries, words, 1}, keys, padded, count, words, padded, scale, scores, padded);
      float total[QUERIES];
      for (int64_t i = 0; i < count; i++)
        logarithms[first + i] = exponentials(first + i, scores + i * padded, total + i);
      narrow_rows(scores, count);
      multiply<Mac>({scores, padded, 1}, values, size, count, pairs, size, 1, mixed, size);
      for (int64_t i = 0; i < count; i++) put_token(mixed + i * size, 1 / total[i], out + (first + i) * out_stride);
    });
  }

  // Replaces the scores of a query by its probabilities after dropout, and the gradient of these by that of the scores.
  // `mean` is the sum of each probability times its gradient.
  void score_gradient(int64_t query, float* scores, float* gradient, float logarithm, float mean) const {
    alignas(64) uint16_t bits[DRAW];
    for (int64_t j = 0; j < padded; j += LANES) {
      Vec p = exponential(load(scores + j) - logarithm), g = load(gradient + j);
      for (int64_t lane = length - j; lane < LANES; lane++) p[lane] = 0;
      Vec kept = p;
      if (dropout.dropped) {
        if (j % DRAW == 0) draw(query, j, bits);
        kept = dropout.apply(p, bits + j % DRAW);
        g = dropout.apply(g, bits + j % DRAW);
      }
      store(scores + j, kept);
      store(gradient + j, p * (g - mean));
    }
  }
  float mean_gradient(const S* out, const S* grad) const {
    Vec products = {};
    for (int64_t f = 0; f < size; f += LANES) products += load(out + f) * load(grad + f);
    return sum(products);
  }

  void backward(const S* query, const S* key, const S* value, const S* out, const float* logarithms, const S* grad,
                S* dquery, S* dkey, S* dvalue) const {
    const int64_t transposed = padded_words * padded, all = length * size, some = QUERIES * size,
                  row = QUERIES * padded;
    float* keys = attention_buffer.at_least(2 * transposed + pairs * size + 2 * all + 5 * some + 4 * row);
    float *values = keys + transposed, *key_pairs = values + transposed, *key_sums = key_pairs + pairs * size,
          *value_sums = key_sums + all;
    float *rows = value_sums + all, *query_pairs = rows + some, *grad_pairs = query_pairs + some,
          *grads = grad_pairs + some, *sums = grads + some;
    float *scores = sums + some, *gradients = scores + row, *score_pairs = gradients + row,
          *gradient_pairs = score_pairs + row;
    transpose(key, keys);
    transpose(value, values);
    lay_pairs(key, stride, length, key_pairs);
    in_equal_runs(length, QUERIES, [&](int64_t first, int64_t count) {
      const int64_t at = first * stride, out_at = first * out_stride, count_words = whole(count, NEIGHBOURS);
      lay_rows(query + at, stride, count, rows);
      lay_rows(grad + out_at, out_stride, count, grads);
      const float *query_words = lay_pairs(query + at, stride, rows, count, query_pairs),
                  *grad_words = lay_pairs(grad + out_at, out_stride, grads, count, grad_pairs);
      multiply<Mac>({rows, words, 1}, keys, padded, count, words, padded, scale, scores, padded);
      multiply<Mac>({grads, words, 1}, values, padded, count, words, padded, 1, gradients, padded);
      for (int64_t i = 0; i < count; i++)
        score_gradient(first + i, scores + i * padded, gradients + i * padded, logarithms[first + i],
                       mean_gradient(out + out_at + i * out_stride, grad + out_at + i * out_stride));
      const float *p = row_pairs(scores, count, score_pairs), *d = row_pairs(gradients, count, gradient_pairs);
      multiply<Mac>({p, 1, padded}, grad_words, size, length, count_words, size, 1, value_sums, size, first > 0);
      multiply<Mac>({d, 1, padded}, query_words, size, length, count_words, size, scale, key_sums, size, first > 0);
      narrow_rows(gradients, count);
      multiply<Mac>({gradients, padded, 1}, key_pairs, size, count, pairs, size, scale, sums, size);
      for (int64_t i = 0; i < count; i++) put_token(sums + i * size, 1, dquery + at + i * stride);
    });
    for (int64_t t = 0; t < length; t++) {
      put_token(key_sums + t * size, 1, dkey + t * stride);
      put_token(value_sums + t * size, 1, dvalue + t * stride);
    }
  }
};

// Calls work(head, where it begins, where it begins in outputs) for each head of each sequence.
template <class S, class F>
void each_head(const Heads& heads, float scale, Dropout dropout, const Threads& threads, F work) {
  parallel(threads, heads.batch * heads.heads, [&](int64_t i) {
    const int64_t sequence = i / heads.heads, head = i % heads.heads;
    const int64_t tokens = sequence * heads.length, feature = head * heads.size;
    work(Head<S>(heads, scale, dropout, i), tokens * heads.stride + feature,
         tokens * heads.heads * heads.size + feature);
  });
}

}  // namespace

extern "C" {

// out = dropout(softmax(scale query key^T)) value. `logarithms` [batch, heads, length] receives the logarithm of the
// sum of the exponentials of each query's scores. Returns a Status.
EG_EXPORT int evergraft_attention(const Heads* heads, float scale, const void* query, const void* key,
                                  const void* value, void* out, float* logarithms, int dtype, uint64_t seed,
                                  int64_t dropped, const Threads* threads) {
  return guarded(dtype, [&](auto s) {
    using S = decltype(s);
    each_head<S>(*heads, scale, {seed, (uint32_t)dropped}, *threads,
                 [&](const Head<S>& head, int64_t at, int64_t out_at) {
                   head.forward((const S*)query + at, (const S*)key + at, (const S*)value + at, (S*)out + out_at,
                                logarithms + head.number * head.length);
                 });
  });
}

EG_EXPORT int evergraft_attention_backward(const Heads* heads, float scale, const void* query, const void* key,
                                           const void* value, const void* out, const float* logarithms,
                                           const void* grad, void* dquery, void* dkey, void* dvalue, int dtype,
                                           uint64_t seed, int64_t dropped, const Threads* threads) {
  return guarded(dtype, [&](auto s) {
    using S = decltype(s);
    each_head<S>(*heads, scale, {seed, (uint32_t)dropped}, *threads,
                 [&](const Head<S>& head, int64_t at, int64_t out_at) {
                   head.backward((const S*)query + at, (const S*)key + at, (const S*)value + at, (const S*)out + out_at,
                                 logarithms + head.number * head.length, (const S*)grad + out_at, (S*)dquery + at,
                                 (S*)dkey + at, (S*)dvalue + at);
                 });
  });
}
}

}  // namespace evergraft
