// See checks.h.
#include "common/checks.h"

#include <ATen/ops/empty.h>

namespace elastic {

void check_float_map(const at::Tensor& x, const char* name) {
  TORCH_CHECK_VALUE(x.device().is_cpu(), name, " must be on the CPU, got ", x.device());
  TORCH_CHECK_TYPE(x.scalar_type() == at::kFloat, name, " must be float32, got ", x.scalar_type());
  TORCH_CHECK_VALUE(x.dim() == 4, name, " must be a map (N, C, H, W), got ", x.sizes());
  for (int dim = 1; dim < 4; dim++)
    TORCH_CHECK_VALUE(x.size(dim) >= 1 && x.size(dim) <= (1 << 16), name, " must have 1 to 65536 channels, rows and ",
                      "columns, got ", x.sizes());
  TORCH_CHECK_VALUE(x.size(2) * x.size(3) <= (1 << 26), name, " must have at most 2^26 pixels, got ", x.sizes());
}

void check_map(const at::Tensor& x, const char* name) {
  TORCH_CHECK(x.dim() == 4 && x.is_contiguous(at::MemoryFormat::ChannelsLast), name, " must be a channels_last map");
}

void check_weights(const at::Tensor& weights, int64_t wanted) {
  TORCH_CHECK_VALUE(
      weights.dim() == 1 && weights.scalar_type() == at::kFloat && weights.is_contiguous() && weights.device().is_cpu(),
      "packed weights must be a contiguous float32 vector on the CPU");
  TORCH_CHECK_VALUE(weights.numel() == wanted, "the plan needs ", wanted, " packed weights, got ", weights.numel());
}

at::Tensor empty_map(const at::Tensor& like, at::IntArrayRef sizes) {
  return at::empty(sizes, like.options(), at::MemoryFormat::ChannelsLast);
}

}  // namespace elastic
