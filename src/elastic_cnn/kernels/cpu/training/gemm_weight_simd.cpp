// Gradients of weights: products over the pixels of two maps with the register tile of tile.h, compiled once for
// each instruction set (ELASTIC_LEVEL).
//
// Both factors are copied, kDepth pixels at a time, so that a tile's values lie together at each pixel: of dZ
// kWeightRows (padded to 16), of A one panel. The next pixels are fetched meanwhile, where they fit into the cache.
#ifndef __AVX512BF16__  // bfloat16 has products of its own
#include "training/tile.h"

namespace elastic::ELASTIC_LEVEL {
namespace {

constexpr int64_t kPadded = 16;
constexpr int64_t kFetched = 1 << 17;  // elements of a weight up to which the next pixels fit into the cache beside it

// A run of memory that is fetched in about as many equal steps as are asked for; none in 0 steps.
struct Stream {
  const char *at, *end;
  int64_t step;
  Stream(const void* from, int64_t bytes, int64_t steps)
      : at(static_cast<const char*>(from)), end(steps ? at + bytes : at), step(steps ? bytes / steps + kLine : 0) {
    step = step / kLine * kLine;
  }
  ELASTIC_INLINE void fetch_some() {
    const char* stop = std::min(end, at + step);
    for (; at < stop; at += kLine) fetch(at);
  }
};

template <class T>
void copy_left(const T* dz, int64_t depth, int64_t channels, int64_t tiles, T* left) {
  for (int64_t m = 0; m < depth; m++) {
    const T* from = dz + m * channels;
    for (int64_t tile = 0; tile < tiles; tile++, from += kWeightRows) {
      T* to = left + (tile * kDepth + m) * kPadded;
      if (tile + 1 < tiles) {
        std::memcpy(to, from, kWeightRows * sizeof(T));
      } else {
        for (int64_t i = 0; i < channels - tile * kWeightRows; i++) to[i] = from[i];
      }
    }
  }
}

template <class T>
void copy_right(const WeightGradient<T>& p, int64_t begin, int64_t depth, int64_t first, int64_t last, T* right) {
  constexpr int64_t kColumns = Vector<T>::columns;
  for (int64_t m = 0; m < depth; m++) {
    const T* row = p.a + (begin + m) * p.i;
    T* to = right + m * kColumns;
    for (int64_t j = first; j < last; j += kColumns, to += kDepth * kColumns) {
      const T *scale = p.scale ? p.scale + j : nullptr, *shift = p.scale ? p.shift + j : nullptr;
      if (last - j >= kColumns) {
        copy_normalized(row + j, scale, shift, kColumns, to);
      } else {
        copy_normalized(row + j, scale, shift, last - j, to);
      }
    }
  }
}

// Columns [first, last) of A start and end at panels, or at the edge.
template <class T>
void weight_gradient(const WeightGradient<T>& p, int64_t begin, int64_t end, int64_t first, int64_t last) {
  constexpr int64_t kColumns = Vector<T>::columns;
  const int64_t tiles = (p.o + kWeightRows - 1) / kWeightRows, panels = (last - first + kColumns - 1) / kColumns;
  const std::unique_ptr<T[]> left(new T[tiles * kDepth * kPadded]()), right(new T[panels * kDepth * kColumns]());
  for (int64_t m0 = begin; m0 < end; m0 += kDepth) {
    const int64_t depth = std::min(kDepth, end - m0), next = std::min(kDepth, end - m0 - depth);
    copy_left(p.dz + m0 * p.o, depth, p.o, tiles, left.get());
    copy_right(p, m0, depth, first, last, right.get());
    const int64_t runs = next > 0 && p.o * p.i <= kFetched ? tiles * panels * kWeightRows : 0;
    Stream next_dz(p.dz + (m0 + depth) * p.o, next * p.o * sizeof(T), runs);
    Stream next_a(p.a + (m0 + depth) * p.i, next * p.i * sizeof(T), runs);
    for (int64_t panel = 0; panel < panels; panel++) {
      const int64_t j0 = first + panel * kColumns, columns = std::min(kColumns, last - j0);
      for (int64_t tile = 0; tile < tiles; tile++) {
        const int64_t i = tile * kWeightRows, rows = std::min<int64_t>(kWeightRows, p.o - i);
        T* to = p.dweight + i * p.i + j0;
        auto ahead = [&](int64_t run) __attribute__((always_inline)) {
          if (run < rows) fetch_columns(to + run * p.i);
          next_dz.fetch_some();
          next_a.fetch_some();
        };
        const T *a = left.get() + tile * kDepth * kPadded, *b = right.get() + panel * kDepth * kColumns;
        product_into<kWeightRows, 1, kPadded>(a, b, depth, rows, columns, to, p.i, true, ahead);
      }
    }
  }
}

}  // namespace

template <class T>
void set_gemm_weight(TrainingKernels<T>& table) {
  table.weight_gradient = &weight_gradient<T>;
}
ELASTIC_FOR_ELEMENT_TYPES(set_gemm_weight)

}  // namespace elastic::ELASTIC_LEVEL

#endif
