// Runs the products on shapes of every kind, compares them with the plain definition, and exits with 1 if one differs.
// `make sanitize` builds it with the address and undefined-behaviour sanitizers, once for each instruction set (TIER).
#include <cmath>
#include <cstdio>
#include <memory>
#include <random>
#include <vector>
#include "products.cpp"

extern "C" int evergraft_best_tier();

namespace {

std::mt19937& rng() {  // nothing may run before main has seen that the processor can
  static std::mt19937 generator(0);
  return generator;
}

// A random topology with its two orders, in arrays of exactly their sizes, so that a sanitizer sees any step beyond.
struct Blocks {
  std::vector<int32_t> row_offsets, columns, transposed_offsets, transposed_order;
  Topology t;

  Blocks(int64_t rows, int64_t cols, int height, int width, double density) {
    std::bernoulli_distribution active(density);
    row_offsets = {0};
    std::vector<std::vector<int32_t>> by_column(cols);
    for (int64_t i = 0; i < rows; i++) {
      for (int64_t j = 0; j < cols; j++)
        if (active(rng()) || (i == 0 && j == 0)) by_column[j].push_back((int32_t)columns.size()), columns.push_back((int32_t)j);
      row_offsets.push_back((int32_t)columns.size());
    }
    transposed_offsets = {0};
    for (auto& slots : by_column) {
      transposed_order.insert(transposed_order.end(), slots.begin(), slots.end());
      transposed_offsets.push_back((int32_t)transposed_order.size());
    }
    for (auto* v : {&row_offsets, &columns, &transposed_offsets, &transposed_order}) v->shrink_to_fit();
    t = {rows, cols, height, width, (int64_t)columns.size(), row_offsets.data(), columns.data(), transposed_offsets.data(), transposed_order.data()};
  }
};

template <class S> std::unique_ptr<S[]> random(int64_t n) {
  std::normal_distribution<float> normal;
  std::unique_ptr<S[]> v(new S[n]);
  for (int64_t i = 0; i < n; i++) narrow(normal(rng()), &v[i]);
  return v;
}

int differences = 0;
template <class S> void compare(const char* product, const Topology& t, int64_t tokens, const S* got, const std::vector<double>& want) {
  double worst = 0, largest = 1e-3;
  for (size_t i = 0; i < want.size(); i++) worst = std::max(worst, std::fabs(widen(got[i]) - want[i])), largest = std::max(largest, std::fabs(want[i]));
  if (worst <= largest * (sizeof(S) == 4 ? 2e-5 : 1e-2)) return;
  differences++;
  printf("%s differs by %g of %g: %dx%d blocks, %ld x %ld of them, %ld tokens, %zu bytes a number\n", product, worst, largest, (int)t.height,
         (int)t.width, (long)t.block_rows, (long)t.block_columns, (long)tokens, sizeof(S));
}

template <class S> void check(const Blocks& blocks, int64_t tokens, int padding) {
  const Topology& t = blocks.t;
  const int64_t out = t.block_rows * t.height, in = t.block_columns * t.width, area = t.height * t.width;
  const int64_t xs = in + padding, gs = out + padding;
  auto x = random<S>(tokens * xs), grad = random<S>(tokens * gs), values = random<S>(t.active * area), bias = random<S>(out);
  std::unique_ptr<S[]> y(new S[tokens * out]), dx(new S[tokens * in]), dv(new S[t.active * area]);
  std::vector<double> y0(tokens * out), dx0(tokens * in), dv0(t.active * area);
  for (int64_t k = 0; k < tokens; k++) for (int64_t o = 0; o < out; o++) y0[k * out + o] = widen(bias[o]);
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

}  // namespace

int main() {
  if (evergraft_best_tier() < TIER) return 77;  // skipped
  const int sides[][2] = {{1, 1}, {4, 4}, {8, 8}, {16, 16}, {32, 32}, {4, 1}, {8, 1}, {16, 1}, {64, 1}, {1, 4}, {1, 16}, {1, 64}, {3, 5}, {2, 8}, {12, 1}, {24, 3}};
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
  Blocks broken(4, 4, 2, 2, 0.5);
  broken.columns.back() = 4;
  float none[64] = {};
  const Threads threads{nullptr, 1};
  if (evergraft_forward(&broken.t, none, 8, none, nullptr, none, 1, FLOAT32, &threads) != MALFORMED) differences++, printf("a malformed topology passed\n");
  printf("%d lanes: %d cases, %d differences\n", LANES, cases, differences);
  return differences > 0;
}
