// What operators check before they take a pointer.
#pragma once
#include <ATen/core/Tensor.h>

namespace elastic {

// Raises unless `x` is a float32 map (N, C, H, W) on the CPU that is not empty and whose sizes fit the kernels' counters.
void check_float_map(const at::Tensor& x, const char* name);

// Raises unless `x` is a channels_last map (N, C, H, W). Strides may be ambiguous (one channel, one pixel); its memory
// is what counts.
void check_map(const at::Tensor& x, const char* name);

// Raises unless `weights` is one contiguous float32 vector of so many numbers on the CPU.
void check_weights(const at::Tensor& weights, int64_t wanted);

at::Tensor empty_map(const at::Tensor& like, at::IntArrayRef sizes);  // channels last

}  // namespace elastic
