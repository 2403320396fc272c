// See residual_layout.h.
#include "inference/residual_layout.h"

#include <algorithm>

namespace elastic {

Layout::Layout(const Plan& plan, std::size_t first, std::size_t end, int height, int width, int images)
    : first(first), end(end), images(images) {
  sizes = sizes_of(plan, height, width);
  int64_t wide = 0, inner_size = 0, low_inner_size = 0, low_out_size = 0, pooled_size = 0;
  int64_t most = kPanel, longest = 0;
  auto larger = [](int64_t& size, int64_t floats) { size = std::max(size, floats); };
  for (std::size_t i = first; i < end; i++) {
    const BlockPlan& b = plan.blocks[i];
    const Size& s = sizes[i];
    const int64_t out_pixels = int64_t(images) * s.out_height * s.out_width;
    larger(wide, int64_t(images) * s.height * s.width * b.in_pixel());
    larger(wide, out_pixels * b.out_pixel());
    larger(inner_size, out_pixels * b.high.outer_pixel());
    padded[{s.height, s.width, b.high.panels(), false}] = 0;
    most = std::max({most, b.high.outer_pixel(), b.out_pixel(), b.hidden_wide()});
    larger(longest, std::max(s.height, s.width));
    if (!b.elastic()) continue;
    const int64_t low_pixels = int64_t(images) * s.low_height * s.low_width;
    padded[{s.low_height, s.low_width, b.low.panels(), true}] = 0;
    larger(low_inner_size, low_pixels * b.low.outer_pixel());
    larger(low_out_size, low_pixels * b.out_pixel());
    larger(pooled_size, low_pixels * b.in_pixel());
    larger(most, b.low.outer_pixel());
  }
  for (int64_t* map : {&maps[0], &maps[1]}) *map = take(floats, wide);
  inner = take(floats, inner_size);
  low_inner = take(floats, low_inner_size);
  low_out = take(floats, low_out_size);
  pooled = take(floats, pooled_size);
  for (int64_t* vector : {&mean_high, &mean_low, &hidden, &gate}) *vector = take(floats, most * kPack);
  row_weights = take(floats, 2 * longest * kPack);
  column_weights = take(floats, 2 * longest * kPack);
  for (auto& [key, at] : padded) at = take(floats, images * padded_floats(key));
}

std::vector<Layout::Size> Layout::sizes_of(const Plan& plan, int height, int width) {
  std::vector<Size> sizes;
  for (const BlockPlan& b : plan.blocks) {
    const int out_height = strided(height, b.stride), out_width = strided(width, b.stride);
    sizes.push_back({height, width, out_height, out_width, half(height), half(width)});
    height = out_height;
    width = out_width;
  }
  return sizes;
}

int64_t padded_floats(const PaddedKey& key) {
  const auto [height, width, panels, low] = key;
  return int64_t(height + 2) * (width + 2) * (int64_t(panels) * kPanel + kGap);
}

}  // namespace elastic
