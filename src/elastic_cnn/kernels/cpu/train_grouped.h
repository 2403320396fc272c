// 3 x 3 convolutions in narrow groups (ResNeXt's), with the norm and ReLU before them and what follows done on the way.
// The arithmetic is in train_grouped_simd.cpp, compiled once for each instruction set; the operators are in
// train_grouped.cpp. Knows nothing of torch.
#pragma once
#include <cstdint>

#include "train_pointwise.h"

namespace elastic_train {

// A 3 x 3 convolution with padding 1, of a map of `height` by `width`, or its adjoint, which makes the gradient of that
// map. Groups are of 4, 8, 16 or 32 channels, as many in as out.
struct GroupedShape {
  int64_t height = 0, width = 0, channels = 0, of_group = 0, stride = 1;
  int64_t out_height() const { return (height - 1) / stride + 1; }
  int64_t out_width() const { return (width - 1) / stride + 1; }
};

template <class T>
struct Grouped {
  GroupedShape shape;
  bool adjoint = false;
  const T* input = nullptr;                       // the map, or (adjoint) the gradient of the convolution's output
  const T *scale = nullptr, *shift = nullptr;     // relu(input * scale + shift) is convolved, where given
  const T* packed = nullptr;                      // the weight as `pack` lays it
  Product<T> end;                                 // c: the output; n: channels; and what is done to it
};

template <class T>
struct GroupedWeightGradient {
  GroupedShape shape;
  const T *dz = nullptr, *input = nullptr, *scale = nullptr, *shift = nullptr;
  T* sums = nullptr;  // as many as the weight has elements, zeros at first; `unpack` gives them the weight's order
};

// What one instruction set offers. Rows are those of the output of all images.
template <class T>
struct GroupedConvolutions {
  int64_t lanes;  // a multiple of which the number of groups must be
  void (*pack)(const T* weight, const GroupedShape& shape, bool adjoint, T* packed);
  void (*run)(const Grouped<T>& convolution, int64_t begin, int64_t end, const ColumnSums<T>& sums);
  void (*weight_gradient)(const GroupedWeightGradient<T>& gradient, int64_t begin, int64_t end);
  void (*unpack)(const T* sums, const GroupedShape& shape, T* dweight);
};

#define ELASTIC_GROUPED(level)                      \
  namespace level {                                 \
  const GroupedConvolutions<float>& grouped32();    \
  const GroupedConvolutions<double>& grouped64();   \
  }
ELASTIC_GROUPED(avx512)
ELASTIC_GROUPED(avx2)
#undef ELASTIC_GROUPED

}  // namespace elastic_train
