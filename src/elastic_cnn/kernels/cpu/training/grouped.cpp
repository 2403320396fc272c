// Operators of the training form's grouped 3 x 3 convolutions, on the kernels of grouped_simd.cpp.
//
//   forward    z = conv(relu(norm(x))) and z's batch statistics, in one pass over x
//   backward   of the weight; of x: g = the convolution's adjoint where the ReLU was active with the sums of the norm's
//              gradient, then the norm's gradient. The norm's output is computed again from x, so it need not be kept.
#include <memory>

#include "common/level.h"
#include "training/parts.h"

namespace elastic {
namespace {

bool has_grouped(int64_t channels, int64_t groups, at::ScalarType type) {
  if (level() == Level::none || channels % groups) return false;
  const int64_t of_group = channels / groups;
  const int64_t lanes = type == at::kFloat ? training_kernels<float>().lanes : training_kernels<double>().lanes;
  return (of_group == 4 || of_group == 8 || of_group == 16 || of_group == 32) && groups % lanes == 0;
}

GroupedShape shape_of(const Tensor& x, const Tensor& weight, int64_t stride) {
  check_map(x, "the map");
  TORCH_CHECK(weight.dim() == 4 && weight.size(2) == 3 && weight.size(3) == 3 && weight.size(0) == x.size(1),
              "the weight is not of a 3 x 3 kernel with as many channels out as in");
  TORCH_CHECK(has_grouped(x.size(1), x.size(1) / weight.size(1), x.scalar_type()), "groups of ", weight.size(1),
              " channels have no pass");
  TORCH_CHECK(stride == 1 || stride == 2, "a stride of ", stride, " has no pass");
  return {x.size(2), x.size(3), x.size(1), weight.size(1), stride};
}

template <class T>
std::unique_ptr<T[]> pack(const Tensor& weight, const GroupedShape& shape, bool adjoint) {
  std::unique_ptr<T[]> packed(new T[weight.numel()]);
  const Tensor plain = weight.contiguous();
  training_kernels<T>().pack_grouped(plain.data_ptr<T>(), shape, adjoint, packed.get());
  return packed;
}

std::tuple<Tensor, Tensor> grouped(const Tensor& x, const Tensor& before, const Tensor& weight, int64_t stride,
                                   const Tensor& norm_weight, const Tensor& norm_bias, const Tensor& running_mean,
                                   const Tensor& running_var, double momentum, double eps) {
  const GroupedShape shape = shape_of(x, weight, stride);
  Tensor z = empty_map(x, {x.size(0), shape.channels, shape.out_height(), shape.out_width()});
  Tensor statistics = at::empty({4, shape.channels}, x.options());
  const Norm norm{norm_weight, norm_bias, running_mean, running_var, momentum, eps};
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "train_grouped", [&] {
    const auto packed = pack<scalar_t>(weight, shape, false);
    const Statistics<scalar_t> s(before);
    SlabConvolution<scalar_t> convolution{shape, false, x.data_ptr<scalar_t>(), s.scale, s.shift, packed.get(), {}};
    convolution.output.epilogue = Epilogue::statistics;
    convolution.output.c = z.data_ptr<scalar_t>();
    convolution.output.n = shape.channels;
    run_statistics<scalar_t>(x.size(0) * shape.out_height(), shape.out_width(), shape.channels, norm, statistics,
                             [&](int64_t begin, int64_t end, const ColumnSums<scalar_t>& sums) {
                               training_kernels<scalar_t>().grouped(convolution, begin, end, sums);
                             });
  });
  return {z, statistics};
}

void check_gradient(const Tensor& dz, const Tensor& x, const GroupedShape& shape) {
  check_map(dz, "the gradient");
  const std::vector<int64_t> expected{x.size(0), shape.channels, shape.out_height(), shape.out_width()};
  TORCH_CHECK(dz.sizes() == at::IntArrayRef(expected), "gradient of size ", dz.sizes(), " for a map of ", x.sizes());
}

std::tuple<Tensor, Tensor, Tensor> grouped_norm_gradient(const Tensor& dz, const Tensor& weight, const Tensor& x,
                                                         const Tensor& statistics, int64_t stride) {
  const GroupedShape shape = shape_of(x, weight, stride);
  check_gradient(dz, x, shape);
  Tensor g = empty_map(x, x.sizes()), of_weight, of_bias;
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "train_grouped_norm_gradient", [&] {
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
    std::vector<ChannelSums<scalar_t>> sums(parts(), ChannelSums<scalar_t>(shape.channels));
    run_parts<scalar_t>(x.size(0) * shape.height, &sums, nullptr,
                        [&](int64_t begin, int64_t end, const ColumnSums<scalar_t>& own) {
                          training_kernels<scalar_t>().grouped(convolution, begin, end, own);
                        });
    std::tie(of_weight, of_bias) = finish_norm_gradient(sums, x, statistics, g);
  });
  return {g, of_weight, of_bias};
}

Tensor grouped_weight_gradient(const Tensor& dz, const Tensor& x, const Tensor& before, const Tensor& weight,
                               int64_t stride) {
  const GroupedShape shape = shape_of(x, weight, stride);
  check_gradient(dz, x, shape);
  Tensor sums = at::zeros({parts(), weight.numel()}, x.options()), dweight = at::empty(weight.sizes(), x.options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "train_grouped_weight_gradient", [&] {
    const Statistics<scalar_t> s(before);
    in_parts(x.size(0) * shape.out_height(), [&](int64_t part, int64_t begin, int64_t end) {
      GroupedWeightGradient<scalar_t> own{shape,  dz.data_ptr<scalar_t>(), x.data_ptr<scalar_t>(), s.scale, s.shift,
                                          nullptr};
      own.sums = sums.data_ptr<scalar_t>() + part * weight.numel();
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
