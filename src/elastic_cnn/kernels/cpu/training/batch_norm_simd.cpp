// The passes of batch_norm.cpp over the pixels of a map.
#include <cstring>
#include <limits>

#include "training/kernels.h"

namespace elastic::ELASTIC_LEVEL {
namespace {

template <class T>
void statistics(const T* z, const T* pivot, int64_t rows, int64_t channels, T* a, T* b) {
  for (int64_t row = 0; row < rows; row++, z += channels)
#pragma GCC ivdep
    for (int64_t c = 0; c < channels; c++) {
      const T d = z[c] - pivot[c];
      a[c] += d;
      b[c] += d * d;
    }
}

template <class T>
void normalize(const T* z, const T* scale, const T* shift, int64_t rows, int64_t channels, bool relu, T* y) {
  const T least = relu ? T(0) : -std::numeric_limits<T>::infinity();
  for (int64_t row = 0; row < rows; row++, z += channels, y += channels)
#pragma GCC ivdep
    for (int64_t c = 0; c < channels; c++) {
      const T value = z[c] * scale[c] + shift[c];
      y[c] = value < least ? least : value;  // NaN stays NaN, as in torch
    }
}

template <class T>
void norm_gradient_sum(const T* dy, const T* z, const T* scale, const T* shift, const T* mean, int64_t rows,
                       int64_t channels, bool relu, T* a, T* b) {
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
void norm_gradient(const T* dy, const T* z, const T* scale, const T* shift, const T* on_gradient, const T* on_map,
                   const T* constant, int64_t rows, int64_t channels, bool relu, T* dz) {
  const T least = relu ? T(0) : -std::numeric_limits<T>::infinity();
  for (int64_t row = 0; row < rows; row++, z += channels, dy += channels, dz += channels)
#pragma GCC ivdep
    for (int64_t c = 0; c < channels; c++) {
      const T g = z[c] * scale[c] + shift[c] <= least ? T(0) : dy[c];
      dz[c] = on_gradient[c] * g + on_map[c] * z[c] + constant[c];
    }
}

}  // namespace

template <class T>
void set_batch_norm(TrainingKernels<T>& table) {
  table.statistics = &statistics<T>;
  table.normalize = &normalize<T>;
  table.norm_gradient_sum = &norm_gradient_sum<T>;
  table.norm_gradient = &norm_gradient<T>;
}
template void set_batch_norm(TrainingKernels<float>&);
template void set_batch_norm(TrainingKernels<double>&);

}  // namespace elastic::ELASTIC_LEVEL
