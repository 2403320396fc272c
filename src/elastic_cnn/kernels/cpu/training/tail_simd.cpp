// The passes of tail.cpp over the rows of a map.
#include <cstring>
#include <limits>

#include "training/upsample.h"

namespace elastic::ELASTIC_LEVEL {
namespace {

// mixed[j] = 3/4 near[j] + 1/4 far[j] for the whole low row, its first and last pixel repeated before and after it.
template <class T>
void mix_low_rows(const T* near, const T* far, int64_t pixels, int64_t channels, Number<T>* mixed) {
  using N = Number<T>;
  N* inner = mixed + channels;
#pragma GCC ivdep
  for (int64_t i = 0; i < pixels * channels; i++) inner[i] = N(0.75) * near[i] + N(0.25) * far[i];
  std::memcpy(mixed, inner, channels * sizeof(N));
  std::memcpy(inner + pixels * channels, inner + (pixels - 1) * channels, channels * sizeof(N));
}

// z[x] += the row `mixed`, interpolated along the width.
template <class T>
void add_up_row(const Number<T>* mixed, int64_t width, int64_t channels, T* z) {
  using N = Number<T>;
  for (int64_t x = 0; x < width; x++, z += channels) {
    const N* near = mixed + (x / 2 + 1) * channels;
    const N* far = x % 2 ? near + channels : near - channels;
#pragma GCC ivdep
    for (int64_t c = 0; c < channels; c++) z[c] = z[c] + (N(0.75) * near[c] + N(0.25) * far[c]);
  }
}

template <class T>
void finish(const T* z, const T* shortcut, const Number<T>* scale, const Number<T>* shift, int64_t width,
            int64_t channels, T* y, uint8_t* active) {
  std::memset(active, 0, (width + 7) / 8 * channels);
  for (int64_t x = 0; x < width; x++, z += channels, shortcut += channels, y += channels) {
    uint8_t* bits = active + x / 8 * channels;
    const uint8_t bit = 1 << x % 8;
#pragma GCC ivdep
    for (int64_t c = 0; c < channels; c++) {
      const Number<T> value = z[c] * scale[c] + shift[c] + shortcut[c];
      y[c] = value < 0 ? Number<T>(0) : value;
      bits[c] |= value <= 0 ? uint8_t(0) : bit;
    }
  }
}

template <class T>
void tail_gradient_sum(const T* dy, const uint8_t* active, const T* z, const Number<T>* mean, int64_t width,
                       int64_t channels, Number<T>* a, Number<T>* b) {
  using N = Number<T>;
  for (int64_t x = 0; x < width; x++, z += channels, dy += channels) {
    if (!active) {
#pragma GCC ivdep
      for (int64_t c = 0; c < channels; c++) {
        a[c] += dy[c];
        b[c] += dy[c] * (z[c] - mean[c]);
      }
      continue;
    }
    const uint8_t* bits = active + x / 8 * channels;
    const uint8_t bit = 1 << x % 8;
#pragma GCC ivdep
    for (int64_t c = 0; c < channels; c++) {
      const N g = bits[c] & bit ? N(dy[c]) : N(0);
      a[c] += g;
      b[c] += g * (z[c] - mean[c]);
    }
  }
}

template <class T>
void tail_gradient(const T* dy, const uint8_t* active, const T* z, const Number<T>* on_gradient,
                   const Number<T>* on_map, const Number<T>* constant, int64_t width, int64_t channels, T* dz) {
  using N = Number<T>;
  for (int64_t x = 0; x < width; x++, z += channels, dy += channels, dz += channels) {
    if (!active) {
#pragma GCC ivdep
      for (int64_t c = 0; c < channels; c++) dz[c] = on_gradient[c] * dy[c] + on_map[c] * z[c] + constant[c];
      continue;
    }
    const uint8_t* bits = active + x / 8 * channels;
    const uint8_t bit = 1 << x % 8;
#pragma GCC ivdep
    for (int64_t c = 0; c < channels; c++) {
      const N g = bits[c] & bit ? N(dy[c]) : N(0);
      dz[c] = on_gradient[c] * g + on_map[c] * z[c] + constant[c];
    }
  }
}

// column[x] = sum over k of weights[k] * rows[k][x]: the adjoint along the height, for one low row.
template <class From, class N, class To>
void mix_high_rows(const From* const* rows, const N* weights, int64_t elements, To* column) {
  const From *r0 = rows[0], *r1 = rows[1], *r2 = rows[2], *r3 = rows[3];
  const N w0 = weights[0], w1 = weights[1], w2 = weights[2], w3 = weights[3];
#pragma GCC ivdep
  for (int64_t i = 0; i < elements; i++) column[i] = w0 * r0[i] + w1 * r1[i] + w2 * r2[i] + w3 * r3[i];
}

// One row of dlow from the mixed high rows, along the width.
template <class T>
void adjoint_row(const Number<T>* column, int64_t width, int64_t channels, T* dlow) {
  const int64_t low = half(width);
  for (int64_t j = 0; j < low; j++, dlow += channels) {
    int64_t taps[4];
    Number<T> weights[4];
    const Number<T>* pixels[4];
    adjoint_taps(j, low, width, taps, weights);
    for (int k = 0; k < 4; k++) pixels[k] = column + taps[k] * channels;
    mix_high_rows(pixels, weights, channels, dlow);
  }
}

template <class T>
void add_upsampled(const T* near, const T* far, int64_t width, int64_t channels, Number<T>* mixed, T* z) {
  mix_low_rows(near, far, half(width), channels, mixed);
  add_up_row(mixed, width, channels, z);
}

template <class T>
void upsample_adjoint(const T* const* rows, const Number<T>* weights, int64_t width, int64_t channels,
                      Number<T>* column, T* dlow) {
  mix_high_rows(rows, weights, width * channels, column);
  adjoint_row(column, width, channels, dlow);
}

}  // namespace

template <class T>
void set_tail(TrainingKernels<T>& table) {
  table.add_upsampled = &add_upsampled<T>;
  table.finish = &finish<T>;
  table.tail_gradient_sum = &tail_gradient_sum<T>;
  table.tail_gradient = &tail_gradient<T>;
  table.upsample_adjoint = &upsample_adjoint<T>;
}
ELASTIC_FOR_ELEMENT_TYPES(set_tail)

}  // namespace elastic::ELASTIC_LEVEL
