// Where a run's maps lie in its scratch memory, and how images go from block to block.
#include "runner.h"

#include <algorithm>
#include <cstring>

namespace elastic {

Layout::Layout(const Plan& plan, size_t first, size_t end, int height, int width, int images)
    : first(first), end(end), images(images) {
  sizes = sizes_of(plan, height, width);
  int64_t wide = 0, inner_size = 0, low_inner_size = 0, low_out_size = 0, pooled_size = 0;
  int64_t most = kPanel, longest = 0;
  auto larger = [](int64_t& size, int64_t floats) { size = std::max(size, floats); };
  for (size_t i = first; i < end; i++) {
    const BlockPlan& b = plan.blocks[i];
    const Size& s = sizes[i];
    const int64_t out_pixels = int64_t(images) * s.out_height * s.out_width;
    larger(wide, int64_t(images) * s.height * s.width * b.in_pixel());
    larger(wide, out_pixels * b.out_pixel());
    larger(inner_size, out_pixels * b.high.pixel());
    padded[{s.height, s.width, b.high.panels(), false}] = 0;
    most = std::max({most, b.high.pixel(), b.out_pixel(), b.hidden_wide()});
    larger(longest, std::max(s.height, s.width));
    if (!b.elastic()) continue;
    const int64_t low_pixels = int64_t(images) * s.low_height * s.low_width;
    padded[{s.low_height, s.low_width, b.low.panels(), true}] = 0;
    larger(low_inner_size, low_pixels * b.low.pixel());
    larger(low_out_size, low_pixels * b.out_pixel());
    larger(pooled_size, low_pixels * b.in_pixel());
    larger(most, b.low.pixel());
  }
  for (int64_t* map : {&maps[0], &maps[1]}) *map = take(wide);
  inner = take(inner_size);
  low_inner = take(low_inner_size);
  low_out = take(low_out_size);
  pooled = take(pooled_size);
  for (int64_t* vector : {&mean_high, &mean_low, &hidden, &gate}) *vector = take(most);
  row_weights = take(2 * longest);
  column_weights = take(2 * longest);
  for (auto& [key, at] : padded) at = take(images * padded_floats(key));
}

std::vector<Layout::Size> Layout::sizes_of(const Plan& plan, int height, int width) {
  std::vector<Size> sizes;
  for (const BlockPlan& b : plan.blocks) {
    const int out_height = (height - 1) / b.stride + 1, out_width = (width - 1) / b.stride + 1;
    sizes.push_back({height, width, out_height, out_width, half(height), half(width)});
    height = out_height;
    width = out_width;
  }
  return sizes;
}

// Each buffer starts on a cache line of its own set, so that maps of equal size do not fall onto each other.
int64_t Layout::take(int64_t size) {
  const int64_t at = floats;
  floats += round_up(size, 64) + 64 * 5;
  return at;
}

int64_t padded_floats(const PaddedKey& key) {
  const auto [height, width, panels, low] = key;
  return int64_t(height + 2) * (width + 2) * (int64_t(panels) * kPanel + kGap);
}

void Runner::clear_borders(int member, int members, Barrier& barrier) const {
  int turn = 0;
  for (const auto& [key, at] : layout_.padded) {
    const auto [height, width, panels, low] = key;
    const int64_t pixel = int64_t(panels) * kPanel + kGap, row = (width + 2) * pixel;
    for (int64_t image = 0; image < layout_.images; image++) {
      if (turn++ % members != member) continue;
      float* map = scratch_ + at + image * padded_floats(key);
      std::memset(map, 0, row * sizeof(float));
      for (int y = 1; y <= height; y++) {
        std::memset(map + y * row, 0, pixel * sizeof(float));
        std::memset(map + (y + 1) * row - pixel, 0, pixel * sizeof(float));
      }
      std::memset(map + (height + 1) * row, 0, row * sizeof(float));
    }
  }
  barrier.wait();
}

void copy_pixels(const float* from, int64_t from_pixel, int64_t channels, float* to, int64_t to_pixel, int64_t pixels,
                 int member, int members) {
  const int64_t wide = std::min(round_up(channels, kPanel), to_pixel);
  const Range part = range_of(int(pixels), member, members);
  for (int64_t p = part.begin; p < part.end; p++) {
    std::memcpy(to + p * to_pixel, from + p * from_pixel, channels * sizeof(float));
    std::memset(to + p * to_pixel + channels, 0, (wide - channels) * sizeof(float));
  }
}

void Runner::run(const float* input, float* output, int images, int member, int members, Barrier& barrier) const {
  const Layout& l = layout_;
  const BlockPlan &front = plan_.blocks[l.first], &back = plan_.blocks[l.end - 1];
  float* maps[2] = {scratch_ + l.maps[0], scratch_ + l.maps[1]};
  copy_pixels(input, front.in, front.in, maps[0], front.in_pixel(), images * l.in_pixels(), member, members);
  barrier.wait();
  int now_in = 0;
  for (size_t i = l.first; i < l.end; i++) {
    const BlockPlan& b = plan_.blocks[i];
    const int goes_to = b.projection ? 1 - now_in : now_in;  // without a projection, onto the shortcut
    const float* from = maps[now_in];
    const int64_t row = l.sizes[i].width * b.in_pixel();
    block(i,
          {.images = images,
           .input = from, .in_pixel = b.in_pixel(), .output = maps[goes_to], .out_pixel = b.out_pixel(),
           .shortcut = from, .shortcut_pixel = b.in_pixel(),
           .projected = from, .projected_pixel = b.stride * b.in_pixel(), .projected_row = b.stride * row,
           .projected_image = l.sizes[i].height * row},
          member, members, barrier);
    now_in = goes_to;
  }
  copy_pixels(maps[now_in], back.out_pixel(), back.out, output, back.out, images * l.out_pixels(), member, members);
  barrier.wait();
}

}  // namespace elastic
