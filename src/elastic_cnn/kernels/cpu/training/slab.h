// The layout in which grouped convolutions multiply: as many groups as a vector has lanes are a slab, and vector k of a
// pixel holds channel k of each of them, so that inputs, weights and outputs are multiplied as they lie. They are numbers, of bfloat16 too.
// Compiled for one instruction set (ELASTIC_LEVEL).
//
// In a channels_last map, element g * width + k of a slab is channel k of group g. Splitting all pairs of vectors into
// even and odd elements moves the lowest bit of the index to the top; after log2(width) times it is k * lanes + g.
// Joining them again is the way back.
#pragma once
#include <type_traits>

#include "training/epilogue.h"

namespace elastic::ELASTIC_LEVEL {

// Elements of a pixel of a slab: a vector more than its channels where these would lie a power of two apart and compete
// for the same lines of the cache.
template <class T>
constexpr int64_t pixel_size(int64_t of_group) {
  return (of_group + (of_group >= 8)) * Vector<T>::lanes;
}

template <class T>
struct Shuffle {
  using V = typename Vector<T>::type;
  using Whole = std::conditional_t<sizeof(Number<T>) == 4, int32_t, int64_t>;
  typedef Whole indices __attribute__((vector_size(kVectorBytes)));
  static constexpr int L = Vector<T>::lanes;
  indices even, odd, low, high;

  Shuffle() {
    for (int i = 0; i < L; i++) {
      even[i] = 2 * i;
      odd[i] = 2 * i + 1;
      low[i] = i / 2 + i % 2 * L;
      high[i] = low[i] + L / 2;
    }
  }
};

// `count` pixels of a row of a map of `channels` channels, those of a slab of groups of W, relu(from * scale + shift)
// where a scale is given, into the slab's layout.
template <int W, bool kNormalized, class T>
void to_slab(const Shuffle<T>& shuffle, const T* from, const Number<T>* scale, const Number<T>* shift, int64_t count,
             int64_t channels, Number<T>* to) {
  using V = typename Vector<T>::type;
  constexpr int L = Vector<T>::lanes;
  for (int64_t x = 0; x < count; x++, from += channels, to += pixel_size<T>(W)) {
    V here[W], there[W];
#pragma GCC unroll 32
    for (int k = 0; k < W; k++) {
      here[k] = load<V>(from + k * L);
      if (!kNormalized) continue;
      here[k] = here[k] * load<V>(scale + k * L) + load<V>(shift + k * L);
      here[k] = here[k] < V{} ? V{} : here[k];
    }
#pragma GCC unroll 5
    for (int left = W; left > 1; left /= 2) {
#pragma GCC unroll 16
      for (int k = 0; k < W / 2; k++) {
        there[k] = __builtin_shuffle(here[2 * k], here[2 * k + 1], shuffle.even);
        there[k + W / 2] = __builtin_shuffle(here[2 * k], here[2 * k + 1], shuffle.odd);
      }
#pragma GCC unroll 32
      for (int k = 0; k < W; k++) here[k] = there[k];
    }
#pragma GCC unroll 32
    for (int k = 0; k < W; k++) store(to + k * L, here[k]);
  }
}

// The way back.
template <int W, class T>
void from_slab(const Shuffle<T>& shuffle, const Number<T>* from, int64_t count, int64_t channels, Number<T>* to) {
  using V = typename Vector<T>::type;
  constexpr int L = Vector<T>::lanes;
  for (int64_t x = 0; x < count; x++, from += pixel_size<T>(W), to += channels) {
    V here[W], there[W];
#pragma GCC unroll 32
    for (int k = 0; k < W; k++) here[k] = load<V>(from + k * L);
#pragma GCC unroll 5
    for (int left = W; left > 1; left /= 2) {
#pragma GCC unroll 16
      for (int k = 0; k < W / 2; k++) {
        there[2 * k] = __builtin_shuffle(here[k], here[k + W / 2], shuffle.low);
        there[2 * k + 1] = __builtin_shuffle(here[k], here[k + W / 2], shuffle.high);
      }
#pragma GCC unroll 32
      for (int k = 0; k < W; k++) here[k] = there[k];
    }
#pragma GCC unroll 32
    for (int k = 0; k < W; k++) store(to + k * L, here[k]);
  }
}

// body(W) for the width of the groups, W being a constant.
template <class Body>
inline void for_width(int64_t of_group, const Body& body) {
  switch (of_group) {
    case 4: return body(std::integral_constant<int, 4>());
    case 8: return body(std::integral_constant<int, 8>());
    case 16: return body(std::integral_constant<int, 16>());
    case 32: return body(std::integral_constant<int, 32>());
  }
}

// Rows of one slab of a map, each with a pixel of zeros before and after it.
template <class T>
struct SlabRows {
  using N = Number<T>;
  int64_t first = 0, width, of_group, of_pixel, row;
  std::unique_ptr<N[]> data;

  SlabRows(int64_t width, int64_t of_group, int64_t most)
      : width(width),
        of_group(of_group),
        of_pixel(pixel_size<T>(of_group)),
        row((width + 2) * of_pixel),
        data(new N[row * most]) {}
  N* pixel(int64_t y, int64_t x) const { return data.get() + (y - first) * row + (x + 1) * of_pixel; }

  // rows [begin, end) of an image of `channels` channels, of which the slab's are the first
  void read(const Shuffle<T>& shuffle, const T* image, const N* scale, const N* shift, int64_t channels, int64_t begin,
            int64_t end) {
    first = begin;
    for (int64_t y = begin; y < end; y++) {
      std::fill_n(pixel(y, -1), of_pixel, N(0));
      std::fill_n(pixel(y, width), of_pixel, N(0));
      const T* from = image + y * width * channels;
      for_width(of_group, [&](auto w) {
        if (scale) {
          to_slab<w(), true>(shuffle, from, scale, shift, width, channels, pixel(y, 0));
        } else {
          to_slab<w(), false>(shuffle, from, scale, shift, width, channels, pixel(y, 0));
        }
      });
    }
  }
};

// Rows of a slab that are worked on at a time: what stays in the second-level cache.
template <class T>
int64_t rows_at_a_time(const GroupedShape& shape) {
  constexpr int64_t kBytes = 96 << 10;
  const int64_t row = shape.width * shape.of_group * Vector<T>::lanes * sizeof(Number<T>);
  return std::max<int64_t>(kBytes / row / 2 * 2, 2);
}

}  // namespace elastic::ELASTIC_LEVEL
