// What the operators of the training form share: threads, per-channel sums, batch statistics.
//
// The rows of a map are divided into one contiguous piece a thread. Sums are kept a piece and added in the pieces' order,
// so that a result depends on the number of threads but never on their timing: a resumed run stays equal to the bit.
#pragma once
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <tuple>
#include <vector>

#include "training/arguments.h"
#include "training/kernels.h"

namespace elastic {

constexpr int64_t kRowsInFloat = 64;  // pixels summed in numbers before a sum moves to double

// body(element) for an element of a map's type: float, double or Bfloat16.
template <class Body>
void for_element_type(at::ScalarType type, const Body& body) {
  switch (type) {
    case at::kFloat: return body(float());
    case at::kDouble: return body(double());
    default: return body(Bfloat16());
  }
}

template <class T>
T* data(const Tensor& x) {
  return static_cast<T*>(x.data_ptr());
}

inline int num_threads() { return at::get_num_threads(); }

// body(thread, begin, end) for as many contiguous pieces of [0, count) as there are threads.
template <class Body>
void parallel_rows(int64_t count, const Body& body) {
  const int64_t threads = num_threads();
  at::parallel_for(0, threads, 1, [&](int64_t first, int64_t last) {
    for (int64_t thread = first; thread < last; thread++)
      body(thread, count * thread / threads, count * (thread + 1) / threads);
  });
}

// Two sums for each channel: rows add to `a` and `b`, which `flush` moves to doubles.
template <class T>
struct ChannelSums {
  int64_t channels;
  std::vector<Number<T>> a, b;
  std::vector<double> total_a, total_b;

  explicit ChannelSums(int64_t c) : channels(c), a(c), b(c), total_a(c), total_b(c) {}

  void flush() {
    for (int64_t c = 0; c < channels; c++) {
      total_a[c] += a[c];
      total_b[c] += b[c];
      a[c] = b[c] = 0;
    }
  }
};

// The threads' sums, added in order into the first one's.
template <class T>
ChannelSums<T>& sum_of_threads(std::vector<ChannelSums<T>>& sums) {
  for (size_t thread = 1; thread < sums.size(); thread++)
    for (int64_t c = 0; c < sums[0].channels; c++) {
      sums[0].total_a[c] += sums[thread].total_a[c];
      sums[0].total_b[c] += sums[thread].total_b[c];
    }
  return sums[0];
}

// Adds `rows` pixels of z: a += z - pivot, b += (z - pivot)^2.
template <class T>
void add_statistics(const T* z, const Number<T>* pivot, int64_t rows, ChannelSums<T>& sums) {
  for (int64_t row = 0; row < rows; row += kRowsInFloat) {
    const int64_t block = std::min(kRowsInFloat, rows - row);
    training_kernels<T>().statistics(z + row * sums.channels, pivot, block, sums.channels, sums.a.data(),
                                     sums.b.data());
    sums.flush();
  }
}

// The rows of a (4, C) tensor of batch statistics; scale and shift fold them with the norm's weight and bias:
// (z - mean) * inverse * weight + bias = z * scale + shift.
template <class T>
struct Statistics {
  Number<T>*mean, *inverse, *scale, *shift;
  explicit Statistics(const Tensor& statistics) {
    const int64_t channels = statistics.size(1);
    mean = data<Number<T>>(statistics);
    inverse = mean + channels;
    scale = inverse + channels;
    shift = scale + channels;
  }
};

template <class T>
void finish_statistics(std::vector<ChannelSums<T>>& of_threads, const Number<T>* pivot, int64_t count, const Norm& norm,
                       const Tensor& statistics) {
  const ChannelSums<T>& sums = sum_of_threads(of_threads);
  const Statistics<T> s(statistics);
  using N = Number<T>;
  const N *weight = data<N>(norm.weight), *bias = data<N>(norm.bias);
  N *running_mean = data<N>(norm.running_mean), *running_var = data<N>(norm.running_var);
  for (int64_t c = 0; c < sums.channels; c++) {
    const double from_pivot = sums.total_a[c] / count;
    const double mean = from_pivot + pivot[c];
    const double variance = std::max(sums.total_b[c] / count - from_pivot * from_pivot, 0.0);  // NaN stays
    const double inverse = 1 / std::sqrt(variance + norm.eps);
    s.mean[c] = mean;
    s.inverse[c] = inverse;
    s.scale[c] = weight[c] * inverse;
    s.shift[c] = bias[c] - mean * weight[c] * inverse;
    running_mean[c] += norm.momentum * (mean - running_mean[c]);
    running_var[c] += norm.momentum * (variance * count / (count - 1) - running_var[c]);
  }
}

// The gradient of a norm is dz = on_gradient * g + on_map * z + constant, channel by channel, where g is the gradient
// of its output, from the sums of g and of g * (z - mean); so are those of its weight and bias, which are written.
template <class T>
struct NormGradient {
  std::vector<Number<T>> on_gradient, on_map, constant;

  NormGradient(std::vector<ChannelSums<T>>& of_threads, const Tensor& statistics, int64_t count, const Tensor& weight,
               const Tensor& bias) {
    const ChannelSums<T>& sums = sum_of_threads(of_threads);
    const int64_t channels = sums.channels;
    const Statistics<T> s(statistics);
    on_gradient.resize(channels);
    on_map.resize(channels);
    constant.resize(channels);
    for (int64_t c = 0; c < channels; c++) {
      const double sum = sums.total_a[c], dot = sums.total_b[c], inverse = s.inverse[c], scale = s.scale[c];
      const double slope = scale * inverse * inverse * dot / count;
      data<Number<T>>(bias)[c] = sum;
      data<Number<T>>(weight)[c] = dot * inverse;
      on_gradient[c] = scale;
      on_map[c] = -slope;
      constant[c] = slope * s.mean[c] - scale * sum / count;
    }
  }
};

}  // namespace elastic
