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

// out = norm(residual + dropout(x)) * weight + bias, and its gradient. `features` is a multiple of DRAW.
struct Norm {
  int64_t features;
  const float* weight;
  Dropout dropout;

  void forward(int64_t row, const Bf16* x, const float* residual, const float* bias, float epsilon, float* out,
               Bf16* normal, float* deviation) const {
    alignas(64) uint16_t bits[DRAW];
    Vec total = {}, squares = {};
    for (int64_t f = 0; f < features; f += DRAW) {
      if (dropout.dropped) dropout.draw((row * features + f) / DRAW, bits);
      EG_UNROLL_FOR (int64_t i = 0; i < DRAW; i += LANES) {
        Vec v = load(x + f + i);
        if (dropout.dropped) v = dropout.apply(v, bits + i);
        v += load(residual + f + i);
        store(out + f + i, v);
        total += v;
      }
    }
    const float mean = sum(total) / features;
    for (int64_t f = 0; f < features; f += LANES) {
      const Vec d = load(out + f) - mean;
      squares += d * d;
    }
    const float inverse = 1 / sqrtf(sum(squares) / features + epsilon);
    for (int64_t f = 0; f < features; f += LANES) {
      const Vec d = (load(out + f) - mean) * inverse;
      store(normal + f, d);
      store(out + f, d * load(weight + f) + load(bias + f));
    }
    *deviation = inverse;
  }

  void backward(int64_t row, const float* grad, const Bf16* normal, float inverse, float* dresidual, Bf16* dx,
                float* dweight, float* dbias) const {
    Vec total = {}, products = {};
    for (int64_t f = 0; f < features; f += LANES) {
      const Vec g = load(grad + f), n = load(normal + f), scaled = g * load(weight + f);
      store(dweight + f, load(dweight + f) + g * n);
      store(dbias + f, load(dbias + f) + g);
      total += scaled;
      products += scaled * n;
    }
    const float mean = sum(total) / features, slope = sum(products) / features;
    alignas(64) uint16_t bits[DRAW];
    for (int64_t f = 0; f < features; f += DRAW) {
      if (dropout.dropped) dropout.draw((row * features + f) / DRAW, bits);
      EG_UNROLL_FOR (int64_t i = 0; i < DRAW; i += LANES) {
        const Vec d = (load(grad + f + i) * load(weight + f + i) - mean - load(normal + f + i) * slope) * inverse;
        store(dresidual + f + i, d);
        store(dx + f + i, dropout.dropped ? dropout.apply(d, bits + i) : d);
      }
    }
  }
};

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

// out = layer norm of residual + dropout(x), in fp32 [rows, features], with x in bf16. The gradient needs `normal`, the
// normalised numbers in bf16, and `deviations`, the inverse standard deviation of each row.
EG_EXPORT int evergraft_residual_norm(const void* x, const float* residual, const float* weight, const float* bias,
                                      float epsilon, float* out, void* normal, float* deviations, int64_t rows,
                                      int64_t features, uint64_t seed, int64_t dropped, const Threads* threads) {
  return guarded([&] {
    const Norm norm{features, weight, {seed, (uint32_t)dropped}};
    in_row_runs(*threads, rows, features, [&](int64_t first, int64_t last) {
      for (int64_t row = first, at = first * features; row < last; row++, at += features)
        norm.forward(row, (const Bf16*)x + at, residual + at, bias, epsilon, out + at, (Bf16*)normal + at,
                     deviations + row);
    });
  });
}

EG_EXPORT int evergraft_residual_norm_backward(const float* grad, const float* weight, const void* normal,
                                               const float* deviations, float* dresidual, void* dx, float* dweight,
                                               float* dbias, int64_t rows, int64_t features, uint64_t seed,
                                               int64_t dropped, const Threads* threads) {
  return guarded([&] {
    const Norm norm{features, weight, {seed, (uint32_t)dropped}};
    const std::unique_ptr<float[]> sums(new (std::nothrow) float[NORM_SHARES * 2 * features]());
    if (!sums) throw OUT_OF_MEMORY;
    parallel(*threads, NORM_SHARES, [&](int64_t share) {
      float* own = sums.get() + share * 2 * features;
      for (int64_t row = rows * share / NORM_SHARES; row < rows * (share + 1) / NORM_SHARES; row++) {
        const int64_t at = row * features;
        norm.backward(row, grad + at, (const Bf16*)normal + at, deviations[row], dresidual + at, (Bf16*)dx + at, own,
                      own + features);
      }
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
