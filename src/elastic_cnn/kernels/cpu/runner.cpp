// Where a call's maps lie in its scratch memory, and how images go from block to block.
//
// Each image goes alone through the blocks of large maps, so that its maps stay in the cache. Where maps have become
// small, a stack of images goes through the remaining blocks together, so that weights are read once a stack.
#include "runner.h"

#include <algorithm>
#include <cstring>

namespace elastic {

namespace {

int half(int n) { return (n + 1) / 2; }

}  // namespace

Layout::Layout(const Plan& plan, int height, int width, int64_t images) : height(height), width(width) {
  int h = height, w = width;
  for (const BlockPlan& b : plan.blocks) {
    sizes.push_back({h, w, (h - 1) / b.stride + 1, (w - 1) / b.stride + 1, half(h), half(w)});
    h = sizes.back().out_height;
    w = sizes.back().out_width;
  }
  choose_stack(plan, images);
  int64_t wide[2] = {0, 0}, inner_size = 0, low_inner_size = 0, low_out_size = 0, pooled_size = 0;
  int64_t most = kPanel, longest = 0;
  auto larger = [](int64_t& size, int64_t floats) { size = std::max(size, floats); };
  for (size_t i = 0; i < sizes.size(); i++) {
    const BlockPlan& b = plan.blocks[i];
    const Size& s = sizes[i];
    const bool stacked = i >= stacked_from;
    const int64_t count = stacked ? stack : 1, out_pixels = count * s.out_height * s.out_width;
    larger(wide[stacked], count * s.height * s.width * b.in_pixel());
    larger(wide[stacked], out_pixels * b.out_pixel());
    larger(inner_size, out_pixels * b.high.pixel());
    larger(padded[{s.height, s.width, b.high.panels(), false}].images, count);
    most = std::max({most, b.high.pixel(), b.out_pixel(), b.hidden_wide()});
    larger(longest, std::max(s.height, s.width));
    if (!b.elastic()) continue;
    const int64_t low_pixels = count * s.low_height * s.low_width;
    larger(padded[{s.low_height, s.low_width, b.low.panels(), true}].images, count);
    larger(low_inner_size, low_pixels * b.low.pixel());
    larger(low_out_size, low_pixels * b.out_pixel());
    larger(pooled_size, low_pixels * b.in_pixel());
    larger(most, b.low.pixel());
  }
  for (int kind = 0; kind < 2; kind++)
    for (int turn = 0; turn < 2; turn++) maps[kind][turn] = take(wide[kind]);
  inner = take(inner_size);
  low_inner = take(low_inner_size);
  low_out = take(low_out_size);
  pooled = take(pooled_size);
  for (int64_t* vector : {&mean_high, &mean_low, &hidden, &gate}) *vector = take(most);
  row_weights = take(2 * longest);
  column_weights = take(2 * longest);
  for (auto& [key, map] : padded) map.at = take(map.images * padded_floats(key));
}

// The blocks at the plan's end whose maps are small: weights then are most of what is read, and a tile of pixels is not
// filled by one image.
void Layout::choose_stack(const Plan& plan, int64_t images) {
  constexpr int kSmall = 64, kTogether = 448;  // pixels of a map, and of a stack of them
  stacked_from = sizes.size();
  while (stacked_from > 0) {
    const Size& s = sizes[stacked_from - 1];
    if (images <= 1 || plan.blocks[stacked_from - 1].hidden || s.out_height * s.out_width > kSmall) break;
    stacked_from--;
  }
  if (stacked_from == sizes.size()) return;
  const Size& s = sizes[stacked_from];
  stack = int(std::clamp<int64_t>(kTogether / (s.out_height * s.out_width), 1, images));
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
  for (const auto& [key, padded] : layout_.padded) {
    const auto [height, width, panels, low] = key;
    const int64_t pixel = int64_t(panels) * kPanel + kGap, row = (width + 2) * pixel;
    for (int64_t image = 0; image < padded.images; image++) {
      if (turn++ % members != member) continue;
      float* map = scratch_ + padded.at + image * padded_floats(key);
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

void Runner::images(const float* input, float* output, int count, int member, int members, Barrier& barrier) const {
  const size_t split = layout_.stacked_from, end = plan_.blocks.size();
  const int64_t in_pixels = int64_t(layout_.height) * layout_.width, in = plan_.blocks.front().in;
  const int64_t out = plan_.blocks.back().out;
  const int64_t out_pixels = int64_t(layout_.sizes.back().out_height) * layout_.sizes.back().out_width;
  float* stack = scratch_ + layout_.maps[1][0];
  if (split == 0) copy_pixels(input, in, in, stack, plan_.blocks[0].in_pixel(), count * in_pixels, member, members);
  for (int image = 0; split > 0 && image < count; image++) {
    float* map = scratch_ + layout_.maps[0][0];
    copy_pixels(input + image * in_pixels * in, in, in, map, plan_.blocks[0].in_pixel(), in_pixels, member, members);
    barrier.wait();
    const float* last = blocks(0, split, 1, member, members, barrier);
    const int64_t pixel = plan_.blocks[split - 1].out_pixel();
    if (split == end) {
      copy_pixels(last, pixel, out, output + image * out_pixels * out, out, out_pixels, member, members);
    } else {
      const int64_t pixels = int64_t(layout_.sizes[split].height) * layout_.sizes[split].width;
      copy_pixels(last, pixel, plan_.blocks[split].in, stack + image * pixels * pixel, pixel, pixels, member, members);
    }
    barrier.wait();
  }
  if (split == end) return;
  barrier.wait();
  const float* last = blocks(split, end, count, member, members, barrier);
  copy_pixels(last, plan_.blocks.back().out_pixel(), out, output, out, count * out_pixels, member, members);
  barrier.wait();
}

const float* Runner::blocks(size_t first, size_t end, int images, int member, int members, Barrier& barrier) const {
  const int64_t(&places)[2] = layout_.maps[first >= layout_.stacked_from];
  float* maps[2] = {scratch_ + places[0], scratch_ + places[1]};
  int now_in = 0;
  for (size_t i = first; i < end; i++) {
    const BlockPlan& b = plan_.blocks[i];
    const int goes_to = b.projection ? 1 - now_in : now_in;  // without a projection, onto the shortcut
    const float* input = maps[now_in];
    const int64_t row = layout_.sizes[i].width * b.in_pixel();
    block(i,
          {.images = images,
           .input = input, .in_pixel = b.in_pixel(), .output = maps[goes_to], .out_pixel = b.out_pixel(),
           .shortcut = input, .shortcut_pixel = b.in_pixel(),
           .projected = input, .projected_pixel = b.stride * b.in_pixel(), .projected_row = b.stride * row,
           .projected_image = layout_.sizes[i].height * row},
          member, members, barrier);
    now_in = goes_to;
  }
  return maps[now_in];
}

}  // namespace elastic
