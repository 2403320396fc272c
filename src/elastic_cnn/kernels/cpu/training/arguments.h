// What the operators of the training form ask of their arguments, beyond common/checks.h.
//
// Maps are channels_last, float32, float64 or bfloat16, and not empty; what else there is of numbers has their dtype, or
// float32 beside bfloat16. `statistics` (4, C) holds mean, 1 / sqrt(var + eps), scale
// and shift. `active` has one bit an element of a map, (N, H, ceil(W / 8), C) bytes.
#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/SymInt.h>

#include <array>

#include "common/checks.h"

namespace elastic {

using at::Tensor;
using c10::SymInt;

// Raises unless `x` is a map: (N, C, H, W), channels_last, of these dtypes, none of its sizes zero; and where this
// processor has no kernels for it.
void check_map(const Tensor& x, const char* name);

// Raises unless `x` is a map of these sizes like `like`.
void check_map_of(const Tensor& x, const Tensor& like, at::SymIntArrayRef sizes, const char* name);

// Raises unless `x` is a contiguous vector of so many numbers beside the map `like`.
void check_vector(const Tensor& x, const Tensor& like, const SymInt& numbers, const char* name);

// Raises unless `statistics` are those of a map like `like` of so many channels.
void check_statistics(const Tensor& statistics, const Tensor& like, const SymInt& channels);

// Raises unless `active` is that of a map of the sizes of `map`.
void check_active(const Tensor& active, const Tensor& map);

// Raises unless `weight` (O, I, kernel, kernel) has these sizes; any strides.
void check_weight(const Tensor& weight, const Tensor& like, at::SymIntArrayRef sizes);

// A batch norm's parameters; running statistics are updated as torch does: momentum, unbiased variance.
struct Norm {
  const Tensor &weight, &bias, &running_mean, &running_var;
  double momentum, eps;
};

// Raises unless the norm is one of so many channels, and the map it takes statistics of, (images, ., height, width), has
// more than one pixel.
void check_norm(const Norm& norm, const Tensor& like, const SymInt& channels, const SymInt& images,
                const SymInt& height, const SymInt& width);

// (N, channels, ceil(H / 2), ceil(W / 2)) of a map (N, C, H, W).
std::array<SymInt, 4> low_sizes(const Tensor& map, const SymInt& channels);

// Results, not yet computed.
Tensor empty_like_map(const Tensor& map);
Tensor empty_numbers(const Tensor& map, at::SymIntArrayRef sizes);
Tensor empty_vector(const Tensor& like, const SymInt& numbers);
Tensor empty_statistics(const Tensor& like, const SymInt& channels);
Tensor empty_active(const Tensor& map);

}  // namespace elastic
