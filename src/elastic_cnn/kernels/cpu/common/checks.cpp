// See checks.h.
#include "common/checks.h"

#include <ATen/ops/empty.h>

namespace elastic {

#ifdef ELASTIC_BF16
constexpr at::ScalarType kElementType = at::kBFloat16, kWordType = at::kInt;
#else
constexpr at::ScalarType kElementType = at::kFloat, kWordType = at::kFloat;
#endif

void check_device(const at::Tensor& x, const char* name) {
  TORCH_CHECK_VALUE(x.device().is_cpu() || x.device().is_meta(), name, " must be on the CPU, got ", x.device());
}

void check_beside(const at::Tensor& x, const at::Tensor& like, at::ScalarType type, const char* name) {
  TORCH_CHECK_VALUE(x.device() == like.device(), name, " must be on the same device as the map, ", like.device(),
                    ", got ", x.device());
  TORCH_CHECK_TYPE(x.scalar_type() == type, name, " must be of dtype ", type, ", got ", x.scalar_type());
}

void check_like(const at::Tensor& x, const at::Tensor& like, const char* name) {
  check_beside(x, like, like.scalar_type(), name);
}

void check_sizes(const at::Tensor& x, at::SymIntArrayRef wanted, const char* name) {
  const at::SymIntArrayRef sizes = x.sym_sizes();
  bool fits = sizes.size() == wanted.size();
  for (size_t i = 0; fits && i < wanted.size(); i++) {
    const auto size = sizes[i].maybe_as_int(), want = wanted[i].maybe_as_int();
    fits = !size || !want || *size == *want;
  }
  TORCH_CHECK_VALUE(fits, name, " must have the size ", wanted, ", got ", sizes);
}

void check_contiguous(const at::Tensor& x, const char* name, at::MemoryFormat format) {
  for (const c10::SymInt& size : x.sym_sizes())
    if (!size.maybe_as_int()) return;
  const bool map = format == at::MemoryFormat::ChannelsLast;
  TORCH_CHECK_VALUE(x.is_contiguous(format), name, map ? " must be a channels_last map" : " must be contiguous",
                    ", got strides ", x.sym_strides(), " for the size ", x.sym_sizes());
}

void check_element_map(const at::Tensor& x, const char* name) {
  check_device(x, name);
  TORCH_CHECK_TYPE(x.scalar_type() == kElementType, name, " must be of dtype ", kElementType, ", got ",
                   x.scalar_type());
  TORCH_CHECK_VALUE(x.dim() == 4, name, " must be a map (N, C, H, W), got ", x.sym_sizes());
  for (int dim = 1; dim < 4; dim++) {
    const auto size = x.sym_size(dim).maybe_as_int();
    TORCH_CHECK_VALUE(!size || (*size >= 1 && *size <= (1 << 16)), name, " must have 1 to 65536 channels, rows and ",
                      "columns, got ", x.sym_sizes());
  }
  const auto height = x.sym_size(2).maybe_as_int(), width = x.sym_size(3).maybe_as_int();
  TORCH_CHECK_VALUE(!height || !width || *height * *width <= (1 << 26), name, " must have at most 2^26 pixels, got ",
                    x.sym_sizes());
}

void check_channels(const at::Tensor& x, int64_t wanted, const char* who) {
  const auto channels = x.sym_size(1).maybe_as_int();
  TORCH_CHECK_VALUE(!channels || *channels == wanted, who, " takes ", wanted, " channels, got an input of ",
                    x.sym_sizes());
}

void check_weights(const at::Tensor& weights, const at::Tensor& x, int64_t wanted) {
  check_beside(weights, x, kWordType, "the packed weights");
  TORCH_CHECK_VALUE(weights.dim() == 1, "the packed weights must be a vector, got ", weights.sym_sizes());
  check_contiguous(weights, "the packed weights");
  const auto numbers = weights.sym_size(0).maybe_as_int();
  TORCH_CHECK_VALUE(!numbers || *numbers == wanted, "the plan needs ", wanted, " packed weights, got ", *numbers);
}

at::Tensor empty_map(const at::Tensor& like, at::SymIntArrayRef sizes) {
  return at::empty_symint(sizes, like.options(), at::MemoryFormat::ChannelsLast);
}

}  // namespace elastic
