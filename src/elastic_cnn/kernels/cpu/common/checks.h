// What operators check before they take a pointer. A wrong dtype raises TypeError, all else ValueError.
//
// An operator has a function `..._output` that checks every argument and makes the result, not yet computed. It is the
// whole operator on the meta device, where a network is traced, so that traces and results agree. Sizes may be symbols
// there: those are not compared, so that no check narrows the sizes that a trace is good for.
#pragma once
#include <ATen/core/Tensor.h>

#include "common/element.h"

namespace elastic {

// Raises unless `x` lies on the CPU, or is traced.
void check_device(const at::Tensor& x, const char* name);

// Raises unless `x` has the device of `like` and this dtype.
void check_beside(const at::Tensor& x, const at::Tensor& like, at::ScalarType type, const char* name);

// Raises unless `x` has the device and the dtype of `like`.
void check_like(const at::Tensor& x, const at::Tensor& like, const char* name);

// Raises unless `x` has these sizes.
void check_sizes(const at::Tensor& x, at::SymIntArrayRef wanted, const char* name);

// Raises unless the elements of `x` lie behind one another in this order.
void check_contiguous(const at::Tensor& x, const char* name, at::MemoryFormat format = at::MemoryFormat::Contiguous);

// Raises unless `x` is a map (N, C, H, W) of 1 to 65536 channels, rows and columns, any number of images, any strides,
// of `Element`s: what the inference kernels take.
void check_element_map(const at::Tensor& x, const char* name);

// Raises unless the map `x` has so many channels; who: what takes them, for that sentence.
void check_channels(const at::Tensor& x, int64_t wanted, const char* who);

// Raises unless `weights` is one contiguous vector of so many words beside the map `x`: float32, or int32 of bfloat16.
void check_weights(const at::Tensor& weights, const at::Tensor& x, int64_t wanted);

inline const float* packed_weights(const at::Tensor& weights) {
  return static_cast<const float*>(weights.const_data_ptr());
}
inline const Element* elements(const at::Tensor& map) { return static_cast<const Element*>(map.const_data_ptr()); }
inline Element* mutable_elements(const at::Tensor& map) { return static_cast<Element*>(map.mutable_data_ptr()); }

// A result: a channels_last map of these sizes.
at::Tensor empty_map(const at::Tensor& like, at::SymIntArrayRef sizes);

}  // namespace elastic
