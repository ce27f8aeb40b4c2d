// The three products of a block-sparse linear layer, and a feed-forward network of two such layers, for one instruction
// set, behind a plain C interface.
#include "feed_forward.hpp"
#include "matrix_product.hpp"
#include "outer_product.hpp"

namespace evergraft {
namespace {

thread_local Buffer<float> sums_buffer, other_sums_buffer, bias_buffer, other_bias_buffer;

// Numbers that are summed in fp32 and stored as S: `sums()` is where they are summed, and `store()` is called at last.
template <class S> class Summed {
 public:
  Summed(S* to, int64_t n, Buffer<float>& buffer) : to(to), n(n) {
    if constexpr (std::is_same_v<S, float>) at = to;
    else at = to ? buffer.at_least(n) : nullptr;
  }
  float* sums() const { return at; }
  void store() const {
    if constexpr (std::is_same_v<S, float>) return;
    int64_t i = 0;
    if (!to) return;
    for (; i + LANES <= n; i += LANES) evergraft::store(to + i, load(at + i));
    for (; i < n; i++) narrow(at[i], to + i);
  }

 private:
  S* to;
  float* at;
  int64_t n;
};

int64_t weights(const Topology& t) { return t.active * t.height * t.width; }

template <class S> const float* bias_in_fp32(const S* bias, int64_t n, Buffer<float>& buffer = bias_buffer) {
  return bias ? in_fp32(bias, n, buffer) : nullptr;
}

}  // namespace

extern "C" {

// y [tokens, out] = x W^T + bias; x_stride numbers from one token to the next. Returns a Status.
EG_EXPORT int evergraft_forward(const Topology* t, const void* x, int64_t x_stride, const void* values,
                                const void* bias, void* y, int64_t tokens, int dtype, const Threads* threads) {
  return guarded(dtype, [&](auto s) {
    using S = decltype(s);
    const int64_t out = t->block_rows * t->height;
    ReadyMatrix<S>::multiply_once(
        *t, false, (const S*)values,
        {{(const S*)x, x_stride}, bias_in_fp32((const S*)bias, out), {(S*)y, out}, tokens, *threads});
  });
}

// dx [tokens, in] = grad W.
EG_EXPORT int evergraft_input_gradient(const Topology* t, const void* grad, int64_t grad_stride, const void* values,
                                       void* dx, int64_t tokens, int dtype, const Threads* threads) {
  return guarded(dtype, [&](auto s) {
    using S = decltype(s);
    ReadyMatrix<S>::multiply_once(
        *t, true, (const S*)values,
        {{(const S*)grad, grad_stride}, nullptr, {(S*)dx, t->block_columns * t->width}, tokens, *threads});
  });
}

// dvalues [active, R, C] = the blocks of grad^T x.
EG_EXPORT int evergraft_weight_gradient(const Topology* t, const void* grad, int64_t grad_stride, const void* x,
                                        int64_t x_stride, void* dvalues, int64_t tokens, int dtype,
                                        const Threads* threads) {
  return guarded(dtype, [&](auto s) {
    using S = decltype(s);
    const Summed<S> summed((S*)dvalues, weights(*t), sums_buffer);
    WeightGradient<S> gradient(*t, tokens, summed.sums());
    gradient.add({(const S*)grad, grad_stride}, {(const S*)x, x_stride}, tokens, *threads);
    gradient.finish(*threads);
    summed.store();
  });
}

// y [tokens, out] = down(gelu(h)) with h = up(x) [tokens, hidden], which is not stored where it is null.
EG_EXPORT int evergraft_feed_forward(const Topology* up, const Topology* down, const void* x, int64_t x_stride,
                                     const void* up_values, const void* up_bias, const void* down_values,
                                     const void* down_bias, void* h, void* y, int64_t tokens, int dtype,
                                     const Threads* threads) {
  return guarded(dtype, [&](auto s) {
    using S = decltype(s);
    const float* first_bias = bias_in_fp32((const S*)up_bias, up->block_rows * up->height, bias_buffer);
    const float* second_bias = bias_in_fp32((const S*)down_bias, down->block_rows * down->height, other_bias_buffer);
    feed_forward<S>({*up, (const S*)up_values, first_bias}, {*down, (const S*)down_values, second_bias},
                    {(const S*)x, x_stride}, (S*)h, (S*)y, tokens, *threads);
  });
}

// The gradients of x, of the values of both layers and of the bias of `up`, from that of y. Those that are null are not
// computed.
EG_EXPORT int evergraft_feed_forward_backward(const Topology* up, const Topology* down, const void* grad,
                                              int64_t grad_stride, const void* x, int64_t x_stride, const void* h,
                                              const void* up_values, const void* down_values, void* dx,
                                              void* dup_values, void* dup_bias, void* ddown_values, int64_t tokens,
                                              int dtype, const Threads* threads) {
  return guarded(dtype, [&](auto s) {
    using S = decltype(s);
    const Summed<S> of_up((S*)dup_values, weights(*up), sums_buffer);
    const Summed<S> of_down((S*)ddown_values, weights(*down), other_sums_buffer);
    const Summed<S> of_bias((S*)dup_bias, up->block_rows * up->height, bias_buffer);
    feed_forward_backward<S>({*up, (const S*)up_values, nullptr}, {*down, (const S*)down_values, nullptr},
                             {(const S*)grad, grad_stride}, {(const S*)x, x_stride}, (const S*)h,
                             {(S*)dx, of_up.sums(), of_bias.sums(), of_down.sums()}, tokens, *threads);
    for (const auto& summed : {of_up, of_down, of_bias}) summed.store();
  });
}
}

}  // namespace evergraft
