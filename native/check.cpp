// Runs the products, the feed-forward network and the kernels of dropout, attention, GELU and column sums on shapes of
// every kind, compares them with their plain definitions, and exits with 1 if one differs, or with 77 if this machine
// cannot run it. `make sanitize` builds it with the address and undefined-behaviour sanitizers, once for each
// instruction set.
#include <cmath>
#include <cstdio>
#include <memory>
#include <random>
#include <vector>
#include "attention.cpp"
#include "column_sums.cpp"
#include "dropout.cpp"
#include "gelu.cpp"
#include "products.cpp"

namespace evergraft {

extern "C" int evergraft_best_tier();

namespace {

std::mt19937& rng() {  // made on first use: main must first see that the processor can run it
  static std::mt19937 generator(0);
  return generator;
}

// A random topology with its two orders. Arrays have exactly their sizes, so that a sanitizer sees any step beyond.
struct Blocks {
  std::vector<int32_t> row_offsets, columns, transposed_offsets, transposed_order;
  Topology t;

  Blocks(int64_t rows, int64_t cols, int height, int width, double density) {
    std::bernoulli_distribution active(density);
    row_offsets = {0};
    std::vector<std::vector<int32_t>> by_column(cols);
    for (int64_t i = 0; i < rows; i++) {
      for (int64_t j = 0; j < cols; j++)
        if (active(rng()) || (i == 0 && j == 0))
          by_column[j].push_back((int32_t)columns.size()), columns.push_back((int32_t)j);
      row_offsets.push_back((int32_t)columns.size());
    }
    transposed_offsets = {0};
    for (auto& slots : by_column) {
      transposed_order.insert(transposed_order.end(), slots.begin(), slots.end());
      transposed_offsets.push_back((int32_t)transposed_order.size());
    }
    for (auto* v : {&row_offsets, &columns, &transposed_offsets, &transposed_order}) v->shrink_to_fit();
    t = {rows,
         cols,
         height,
         width,
         (int64_t)columns.size(),
         row_offsets.data(),
         columns.data(),
         transposed_offsets.data(),
         transposed_order.data()};
  }
};

template <class S> std::unique_ptr<S[]> random(int64_t n) {
  std::normal_distribution<float> normal;
  std::unique_ptr<S[]> v(new S[n]);
  for (int64_t i = 0; i < n; i++) narrow(normal(rng()), &v[i]);
  return v;
}

int differences = 0;
template <class S>
void compare(const char* product, const Topology& t, int64_t tokens, const S* got, const std::vector<double>& want) {
  double worst = 0, largest = 1e-3;
  for (size_t i = 0; i < want.size(); i++)
    worst = std::max(worst, std::fabs(widen(got[i]) - want[i])), largest = std::max(largest, std::fabs(want[i]));
  if (worst <= largest * (sizeof(S) == 4 ? 2e-5 : 1e-2)) return;
  differences++;
  printf("%s differs by %g of %g: %dx%d blocks, %ld x %ld of them, %ld tokens, %zu bytes a number\n", product, worst,
         largest, (int)t.height, (int)t.width, (long)t.block_rows, (long)t.block_columns, (long)tokens, sizeof(S));
}

template <class S> void check(const Blocks& blocks, int64_t tokens, int padding) {
  const Topology& t = blocks.t;
  const int64_t out = t.block_rows * t.height, in = t.block_columns * t.width, area = t.height * t.width;
  const int64_t xs = in + padding, gs = out + padding;
  auto x = random<S>(tokens * xs), grad = random<S>(tokens * gs), values = random<S>(t.active * area),
       bias = random<S>(out);
  std::unique_ptr<S[]> y(new S[tokens * out]), dx(new S[tokens * in]), dv(new S[t.active * area]);
  std::vector<double> y0(tokens * out), dx0(tokens * in), dv0(t.active * area);
  for (int64_t k = 0; k < tokens; k++)
    for (int64_t o = 0; o < out; o++) y0[k * out + o] = widen(bias[o]);
  for (int64_t i = 0; i < t.block_rows; i++)
    for (int32_t b = t.row_offsets[i]; b < t.row_offsets[i + 1]; b++)
      for (int64_t r = 0; r < t.height; r++)
        for (int64_t c = 0; c < t.width; c++) {
          const int64_t v = b * area + r * t.width + c, o = i * t.height + r, f = t.columns[b] * t.width + c;
          for (int64_t k = 0; k < tokens; k++) {
            y0[k * out + o] += (double)widen(values[v]) * widen(x[k * xs + f]);
            dx0[k * in + f] += (double)widen(values[v]) * widen(grad[k * gs + o]);
            dv0[v] += (double)widen(grad[k * gs + o]) * widen(x[k * xs + f]);
          }
        }
  const Threads threads{nullptr, 2};
  const int dtype = sizeof(S) == 4 ? FLOAT32 : BFLOAT16;
  int status = evergraft_forward(&t, x.get(), xs, values.get(), bias.get(), y.get(), tokens, dtype, &threads);
  status |= evergraft_input_gradient(&t, grad.get(), gs, values.get(), dx.get(), tokens, dtype, &threads);
  status |= evergraft_weight_gradient(&t, grad.get(), gs, x.get(), xs, dv.get(), tokens, dtype, &threads);
  if (status) differences++, printf("status %d\n", status);
  compare("forward", t, tokens, y.get(), y0);
  compare("input gradient", t, tokens, dx.get(), dx0);
  compare("weight gradient", t, tokens, dv.get(), dv0);
}

void differ(const char* what, int64_t rows, int64_t length) {
  differences++;
  printf("%s differs: %ld x %ld\n", what, (long)rows, (long)length);
}

// The softmax of every row and its gradient, with and without dropout.
template <class S> void check_softmax(int64_t rows, int64_t length) {
  const int64_t n = rows * length;
  const int dtype = sizeof(S) == 4 ? FLOAT32 : BFLOAT16;
  const double tolerance = sizeof(S) == 4 ? 1e-5 : 1e-2;
  const Threads threads{nullptr, 2};
  auto scores = random<S>(n), grad = random<S>(n);
  std::unique_ptr<S[]> p(new S[n]), kept(new S[n]), dscores(new S[n]), dropped_grad(new S[n]);
  for (int64_t dropped : {0, 6554}) {
    int status = evergraft_softmax(scores.get(), p.get(), kept.get(), rows, length, dtype, 5, dropped, &threads);
    status |= evergraft_softmax_backward(grad.get(), p.get(), dscores.get(), rows, length, dtype, 5, dropped, &threads);
    status |= evergraft_dropout(grad.get(), dropped_grad.get(), n, dtype, 5, dropped, &threads);
    bool good = status == OK;
    for (int64_t row = 0; row < rows; row++) {
      const int64_t at = row * length;
      double total = 0, mean = 0;
      for (int64_t i = at; i < at + length; i++) total += std::exp((double)widen(scores[i]));
      for (int64_t i = at; i < at + length; i++) mean += (double)widen(p[i]) * widen(dropped_grad[i]);
      for (int64_t i = at; i < at + length; i++) {
        good &= std::fabs(widen(p[i]) - std::exp((double)widen(scores[i])) / total) <= tolerance;
        good &= std::fabs(widen(dscores[i]) - widen(p[i]) * (widen(dropped_grad[i]) - mean)) <= tolerance * 4;
        good &= !dropped || widen(kept[i]) == 0 || widen(dropped_grad[i]) != 0 || widen(grad[i]) == 0;
      }
    }
    if (!good) differ("softmax", rows, length);
  }
}

// The norm of residual + dropout(x). The tests in Python compare its gradients with a reference.
template <class S> void check_norm(int64_t rows, int64_t features) {
  const int64_t n = rows * features;
  const int dtype = sizeof(S) == 4 ? FLOAT32 : BFLOAT16;
  const Threads threads{nullptr, 2};
  auto x = random<S>(n);
  auto residual = random<float>(n), weight = random<float>(features), bias = random<float>(features),
       grad = random<float>(n);
  std::unique_ptr<S[]> normal(new S[n]), kept(new S[n]), dx(new S[n]);
  std::unique_ptr<float[]> out(new float[n]), deviations(new float[rows]), dresidual(new float[n]),
      dweight(new float[features]), dbias(new float[features]);
  for (int64_t dropped : {0, 6554}) {
    int status = evergraft_residual_norm(x.get(), residual.get(), weight.get(), bias.get(), 1e-12f, out.get(),
                                         normal.get(), deviations.get(), rows, features, dtype, 5, dropped, &threads);
    status |= evergraft_residual_norm_backward(grad.get(), weight.get(), normal.get(), deviations.get(),
                                               dresidual.get(), dx.get(), dweight.get(), dbias.get(), rows, features,
                                               dtype, 5, dropped, &threads);
    bool good = status == OK;
    const Dropout dropout{5, (uint32_t)dropped};
    for (int64_t row = 0; row < rows; row++) {
      const int64_t at = row * features, draws = (features + DRAW - 1) / DRAW;
      alignas(64) uint16_t bits[DRAW];
      for (int64_t f = 0; f < features; f++) {
        if (f % DRAW == 0) dropout.draw(row * draws + f / DRAW, bits);
        narrow(dropout.apply(widen(x[at + f]), bits[f % DRAW]), &kept[at + f]);
      }
      double mean = 0, square = 0, slope = 0;
      for (int64_t i = at; i < at + features; i++) mean += ((double)residual[i] + widen(kept[i])) / features;
      for (int64_t i = at; i < at + features; i++)
        square += std::pow(residual[i] + widen(kept[i]) - mean, 2) / features;
      for (int64_t i = at; i < at + features; i++) {
        const double normalised = (residual[i] + widen(kept[i]) - mean) / std::sqrt(square);
        good &= std::fabs(out[i] - normalised * weight[i - at] - bias[i - at]) < 0.05;
        slope += dresidual[i];
      }
      good &= std::fabs(slope) < 1e-3 * features;  // a shift of the residual changes nothing
    }
    if (!good) differ("norm", rows, features);
  }
}

// Attention and its gradients. With dropout this sees only that nothing goes out of bounds: its mask is compared by
// the tests in Python. Queries, keys and values lie by themselves, or `together` side by side.
template <class S> void check_attention(int64_t batch, int64_t length, int64_t count, int64_t size, bool together) {
  const int64_t features = count * size, n = batch * length * features, rows = batch * count * length;
  const int64_t stride = together ? 3 * features : features, next = together ? features : n;
  const Heads heads{batch, length, count, size, stride};
  const Threads threads{nullptr, 2};
  const int dtype = sizeof(S) == 4 ? FLOAT32 : BFLOAT16;
  const double tolerance = sizeof(S) == 4 ? 1e-4 : 0.1;
  const float scale = 0.1f;
  auto operands = random<S>(3 * n), grad = random<S>(n);
  std::unique_ptr<S[]> out(new S[n]), gradients(new S[3 * n]);
  const S *q = operands.get(), *k = q + next, *v = k + next;
  S *dq = gradients.get(), *dk = dq + next, *dv = dk + next;
  std::unique_ptr<float[]> logarithms(new float[rows]);
  bool good = true;
  for (int64_t dropped : {6554, 0}) {
    good &= OK == evergraft_attention(&heads, scale, q, k, v, out.get(), logarithms.get(), dtype, 5, dropped, &threads);
    good &= OK == evergraft_attention_backward(&heads, scale, q, k, v, out.get(), logarithms.get(), grad.get(), dq, dk,
                                               dv, dtype, 5, dropped, &threads);
  }
  auto close = [&](S got, double want) { good &= std::fabs(widen(got) - want) < tolerance; };
  for (int64_t b = 0; b < batch; b++)
    for (int64_t h = 0; h < count; h++) {
      auto at = [&](int64_t t, int64_t f) { return (b * length + t) * stride + h * size + f; };
      auto out_at = [&](int64_t t, int64_t f) { return (b * length + t) * features + h * size + f; };
      std::vector<double> value_gradient(length * size), key_gradient(length * size);
      for (int64_t i = 0; i < length; i++) {
        std::vector<double> p(length), dp(length);
        double total = 0, mean = 0;
        for (int64_t j = 0; j < length; j++) {
          for (int64_t f = 0; f < size; f++)
            p[j] += (double)scale * widen(q[at(i, f)]) * widen(k[at(j, f)]),
                dp[j] += (double)widen(grad[out_at(i, f)]) * widen(v[at(j, f)]);
          total += p[j] = std::exp(p[j]);
        }
        for (int64_t j = 0; j < length; j++) p[j] /= total, mean += p[j] * dp[j];
        for (int64_t f = 0; f < size; f++) {
          double o = 0, d = 0;
          for (int64_t j = 0; j < length; j++) {
            const double ds = p[j] * (dp[j] - mean) * scale;
            o += p[j] * widen(v[at(j, f)]), d += ds * widen(k[at(j, f)]);
            key_gradient[j * size + f] += ds * widen(q[at(i, f)]),
                value_gradient[j * size + f] += p[j] * widen(grad[out_at(i, f)]);
          }
          close(out[out_at(i, f)], o), close(dq[at(i, f)], d);
        }
      }
      for (int64_t j = 0; j < length; j++)
        for (int64_t f = 0; f < size; f++)
          close(dk[at(j, f)], key_gradient[j * size + f]), close(dv[at(j, f)], value_gradient[j * size + f]);
    }
  if (!good) differ("attention", length, size);
}

template <class S> void check_gelu(int64_t n) {
  const Threads threads{nullptr, 2};
  const int dtype = sizeof(S) == 4 ? FLOAT32 : BFLOAT16;
  const double tolerance = sizeof(S) == 4 ? 1e-5 : 0.02;
  auto x = random<S>(n);
  std::unique_ptr<S[]> y(new S[n]), slope(new S[n]);
  bool good = OK == evergraft_gelu(x.get(), y.get(), nullptr, n, dtype, &threads);
  good &= OK == evergraft_gelu(x.get(), y.get(), slope.get(), n, dtype, &threads);
  for (int64_t i = 0; i < n; i++) {
    const double v = widen(x[i]), below = std::erfc(-v / std::sqrt(2.0)) / 2;
    good &= std::fabs(widen(y[i]) - v * below) < tolerance;
    good &= std::fabs(widen(slope[i]) - below - v * std::exp(-v * v / 2) / std::sqrt(2 * M_PI)) < tolerance;
  }
  if (!good) differ("GELU", 1, n);
}

// The feed-forward network and its gradients against the products and the GELU one after another, whose sums of weights
// are the same bit for bit. Every second time some gradients are not asked for.
template <class S> void check_feed_forward(const Blocks& first, const Blocks& second, int64_t tokens, int count) {
  const Topology &up = first.t, &down = second.t;
  const int64_t in = up.block_columns * up.width, hidden = up.block_rows * up.height;
  const int64_t out = down.block_rows * down.height, xs = in + 3, gs = out + 3;
  const int64_t up_weights = up.active * up.height * up.width, down_weights = down.active * down.height * down.width;
  const Threads threads{nullptr, count};
  const int dtype = sizeof(S) == 4 ? FLOAT32 : BFLOAT16;
  auto x = random<S>(tokens * xs), grad = random<S>(tokens * gs), up_values = random<S>(up_weights),
       down_values = random<S>(down_weights), up_bias = random<S>(hidden), down_bias = random<S>(out);
  auto numbers = [](int64_t n) { return std::unique_ptr<S[]>(new S[n]()); };
  auto h0 = numbers(tokens * hidden), a = numbers(tokens * hidden), slope = numbers(tokens * hidden),
       d = numbers(tokens * hidden), y0 = numbers(tokens * out), dx0 = numbers(tokens * in), du0 = numbers(up_weights),
       dd0 = numbers(down_weights);
  evergraft_forward(&up, x.get(), xs, up_values.get(), up_bias.get(), h0.get(), tokens, dtype, &threads);
  evergraft_gelu(h0.get(), a.get(), slope.get(), tokens * hidden, dtype, &threads);
  evergraft_forward(&down, a.get(), hidden, down_values.get(), down_bias.get(), y0.get(), tokens, dtype, &threads);
  evergraft_input_gradient(&down, grad.get(), gs, down_values.get(), d.get(), tokens, dtype, &threads);
  std::vector<double> bias0(hidden);
  for (int64_t i = 0; i < tokens * hidden; i++) {
    narrow(widen(d[i]) * widen(slope[i]), &d[i]);
    bias0[i % hidden] += widen(d[i]);
  }
  evergraft_input_gradient(&up, d.get(), hidden, up_values.get(), dx0.get(), tokens, dtype, &threads);
  evergraft_weight_gradient(&up, d.get(), hidden, x.get(), xs, du0.get(), tokens, dtype, &threads);
  evergraft_weight_gradient(&down, grad.get(), gs, a.get(), hidden, dd0.get(), tokens, dtype, &threads);

  bool good = true;
  auto same = [&](const std::unique_ptr<S[]>& got, const std::unique_ptr<S[]>& want, int64_t n) {
    good &= n == 0 || !memcmp(got.get(), want.get(), n * sizeof(S));
  };
  for (bool all : {true, false}) {
    auto h = numbers(tokens * hidden), y = numbers(tokens * out), dx = numbers(tokens * in), du = numbers(up_weights),
         dd = numbers(down_weights), bias = numbers(hidden);
    good &= OK == evergraft_feed_forward(&up, &down, x.get(), xs, up_values.get(), up_bias.get(), down_values.get(),
                                         down_bias.get(), all ? h.get() : nullptr, y.get(), tokens, dtype, &threads);
    good &= OK == evergraft_feed_forward_backward(&up, &down, grad.get(), gs, x.get(), xs, h0.get(), up_values.get(),
                                                  down_values.get(), all ? dx.get() : nullptr, du.get(),
                                                  all ? bias.get() : nullptr, all ? dd.get() : nullptr, tokens, dtype,
                                                  &threads);
    same(y, y0, tokens * out);
    same(du, du0, up_weights);
    if (!all) continue;
    same(h, h0, tokens * hidden);
    same(dx, dx0, tokens * in);
    same(dd, dd0, down_weights);
    compare("gradient of a feed-forward network's bias", up, tokens, bias.get(), bias0);
  }
  if (!good) differ("feed-forward network", tokens, hidden);
}

template <class S> void check_column_sums(int64_t rows, int64_t columns, int64_t stride) {
  const Threads threads{nullptr, 2};
  auto matrix = random<S>(rows * stride);
  std::unique_ptr<S[]> sums(new S[columns]);
  bool good = OK == evergraft_column_sums(matrix.get(), stride, sums.get(), rows, columns,
                                          sizeof(S) == 4 ? FLOAT32 : BFLOAT16, &threads);
  for (int64_t i = 0; i < columns; i++) {
    double want = 0;
    for (int64_t row = 0; row < rows; row++) want += widen(matrix[row * stride + i]);
    good &= std::fabs(widen(sums[i]) - want) <= (sizeof(S) == 4 ? 1e-4 : 0.01 * std::fabs(want) + 1e-6);
  }
  if (!good) differ("column sums", rows, columns);
}

// Not inlined, because the code that a sanitizer puts at the start of a function with arrays may use the very
// instructions that main asks about.
__attribute__((noinline)) int check_all() {
  const int sides[][2] = {{1, 1},  {4, 4},  {8, 8}, {16, 16}, {32, 32}, {4, 1},  {8, 1}, {16, 1}, {64, 1},  {1, 4},
                          {1, 16}, {1, 64}, {3, 5}, {2, 8},   {12, 1},  {24, 3}, {8, 4}, {4, 16}, {12, 16}, {48, 8}};
  int cases = 0;
  for (auto& side : sides)
    for (double density : {0.05, 0.5, 1.0})
      for (int64_t tokens : {0, 1, 37, 130})
        for (int padding : {0, 3}) {
          Blocks blocks(1 + rng()() % 5, 1 + rng()() % 5, side[0], side[1], density);
          check<float>(blocks, tokens, padding);
          check<Bf16>(blocks, tokens, padding);
          cases += 2;
        }
  const int registers_full[][2] = {{16, 1}, {1, 16}, {32, 1}, {16, 16}, {16, 48}, {48, 16}};
  for (auto& side : registers_full) {  // more blocks in a row than registers hold
    Blocks blocks(144 / side[0], 144 / side[1], side[0], side[1], 0.9);
    check<float>(blocks, 130, 0);
    check<Bf16>(blocks, 130, 0);
    cases += 2;
  }
  for (int64_t tokens : {400, 421}) {  // single weights enough for chunks
    Blocks blocks(810, 790, 1, 1, 0.1);
    check<float>(blocks, tokens, 0);
    check<Bf16>(blocks, tokens, 3);
    cases += 2;
  }
  for (auto& side : sides)
    for (int64_t tokens : {0, 1, 37, 130, 600}) {
      const Blocks up(9, 4, side[0], side[1], 0.3), down(5, side[0] * 9, side[1], 1, 0.3);
      check_feed_forward<float>(up, down, tokens, 1);
      check_feed_forward<Bf16>(up, down, tokens, 3);
      cases += 2;
    }
  for (int64_t tokens : {400, 421}) {
    const Blocks up(810, 200, 1, 1, 0.1), down(200, 810, 1, 1, 0.1);
    check_feed_forward<float>(up, down, tokens, 2);
    check_feed_forward<Bf16>(up, down, tokens, 1);
    cases += 2;
  }
  for (int64_t rows : {0, 1, 3, 300})
    for (int64_t length : {1, 7, 16, 100, 128, 130}) {
      check_softmax<float>(rows, length);
      check_softmax<Bf16>(rows, length);
      for (int64_t features : {length / 16 * 16 + 16, (1 + length % 3) * DRAW}) {
        check_norm<float>(rows, features);
        check_norm<Bf16>(rows, features);
      }
      cases += 6;
    }
  for (int64_t length : {0, 1, 16, 37, 128, 150})
    for (int64_t size : {16, 48, 64, 80})
      for (bool together : {false, true}) {
        check_attention<float>(2, length, 3, size, together);
        check_attention<Bf16>(2, length, 3, size, together);
        cases += 2;
      }
  for (int64_t n : {0, 1, 15, 1000, 40000}) {
    check_gelu<float>(n);
    check_gelu<Bf16>(n);
    cases += 2;
  }
  for (int64_t rows : {0, 1, 37, 200})
    for (int64_t columns : {1, 16, 100})
      for (int64_t padding : {0, 3}) {
        check_column_sums<float>(rows, columns, columns + padding);
        check_column_sums<Bf16>(rows, columns, columns + padding);
        cases += 2;
      }
  Blocks broken(4, 4, 2, 2, 0.5);
  broken.columns.back() = 4;
  float none[64] = {};
  const Threads threads{nullptr, 1};
  if (evergraft_forward(&broken.t, none, 8, none, nullptr, none, 1, FLOAT32, &threads) != MALFORMED)
    differences++, printf("a malformed topology passed\n");
  printf("%d lanes: %d cases, %d differences\n", LANES, cases, differences);
  return differences > 0;
}

}  // namespace
}  // namespace evergraft

int main() {
  using namespace evergraft;
  return evergraft_best_tier() < TIER ? 77 : check_all();  // 77: skipped
}
