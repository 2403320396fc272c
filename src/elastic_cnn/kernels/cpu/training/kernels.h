// What the kernels of the training form take, as plain structs, and a table of their functions for each instruction set.
// They are compiled once for each (`*_simd.cpp`), for maps of float and double, or of bfloat16, and know nothing of torch.
//
// All maps are channels_last: a map (N, C, H, W) lies in memory as rows of W pixels of C channels each, so every loop
// runs over channels, which are contiguous.
#pragma once
#include <cstdint>

#include "common/bfloat16.h"
#include "common/maps.h"

namespace elastic {

// In what is computed with elements T of a map: weights, statistics, sums.
template <class T>
struct NumberOf {
  using type = T;
};
template <>
struct NumberOf<Bfloat16> {
  using type = float;
};
template <class T>
using Number = typename NumberOf<T>::type;

// What is done to a product, or a convolution's output, while it is in the cache.
enum class Epilogue { none, statistics, norm_gradient, input_gradient };

// C (rows, n) = f(A) (rows, k) * B (k, n), rows being the pixels of a map: a 1x1 convolution. gemm_simd.cpp
template <class T>
struct Gemm {
  const T* a = nullptr;
  const T* packed = nullptr;  // B as `pack` lays it
  T* c = nullptr;
  int64_t k = 0, n = 0;
  const Number<T>*scale = nullptr, *shift = nullptr;  // f(A) = relu(A * scale + shift) by column, where given; else A

  Epilogue epilogue = Epilogue::none;
  // statistics: C += up(low) where given (tail.cpp); sums of C - pivot and (C - pivot)^2 by column
  // norm_gradient: C is kept where relu(z * z_scale + z_shift) let it pass; sums of C and C * (z - z_mean)
  const T *low = nullptr, *z = nullptr;
  const Number<T>*z_scale = nullptr, *z_shift = nullptr, *z_mean = nullptr;
  // input_gradient: C += dy where active, and the pooled map's gradient (input.cpp)
  const T *dy = nullptr, *pooled = nullptr;
  const uint8_t* active = nullptr;
  int64_t height = 0, width = 0;  // of the map, for `low`, `pooled` and `active`
};

// Two sums a column: of one block of rows, moved to doubles after it.
template <class T>
struct ColumnSums {
  Number<T>*a = nullptr, *b = nullptr;
  double *total_a = nullptr, *total_b = nullptr;
  Number<T>* pivot = nullptr;  // of Epilogue::statistics: written, the product of row `first_row`
  int64_t first_row = 0;       // without up(low)
};

// dW (o, i) += dZ (rows, o)^T * f(A) (rows, i), for columns [first, last) of A. gemm_weight_simd.cpp
template <class T>
struct WeightGradient {
  const T *dz = nullptr, *a = nullptr;
  Number<T>* dweight = nullptr;
  int64_t o = 0, i = 0;
  const Number<T>*scale = nullptr, *shift = nullptr;
};

// A 3x3 convolution with padding 1, of a map of `height` by `width`, or its adjoint, which makes the gradient of that
// map. Groups are of 4, 8, 16 or 32 channels, as many in as out.
struct GroupedShape {
  int64_t height = 0, width = 0, channels = 0, of_group = 0, stride = 1;
  int64_t out_height() const { return strided(height, stride); }
  int64_t out_width() const { return strided(width, stride); }
};

// The convolution, or its adjoint, in slabs of as many groups as a vector has lanes (slab.h). grouped_simd.cpp
template <class T>
struct SlabConvolution {
  GroupedShape shape;
  bool adjoint = false;
  const T* input = nullptr;                           // the map, or (adjoint) the gradient of the convolution's output
  const Number<T>*scale = nullptr, *shift = nullptr;  // relu(input * scale + shift) is convolved, where given
  const Number<T>* packed = nullptr;                  // the weight as `pack_grouped` lays it
  Gemm<T> output;                                     // c, n (channels) and the epilogue
};

// grouped_weight_simd.cpp
template <class T>
struct GroupedWeightGradient {
  GroupedShape shape;
  const T *dz = nullptr, *input = nullptr;
  const Number<T>*scale = nullptr, *shift = nullptr;
  Number<T>* sums =
      nullptr;  // as many as the weight has elements, zeros at first; `unpack_grouped` gives them its order
};

// What one instruction set offers. Rows of maps are those of all images, behind one another.
template <class T>
struct TrainingKernels {
  using N = Number<T>;

  // -- 1x1 convolutions
  int64_t panel;  // columns of a panel of B; a piece of a weight gradient should start and end at a multiple of it
  int64_t (*packed_size)(int64_t k, int64_t n);
  // panels [first, last) of B (k, n) with element (r, c) at b[r * row_step + c * column_step]
  void (*pack)(const N* b, int64_t row_step, int64_t column_step, int64_t k, int64_t n, int64_t first, int64_t last,
               T* packed);
  void (*gemm)(const Gemm<T>& gemm, int64_t begin, int64_t end, const ColumnSums<T>& sums);
  void (*weight_gradient)(const WeightGradient<T>& gradient, int64_t begin, int64_t end, int64_t first, int64_t last);

  // -- grouped 3x3 convolutions; rows of the output
  int64_t lanes;  // a multiple of which the number of groups must be
  void (*pack_grouped)(const N* weight, const GroupedShape& shape, bool adjoint, N* packed);
  void (*grouped)(const SlabConvolution<T>& convolution, int64_t begin, int64_t end, const ColumnSums<T>& sums);
  void (*grouped_weight_gradient)(const GroupedWeightGradient<T>& gradient, int64_t begin, int64_t end);
  void (*unpack_grouped)(const N* sums, const GroupedShape& shape, N* dweight);

  // -- batch norm, on `rows` pixels (batch_norm_simd.cpp)
  // a += z - pivot, b += (z - pivot)^2
  void (*statistics)(const T* z, const N* pivot, int64_t rows, int64_t channels, N* a, N* b);
  // y = z * scale + shift, or its ReLU
  void (*normalize)(const T* z, const N* scale, const N* shift, int64_t rows, int64_t channels, bool relu, T* y);
  // g = dy, where the ReLU let pass; a += g, b += g * (z - mean)
  void (*norm_gradient_sum)(const T* dy, const T* z, const N* scale, const N* shift, const N* mean, int64_t rows,
                            int64_t channels, bool relu, N* a, N* b);
  // dz = on_gradient * g + on_map * z + constant
  void (*norm_gradient)(const T* dy, const T* z, const N* scale, const N* shift, const N* on_gradient, const N* on_map,
                        const N* constant, int64_t rows, int64_t channels, bool relu, T* dz);

  // -- the end of an elastic block, on one row of a map (tail_simd.cpp)
  // z += up(low): 3/4 of the low row `near`, 1/4 of `far`, then along the width; mixed: a low row and two pixels
  void (*add_upsampled)(const T* near, const T* far, int64_t width, int64_t channels, N* mixed, T* z);
  // y = relu(z * scale + shift + shortcut), and where it is active
  void (*finish)(const T* z, const T* shortcut, const N* scale, const N* shift, int64_t width, int64_t channels, T* y,
                 uint8_t* active);
  // as norm_gradient_sum and norm_gradient, g = dy where active (everywhere without `active`)
  void (*tail_gradient_sum)(const T* dy, const uint8_t* active, const T* z, const N* mean, int64_t width,
                            int64_t channels, N* a, N* b);
  void (*tail_gradient)(const T* dy, const uint8_t* active, const T* z, const N* on_gradient, const N* on_map,
                        const N* constant, int64_t width, int64_t channels, T* dz);
  // dlow: one row of up's adjoint, from four high rows and their weights; column: a high row
  void (*upsample_adjoint)(const T* const* rows, const N* weights, int64_t width, int64_t channels, N* column, T* dlow);

  // -- the input of an elastic block, on one row of a map (input_simd.cpp)
  // means over 2x2 windows of two rows
  void (*pool)(const T* above, const T* below, int64_t width, int64_t channels, T* out);
  // dx += active ? dy : 0, and the pooled row's gradient by the share of each pixel in its window
  void (*add_input_gradient)(const T* dy, const uint8_t* active, const T* pooled, N row_share, int64_t width,
                             int64_t channels, T* dx);
  // g = active ? dy : 0
  void (*select_active)(const T* dy, const uint8_t* active, int64_t width, int64_t channels, T* g);
};

namespace avx512 {
const TrainingKernels<float>& kernels32();
const TrainingKernels<double>& kernels64();
}  // namespace avx512
namespace avx2 {
const TrainingKernels<float>& kernels32();
const TrainingKernels<double>& kernels64();
}  // namespace avx2
namespace avx512_bf16 {
const TrainingKernels<Bfloat16>& kernels16();
}  // namespace avx512_bf16

// Those of this processor; raises where there are none. T: float, double or Bfloat16.
template <class T>
const TrainingKernels<T>& training_kernels();

// What a source of kernels offers, in the instruction set that it is compiled for: bfloat16 has one of its own.
#ifdef __AVX512BF16__
#define ELASTIC_FOR_ELEMENT_TYPES(set) template void set(TrainingKernels<Bfloat16>&);
#else
#define ELASTIC_FOR_ELEMENT_TYPES(set)        \
  template void set(TrainingKernels<float>&); \
  template void set(TrainingKernels<double>&);
#endif

}  // namespace elastic
