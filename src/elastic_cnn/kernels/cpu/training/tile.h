// What the products of the training form share, compiled for one instruction set (ELASTIC_LEVEL): the register tile of
// kRows x 2 vectors and its memory.
//
// A tile's inner loop is cut into as many runs as it has rows. Before each run a little of what comes next is fetched
// (the next tile's lines, a share of the next block), so that memory works while the tile is multiplied and never in
// bursts, for which the tile's own loads would have to wait.
#pragma once
#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <type_traits>

#include "training/kernels.h"

namespace elastic::ELASTIC_LEVEL {

#ifdef __AVX512F__
// 28 of 32 registers; 13 divides 64 .. 512 with least waste
constexpr int kVectorBytes = 64, kRows = 14, kWeightRows = 13;
#else
constexpr int kVectorBytes = 32, kRows = 6, kWeightRows = 6;
#endif
constexpr int64_t kDepth = 256;  // rows of B, or of both maps, that are multiplied at a time
constexpr int64_t kLine = 64;    // bytes of a line of the cache

template <class T>
struct Vector {
  using N = Number<T>;
  typedef N type __attribute__((vector_size(kVectorBytes), aligned(sizeof(N)), may_alias));
  static constexpr int lanes = kVectorBytes / sizeof(N), columns = 2 * lanes;
  static constexpr int line = kLine / sizeof(T);  // elements of a line
};

// Elements of a map as numbers: one of them (V is float or double), or a vector of them.
template <class V, class T>
ELASTIC_INLINE V load(const T* from) {
#ifdef __AVX512BF16__
  if constexpr (std::is_same_v<T, Bfloat16>) {
    if constexpr (std::is_same_v<V, float>) {
      return *from;
    } else {
      const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
      return reinterpret_cast<V>(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
    }
  }
#endif
  V value;
  std::memcpy(&value, from, sizeof(V));
  return value;
}

template <class V, class T>
ELASTIC_INLINE void store(T* to, const V& value) {
#ifdef __AVX512BF16__
  if constexpr (std::is_same_v<T, Bfloat16>) {
    if constexpr (std::is_same_v<V, float>) {
      *to = value;
    } else {
      const __m256i halves = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(reinterpret_cast<__m512>(value)));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), halves);
    }
    return;
  }
#endif
  std::memcpy(to, &value, sizeof(V));
}

ELASTIC_INLINE void fetch(const void* from) { __builtin_prefetch(from, 0, 2); }

// A tile's columns of one row of a map.
template <class T>
ELASTIC_INLINE void fetch_columns(const T* from) {
  for (int j = 0; j < Vector<T>::columns; j += Vector<T>::line) fetch(from + j);
}

// The lines [first, last) of a run of memory that are one of its `shares` shares.
struct Share {
  int64_t first, last;
  Share(int64_t bytes, int64_t share, int64_t shares) {
    const int64_t lines = (bytes + kLine - 1) / kLine;
    first = lines * share / shares;
    last = lines * (share + 1) / shares;
  }
  ELASTIC_INLINE void fetch_from(const void* from) const {
    for (int64_t line = first; line < last; line++) fetch(static_cast<const char*>(from) + line * kLine);
  }
};

// c (R, 2 vectors) = or += the product of a, element (i, k) at a[i * kRowStep + k * kDepthStep], and a panel of B.
// `ahead(i)`, for each row i in turn, fetches what is wanted soon.
template <int R, int kRowStep, int kDepthStep, class T, class Ahead>
ELASTIC_INLINE void tile_product(const T* __restrict a, const T* __restrict b, int64_t depth, T* c, int64_t stride,
                                 bool add, const Ahead& ahead) {
  using V = typename Vector<T>::type;
  constexpr int L = Vector<T>::lanes;
  V sum[R][2];
#pragma GCC unroll 16
  for (int i = 0; i < R; i++) sum[i][0] = sum[i][1] = V{};
  int64_t k = 0;
#pragma GCC unroll 1
  for (int run = 0; run < R; run++) {
    ahead(run);
#pragma GCC unroll 1
    for (const int64_t stop = depth * (run + 1) / R; k < stop; k++, b += 2 * L) {
      const V b0 = *reinterpret_cast<const V*>(b), b1 = *reinterpret_cast<const V*>(b + L);
#pragma GCC unroll 16
      for (int i = 0; i < R; i++) {
        const T value = a[i * kRowStep + k * kDepthStep];
        sum[i][0] += b0 * value;
        sum[i][1] += b1 * value;
      }
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
template <int R, int kRowStep, int kDepthStep, class T, class Ahead>
ELASTIC_INLINE void product_into(const T* a, const T* b, int64_t depth, int64_t rows, int64_t columns, T* c,
                                 int64_t stride, bool add, const Ahead& ahead) {
  constexpr int kColumns = Vector<T>::columns;
  T edge[R * kColumns];
  const bool whole = rows == R && columns == kColumns;
  tile_product<R, kRowStep, kDepthStep>(a, b, depth, whole ? c : edge, whole ? stride : kColumns, whole && add, ahead);
  if (whole) return;
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < columns; j++) c[i * stride + j] = edge[i * kColumns + j] + (add ? c[i * stride + j] : T(0));
}

// to = relu(from * scale + shift), or `from` where no scale is given.
template <class T>
inline void copy_normalized(const T* from, const Number<T>* scale, const Number<T>* shift, int64_t count, T* to) {
  if (!scale) {
    std::memcpy(to, from, count * sizeof(T));
    return;
  }
#pragma GCC ivdep
  for (int64_t j = 0; j < count; j++) {
    const Number<T> value = from[j] * scale[j] + shift[j];
    to[j] = value < 0 ? Number<T>(0) : value;
  }
}

}  // namespace elastic::ELASTIC_LEVEL
