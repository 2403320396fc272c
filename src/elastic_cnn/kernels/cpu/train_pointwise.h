// Products of the training form's 1 x 1 convolutions, with what stands before and after them done on the way. The
// arithmetic is in train_pointwise_simd.cpp, compiled once for each instruction set; the operators are in
// train_pointwise.cpp. Knows nothing of torch.
#pragma once
#include <cstdint>

namespace elastic_train {

// C (rows, n) = f(A) (rows, k) * B (k, n), rows being the pixels of a channels_last map.
template <class T>
struct Product {
  enum class End { plain, statistics, norm_gradient, input_gradient };

  const T* a = nullptr;
  const T* packed = nullptr;  // B as `pack` lays it
  T* c = nullptr;
  int64_t k = 0, n = 0;
  const T *scale = nullptr, *shift = nullptr;  // f(A) = relu(A * scale + shift) by column, where given; else A

  End end = End::plain;
  // statistics: C += up(low) where given (train_tail.cpp); sums of C - pivot and (C - pivot)^2 by column
  // norm_gradient: C is kept where relu(z * z_scale + z_shift) let it pass; sums of C and C * (z - z_mean)
  const T *low = nullptr, *z = nullptr, *z_scale = nullptr, *z_shift = nullptr, *z_mean = nullptr;
  // input_gradient: C += dy where active, and the pooled map's gradient (train_input.cpp)
  const T *dy = nullptr, *pooled = nullptr;
  const uint8_t* active = nullptr;
  int64_t height = 0, width = 0;  // of the map, for `low`, `pooled` and `active`
};

// Two sums a column: of one block of rows, moved to doubles after it.
template <class T>
struct ColumnSums {
  T *a = nullptr, *b = nullptr;
  double *total_a = nullptr, *total_b = nullptr;
  T* pivot = nullptr;      // of End::statistics: written, the product of row `first_row`
  int64_t first_row = 0;   // without up(low)
};

// dW (o, i) += dZ (rows, o)^T * f(A) (rows, i), for columns [begin, end) of A.
template <class T>
struct WeightGradient {
  const T *dz = nullptr, *a = nullptr;
  T* dweight = nullptr;
  int64_t o = 0, i = 0;
  const T *scale = nullptr, *shift = nullptr;
};

// What one instruction set offers.
template <class T>
struct Products {
  int64_t (*packed_size)(int64_t k, int64_t n);
  // panels [first, last) of B (k, n) with element (r, c) at b[r * row_step + c * column_step]
  void (*pack)(const T* b, int64_t row_step, int64_t column_step, int64_t k, int64_t n, int64_t first, int64_t last,
               T* packed);
  void (*product)(const Product<T>& product, int64_t begin, int64_t end, const ColumnSums<T>& sums);
  void (*weight_gradient)(const WeightGradient<T>& product, int64_t begin, int64_t end, int64_t first, int64_t last);
  int64_t panel;  // columns of a panel; a part of a weight gradient should start and end at a multiple of it
};

#define ELASTIC_PRODUCTS(level)         \
  namespace level {                     \
  const Products<float>& products32();  \
  const Products<double>& products64(); \
  }
ELASTIC_PRODUCTS(avx512)
ELASTIC_PRODUCTS(avx2)
#undef ELASTIC_PRODUCTS

}  // namespace elastic_train
