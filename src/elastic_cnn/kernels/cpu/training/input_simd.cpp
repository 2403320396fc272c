// The passes of input.cpp over the rows of a map.
#include <cstring>
#include <limits>

#include "training/kernels.h"

namespace elastic::ELASTIC_LEVEL {
namespace {

template <class T>
void pool(const T* above, const T* below, int64_t width, int64_t channels, T* out) {
  using N = Number<T>;
  for (int64_t x = 0; x < width; x += 2, above += 2 * channels, below += 2 * channels, out += channels) {
    const int64_t next = x + 1 < width ? channels : 0;
    const Number<T> quarter = 0.25;  // an edge's pixels are read twice, so that every window has four
#pragma GCC ivdep
    for (int64_t c = 0; c < channels; c++)
      out[c] = quarter * ((N(above[c]) + N(above[next + c])) + (N(below[c]) + N(below[next + c])));
  }
}

// dx[x] += active ? dy[x] : 0, and the pooled row's gradient by the share of each pixel in its window.
template <class T>
void add_input_gradient(const T* dy, const uint8_t* active, const T* pooled, Number<T> row_share, int64_t width,
                        int64_t channels, T* dx) {
  using N = Number<T>;
  for (int64_t x = 0; x < width; x++, dx += channels) {
    const N share = x % 2 == 0 && x + 1 == width ? row_share : row_share / 2;
    const T* window = pooled ? pooled + x / 2 * channels : nullptr;
    if (dy) {
      const T* from = dy + x * channels;
      const uint8_t* bits = active + x / 8 * channels;
      const uint8_t bit = 1 << x % 8;
      if (window)
#pragma GCC ivdep
        for (int64_t c = 0; c < channels; c++)
          dx[c] = dx[c] + ((bits[c] & bit ? N(from[c]) : N(0)) + share * window[c]);
      else
#pragma GCC ivdep
        for (int64_t c = 0; c < channels; c++) dx[c] = dx[c] + (bits[c] & bit ? N(from[c]) : N(0));
    } else if (window) {
#pragma GCC ivdep
      for (int64_t c = 0; c < channels; c++) dx[c] = dx[c] + share * window[c];
    }
  }
}

template <class T>
void select_active(const T* dy, const uint8_t* active, int64_t width, int64_t channels, T* g) {
  for (int64_t x = 0; x < width; x++, dy += channels, g += channels) {
    const uint8_t* bits = active + x / 8 * channels;
    const uint8_t bit = 1 << x % 8;
#pragma GCC ivdep
    for (int64_t c = 0; c < channels; c++) g[c] = bits[c] & bit ? Number<T>(dy[c]) : Number<T>(0);
  }
}

}  // namespace

template <class T>
void set_input(TrainingKernels<T>& table) {
  table.pool = &pool<T>;
  table.add_input_gradient = &add_input_gradient<T>;
  table.select_active = &select_active<T>;
}
ELASTIC_FOR_ELEMENT_TYPES(set_input)

}  // namespace elastic::ELASTIC_LEVEL
