// Batch norm in training mode, with or without the ReLU that follows, in two passes each way.
//
//   forward   1. per-channel sums of the map (statistics)        read z
//             2. y = relu(z * scale + shift)                     read z, write y
//   backward  1. g = dy where y > 0; sums of g and g (z - mean)   read dy, z
//             2. dz = on_gradient * g + on_map * z + constant     read dy, z, write dz (may overwrite dy)
//
// Where the ReLU was active is computed again from z, so neither the norm's output nor a mask is kept for it.
#include "train_common.h"

namespace elastic_train {

ELASTIC_CLONES void statistics_of(const float* z, const float* pivot, int64_t rows, int64_t channels, float* a,
                                  float* b) {
  statistics_rows(z, pivot, rows, channels, a, b);
}
void statistics_of(const double* z, const double* pivot, int64_t rows, int64_t channels, double* a, double* b) {
  statistics_rows(z, pivot, rows, channels, a, b);
}

namespace {

template <class T>
ELASTIC_INLINE void normalize_rows(const T* z, const T* scale, const T* shift, int64_t rows, int64_t channels,
                                   bool relu, T* y) {
  const T least = relu ? T(0) : -std::numeric_limits<T>::infinity();
  for (int64_t row = 0; row < rows; row++, z += channels, y += channels)
#pragma GCC ivdep
    for (int64_t c = 0; c < channels; c++) {
      const T value = z[c] * scale[c] + shift[c];
      y[c] = value < least ? least : value;  // NaN stays NaN, as in torch
    }
}

template <class T>
ELASTIC_INLINE void gradient_sum_rows(const T* dy, const T* z, const T* scale, const T* shift, const T* mean,
                                      int64_t rows, int64_t channels, bool relu, T* a, T* b) {
  const T least = relu ? T(0) : -std::numeric_limits<T>::infinity();
  for (int64_t row = 0; row < rows; row++, z += channels, dy += channels)
#pragma GCC ivdep
    for (int64_t c = 0; c < channels; c++) {
      const T g = z[c] * scale[c] + shift[c] <= least ? T(0) : dy[c];
      a[c] += g;
      b[c] += g * (z[c] - mean[c]);
    }
}

template <class T>
ELASTIC_INLINE void gradient_rows(const T* dy, const T* z, const T* scale, const T* shift, const T* on_gradient,
                                  const T* on_map, const T* constant, int64_t rows, int64_t channels, bool relu,
                                  T* dz) {
  const T least = relu ? T(0) : -std::numeric_limits<T>::infinity();
  for (int64_t row = 0; row < rows; row++, z += channels, dy += channels, dz += channels)
#pragma GCC ivdep
    for (int64_t c = 0; c < channels; c++) {
      const T g = z[c] * scale[c] + shift[c] <= least ? T(0) : dy[c];
      dz[c] = on_gradient[c] * g + on_map[c] * z[c] + constant[c];
    }
}

#define ELASTIC_PASSES(T, CLONES)                                                                                      \
  CLONES void normalize(const T* z, const T* scale, const T* shift, int64_t rows, int64_t channels, bool relu, T* y) { \
    normalize_rows(z, scale, shift, rows, channels, relu, y);                                                          \
  }                                                                                                                    \
  CLONES void gradient_sum(const T* dy, const T* z, const T* scale, const T* shift, const T* mean, int64_t rows,       \
                           int64_t channels, bool relu, T* a, T* b) {                                                  \
    gradient_sum_rows(dy, z, scale, shift, mean, rows, channels, relu, a, b);                                          \
  }
ELASTIC_PASSES(float, ELASTIC_CLONES)
ELASTIC_PASSES(double, )
#undef ELASTIC_PASSES

}  // namespace

ELASTIC_CLONES void norm_gradient_of(const float* dy, const float* z, const float* scale, const float* shift,
                                     const float* on_gradient, const float* on_map, const float* constant, int64_t rows,
                                     int64_t channels, bool relu, float* dz) {
  gradient_rows(dy, z, scale, shift, on_gradient, on_map, constant, rows, channels, relu, dz);
}
void norm_gradient_of(const double* dy, const double* z, const double* scale, const double* shift,
                      const double* on_gradient, const double* on_map, const double* constant, int64_t rows,
                      int64_t channels, bool relu, double* dz) {
  gradient_rows(dy, z, scale, shift, on_gradient, on_map, constant, rows, channels, relu, dz);
}

namespace {

template <class T>
void statistics_pass(const Tensor& z, const Norm& norm, const Tensor& statistics) {
  const int64_t channels = z.size(1), rows = z.numel() / channels;
  const T* map = z.data_ptr<T>();
  std::vector<ChannelSums<T>> sums(parts(), ChannelSums<T>(channels));
  const std::vector<T> pivot(map, map + channels);
  in_parts(rows, [&](int64_t part, int64_t begin, int64_t end) {
    add_statistics(map + begin * channels, pivot.data(), end - begin, sums[part]);
  });
  finish_statistics(sums, pivot.data(), rows, norm, statistics);
}

template <class T>
void normalize_pass(const Tensor& z, const Tensor& statistics, bool relu, const Tensor& y) {
  const int64_t channels = z.size(1);
  const Statistics<T> s(statistics);
  in_parts(z.numel() / channels, [&](int64_t, int64_t begin, int64_t end) {
    const int64_t at = begin * channels;
    normalize(z.data_ptr<T>() + at, s.scale, s.shift, end - begin, channels, relu, y.data_ptr<T>() + at);
  });
}

template <class T>
std::tuple<Tensor, Tensor> backward(const Tensor& dy, const Tensor& z, const Tensor& statistics, bool relu,
                                    const Tensor& dz) {
  const int64_t channels = z.size(1), rows = z.numel() / channels;
  const T *map = z.data_ptr<T>(), *gradients = dy.data_ptr<T>();
  T* out = dz.data_ptr<T>();
  const Statistics<T> s(statistics);
  std::vector<ChannelSums<T>> sums(parts(), ChannelSums<T>(channels));
  in_parts(rows, [&](int64_t part, int64_t begin, int64_t end) {
    ChannelSums<T>& own = sums[part];
    for (int64_t row = begin; row < end; row += kRowsInFloat) {
      gradient_sum(gradients + row * channels, map + row * channels, s.scale, s.shift, s.mean,
                   std::min(kRowsInFloat, end - row), channels, relu, own.a.data(), own.b.data());
      own.flush();
    }
  });
  const NormGradient<T> norm(sums, statistics, rows);
  in_parts(rows, [&](int64_t, int64_t begin, int64_t end) {
    const int64_t at = begin * channels;
    norm_gradient_of(gradients + at, map + at, s.scale, s.shift, norm.on_gradient.data(), norm.on_map.data(),
                     norm.constant.data(), end - begin, channels, relu, out + at);
  });
  return {norm.weight, norm.bias};
}

Tensor batch_statistics(const Tensor& z, const Tensor& weight, const Tensor& bias, const Tensor& running_mean,
                        const Tensor& running_var, double momentum, double eps) {
  check_map(z, "the map");
  const Norm norm{weight, bias, running_mean, running_var, momentum, eps};
  Tensor statistics = at::empty({4, z.size(1)}, z.options());
  AT_DISPATCH_FLOATING_TYPES(z.scalar_type(), "train_statistics",
                             [&] { statistics_pass<scalar_t>(z, norm, statistics); });
  return statistics;
}

Tensor normalize_map(const Tensor& z, const Tensor& statistics, bool relu) {
  check_map(z, "the map");
  Tensor y = empty_map(z, z.sizes());
  AT_DISPATCH_FLOATING_TYPES(z.scalar_type(), "train_normalize",
                             [&] { normalize_pass<scalar_t>(z, statistics, relu, y); });
  return y;
}

std::tuple<Tensor, Tensor> batch_norm_backward(const Tensor& dy, const Tensor& z, const Tensor& statistics, bool relu,
                                               const Tensor& dz) {
  check_map(z, "the map");
  check_map(dy, "the gradient");
  check_map(dz, "the result");
  std::tuple<Tensor, Tensor> gradients;
  AT_DISPATCH_FLOATING_TYPES(z.scalar_type(), "train_batch_norm_backward",
                             [&] { gradients = backward<scalar_t>(dy, z, statistics, relu, dz); });
  return gradients;
}

}  // namespace
}  // namespace elastic_train

TORCH_LIBRARY_FRAGMENT(elastic_cnn, m) {
  m.def(
      "train_statistics(Tensor z, Tensor weight, Tensor bias, Tensor(a!) running_mean, Tensor(b!) running_var, "
      "float momentum, float eps) -> Tensor");
  m.def("train_normalize(Tensor z, Tensor statistics, bool relu) -> Tensor");
  m.def(
      "train_batch_norm_backward(Tensor dy, Tensor z, Tensor statistics, bool relu, Tensor(a!) dz) "
      "-> (Tensor, Tensor)");
}
TORCH_LIBRARY_IMPL(elastic_cnn, CPU, m) {
  m.impl("train_statistics", &elastic_train::batch_statistics);
  m.impl("train_normalize", &elastic_train::normalize_map);
  m.impl("train_batch_norm_backward", &elastic_train::batch_norm_backward);
}
