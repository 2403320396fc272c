// What every operator of the inference kernels checks first.
#pragma once
#include <ATen/core/Tensor.h>

#include "kernels.h"

namespace elastic {

// The kernels of this processor's instruction set; raises where there are none.
const Kernels& chosen_kernels();

// Raises unless `x` is a float32 map (N, C, H, W) on the CPU that is not empty and whose sizes fit the kernels' counters.
void check_map(const at::Tensor& x, const char* name);

// Raises unless `weights` is one contiguous float32 vector of so many numbers on the CPU.
void check_weights(const at::Tensor& weights, int64_t wanted);

at::Tensor empty_map(const at::Tensor& like, at::IntArrayRef sizes);  // channels last

}  // namespace elastic
