// Operators of the training form's grouped 3 x 3 convolutions, on the kernels of grouped_simd.cpp.
//
//   forward    z = conv(relu(norm(x))) and z's batch statistics, in one pass over x
//   backward   of the weight; of x: g = the convolution's adjoint where the ReLU was active with the sums of the norm's
//              gradient, then the norm's gradient. The norm's output is computed again from x, so it need not be kept.
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <array>
#include <memory>

#include "common/level.h"
#include "common/operators.h"
#include "training/parallel.h"

namespace elastic {
namespace {

bool has_grouped(int64_t channels, int64_t groups, at::ScalarType type) {
  const bool known = type == at::kFloat || type == at::kDouble || type == at::kBFloat16;
  if (!known || channels < 1 || groups < 1 || channels % groups) return false;
  if (type == at::kBFloat16 ? bf16_level() == Bf16Level::none : level() == Level::none) return false;
  const int64_t of_group = channels / groups;
  int64_t lanes = 0;
  for_element_type(type, [&](auto element) { lanes = training_kernels<decltype(element)>().lanes; });
  return (of_group == 4 || of_group == 8 || of_group == 16 || of_group == 32) && groups % lanes == 0;
}

// Checks the map, the weight and the stride.
void check_convolution(const Tensor& x, const Tensor& weight, int64_t stride) {
  check_map(x, "the map");
  TORCH_CHECK_VALUE(weight.dim() == 4, "the weight must be one of a 3 x 3 kernel, got the size ", weight.sym_sizes());
  check_weight(weight, x, {x.sym_size(1), weight.sym_size(1), SymInt(3), SymInt(3)});
  const auto channels = x.sym_size(1).maybe_as_int(), of_group = weight.sym_size(1).maybe_as_int();
  TORCH_CHECK_VALUE(!channels || !of_group ||
                        (*of_group > 0 && *channels % *of_group == 0 &&
                         has_grouped(*channels, *channels / *of_group, x.scalar_type())),
                    "groups of ", weight.sym_size(1), " of ", x.sym_size(1), " channels have no kernel");
  TORCH_CHECK_VALUE(stride == 1 || stride == 2, "a stride of ", stride, " has no kernel");
}

GroupedShape shape_of(const Tensor& x, const Tensor& weight, int64_t stride) {
  return {x.size(2), x.size(3), x.size(1), weight.size(1), stride};
}

std::array<SymInt, 4> out_sizes(const Tensor& x, int64_t stride) {
  return {x.sym_size(0), x.sym_size(1), strided(x.sym_size(2), stride), strided(x.sym_size(3), stride)};
}

template <class T>
std::unique_ptr<Number<T>[]> pack(const Tensor& weight, const GroupedShape& shape, bool adjoint) {
  std::unique_ptr<Number<T>[]> packed(new Number<T>[weight.numel()]);
  const Tensor plain = weight.contiguous();
  training_kernels<T>().pack_grouped(data<Number<T>>(plain), shape, adjoint, packed.get());
  return packed;
}

std::tuple<Tensor, Tensor> grouped_output(const Tensor& x, const Tensor& before, const Tensor& weight, int64_t stride,
                                          const Tensor& norm_weight, const Tensor& norm_bias,
                                          const Tensor& running_mean, const Tensor& running_var, double momentum,
                                          double eps) {
  check_convolution(x, weight, stride);
  check_statistics(before, x, x.sym_size(1));
  const auto sizes = out_sizes(x, stride);
  check_norm({norm_weight, norm_bias, running_mean, running_var, momentum, eps}, x, sizes[1], sizes[0], sizes[2],
             sizes[3]);
  return {empty_map(x, sizes), empty_statistics(x, sizes[1])};
}

std::tuple<Tensor, Tensor> grouped(const Tensor& x, const Tensor& before, const Tensor& weight, int64_t stride,
                                   const Tensor& norm_weight, const Tensor& norm_bias, const Tensor& running_mean,
                                   const Tensor& running_var, double momentum, double eps) {
  const std::tuple<Tensor, Tensor> results =
      grouped_output(x, before, weight, stride, norm_weight, norm_bias, running_mean, running_var, momentum, eps);
  const auto& [z, statistics] = results;
  const GroupedShape shape = shape_of(x, weight, stride);
  const Norm norm{norm_weight, norm_bias, running_mean, running_var, momentum, eps};
  for_element_type(x.scalar_type(), [&, &z = z, &statistics = statistics]<class T>(T) {
    const auto packed = pack<T>(weight, shape, false);
    const Statistics<T> s(before);
    SlabConvolution<T> convolution{shape, false, data<T>(x), s.scale, s.shift, packed.get(), {}};
    convolution.output.epilogue = Epilogue::statistics;
    convolution.output.c = data<T>(z);
    convolution.output.n = shape.channels;
    parallel_statistics<T>(x.size(0) * shape.out_height(), shape.out_width(), shape.channels, norm, statistics,
                           [&](int64_t begin, int64_t end, const ColumnSums<T>& sums) {
                             training_kernels<T>().grouped(convolution, begin, end, sums);
                           });
  });
  return results;
}

std::tuple<Tensor, Tensor, Tensor> grouped_norm_gradient_output(const Tensor& dz, const Tensor& weight, const Tensor& x,
                                                                const Tensor& statistics, int64_t stride) {
  check_convolution(x, weight, stride);
  check_map_of(dz, x, out_sizes(x, stride), "the gradient");
  check_statistics(statistics, x, x.sym_size(1));
  return {empty_like_map(x), empty_vector(x, x.sym_size(1)), empty_vector(x, x.sym_size(1))};
}

std::tuple<Tensor, Tensor, Tensor> grouped_norm_gradient(const Tensor& dz, const Tensor& weight, const Tensor& x,
                                                         const Tensor& statistics, int64_t stride) {
  const std::tuple<Tensor, Tensor, Tensor> results = grouped_norm_gradient_output(dz, weight, x, statistics, stride);
  const auto& [g, of_weight, of_bias] = results;
  const GroupedShape shape = shape_of(x, weight, stride);
  for_element_type(x.scalar_type(), [&, &g = g, &of_weight = of_weight, &of_bias = of_bias]<class T>(T) {
    const auto packed = pack<T>(weight, shape, true);
    SlabConvolution<T> convolution{shape, true, data<T>(dz), nullptr, nullptr, packed.get(), {}};
    convolution.output.c = data<T>(g);
    convolution.output.n = shape.channels;
    take_norm_gradient(convolution.output, x, statistics);
    std::vector<ChannelSums<T>> sums(num_threads(), ChannelSums<T>(shape.channels));
    parallel_sums<T>(x.size(0) * shape.height, &sums, nullptr,
                     [&](int64_t begin, int64_t end, const ColumnSums<T>& own) {
                       training_kernels<T>().grouped(convolution, begin, end, own);
                     });
    finish_norm_gradient(sums, x, statistics, g, of_weight, of_bias);
  });
  return results;
}

Tensor grouped_weight_gradient_output(const Tensor& dz, const Tensor& x, const Tensor& before, const Tensor& weight,
                                      int64_t stride) {
  check_convolution(x, weight, stride);
  check_map_of(dz, x, out_sizes(x, stride), "the gradient");
  check_statistics(before, x, x.sym_size(1));
  return empty_numbers(x, weight.sym_sizes());
}

Tensor grouped_weight_gradient(const Tensor& dz, const Tensor& x, const Tensor& before, const Tensor& weight,
                               int64_t stride) {
  const Tensor dweight = grouped_weight_gradient_output(dz, x, before, weight, stride);
  const GroupedShape shape = shape_of(x, weight, stride);
  const Tensor sums = at::zeros({num_threads(), weight.numel()}, weight.options());
  for_element_type(x.scalar_type(), [&]<class T>(T) {
    const Statistics<T> s(before);
    parallel_rows(x.size(0) * shape.out_height(), [&](int64_t thread, int64_t begin, int64_t end) {
      GroupedWeightGradient<T> own{shape, data<T>(dz), data<T>(x), s.scale, s.shift, nullptr};
      own.sums = data<Number<T>>(sums) + thread * weight.numel();
      training_kernels<T>().grouped_weight_gradient(own, begin, end);
    });
    const Tensor sum = sums.sum(0);
    training_kernels<T>().unpack_grouped(data<Number<T>>(sum), shape, data<Number<T>>(dweight));
  });
  return dweight;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(elastic_cnn, m) {
  m.def("train_has_grouped(int channels, int groups, ScalarType type) -> bool", &has_grouped);
}
ELASTIC_OPERATOR("train_grouped",
                 "(Tensor x, Tensor before, Tensor weight, int stride, Tensor norm_weight, Tensor norm_bias, "
                 "Tensor(a!) running_mean, Tensor(b!) running_var, float momentum, float eps) -> (Tensor, Tensor)",
                 grouped, grouped_output)
ELASTIC_OPERATOR("train_grouped_norm_gradient",
                 "(Tensor dz, Tensor weight, Tensor x, Tensor statistics, int stride) -> (Tensor, Tensor, Tensor)",
                 grouped_norm_gradient, grouped_norm_gradient_output)
ELASTIC_OPERATOR("train_grouped_weight_gradient",
                 "(Tensor dz, Tensor x, Tensor before, Tensor weight, int stride) -> Tensor", grouped_weight_gradient,
                 grouped_weight_gradient_output)

}  // namespace elastic
