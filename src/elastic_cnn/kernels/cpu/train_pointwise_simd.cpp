// Products with a register tile of kRows x 2 vectors, compiled for one instruction set (ELASTIC_LEVEL).
//
// Blocks. B lies packed in panels of kColumns columns and at most kDepth rows of B: [depth block][panel][row][column],
// zeros where the last panel reaches over the edge. Of A, kTiles * kRows rows by kDepth columns at a time are copied
// (and normalised, where a norm comes before) into a buffer that stays in the second-level cache; each of its tiles
// meets each panel in registers. The buffer's rows are kStride long, not a power of two apart, so that they do not
// compete for the same lines of the cache. A depth over kDepth is summed block by block in C.
//
// Memory. While a tile is multiplied, the lines of C that it will write, those of other maps that its end will read, and
// a share of the next block of A are fetched.
//
// What comes after the product (sums, the upsampled branch, a ReLU's gradient, gradients of other consumers) is done to
// each tile right after its last block, while it is in the first-level cache.
#include "train_pointwise.h"

#include <algorithm>
#include <cstring>
#include <memory>

namespace elastic_train {
namespace ELASTIC_LEVEL {
namespace {

#ifdef __AVX512F__
constexpr int kVectorBytes = 64, kRows = 14, kWeightRows = 13;  // 28 of 32 registers; 13 divides 64 .. 512 with least waste
#else
constexpr int kVectorBytes = 32, kRows = 6, kWeightRows = 6;
#endif
constexpr int64_t kDepth = 256, kStride = kDepth + 16, kTiles = 16, kBlock = kTiles * kRows;
constexpr int64_t kFetched = 1 << 17;  // elements of a weight up to which the next blocks fit into the cache beside it

template <class T>
struct Vector {
  typedef T type __attribute__((vector_size(kVectorBytes), aligned(sizeof(T)), may_alias));
  static constexpr int lanes = kVectorBytes / sizeof(T), columns = 2 * lanes;
};

// c (R, 2 vectors) = or += the product of a, element (i, k) at a[i * kRowStep + k * kDepthStep], and a panel of B.
template <int R, int kRowStep, int kDepthStep, class T>
inline __attribute__((always_inline)) void tile_product(const T* __restrict a, const T* __restrict b, int64_t depth,
                                                        T* c, int64_t stride, bool add) {
  using V = typename Vector<T>::type;
  constexpr int L = Vector<T>::lanes;
  V sum[R][2];
#pragma GCC unroll 16
  for (int i = 0; i < R; i++) sum[i][0] = sum[i][1] = V{};
  for (int64_t k = 0; k < depth; k++, b += 2 * L) {
    const V b0 = *reinterpret_cast<const V*>(b), b1 = *reinterpret_cast<const V*>(b + L);
#pragma GCC unroll 16
    for (int i = 0; i < R; i++) {
      const T value = a[i * kRowStep + k * kDepthStep];
      sum[i][0] += b0 * value;
      sum[i][1] += b1 * value;
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < R; i++) {
    V* row = reinterpret_cast<V*>(c + i * stride);
    V* second = reinterpret_cast<V*>(c + i * stride + L);
    *row = add ? *row + sum[i][0] : sum[i][0];
    *second = add ? *second + sum[i][1] : sum[i][1];
  }
}

// The same where fewer than R rows or 2 vectors of columns of C exist.
template <int R, int kRowStep, int kDepthStep, class T>
void product_into(const T* a, const T* b, int64_t depth, int64_t rows, int64_t columns, T* c, int64_t stride, bool add) {
  constexpr int kColumns = Vector<T>::columns;
  if (rows == R && columns == kColumns) return tile_product<R, kRowStep, kDepthStep>(a, b, depth, c, stride, add);
  T tile[R * kColumns];
  tile_product<R, kRowStep, kDepthStep>(a, b, depth, tile, kColumns, false);
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < columns; j++) c[i * stride + j] = tile[i * kColumns + j] + (add ? c[i * stride + j] : T(0));
}

inline void fetch(const void* from, int64_t bytes) {
  for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(static_cast<const char*>(from) + at, 0, 2);
}

// The part `share` of `shares` of a run of bytes.
inline void fetch_share(const void* from, int64_t bytes, int64_t share, int64_t shares) {
  const int64_t lines = (bytes + 63) / 64, first = lines * share / shares;
  fetch(static_cast<const char*>(from) + first * 64, (lines * (share + 1) / shares - first) * 64);
}

template <class T>
int64_t packed_size(int64_t k, int64_t n) {
  constexpr int64_t kColumns = Vector<T>::columns;
  return k * ((n + kColumns - 1) / kColumns * kColumns);
}

// The panels [first, last) of B. Along whichever axis B is contiguous, it is read.
template <class T>
void pack(const T* b, int64_t row_step, int64_t column_step, int64_t k, int64_t n, int64_t first, int64_t last, T* packed) {
  constexpr int64_t kColumns = Vector<T>::columns;
  const int64_t panels = (n + kColumns - 1) / kColumns;
  for (int64_t k0 = 0; k0 < k; k0 += kDepth)
    for (int64_t panel = first; panel < last; panel++) {
      const int64_t depth = std::min(kDepth, k - k0), j0 = panel * kColumns, there = std::min(kColumns, n - j0);
      const T* from = b + k0 * row_step + j0 * column_step;
      T* to = packed + (k0 * panels + panel * depth) * kColumns;
      if (there < kColumns) std::fill(to, to + depth * kColumns, T(0));
      if (row_step == 1) {
        for (int64_t j = 0; j < there; j++)
          for (int64_t r = 0; r < depth; r++) to[r * kColumns + j] = from[r + j * column_step];
      } else {
        for (int64_t r = 0; r < depth; r++)
          for (int64_t j = 0; j < there; j++) to[r * kColumns + j] = from[r * row_step + j * column_step];
      }
    }
}

template <class T>
inline void copy_normalized(const T* from, const T* scale, const T* shift, int64_t count, T* to) {
  if (!scale) {
    std::memcpy(to, from, count * sizeof(T));
    return;
  }
#pragma GCC ivdep
  for (int64_t j = 0; j < count; j++) {
    const T value = from[j] * scale[j] + shift[j];
    to[j] = value < 0 ? T(0) : value;
  }
}

// Where a pixel of the map finds its neighbours in a map of half the size, and its bit in `active`.
struct Place {
  int64_t near_near, near_far, far_near, far_far;  // low pixels of up: (row, column)
  int64_t window;                                   // pixel of the pooled map
  double share;                                     // of this pixel in its window
  int64_t byte;                                     // pixel of `active`
  uint8_t bit;
};

Place find_place(int64_t pixel, int64_t height, int64_t width) {
  const int64_t low_height = (height + 1) / 2, low_width = (width + 1) / 2;
  const int64_t x = pixel % width, row = pixel / width, r = row % height, image = row / height;
  const int64_t first = image * low_height * low_width;
  const int64_t i = r / 2, j = x / 2;
  const int64_t far_i = r % 2 ? std::min(i + 1, low_height - 1) : std::max<int64_t>(i - 1, 0);
  const int64_t far_j = x % 2 ? std::min(j + 1, low_width - 1) : std::max<int64_t>(j - 1, 0);
  auto low = [&](int64_t a, int64_t b) { return first + a * low_width + b; };
  const double rows = r % 2 == 0 && r + 1 == height ? 1 : 2, columns = x % 2 == 0 && x + 1 == width ? 1 : 2;
  return {low(i, j), low(i, far_j), low(far_i, j), low(far_i, far_j), low(i, j), 1 / (rows * columns),
          row * ((width + 7) / 8) + x / 8, static_cast<uint8_t>(1 << x % 8)};
}

template <class T>
inline void end_statistics(const Product<T>& p, int64_t row, const Place& place, int64_t j0, int64_t columns,
                           const ColumnSums<T>& sums) {
  T* c = p.c + row * p.n + j0;
  if (p.low) {
    const T *nn = p.low + place.near_near * p.n + j0, *nf = p.low + place.near_far * p.n + j0;
    const T *fn = p.low + place.far_near * p.n + j0, *ff = p.low + place.far_far * p.n + j0;
#pragma GCC ivdep
    for (int64_t j = 0; j < columns; j++)
      c[j] += T(0.5625) * nn[j] + T(0.1875) * (nf[j] + fn[j]) + T(0.0625) * ff[j];
  }
  const T* pivot = p.pivot + j0;
  T *a = sums.a + j0, *b = sums.b + j0;
#pragma GCC ivdep
  for (int64_t j = 0; j < columns; j++) {
    const T d = c[j] - pivot[j];
    a[j] += d;
    b[j] += d * d;
  }
}

template <class T>
inline void end_norm_gradient(const Product<T>& p, int64_t row, int64_t j0, int64_t columns,
                              const ColumnSums<T>& sums) {
  T *c = p.c + row * p.n + j0, *a = sums.a + j0, *b = sums.b + j0;
  const T *z = p.z + row * p.n + j0, *scale = p.z_scale + j0, *shift = p.z_shift + j0, *mean = p.pivot + j0;
#pragma GCC ivdep
  for (int64_t j = 0; j < columns; j++) {
    const T g = z[j] * scale[j] + shift[j] <= 0 ? T(0) : c[j];
    c[j] = g;
    a[j] += g;
    b[j] += g * (z[j] - mean[j]);
  }
}

template <class T>
inline void end_input_gradient(const Product<T>& p, int64_t row, const Place& place, int64_t j0, int64_t columns) {
  T* c = p.c + row * p.n + j0;
  if (p.dy) {
    const T* dy = p.dy + row * p.n + j0;
    const uint8_t *bits = p.active + place.byte * p.n + j0, bit = place.bit;
#pragma GCC ivdep
    for (int64_t j = 0; j < columns; j++) c[j] += bits[j] & bit ? dy[j] : T(0);
  }
  if (p.pooled) {
    const T *window = p.pooled + place.window * p.n + j0, share = static_cast<T>(place.share);
#pragma GCC ivdep
    for (int64_t j = 0; j < columns; j++) c[j] += share * window[j];
  }
}

// The same for a tile of one vector's columns, the sums in registers.
template <class T>
inline void end_statistics_vector(const Product<T>& p, int64_t row, int64_t rows, const Place* places, int64_t j,
                                  const ColumnSums<T>& sums) {
  using V = typename Vector<T>::type;
  auto at = [](const T* from) -> const V& { return *reinterpret_cast<const V*>(from); };
  const V pivot = at(p.pivot + j);
  V a = at(sums.a + j), b = at(sums.b + j);
  for (int64_t r = 0; r < rows; r++) {
    V& c = *reinterpret_cast<V*>(p.c + (row + r) * p.n + j);
    V value = c;
    if (p.low) {
      const Place& place = places[r];
      const T* low = p.low + j;
      value += T(0.5625) * at(low + place.near_near * p.n) + T(0.0625) * at(low + place.far_far * p.n) +
               T(0.1875) * (at(low + place.near_far * p.n) + at(low + place.far_near * p.n));
      c = value;
    }
    const V d = value - pivot;
    a += d;
    b += d * d;
  }
  *reinterpret_cast<V*>(sums.a + j) = a;
  *reinterpret_cast<V*>(sums.b + j) = b;
}

template <class T>
inline void end_norm_gradient_vector(const Product<T>& p, int64_t row, int64_t rows, int64_t j,
                                     const ColumnSums<T>& sums) {
  using V = typename Vector<T>::type;
  auto at = [](const T* from) -> const V& { return *reinterpret_cast<const V*>(from); };
  const V scale = at(p.z_scale + j), shift = at(p.z_shift + j), mean = at(p.pivot + j);
  V a = at(sums.a + j), b = at(sums.b + j);
  for (int64_t r = 0; r < rows; r++) {
    V& c = *reinterpret_cast<V*>(p.c + (row + r) * p.n + j);
    const V z = at(p.z + (row + r) * p.n + j);
    const V g = z * scale + shift <= V{} ? V{} : c;
    c = g;
    a += g;
    b += g * (z - mean);
  }
  *reinterpret_cast<V*>(sums.a + j) = a;
  *reinterpret_cast<V*>(sums.b + j) = b;
}

template <class T>
inline void end_tile(const Product<T>& p, int64_t row, int64_t rows, const Place* places, int64_t j0,
                     const ColumnSums<T>& sums) {
  for (int64_t j = j0; j < j0 + Vector<T>::columns; j += Vector<T>::lanes) switch (p.end) {
      case Product<T>::End::plain: return;
      case Product<T>::End::statistics: end_statistics_vector(p, row, rows, places, j, sums); break;
      case Product<T>::End::norm_gradient: end_norm_gradient_vector(p, row, rows, j, sums); break;
      case Product<T>::End::input_gradient:
        for (int64_t r = 0; r < rows; r++) end_input_gradient(p, row + r, places[r], j, Vector<T>::lanes);
    }
}

template <class T>
inline void end_rows(const Product<T>& p, int64_t row, int64_t rows, const Place* places,
                                                    int64_t j0, int64_t columns, const ColumnSums<T>& sums) {
  for (int64_t r = 0; r < rows; r++) switch (p.end) {
      case Product<T>::End::plain: return;
      case Product<T>::End::statistics: end_statistics(p, row + r, places[r], j0, columns, sums); break;
      case Product<T>::End::norm_gradient: end_norm_gradient(p, row + r, j0, columns, sums); break;
      case Product<T>::End::input_gradient: end_input_gradient(p, row + r, places[r], j0, columns); break;
    }
}

template <class T>
void move_sums(const ColumnSums<T>& sums, int64_t n) {
  if (!sums.a) return;
  for (int64_t j = 0; j < n; j++) {
    sums.total_a[j] += sums.a[j];
    sums.total_b[j] += sums.b[j];
    sums.a[j] = sums.b[j] = 0;
  }
}

// Fetches what the end of the tile at rows `row`.. and columns `j0`.. will touch.
template <class T>
inline void fetch_tile(const Product<T>& p, int64_t row, int64_t rows, int64_t j0, int64_t columns) {
  for (int64_t r = row; r < row + rows; r++) {
    const int64_t at = r * p.n + j0;
    for (int64_t j = 0; j < columns; j += 64 / static_cast<int64_t>(sizeof(T))) {
      __builtin_prefetch(p.c + at + j, 1, 3);
      if (p.z) __builtin_prefetch(p.z + at + j, 0, 3);
      if (p.dy) __builtin_prefetch(p.dy + at + j, 0, 3);
    }
  }
}

template <class T>
void run_product(const Product<T>& p, int64_t begin, int64_t end, const ColumnSums<T>& sums) {
  constexpr int64_t kColumns = Vector<T>::columns;
  const int64_t panels = (p.n + kColumns - 1) / kColumns;
  const std::unique_ptr<T[]> block(new T[kBlock * kStride + 16]());
  Place places[kBlock];
  const bool spatial = p.low || p.pooled || p.active;
  for (int64_t m0 = begin; m0 < end; m0 += kBlock) {
    const int64_t rows = std::min(kBlock, end - m0);
    const T* next = p.a + (m0 + rows) * p.k;
    const int64_t next_rows = p.k <= kDepth ? std::min(kBlock, end - m0 - rows) : 0;
    for (int64_t r = 0; spatial && r < rows; r++) places[r] = find_place(m0 + r, p.height, p.width);
    for (int64_t k0 = 0; k0 < p.k; k0 += kDepth) {
      const int64_t depth = std::min(kDepth, p.k - k0);
      for (int64_t r = 0; r < rows; r++)
        copy_normalized(p.a + (m0 + r) * p.k + k0, p.scale ? p.scale + k0 : nullptr, p.shift + (p.scale ? k0 : 0), depth,
                        block.get() + r * kStride);
      for (int64_t panel = 0; panel < panels; panel++) {
        const T* b = p.packed + (k0 * panels + panel * depth) * kColumns;
        const int64_t j0 = panel * kColumns, columns = std::min(kColumns, p.n - j0);
        for (int64_t r = 0; r < rows; r += kRows) {
          const int64_t there = std::min<int64_t>(kRows, rows - r);
          fetch_tile(p, m0 + r, there, j0, columns);
          if (next_rows > r) fetch_share(next + r * p.k, std::min<int64_t>(kRows, next_rows - r) * p.k * sizeof(T), panel, panels);
          product_into<kRows, kStride, 1>(block.get() + r * kStride, b, depth, there, columns,
                                          p.c + (m0 + r) * p.n + j0, p.n, k0 > 0);
          if (k0 + depth < p.k) continue;
          if (columns == kColumns) {
            end_tile(p, m0 + r, there, places + r, j0, sums);
          } else {
            end_rows(p, m0 + r, there, places + r, j0, columns, sums);
          }
        }
      }
    }
    move_sums(sums, p.n);
  }
}

// Both factors are copied, kDepth rows at a time, so that a tile's values lie together at each row of the maps: of dZ
// kWeightRows (padded to 16), of A one panel. The columns [first, last) of A start and end at panels, or at the edge.
template <class T>
void run_weight_gradient(const WeightGradient<T>& p, int64_t begin, int64_t end, int64_t first, int64_t last) {
  constexpr int64_t kColumns = Vector<T>::columns, kPadded = 16;
  const int64_t tiles = (p.o + kWeightRows - 1) / kWeightRows, panels = (last - first + kColumns - 1) / kColumns;
  const std::unique_ptr<T[]> left(new T[tiles * kDepth * kPadded]()), right(new T[panels * kDepth * kColumns]());
  for (int64_t m0 = begin; m0 < end; m0 += kDepth) {
    const int64_t depth = std::min(kDepth, end - m0), next = std::min(kDepth, end - m0 - depth);
    for (int64_t m = 0; m < depth; m++) {
      const T* from = p.dz + (m0 + m) * p.o;
      for (int64_t tile = 0; tile < tiles; tile++, from += kWeightRows) {
        T* to = left.get() + (tile * kDepth + m) * kPadded;
        if (tile + 1 < tiles) {
          std::memcpy(to, from, kWeightRows * sizeof(T));
        } else {
          for (int64_t i = 0; i < p.o - tile * kWeightRows; i++) to[i] = from[i];
        }
      }
      const T* row = p.a + (m0 + m) * p.i;
      for (int64_t panel = 0; panel < panels; panel++) {
        const int64_t j0 = first + panel * kColumns, columns = std::min(kColumns, last - j0);
        T* to = right.get() + (panel * kDepth + m) * kColumns;
        if (columns == kColumns) {
          copy_normalized(row + j0, p.scale ? p.scale + j0 : nullptr, p.shift + (p.scale ? j0 : 0), kColumns, to);
        } else {
          copy_normalized(row + j0, p.scale ? p.scale + j0 : nullptr, p.shift + (p.scale ? j0 : 0), columns, to);
        }
      }
    }
    for (int64_t panel = 0; panel < panels; panel++) {
      const int64_t j0 = first + panel * kColumns, columns = std::min(kColumns, last - j0);
      for (int64_t tile = 0; tile < tiles; tile++) {
        const int64_t i = tile * kWeightRows, rows = std::min<int64_t>(kWeightRows, p.o - i);
        if (next > 0 && p.o * p.i <= kFetched) {
          const int64_t share = panel * tiles + tile, shares = panels * tiles;
          fetch_share(p.dz + (m0 + depth) * p.o, next * p.o * sizeof(T), share, shares);
          fetch_share(p.a + (m0 + depth) * p.i, next * p.i * sizeof(T), share, shares);
        }
        product_into<kWeightRows, 1, kPadded>(left.get() + tile * kDepth * kPadded, right.get() + panel * kDepth * kColumns,
                                              depth, rows, columns, p.dweight + i * p.i + j0, p.i, true);
      }
    }
  }
}

}  // namespace

template <class T>
constexpr Products<T> table = {&packed_size<T>, &pack<T>, &run_product<T>, &run_weight_gradient<T>, Vector<T>::columns};
const Products<float>& products32() { return table<float>; }
const Products<double>& products64() { return table<double>; }

}  // namespace ELASTIC_LEVEL
}  // namespace elastic_train
