// The passes of batch_norm.cpp over the pixels of a map.
#include <cstring>
#include <limits>

#include "training/kernels.h"

namespace elastic::ELASTIC_LEVEL {
namespace {

template <class T>
void statistics(const T* z, const Number<T>* pivot, int64_t rows, int64_t channels, Number<T>* a, Number<T>* b) {
  for (int64_t row = 0; row < rows; row++, z += channels)
#pragma GCC ivdep
    for (int64_t c = 0; c < channels; c++) {
      const Number<T> d = z[c] - pivot[c];
      a[c] += d;
      b[c] += d * d;
    }
}

template <class T>
void normalize(const T* z, const Number<T>* scale, const Number<T>* shift, int64_t rows, int64_t channels, bool relu,
               T* y) {
  using N = Number<T>;
  const N least = relu ? N(0) : -std::numeric_limits<N>::infinity();
  for (int64_t row = 0; row < rows; row++, z += channels, y += channels)
#pragma GCC ivdep
    for (int64_t c = 0; c < channels; c++) {
      const N value = z[c] * scale[c] + shift[c];
      y[c] = value < least ? least : value;  // NaN stays NaN, as in torch
    }
}

template <class T>
void norm_gradient_sum(const T* dy, const T* z, const Number<T>* scale, const Number<T>* shift, const Number<T>* mean,
                       int64_t rows, int64_t channels, bool relu, Number<T>* a, Number<T>* b) {
  using N = Number<T>;
  const N least = relu ? N(0) : -std::numeric_limits<N>::infinity();
  for (int64_t row = 0; row < rows; row++, z += channels, dy += channels)
#pragma GCC ivdep
    for (int64_t c = 0; c < channels; c++) {
      const N g = z[c] * scale[c] + shift[c] <= least ? N(0) : N(dy[c]);
      a[c] += g;
      b[c] += g * (z[c] - mean[c]);
    }
}

template <class T>
void norm_gradient(const T* dy, const T* z, const Number<T>* scale, const Number<T>* shift,
                   const Number<T>* on_gradient, const Number<T>* on_map, const Number<T>* constant, int64_t rows,
                   int64_t channels, bool relu, T* dz) {
  using N = Number<T>;
  const N least = relu ? N(0) : -std::numeric_limits<N>::infinity();
  for (int64_t row = 0; row < rows; row++, z += channels, dy += channels, dz += channels)
#pragma GCC ivdep
    for (int64_t c = 0; c < channels; c++) {
      const N g = z[c] * scale[c] + shift[c] <= least ? N(0) : N(dy[c]);
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
ELASTIC_FOR_ELEMENT_TYPES(set_batch_norm)

}  // namespace elastic::ELASTIC_LEVEL
