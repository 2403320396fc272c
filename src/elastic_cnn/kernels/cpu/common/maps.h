// Sizes of maps, as both parts reckon them.
#pragma once
#include <cstdint>

// Inlined wherever it is compiled: no copy of it made for one instruction set may serve a source made for another.
#define ELASTIC_INLINE inline __attribute__((always_inline))

namespace elastic {

ELASTIC_INLINE int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Rows or columns of the low resolution, an odd one rounded up. T: a whole number, or torch's symbol for one.
template <class T>
ELASTIC_INLINE T half(const T& n) {
  return (n + 1) / 2;
}

// Rows or columns after a 3x3 convolution with padding 1, or one of 1x1, of this stride.
template <class T>
ELASTIC_INLINE T strided(const T& n, int64_t stride) {
  return (n - 1) / T(stride) + 1;
}

}  // namespace elastic
