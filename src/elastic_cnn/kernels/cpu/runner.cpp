// Where a call's maps lie in its scratch memory, and how an image goes from block to block.
#include "runner.h"

#include <algorithm>
#include <cstring>

namespace elastic {

namespace {

int half(int n) { return (n + 1) / 2; }

}  // namespace

Layout::Layout(const Plan& plan, int height, int width) : height(height), width(width) {
  int64_t wide = 0, inner_size = 0, low_inner_size = 0, low_out_size = 0, pooled_size = 0, most = kPanel, longest = 0;
  int h = height, w = width;
  for (const BlockPlan& b : plan.blocks) {
    const Size s{h, w, (h - 1) / b.stride + 1, (w - 1) / b.stride + 1, half(h), half(w)};
    sizes.push_back(s);
    const int64_t out_pixels = int64_t(s.out_height) * s.out_width, low_pixels = int64_t(s.low_height) * s.low_width;
    wide = std::max({wide, int64_t(h) * w * b.in_pixel(), out_pixels * b.out_pixel()});
    inner_size = std::max(inner_size, out_pixels * b.high.pixel());
    padded[{h, w, b.high.panels(), false}] = 0;
    most = std::max({most, b.high.pixel(), b.out_pixel(), b.hidden_wide()});
    longest = std::max<int64_t>(longest, std::max(h, w));
    if (b.elastic()) {
      padded[{s.low_height, s.low_width, b.low.panels(), true}] = 0;
      low_inner_size = std::max(low_inner_size, low_pixels * b.low.pixel());
      low_out_size = std::max(low_out_size, low_pixels * b.out_pixel());
      pooled_size = std::max(pooled_size, low_pixels * b.in_pixel());
      most = std::max(most, b.low.pixel());
    }
    h = s.out_height;
    w = s.out_width;
  }
  auto take = [&](int64_t size) {
    const int64_t at = floats;
    // Each buffer starts on a cache line of its own set, so that maps of equal size do not fall onto each other.
    floats += round_up(size, 64) + 64 * 5;
    return at;
  };
  maps[0] = take(wide);
  maps[1] = take(wide);
  inner = take(inner_size);
  low_inner = take(low_inner_size);
  low_out = take(low_out_size);
  pooled = take(pooled_size);
  for (int64_t* vector : {&mean_high, &mean_low, &hidden, &gate}) *vector = take(most);
  row_weights = take(2 * longest);
  column_weights = take(2 * longest);
  for (auto& [key, at] : padded) {
    const auto [map_height, map_width, panels, low] = key;
    at = take(int64_t(map_height + 2) * (map_width + 2) * (panels * kPanel + kGap));
  }
}

void Runner::clear_borders(int member, int members, Barrier& barrier) const {
  int turn = 0;
  for (const auto& [key, at] : layout_.padded) {
    if (turn++ % members != member) continue;
    const auto [height, width, panels, low] = key;
    const int64_t pixel = int64_t(panels) * kPanel + kGap, row = (width + 2) * pixel;
    float* map = scratch_ + at;
    std::memset(map, 0, row * sizeof(float));
    for (int y = 1; y <= height; y++) {
      std::memset(map + y * row, 0, pixel * sizeof(float));
      std::memset(map + (y + 1) * row - pixel, 0, pixel * sizeof(float));
    }
    std::memset(map + (height + 1) * row, 0, row * sizeof(float));
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

void Runner::image(const float* input, float* output, int member, int members, Barrier& barrier) const {
  float* maps[2] = {scratch_ + layout_.maps[0], scratch_ + layout_.maps[1]};
  const BlockPlan& first = plan_.blocks.front();
  const int64_t pixels = int64_t(layout_.height) * layout_.width;
  copy_pixels(input, first.in, first.in, maps[0], first.in_pixel(), pixels, member, members);
  barrier.wait();
  int now_in = 0;
  for (size_t i = 0; i < plan_.blocks.size(); i++) {
    const BlockPlan& b = plan_.blocks[i];
    const int goes_to = b.projection ? 1 - now_in : now_in;  // without a projection, onto the shortcut
    const float* input = maps[now_in];
    const int64_t row = b.stride * layout_.sizes[i].width * b.in_pixel();
    block(i,
          {.input = input, .in_pixel = b.in_pixel(), .output = maps[goes_to], .out_pixel = b.out_pixel(),
           .shortcut = input, .shortcut_pixel = b.in_pixel(),
           .projected = input, .projected_pixel = b.stride * b.in_pixel(), .projected_row = row},
          member, members, barrier);
    now_in = goes_to;
  }
  const BlockPlan& last = plan_.blocks.back();
  const Layout::Size& size = layout_.sizes.back();
  const int64_t out_pixels = int64_t(size.out_height) * size.out_width;
  copy_pixels(maps[now_in], last.out_pixel(), last.out, output, last.out, out_pixels, member, members);
  barrier.wait();
}

}  // namespace elastic
