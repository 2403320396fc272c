// See arguments.h.
#include "training/arguments.h"

#include <ATen/ops/empty.h>

#include "common/maps.h"
#include "training/statistics.h"

namespace elastic {

void check_map(const Tensor& x, const char* name) {
  check_device(x, name);
  const at::ScalarType type = x.scalar_type();
  TORCH_CHECK_TYPE(type == at::kFloat || type == at::kDouble || type == at::kBFloat16, name,
                   " must be float32, float64 or bfloat16, got ", type);
  for_element_type(type, [](auto element) { training_kernels<decltype(element)>(); });  // raises where there are none
  TORCH_CHECK_VALUE(x.dim() == 4, name, " must be a map (N, C, H, W), got ", x.sym_sizes());
  for (const SymInt& size : x.sym_sizes())
    TORCH_CHECK_VALUE(size.maybe_as_int() != 0, name, " must not be empty, got ", x.sym_sizes());
  check_contiguous(x, name, at::MemoryFormat::ChannelsLast);
}

namespace {

// Of weights, statistics and sums beside a map.
at::ScalarType number_type(const Tensor& map) {
  return map.scalar_type() == at::kBFloat16 ? at::kFloat : map.scalar_type();
}

void check_number_of(const Tensor& x, const Tensor& map, const char* name) {
  check_beside(x, map, number_type(map), name);
}

void check_numbers(const Tensor& x, const Tensor& map, at::SymIntArrayRef sizes, const char* name) {
  check_number_of(x, map, name);
  check_sizes(x, sizes, name);
  check_contiguous(x, name);
}

}  // namespace

void check_map_of(const Tensor& x, const Tensor& like, at::SymIntArrayRef sizes, const char* name) {
  check_like(x, like, name);
  check_sizes(x, sizes, name);
  check_map(x, name);
}

void check_vector(const Tensor& x, const Tensor& like, const SymInt& numbers, const char* name) {
  check_numbers(x, like, {numbers}, name);
}

void check_statistics(const Tensor& statistics, const Tensor& like, const SymInt& channels) {
  check_numbers(statistics, like, {SymInt(4), channels}, "the statistics");
}

namespace {

std::array<SymInt, 4> active_sizes(const Tensor& map) {
  return {map.sym_size(0), map.sym_size(2), (map.sym_size(3) + 7) / 8, map.sym_size(1)};
}

}  // namespace

void check_active(const Tensor& active, const Tensor& map) {
  TORCH_CHECK_VALUE(active.device() == map.device(), "active must be on the same device as the map, ", map.device(),
                    ", got ", active.device());
  TORCH_CHECK_TYPE(active.scalar_type() == at::kByte, "active must be uint8, got ", active.scalar_type());
  check_sizes(active, active_sizes(map), "active");
  check_contiguous(active, "active");
}

void check_weight(const Tensor& weight, const Tensor& like, at::SymIntArrayRef sizes) {
  check_number_of(weight, like, "the weight");
  check_sizes(weight, sizes, "the weight");
}

void check_norm(const Norm& norm, const Tensor& like, const SymInt& channels, const SymInt& images,
                const SymInt& height, const SymInt& width) {
  check_vector(norm.weight, like, channels, "the norm's weight");
  check_vector(norm.bias, like, channels, "the norm's bias");
  check_vector(norm.running_mean, like, channels, "the running mean");
  check_vector(norm.running_var, like, channels, "the running variance");
  const bool one = images.maybe_as_int() == 1 && height.maybe_as_int() == 1 && width.maybe_as_int() == 1;
  TORCH_CHECK_VALUE(!one, "batch statistics need more than one pixel a channel");
}

std::array<SymInt, 4> low_sizes(const Tensor& map, const SymInt& channels) {
  return {map.sym_size(0), channels, half(map.sym_size(2)), half(map.sym_size(3))};
}

Tensor empty_like_map(const Tensor& map) { return empty_map(map, map.sym_sizes()); }

Tensor empty_numbers(const Tensor& map, at::SymIntArrayRef sizes) {
  return at::empty_symint(sizes, map.options().dtype(number_type(map)));
}

Tensor empty_vector(const Tensor& like, const SymInt& numbers) { return empty_numbers(like, {numbers}); }

Tensor empty_active(const Tensor& map) { return at::empty_symint(active_sizes(map), map.options().dtype(at::kByte)); }

Tensor empty_statistics(const Tensor& like, const SymInt& channels) {
  return empty_numbers(like, {SymInt(4), channels});
}

}  // namespace elastic
