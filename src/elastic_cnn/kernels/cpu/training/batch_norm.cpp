// Batch norm in training mode, with or without the ReLU that follows, in two passes each way.
//
//   forward   1. per-channel sums of the map (statistics)        read z
//             2. y = relu(z * scale + shift)                     read z, write y
//   backward  1. g = dy where y > 0; sums of g and g (z - mean)   read dy, z
//             2. dz = on_gradient * g + on_map * z + constant     read dy, z, write dz (may overwrite dy)
//
// Where the ReLU was active is computed again from z, so neither the norm's output nor a mask is kept for it.
#include "common/operators.h"
#include "training/statistics.h"

namespace elastic {

namespace {

template <class T>
void statistics_pass(const Tensor& z, const Norm& norm, const Tensor& statistics) {
  const int64_t channels = z.size(1), rows = z.numel() / channels;
  const T* map = data<T>(z);
  std::vector<ChannelSums<T>> sums(num_threads(), ChannelSums<T>(channels));
  const std::vector<Number<T>> pivot(map, map + channels);
  parallel_rows(rows, [&](int64_t thread, int64_t begin, int64_t end) {
    add_statistics(map + begin * channels, pivot.data(), end - begin, sums[thread]);
  });
  finish_statistics(sums, pivot.data(), rows, norm, statistics);
}

template <class T>
void normalize_pass(const Tensor& z, const Tensor& statistics, bool relu, const Tensor& y) {
  const int64_t channels = z.size(1);
  const Statistics<T> s(statistics);
  parallel_rows(z.numel() / channels, [&](int64_t, int64_t begin, int64_t end) {
    const int64_t at = begin * channels;
    training_kernels<T>().normalize(data<T>(z) + at, s.scale, s.shift, end - begin, channels, relu, data<T>(y) + at);
  });
}

template <class T>
void backward(const Tensor& dy, const Tensor& z, const Tensor& statistics, bool relu, const Tensor& dz,
              const Tensor& weight, const Tensor& bias) {
  const int64_t channels = z.size(1), rows = z.numel() / channels;
  const T *map = data<T>(z), *gradients = data<T>(dy);
  T* out = data<T>(dz);
  const Statistics<T> s(statistics);
  std::vector<ChannelSums<T>> sums(num_threads(), ChannelSums<T>(channels));
  parallel_rows(rows, [&](int64_t thread, int64_t begin, int64_t end) {
    ChannelSums<T>& own = sums[thread];
    for (int64_t row = begin; row < end; row += kRowsInFloat) {
      training_kernels<T>().norm_gradient_sum(gradients + row * channels, map + row * channels, s.scale, s.shift,
                                              s.mean, std::min(kRowsInFloat, end - row), channels, relu, own.a.data(),
                                              own.b.data());
      own.flush();
    }
  });
  const NormGradient<T> norm(sums, statistics, rows, weight, bias);
  parallel_rows(rows, [&](int64_t, int64_t begin, int64_t end) {
    const int64_t at = begin * channels;
    training_kernels<T>().norm_gradient(gradients + at, map + at, s.scale, s.shift, norm.on_gradient.data(),
                                        norm.on_map.data(), norm.constant.data(), end - begin, channels, relu,
                                        out + at);
  });
}

Tensor statistics_output(const Tensor& z, const Tensor& weight, const Tensor& bias, const Tensor& running_mean,
                         const Tensor& running_var, double momentum, double eps) {
  check_map(z, "the map");
  const Norm norm{weight, bias, running_mean, running_var, momentum, eps};
  check_norm(norm, z, z.sym_size(1), z.sym_size(0), z.sym_size(2), z.sym_size(3));
  return empty_statistics(z, z.sym_size(1));
}

Tensor batch_statistics(const Tensor& z, const Tensor& weight, const Tensor& bias, const Tensor& running_mean,
                        const Tensor& running_var, double momentum, double eps) {
  const Tensor statistics = statistics_output(z, weight, bias, running_mean, running_var, momentum, eps);
  const Norm norm{weight, bias, running_mean, running_var, momentum, eps};
  for_element_type(z.scalar_type(), [&]<class T>(T) { statistics_pass<T>(z, norm, statistics); });
  return statistics;
}

Tensor normalize_output(const Tensor& z, const Tensor& statistics, bool) {
  check_map(z, "the map");
  check_statistics(statistics, z, z.sym_size(1));
  return empty_like_map(z);
}

Tensor normalize_map(const Tensor& z, const Tensor& statistics, bool relu) {
  const Tensor y = normalize_output(z, statistics, relu);
  for_element_type(z.scalar_type(), [&]<class T>(T) { normalize_pass<T>(z, statistics, relu, y); });
  return y;
}

std::tuple<Tensor, Tensor> batch_norm_backward_output(const Tensor& dy, const Tensor& z, const Tensor& statistics, bool,
                                                      const Tensor& dz) {
  check_map(z, "the map");
  check_map_of(dy, z, z.sym_sizes(), "the gradient");
  check_map_of(dz, z, z.sym_sizes(), "the result");
  check_statistics(statistics, z, z.sym_size(1));
  return {empty_vector(z, z.sym_size(1)), empty_vector(z, z.sym_size(1))};
}

std::tuple<Tensor, Tensor> batch_norm_backward(const Tensor& dy, const Tensor& z, const Tensor& statistics, bool relu,
                                               const Tensor& dz) {
  const auto [weight, bias] = batch_norm_backward_output(dy, z, statistics, relu, dz);
  for_element_type(z.scalar_type(), [&, &weight = weight, &bias = bias]<class T>(T) {
    backward<T>(dy, z, statistics, relu, dz, weight, bias);
  });
  return {weight, bias};
}

}  // namespace

ELASTIC_OPERATOR("train_statistics",
                 "(Tensor z, Tensor weight, Tensor bias, Tensor(a!) running_mean, Tensor(b!) running_var, float "
                 "momentum, float eps) -> Tensor",
                 batch_statistics, statistics_output)
ELASTIC_OPERATOR("train_normalize", "(Tensor z, Tensor statistics, bool relu) -> Tensor", normalize_map,
                 normalize_output)
ELASTIC_OPERATOR("train_batch_norm_backward",
                 "(Tensor dy, Tensor z, Tensor statistics, bool relu, Tensor(a!) dz) -> (Tensor, Tensor)",
                 batch_norm_backward, batch_norm_backward_output)

}  // namespace elastic
