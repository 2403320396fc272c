// What gemm_weight_simd.cpp does, for maps of bfloat16: a word (words.h) is an element of two neighbouring pixels.
#ifdef __AVX512BF16__
#include "training/words.h"

namespace elastic::ELASTIC_LEVEL {
namespace {

constexpr int64_t kPadded = 16, kPixels = 2 * kWords;

// Pairs of pixels of both factors as words: of dZ [tile][pair][kPadded], of A [panel][pair][kColumns]. What lies beyond
// the last row or column is not set, and its sums are not used.
struct Copies {
  int64_t tiles, panels;
  std::unique_ptr<uint32_t[]> left, right;

  Copies(int64_t o, int64_t columns)
      : tiles((o + kWeightRows - 1) / kWeightRows),
        panels((columns + kColumns - 1) / kColumns),
        left(new uint32_t[tiles * kWords * kPadded]),
        right(new uint32_t[panels * kWords * kColumns]) {}

  // A tile's words, and three of the next one's that its kPadded hold, as long as the row has so many channels.
  void read_left(const Bfloat16* dz, int64_t pixels, int64_t channels) {
    for (int64_t m = 0; m < pixels; m += 2) {
      const Bfloat16 *one = dz + m * channels, *two = m + 1 < pixels ? one + channels : nullptr;
      Word* to = left.get() + m / 2 * kPadded;
      for (int64_t tile = 0; tile < tiles; tile++, to += kWords * kPadded) {
        const int64_t first = tile * kWeightRows, count = std::min<int64_t>(kPadded, channels - first);
        interleave<false>(one + first, two ? two + first : nullptr, nullptr, nullptr, count, to);
      }
    }
  }
  void read_right(const WeightGradient<Bfloat16>& p, int64_t begin, int64_t pixels, int64_t first, int64_t last) {
    for (int64_t m = 0; m < pixels; m += 2) {
      const Bfloat16 *one = p.a + (begin + m) * p.i, *two = m + 1 < pixels ? one + p.i : nullptr;
      for (int64_t j = first, panel = 0; j < last; j += kColumns, panel++) {
        const int64_t count = std::min<int64_t>(kColumns, last - j);
        Word* to = right.get() + (panel * kWords + m / 2) * kColumns;
        if (p.scale) {
          interleave<true>(one + j, two ? two + j : nullptr, p.scale + j, p.shift + j, count, to);
        } else {
          interleave<false>(one + j, two ? two + j : nullptr, nullptr, nullptr, count, to);
        }
      }
    }
  }
};

// dweight (rows, columns) += sums.
ELASTIC_INLINE void add_sums(const float* sums, int64_t rows, int64_t columns, int64_t stride, float* dweight) {
  for (int64_t i = 0; i < rows; i++, sums += kColumns, dweight += stride)
#pragma GCC ivdep
    for (int64_t j = 0; j < columns; j++) dweight[j] += sums[j];
}

// Columns [first, last) of A start and end at panels, or at the edge.
void weight_gradient(const WeightGradient<Bfloat16>& p, int64_t begin, int64_t end, int64_t first, int64_t last) {
  Copies copies(p.o, last - first);
  alignas(64) float sums[kWeightRows * kColumns];
  for (int64_t m0 = begin; m0 < end; m0 += kPixels) {
    const int64_t pixels = std::min(kPixels, end - m0);
    copies.read_left(p.dz + m0 * p.o, pixels, p.o);
    copies.read_right(p, m0, pixels, first, last);
    for (int64_t panel = 0; panel < copies.panels; panel++) {
      const int64_t j0 = first + panel * kColumns, columns = std::min<int64_t>(kColumns, last - j0);
      for (int64_t tile = 0; tile < copies.tiles; tile++) {
        const int64_t i = tile * kWeightRows, rows = std::min<int64_t>(kWeightRows, p.o - i);
        float* to = p.dweight + i * p.i + j0;
        auto ahead = [&](int64_t run) __attribute__((always_inline)) {
          if (run < rows) fetch_columns(to + run * p.i);
        };
        word_product<kWeightRows, 1, kPadded>(copies.left.get() + tile * kWords * kPadded, 0,
                                              copies.right.get() + panel * kWords * kColumns, words(pixels), sums,
                                              ahead);
        if (columns == kColumns) {
          add_sums(sums, rows, kColumns, p.i, to);
        } else {
          add_sums(sums, rows, columns, p.i, to);
        }
      }
    }
  }
}

}  // namespace

template <class T>
void set_gemm_weight(TrainingKernels<T>& table) {
  table.weight_gradient = &weight_gradient;
}
ELASTIC_FOR_ELEMENT_TYPES(set_gemm_weight)

}  // namespace elastic::ELASTIC_LEVEL

#endif
