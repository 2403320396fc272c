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
#include "training/parallel.h"

namespace elastic {
namespace {

bool has_grouped(int64_t channels, int64_t groups, at::ScalarType type) {
  const bool known = type == at::kFloat || type == at::kDouble;
  if (level() == Level::none || !known || channels < 1 || groups < 1 || channels % groups) return false;
  const int64_t of_group = channels / groups;
  const int64_t lanes = type == at::kFloat ? training_kernels<float>().lanes : training_kernels<double>().lanes;
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
std::unique_ptr<T[]> pack(const Tensor& weight, const GroupedShape& shape, bool adjoint) {
  std::unique_ptr<T[]> packed(new T[weight.numel()]);
  const Tensor plain = weight.contiguous();
  training_kernels<T>().pack_grouped(plain.data_ptr<T>(), shape, adjoint, packed.get());
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
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "train_grouped", [&, &z = z, &statistics = statistics] {
    const auto packed = pack<scalar_t>(weight, shape, false);
    const Statistics<scalar_t> s(before);
    SlabConvolution<scalar_t> convolution{shape, false, x.data_ptr<scalar_t>(), s.scale, s.shift, packed.get(), {}};
    convolution.output.epilogue = Epilogue::statistics;
    convolution.output.c = z.data_ptr<scalar_t>();
    convolution.output.n = shape.channels;
    parallel_statistics<scalar_t>(x.size(0) * shape.out_height(), shape.out_width(), shape.channels, norm, statistics,
                                  [&](int64_t begin, int64_t end, const ColumnSums<scalar_t>& sums) {
                                    training_kernels<scalar_t>().grouped(convolution, begin, end, sums);
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
  AT_DISPATCH_FLOATING_TYPES(
      x.scalar_type(), "train_grouped_norm_gradient", [&, &g = g, &of_weight = of_weight, &of_bias = of_bias] {
        const auto packed = pack<scalar_t>(weight, shape, true);
        const Statistics<scalar_t> s(statistics);
        SlabConvolution<scalar_t> convolution{shape, true, dz.data_ptr<scalar_t>(), nullptr, nullptr, packed.get(), {}};
        convolution.output.epilogue = Epilogue::norm_gradient;
        convolution.output.c = g.data_ptr<scalar_t>();
        convolution.output.n = shape.channels;
        convolution.output.z = x.data_ptr<scalar_t>();
        convolution.output.z_scale = s.scale;
        convolution.output.z_shift = s.shift;
        convolution.output.z_mean = s.mean;
        std::vector<ChannelSums<scalar_t>> sums(num_threads(), ChannelSums<scalar_t>(shape.channels));
        parallel_sums<scalar_t>(x.size(0) * shape.height, &sums, nullptr,
                                [&](int64_t begin, int64_t end, const ColumnSums<scalar_t>& own) {
                                  training_kernels<scalar_t>().grouped(convolution, begin, end, own);
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
  return at::empty_symint(weight.sym_sizes(), x.options());
}

Tensor grouped_weight_gradient(const Tensor& dz, const Tensor& x, const Tensor& before, const Tensor& weight,
                               int64_t stride) {
  const Tensor dweight = grouped_weight_gradient_output(dz, x, before, weight, stride);
  const GroupedShape shape = shape_of(x, weight, stride);
  const Tensor sums = at::zeros({num_threads(), weight.numel()}, x.options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "train_grouped_weight_gradient", [&] {
    const Statistics<scalar_t> s(before);
    parallel_rows(x.size(0) * shape.out_height(), [&](int64_t thread, int64_t begin, int64_t end) {
      GroupedWeightGradient<scalar_t> own{shape,  dz.data_ptr<scalar_t>(), x.data_ptr<scalar_t>(), s.scale, s.shift,
                                          nullptr};
      own.sums = sums.data_ptr<scalar_t>() + thread * weight.numel();
      training_kernels<scalar_t>().grouped_weight_gradient(own, begin, end);
    });
    const Tensor sum = sums.sum(0);
    training_kernels<scalar_t>().unpack_grouped(sum.data_ptr<scalar_t>(), shape, dweight.data_ptr<scalar_t>());
  });
  return dweight;
}

}  // namespace
}  // namespace elastic

TORCH_LIBRARY_FRAGMENT(elastic_cnn, m) {
  m.def("train_has_grouped(int channels, int groups, ScalarType type) -> bool", &elastic::has_grouped);
  m.def(
      "train_grouped(Tensor x, Tensor before, Tensor weight, int stride, Tensor norm_weight, Tensor norm_bias, "
      "Tensor(a!) running_mean, Tensor(b!) running_var, float momentum, float eps) -> (Tensor, Tensor)");
  m.def(
      "train_grouped_norm_gradient(Tensor dz, Tensor weight, Tensor x, Tensor statistics, int stride) "
      "-> (Tensor, Tensor, Tensor)");
  m.def("train_grouped_weight_gradient(Tensor dz, Tensor x, Tensor before, Tensor weight, int stride) -> Tensor");
}
TORCH_LIBRARY_IMPL(elastic_cnn, CPU, m) {
  m.impl("train_grouped", &elastic::grouped);
  m.impl("train_grouped_norm_gradient", &elastic::grouped_norm_gradient);
  m.impl("train_grouped_weight_gradient", &elastic::grouped_weight_gradient);
}
TORCH_LIBRARY_IMPL(elastic_cnn, Meta, m) {
  m.impl("train_grouped", &elastic::grouped_output);
  m.impl("train_grouped_norm_gradient", &elastic::grouped_norm_gradient_output);
  m.impl("train_grouped_weight_gradient", &elastic::grouped_weight_gradient_output);
}
