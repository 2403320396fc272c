// How images go from block to block.
#include "inference/residual_run.h"

#include <algorithm>
#include <cstring>

namespace elastic {

void Runner::clear_borders(const Worker& worker) const {
  int turn = 0;
  for (const auto& [key, at] : layout_.padded) {
    const auto [height, width, panels, low] = key;
    for (int64_t image = 0; image < layout_.images; image++) {
      if (turn++ % worker.count != worker.index) continue;
      clear_border(scratch_ + at + image * padded_floats(key), height, width, pixel_of(panels * kPanel));
    }
  }
  worker.wait();
}

void copy_pixels(const Element* from, int64_t from_pixel, int64_t channels, Element* to, int64_t to_pixel,
                 int64_t pixels, const Worker& worker) {
  const int64_t wide = std::min(round_up(channels, kPanel), to_pixel);
  const Range part = range_of(int(pixels), worker);
  for (int64_t p = part.begin; p < part.end; p++) {
    std::memcpy(to + p * to_pixel, from + p * from_pixel, channels * sizeof(Element));
    std::memset(to + p * to_pixel + channels, 0, (wide - channels) * sizeof(Element));
  }
}

void Runner::run(const Element* input, Element* output, int images, const Worker& worker) const {
  const Layout& l = layout_;
  const BlockPlan &front = plan_.blocks[l.first], &back = plan_.blocks[l.end - 1];
  Element* maps[2] = {scratch_ + l.maps[0], scratch_ + l.maps[1]};
  copy_pixels(input, front.in, front.in, maps[0], front.in_pixel(), images * l.in_pixels(), worker);
  worker.wait();
  int now_in = 0;
  for (size_t i = l.first; i < l.end; i++) {
    const BlockPlan& b = plan_.blocks[i];
    const int goes_to = b.projection ? 1 - now_in : now_in;  // without a projection, onto the shortcut
    const Element* from = maps[now_in];
    const int64_t row = l.sizes[i].width * b.in_pixel();
    block(i,
          {.images = images,
           .input = from,
           .in_pixel = b.in_pixel(),
           .output = maps[goes_to],
           .out_pixel = b.out_pixel(),
           .shortcut = from,
           .shortcut_pixel = b.in_pixel(),
           .projected = from,
           .projected_pixel = b.stride * b.in_pixel(),
           .projected_row = b.stride * row,
           .projected_image = l.sizes[i].height * row},
          worker);
    now_in = goes_to;
  }
  copy_pixels(maps[now_in], back.out_pixel(), back.out, output, back.out, images * l.out_pixels(), worker);
  worker.wait();
}

}  // namespace elastic
