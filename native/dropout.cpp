// Dropout, and the functions that are fused with it: the softmax of attention, and the residual sum and norm after a
// layer.
#include <cmath>
#include <memory>
#include "random.hpp"
#include "softmax.hpp"
#include "threads.hpp"

namespace evergraft {

namespace {

constexpr int64_t SHARE = 1 << 16;  // elements that a thread takes at a time

// Shares of the rows whose sums are made apart. Their number is fixed, so that sums over rows do not depend on the
// number of threads.
constexpr int64_t NORM_SHARES = 16;

// Computes the elements begin ... end of dropout(x). `begin` is a multiple of DRAW.
template <class S> void drop(Dropout dropout, const S* x, S* y, int64_t begin, int64_t end) {
  alignas(64) uint16_t bits[DRAW];
  for (int64_t start = begin; start < end; start += DRAW) {
    dropout.draw(start / DRAW, bits);
    if (start + DRAW <= end) {
      EG_UNROLL_FOR (int i = 0; i < DRAW; i += LANES)
        store(y + start + i, dropout.apply(load(x + start + i), bits + i));
    } else
      for (int64_t i = start; i < end; i++) narrow(dropout.apply(widen(x[i]), bits[i - start]), y + i);
  }
}

// Calls work(first, last) for runs of rows. A run has about SHARE elements, and begins where a group of DRAW elements
// does.
template <class F> void in_row_runs(const Threads& threads, int64_t rows, int64_t length, F work) {
  const int64_t run = std::max<int64_t>(1, SHARE / DRAW / std::max<int64_t>(1, length)) * DRAW;
  parallel(threads, (rows + run - 1) / run, [&](int64_t i) { work(i * run, std::min(rows, (i + 1) * run)); });
}

constexpr int NORM_UNIT = 16;                    // the number of features is a multiple of this, on every tier
constexpr int NORM_VECTORS = NORM_UNIT / LANES;  // each with a sum of its own

EG_INLINE float sum_parts(const Vec (&parts)[NORM_VECTORS]) {
  Vec total = parts[0];
  EG_UNROLL_FOR (int v = 1; v < NORM_VECTORS; v++) total += parts[v];
  return sum(total);
}

// out = norm(residual + dropout(x)) * weight + bias, and its gradient, for x that is stored as S. Members are copied in
// each row, since the compiler must assume that what is written might be they.
template <class S, bool DROPS> struct Norm {
  int64_t features;
  const float* weight;
  Dropout dropout;

  // Calls work(f, v, bits) for vector v, which begins with feature f, of each unit of a row. `bits` are drawn for its
  // features; each row begins with a draw of its own.
  template <class F> static EG_INLINE void each_vector(int64_t n, int64_t row, Dropout dropout, F work) {
    alignas(64) uint16_t bits[DRAW];
    const int64_t first = row * ((n + DRAW - 1) / DRAW);
    for (int64_t f = 0; f < n; f += NORM_UNIT) {
      if (DROPS && f % DRAW == 0) dropout.draw(first + f / DRAW, bits);
      EG_UNROLL_FOR (int v = 0; v < NORM_VECTORS; v++) work(f + v * LANES, v, bits + f % DRAW + v * LANES);
    }
  }

  void forward(int64_t row, const S* x, const float* residual, const float* bias, float epsilon, float* out, S* normal,
               float* deviation) const {
    const Dropout drop = dropout;
    const int64_t n = features;
    const float* gain = weight;
    Vec totals[NORM_VECTORS] = {}, squares[NORM_VECTORS] = {};
    each_vector(n, row, drop, [&](int64_t f, int v, const uint16_t* bits) {
      Vec y = load(x + f);
      if (DROPS) y = drop.apply(y, bits);
      y += load(residual + f);
      store(out + f, y);
      totals[v] += y;
    });
    const float mean = sum_parts(totals) / n;
    for (int64_t f = 0; f < n; f += NORM_UNIT)
      EG_UNROLL_FOR (int v = 0; v < NORM_VECTORS; v++) {
        const Vec d = load(out + f + v * LANES) - mean;
        squares[v] += d * d;
      }
    const float inverse = 1 / sqrtf(sum_parts(squares) / n + epsilon);
    for (int64_t f = 0; f < n; f += LANES) {
      const Vec d = (load(out + f) - mean) * inverse;
      if constexpr (std::is_same_v<S, float>) stream(normal + f, d);  // backward alone reads it
      else store(normal + f, d);
      store(out + f, d * load(gain + f) + load(bias + f));
    }
    *deviation = inverse;
  }

  // `dx` is null if it would be `dresidual` again.
  void backward(int64_t row, const float* grad, const S* normal, float inverse, float* dresidual, S* dx, float* dweight,
                float* dbias) const {
    const Dropout drop = dropout;
    const int64_t n = features;
    const float* gain = weight;
    Vec totals[NORM_VECTORS] = {}, products[NORM_VECTORS] = {};
    for (int64_t f = 0; f < n; f += NORM_UNIT)
      EG_UNROLL_FOR (int v = 0; v < NORM_VECTORS; v++) {
        const int64_t i = f + v * LANES;
        const Vec g = load(grad + i), d = load(normal + i), scaled = g * load(gain + i);
        store(dweight + i, load(dweight + i) + g * d);
        store(dbias + i, load(dbias + i) + g);
        totals[v] += scaled;
        products[v] += scaled * d;
      }
    const float mean = sum_parts(totals) / n, slope = sum_parts(products) / n;
    each_vector(n, row, drop, [&](int64_t f, int, const uint16_t* bits) {
      const Vec d = (load(grad + f) * load(gain + f) - mean - load(normal + f) * slope) * inverse;
      store(dresidual + f, d);
      if (dx) store(dx + f, DROPS ? drop.apply(d, bits) : d);
    });
  }
};

// Calls work(norm), whose type says whether it drops anything.
template <class S, class F> void with_norm(int64_t features, const float* weight, Dropout dropout, F work) {
  if (dropout.dropped) work(Norm<S, true>{features, weight, dropout});
  else work(Norm<S, false>{features, weight, dropout});
}

}  // namespace

extern "C" {

// y = dropout(x) for n numbers. The gradient of x is dropout of the gradient of y, with the same seed. Returns a
// Status, as all functions here do.
EG_EXPORT int evergraft_dropout(const void* x, void* y, int64_t n, int dtype, uint64_t seed, int64_t dropped,
                                const Threads* threads) {
  return guarded(dtype, [&](auto s) {
    using S = decltype(s);
    parallel(*threads, (n + SHARE - 1) / SHARE, [&](int64_t i) {
      drop(Dropout{seed, (uint32_t)dropped}, (const S*)x, (S*)y, i * SHARE, std::min(n, (i + 1) * SHARE));
    });
  });
}

// probabilities = softmax(scores) [rows, length], and kept = dropout(probabilities) unless `dropped` is 0.
EG_EXPORT int evergraft_softmax(const void* scores, void* probabilities, void* kept, int64_t rows, int64_t length,
                                int dtype, uint64_t seed, int64_t dropped, const Threads* threads) {
  return guarded(dtype, [&](auto s) {
    using S = decltype(s);
    in_row_runs(*threads, rows, length, [&](int64_t first, int64_t last) {
      const std::unique_ptr<float[]> exponentials(new (std::nothrow) float[length + LANES]);
      if (!exponentials) throw OUT_OF_MEMORY;
      for (int64_t at = first * length; at < last * length; at += length)
        softmax_row((const S*)scores + at, (S*)probabilities + at, length, exponentials.get());
      if (dropped)
        drop(Dropout{seed, (uint32_t)dropped}, (const S*)probabilities, (S*)kept, first * length, last * length);
    });
  });
}

// Computes the gradient of the scores from that of `kept`.
EG_EXPORT int evergraft_softmax_backward(const void* grad, const void* probabilities, void* dscores, int64_t rows,
                                         int64_t length, int dtype, uint64_t seed, int64_t dropped,
                                         const Threads* threads) {
  return guarded(dtype, [&](auto s) {
    using S = decltype(s);
    in_row_runs(*threads, rows, length, [&](int64_t first, int64_t last) {
      const S* source = (const S*)(dropped ? dscores : grad);
      if (dropped) drop(Dropout{seed, (uint32_t)dropped}, (const S*)grad, (S*)dscores, first * length, last * length);
      for (int64_t at = first * length; at < last * length; at += length)
        softmax_row_backward(source + at, (const S*)probabilities + at, (S*)dscores + at, length);
    });
  });
}

// out = layer norm of residual + dropout(x), in fp32 [rows, features]; x and `normal` are of `dtype`. The gradient
// needs `normal`, the normalised numbers, and `deviations`, the inverse standard deviation of each row.
EG_EXPORT int evergraft_residual_norm(const void* x, const float* residual, const float* weight, const float* bias,
                                      float epsilon, float* out, void* normal, float* deviations, int64_t rows,
                                      int64_t features, int dtype, uint64_t seed, int64_t dropped,
                                      const Threads* threads) {
  return guarded(dtype, [&](auto s) {
    using S = decltype(s);
    with_norm<S>(features, weight, {seed, (uint32_t)dropped}, [&](const auto& norm) {
      in_row_runs(*threads, rows, features, [&](int64_t first, int64_t last) {
        for (int64_t row = first, at = first * features; row < last; row++, at += features)
          norm.forward(row, (const S*)x + at, residual + at, bias, epsilon, out + at, (S*)normal + at,
                       deviations + row);
      });
    });
  });
}

// `dx` may be null if nothing was dropped and `dtype` is fp32: it would be `dresidual` again.
EG_EXPORT int evergraft_residual_norm_backward(const float* grad, const float* weight, const void* normal,
                                               const float* deviations, float* dresidual, void* dx, float* dweight,
                                               float* dbias, int64_t rows, int64_t features, int dtype, uint64_t seed,
                                               int64_t dropped, const Threads* threads) {
  return guarded(dtype, [&](auto s) {
    using S = decltype(s);
    const std::unique_ptr<float[]> sums(new (std::nothrow) float[NORM_SHARES * 2 * features]());
    if (!sums) throw OUT_OF_MEMORY;
    with_norm<S>(features, weight, {seed, (uint32_t)dropped}, [&](const auto& norm) {
      parallel(*threads, NORM_SHARES, [&](int64_t share) {
        float* own = sums.get() + share * 2 * features;
        for (int64_t row = rows * share / NORM_SHARES; row < rows * (share + 1) / NORM_SHARES; row++) {
          const int64_t at = row * features;
          norm.backward(row, grad + at, (const S*)normal + at, deviations[row], dresidual + at,
                        dx ? (S*)dx + at : nullptr, own, own + features);
        }
      });
    });
    std::fill_n(dweight, features, 0.0f);
    std::fill_n(dbias, features, 0.0f);
    for (int64_t share = 0; share < NORM_SHARES; share++)
      for (int64_t f = 0; f < features; f++) {
        dweight[f] += sums[share * 2 * features + f];
        dbias[f] += sums[(share * 2 + 1) * features + f];
      }
  });
}
}

}  // namespace evergraft
