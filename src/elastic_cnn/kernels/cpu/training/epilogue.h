// What follows a product, done to each tile right after its last block, while it is in the first-level cache: batch
// statistics, the upsampled low branch, the gradient of the ReLU before, the gradients of an input's other consumers.
// Compiled for one instruction set (ELASTIC_LEVEL).
#pragma once
#include <type_traits>

#include "training/tile.h"

namespace elastic::ELASTIC_LEVEL {

// Where a pixel of the map finds its neighbours in a map of half the size, and its bit in `active`.
template <class T>
struct PixelTaps {
  int64_t near_near, near_far, far_near, far_far;  // low pixels of up: (row, column); the first is also its window's
  Number<T> share;                                 // of this pixel in its window of the pooled map
  int64_t byte;                                    // pixel of `active`
  uint8_t bit;
};

// The taps of `count` pixels from `pixel` on.
template <class T>
void find_taps(int64_t pixel, int64_t count, int64_t height, int64_t width, PixelTaps<T>* taps) {
  const int64_t low_height = (height + 1) / 2, low_width = (width + 1) / 2, bytes = (width + 7) / 8;
  int64_t x = pixel % width, row = pixel / width, r = row % height, image = row / height;
  for (int64_t at = 0; at < count; row++, r++, x = 0) {
    if (r == height) r = 0, image++;
    const int64_t i = r / 2, far_i = r % 2 ? std::min(i + 1, low_height - 1) : std::max<int64_t>(i - 1, 0);
    const int64_t near = (image * low_height + i) * low_width, far = (image * low_height + far_i) * low_width;
    const Number<T> of_row = r % 2 == 0 && r + 1 == height ? 1 : 0.5;
    for (; x < width && at < count; x++, at++) {
      const int64_t j = x / 2, far_j = x % 2 ? std::min(j + 1, low_width - 1) : std::max<int64_t>(j - 1, 0);
      const Number<T> share = x % 2 == 0 && x + 1 == width ? of_row : of_row / 2;
      taps[at] = {
          near + j, near + far_j, far + j, far + far_j, share, row * bytes + x / 8, static_cast<uint8_t>(1 << x % 8)};
    }
  }
}

// The numbers that a product left of a tile's columns: in C itself where that holds numbers, else in a buffer of their own.
template <class T>
struct Product {
  const Number<T>* at;
  int64_t stride;

  static constexpr bool in_place = std::is_same_v<T, Number<T>>;
  Product columns_from(int64_t j) const { return {at + j, stride}; }
};

// Writes a number, or a vector of them, and returns what is there now: rounded where T is narrower.
template <class V, class T>
ELASTIC_INLINE V store_rounded(T* to, const V& value) {
  store(to, value);
  if constexpr (Product<T>::in_place) {
    return value;
  } else {
    return load<V>(to);
  }
}

template <class V, class T>
ELASTIC_INLINE void statistics_epilogue(const Gemm<T>& p, const Product<T>& product, int64_t row, int64_t rows,
                                        const PixelTaps<T>* taps, int64_t j, const ColumnSums<T>& sums) {
  using N = Number<T>;
  const V pivot = load<V>(sums.pivot + j);
  V a = load<V>(sums.a + j), b = load<V>(sums.b + j);
  T* c = p.c + row * p.n + j;
  const N* from = product.at;
  for (int64_t r = 0; r < rows; r++, c += p.n, from += product.stride) {
    V value = load<V>(from);
    if (p.low) {
      const PixelTaps<T>& tap = taps[r];
      const T* low = p.low + j;
      value += N(0.5625) * load<V>(low + tap.near_near * p.n) + N(0.0625) * load<V>(low + tap.far_far * p.n) +
               N(0.1875) * (load<V>(low + tap.near_far * p.n) + load<V>(low + tap.far_near * p.n));
    }
    if (p.low || !Product<T>::in_place) value = store_rounded(c, value);
    const V d = value - pivot;
    a += d;
    b += d * d;
  }
  store(sums.a + j, a);
  store(sums.b + j, b);
}

template <class V, class T>
ELASTIC_INLINE void norm_gradient_epilogue(const Gemm<T>& p, const Product<T>& product, int64_t row, int64_t rows,
                                           int64_t j, const ColumnSums<T>& sums) {
  const V scale = load<V>(p.z_scale + j), shift = load<V>(p.z_shift + j), mean = load<V>(p.z_mean + j);
  V a = load<V>(sums.a + j), b = load<V>(sums.b + j);
  for (int64_t r = 0; r < rows; r++) {
    const int64_t here = (row + r) * p.n + j;
    const V z = load<V>(p.z + here), c = load<V>(product.at + r * product.stride);
    const V g = store_rounded(p.c + here, z * scale + shift <= V{} ? V{} : c);
    a += g;
    b += g * (z - mean);
  }
  store(sums.a + j, a);
  store(sums.b + j, b);
}

// The bits of one pixel's columns as a mask of the width of a number.
template <class T>
struct Bits {
  using N = Number<T>;
  using Whole = std::conditional_t<sizeof(N) == 4, int32_t, int64_t>;
  typedef uint8_t bytes __attribute__((vector_size(Vector<T>::lanes)));
  typedef Whole wide __attribute__((vector_size(kVectorBytes)));

  template <class V>
  static ELASTIC_INLINE V select(const uint8_t* active, uint8_t bit, const V& value) {
    if constexpr (std::is_same_v<V, N>) {
      return *active & bit ? value : N(0);
    } else {
      bytes here;
      std::memcpy(&here, active, sizeof(here));
      here &= bit;
      return __builtin_convertvector(here, wide) != 0 ? value : V{};
    }
  }
};

template <class V, class T>
ELASTIC_INLINE void input_gradient_epilogue(const Gemm<T>& p, const Product<T>& product, int64_t row, int64_t rows,
                                            const PixelTaps<T>* taps, int64_t j) {
  for (int64_t r = 0; r < rows; r++) {
    const int64_t here = (row + r) * p.n + j;
    V value = load<V>(product.at + r * product.stride);
    if (p.dy) value += Bits<T>::select(p.active + taps[r].byte * p.n + j, taps[r].bit, load<V>(p.dy + here));
    if (p.pooled) value += taps[r].share * load<V>(p.pooled + taps[r].near_near * p.n + j);
    store(p.c + here, value);
  }
}

template <class V, class T>
ELASTIC_INLINE void columns_epilogue(const Gemm<T>& p, const Product<T>& product, int64_t row, int64_t rows,
                                     const PixelTaps<T>* taps, int64_t j, const ColumnSums<T>& sums) {
  switch (p.epilogue) {
    case Epilogue::none:
      if (!Product<T>::in_place) input_gradient_epilogue<V>(p, product, row, rows, taps, j);
      return;
    case Epilogue::statistics: return statistics_epilogue<V>(p, product, row, rows, taps, j, sums);
    case Epilogue::norm_gradient: return norm_gradient_epilogue<V>(p, product, row, rows, j, sums);
    case Epilogue::input_gradient: return input_gradient_epilogue<V>(p, product, row, rows, taps, j);
  }
}

// The tile of `rows` rows from `row` and `columns` columns from `j0` on; taps: of these rows.
template <class T>
inline void tile_epilogue(const Gemm<T>& p, const Product<T>& product, int64_t row, int64_t rows,
                          const PixelTaps<T>* taps, int64_t j0, int64_t columns, const ColumnSums<T>& sums) {
  using V = typename Vector<T>::type;
  int64_t j = 0;
  for (; j + Vector<T>::lanes <= columns; j += Vector<T>::lanes)
    columns_epilogue<V>(p, product.columns_from(j), row, rows, taps, j0 + j, sums);
  for (; j < columns; j++) columns_epilogue<Number<T>>(p, product.columns_from(j), row, rows, taps, j0 + j, sums);
}

// The sums of `n` columns, of one block of rows, to doubles.
template <class T>
void move_sums(const ColumnSums<T>& sums, int64_t n) {
  for (int64_t j = 0; sums.a && j < n; j++) {
    sums.total_a[j] += sums.a[j];
    sums.total_b[j] += sums.b[j];
    sums.a[j] = sums.b[j] = 0;
  }
}

// Fetches what the end of row `row` of a tile touches; `tap` is null where the row belongs to another block.
template <class T>
ELASTIC_INLINE void fetch_epilogue(const Gemm<T>& p, int64_t row, const PixelTaps<T>* tap, int64_t j0) {
  const int64_t here = row * p.n + j0;
  fetch_columns(p.c + here);
  if (p.z) fetch_columns(p.z + here);
  if (p.dy) fetch_columns(p.dy + here);
  if (!tap) return;
  if (p.active) fetch(p.active + tap->byte * p.n + j0);
  if (p.low) fetch_columns(p.low + tap->far_far * p.n + j0);
  if (p.pooled) fetch_columns(p.pooled + tap->near_near * p.n + j0);
}

}  // namespace elastic::ELASTIC_LEVEL
