// Operators of the training form's 1 x 1 convolutions (stride 1, no groups), on the kernels of gemm_simd.cpp and
// gemm_weight_simd.cpp.
//
//   forward    z = f(a) W^T [+ up(low)], and z's batch statistics, in one pass; f is the norm and ReLU before it, so
//              that their output is never written
//   backward   of the input: g = dz W where the ReLU before was active, and the sums of its norm's gradient; or, for a
//              block's first convolution, dz W + the gradients of the shortcut and of the pooled map
//              of the weight: dz^T f(a)
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <memory>

#include "common/operators.h"
#include "training/parallel.h"

namespace elastic {
namespace {

template <class T>
std::unique_ptr<T[]> pack(const Tensor& weight, bool transposed) {
  const int64_t o = weight.size(0), i = weight.size(1);
  const TrainingKernels<T>& kernels = training_kernels<T>();
  const Number<T>* w = data<Number<T>>(weight);  // (O, I); as B: (I, O) forward, (O, I) backward
  const int64_t k = transposed ? o : i, n = transposed ? i : o;
  std::unique_ptr<T[]> packed(new T[kernels.packed_size(k, n)]);
  parallel_rows((n + kernels.panel - 1) / kernels.panel, [&](int64_t, int64_t first, int64_t last) {
    kernels.pack(w, transposed ? i : 1, transposed ? 1 : i, k, n, first, last, packed.get());
  });
  return packed;
}

// c = a B, both maps; height and width are for what is done to it besides.
template <class T>
Gemm<T> product(const Tensor& a, const std::unique_ptr<T[]>& packed, const Tensor& c) {
  Gemm<T> gemm;
  gemm.a = data<T>(a);
  gemm.packed = packed.get();
  gemm.c = data<T>(c);
  gemm.k = a.size(1);
  gemm.n = c.size(1);
  gemm.height = a.size(2);
  gemm.width = a.size(3);
  return gemm;
}

template <class T>
void run(const Gemm<T>& gemm, int64_t rows, std::vector<ChannelSums<T>>* sums) {
  parallel_sums<T>(rows, sums, nullptr, [&](int64_t begin, int64_t end, const ColumnSums<T>& own) {
    training_kernels<T>().gemm(gemm, begin, end, own);
  });
}

template <class T>
void set_norm_before(const std::optional<Tensor>& statistics, const Number<T>*& scale, const Number<T>*& shift) {
  if (!statistics) return;
  const Statistics<T> s(*statistics);
  scale = s.scale;
  shift = s.shift;
}

int64_t pixels(const Tensor& map) { return map.numel() / map.size(1); }

// norm and low: where statistics of the output are taken, and what is added before.
std::tuple<Tensor, Tensor> pointwise_output(const Tensor& a, const std::optional<Tensor>& before, const Tensor& weight,
                                            const std::optional<Tensor>& low, const std::optional<Tensor>& norm_weight,
                                            const std::optional<Tensor>& norm_bias,
                                            const std::optional<Tensor>& running_mean,
                                            const std::optional<Tensor>& running_var, double momentum, double eps) {
  check_map(a, "the map");
  if (before) check_statistics(*before, a, a.sym_size(1));
  TORCH_CHECK_VALUE(weight.dim() == 4, "the weight must be one of a 1 x 1 kernel, got the size ", weight.sym_sizes());
  const SymInt out = weight.sym_size(0), height = a.sym_size(2), width = a.sym_size(3);
  check_weight(weight, a, {out, a.sym_size(1), SymInt(1), SymInt(1)});
  const bool all = norm_weight && norm_bias && running_mean && running_var;
  TORCH_CHECK_VALUE(all || !(norm_weight || norm_bias || running_mean || running_var),
                    "a norm has a weight, a bias, a running mean and a running variance, or there is no norm");
  if (all)
    check_norm({*norm_weight, *norm_bias, *running_mean, *running_var, momentum, eps}, a, out, a.sym_size(0), height,
               width);
  TORCH_CHECK_VALUE(!low || all, "a low branch is added where statistics are taken");
  if (low) check_map_of(*low, a, low_sizes(a, out), "the low branch, half the map,");
  Tensor z = empty_map(a, {a.sym_size(0), out, height, width});
  check_map(z, "the product");
  return {z, empty_statistics(a, all ? out : SymInt(0))};
}

std::tuple<Tensor, Tensor> pointwise(const Tensor& a, const std::optional<Tensor>& before, const Tensor& weight_,
                                     const std::optional<Tensor>& low, const std::optional<Tensor>& norm_weight,
                                     const std::optional<Tensor>& norm_bias, const std::optional<Tensor>& running_mean,
                                     const std::optional<Tensor>& running_var, double momentum, double eps) {
  const std::tuple<Tensor, Tensor> results =
      pointwise_output(a, before, weight_, low, norm_weight, norm_bias, running_mean, running_var, momentum, eps);
  const auto& [z, statistics] = results;
  const Tensor weight = weight_.contiguous();
  for_element_type(a.scalar_type(), [&, &z = z, &statistics = statistics]<class T>(T) {
    const std::unique_ptr<T[]> packed = pack<T>(weight, false);
    Gemm<T> gemm = product(a, packed, z);
    set_norm_before<T>(before, gemm.scale, gemm.shift);
    if (!norm_weight) return run<T>(gemm, pixels(a), nullptr);
    gemm.low = low ? data<T>(*low) : nullptr;
    gemm.epilogue = Epilogue::statistics;
    const Norm norm{*norm_weight, *norm_bias, *running_mean, *running_var, momentum, eps};
    parallel_statistics<T>(pixels(a), 1, gemm.n, norm, statistics,
                           [&](int64_t begin, int64_t end, const ColumnSums<T>& sums) {
                             training_kernels<T>().gemm(gemm, begin, end, sums);
                           });
  });
  return results;
}

std::tuple<Tensor, Tensor, Tensor> pointwise_norm_gradient_output(const Tensor& dz, const Tensor& weight,
                                                                  const Tensor& z, const Tensor& statistics) {
  check_map(z, "the map");
  check_map(dz, "the gradient");
  const SymInt channels = z.sym_size(1), out = dz.sym_size(1);
  check_map_of(dz, z, {z.sym_size(0), out, z.sym_size(2), z.sym_size(3)}, "the gradient");
  check_weight(weight, z, {out, channels, SymInt(1), SymInt(1)});
  check_statistics(statistics, z, channels);
  return {empty_like_map(z), empty_vector(z, channels), empty_vector(z, channels)};
}

std::tuple<Tensor, Tensor, Tensor> pointwise_norm_gradient(const Tensor& dz, const Tensor& weight_, const Tensor& z,
                                                           const Tensor& statistics) {
  const std::tuple<Tensor, Tensor, Tensor> results = pointwise_norm_gradient_output(dz, weight_, z, statistics);
  const auto& [g, of_weight, of_bias] = results;
  const Tensor weight = weight_.contiguous();
  for_element_type(z.scalar_type(), [&, &g = g, &of_weight = of_weight, &of_bias = of_bias]<class T>(T) {
    const std::unique_ptr<T[]> packed = pack<T>(weight, true);
    Gemm<T> gemm = product(dz, packed, g);
    take_norm_gradient(gemm, z, statistics);
    std::vector<ChannelSums<T>> sums(num_threads(), ChannelSums<T>(gemm.n));
    run(gemm, pixels(z), &sums);
    finish_norm_gradient(sums, z, statistics, g, of_weight, of_bias);
  });
  return results;
}

Tensor pointwise_input_gradient_output(const Tensor& dz, const Tensor& weight, const std::optional<Tensor>& dy,
                                       const std::optional<Tensor>& active, const std::optional<Tensor>& pooled) {
  check_map(dz, "the gradient");
  TORCH_CHECK_VALUE(weight.dim() == 4, "the weight must be one of a 1 x 1 kernel, got the size ", weight.sym_sizes());
  const SymInt channels = weight.sym_size(1);
  check_weight(weight, dz, {dz.sym_size(1), channels, SymInt(1), SymInt(1)});
  const Tensor dx = empty_map(dz, {dz.sym_size(0), channels, dz.sym_size(2), dz.sym_size(3)});
  check_map(dx, "the input's gradient");
  TORCH_CHECK_VALUE(dy.has_value() == active.has_value(), "dy and active come together");
  if (dy) check_map_of(*dy, dx, dx.sym_sizes(), "the output's gradient");
  if (active) check_active(*active, dx);
  if (pooled) check_map_of(*pooled, dx, low_sizes(dx, channels), "the pooled map's gradient");
  return dx;
}

Tensor pointwise_input_gradient(const Tensor& dz, const Tensor& weight_, const std::optional<Tensor>& dy,
                                const std::optional<Tensor>& active, const std::optional<Tensor>& pooled) {
  const Tensor dx = pointwise_input_gradient_output(dz, weight_, dy, active, pooled);
  const Tensor weight = weight_.contiguous();
  for_element_type(dz.scalar_type(), [&]<class T>(T) {
    const std::unique_ptr<T[]> packed = pack<T>(weight, true);
    Gemm<T> gemm = product(dz, packed, dx);
    gemm.epilogue = dy || pooled ? Epilogue::input_gradient : Epilogue::none;
    gemm.dy = dy ? data<T>(*dy) : nullptr;
    gemm.active = active ? active->data_ptr<uint8_t>() : nullptr;
    gemm.pooled = pooled ? data<T>(*pooled) : nullptr;
    run<T>(gemm, pixels(dz), nullptr);
  });
  return dx;
}

Tensor pointwise_weight_gradient_output(const Tensor& dz, const Tensor& a, const std::optional<Tensor>& before) {
  check_map(a, "the map");
  check_map(dz, "the gradient");
  check_map_of(dz, a, {a.sym_size(0), dz.sym_size(1), a.sym_size(2), a.sym_size(3)}, "the gradient");
  if (before) check_statistics(*before, a, a.sym_size(1));
  return empty_numbers(dz, {dz.sym_size(1), a.sym_size(1), SymInt(1), SymInt(1)});
}

// Threads take rows of the maps, each with a sum of its own, as long as those sums are small; else columns of the weight.
Tensor pointwise_weight_gradient(const Tensor& dz, const Tensor& a, const std::optional<Tensor>& before) {
  const Tensor dweight = pointwise_weight_gradient_output(dz, a, before);
  const int64_t o = dz.size(1), i = a.size(1), rows = pixels(a), number = num_threads();
  constexpr int64_t kMostElements = 1 << 20;
  const int64_t row_pieces = std::clamp<int64_t>(kMostElements / (o * i), 1, number);
  const int64_t column_pieces = number / row_pieces;
  const Tensor partial =
      row_pieces == 1 ? dweight.zero_().unsqueeze(0) : at::zeros({row_pieces, o, i, 1, 1}, dweight.options());
  for_element_type(dz.scalar_type(), [&]<class T>(T) {
    WeightGradient<T> gradient;
    gradient.dz = data<T>(dz);
    gradient.a = data<T>(a);
    gradient.o = o;
    gradient.i = i;
    set_norm_before<T>(before, gradient.scale, gradient.shift);
    const int64_t panel = training_kernels<T>().panel, panels = (i + panel - 1) / panel;
    at::parallel_for(0, row_pieces * column_pieces, 1, [&](int64_t first, int64_t last) {
      for (int64_t piece = first; piece < last; piece++) {
        const int64_t row = piece / column_pieces, column = piece % column_pieces;
        WeightGradient<T> own = gradient;
        own.dweight = data<Number<T>>(partial) + row * o * i;
        training_kernels<T>().weight_gradient(own, rows * row / row_pieces, rows * (row + 1) / row_pieces,
                                              std::min(i, panels * column / column_pieces * panel),
                                              std::min(i, panels * (column + 1) / column_pieces * panel));
      }
    });
  });
  return row_pieces == 1 ? dweight : partial.sum(0);
}

}  // namespace

ELASTIC_OPERATOR("train_pointwise",
                 "(Tensor a, Tensor? before, Tensor weight, Tensor? low, Tensor? norm_weight, Tensor? norm_bias, "
                 "Tensor(a!)? running_mean, Tensor(b!)? running_var, float momentum, float eps) -> (Tensor, Tensor)",
                 pointwise, pointwise_output)
ELASTIC_OPERATOR("train_pointwise_norm_gradient",
                 "(Tensor dz, Tensor weight, Tensor z, Tensor statistics) -> (Tensor, Tensor, Tensor)",
                 pointwise_norm_gradient, pointwise_norm_gradient_output)
ELASTIC_OPERATOR("train_pointwise_input_gradient",
                 "(Tensor dz, Tensor weight, Tensor? dy, Tensor? active, Tensor? pooled) -> Tensor",
                 pointwise_input_gradient, pointwise_input_gradient_output)
ELASTIC_OPERATOR("train_pointwise_weight_gradient", "(Tensor dz, Tensor a, Tensor? before) -> Tensor",
                 pointwise_weight_gradient, pointwise_weight_gradient_output)

}  // namespace elastic
