// Where a convolution reads and writes one pixel of its output, over rows of several images.
#pragma once
#include <algorithm>

#include "inference/kernels.h"

namespace elastic {

struct PixelPlace {
  const Element* input;  // the first tap
  Element* output;
  const Element *shortcut, *low, *low_far;  // null where nothing is added; the low rows are mixed as 3:1
  int y;                                    // of its image
};

// channel: the first of those that are written.
inline PixelPlace place_of(const Convolution& p, int64_t channel, int row, int x) {
  const int image = p.image_height ? row / p.image_height : 0, y = row - image * p.image_height;
  PixelPlace place{p.input + image * p.in_image + y * p.in_row + x * p.in_pixel,
                   p.output + image * p.out_image + y * p.out_row + x * p.out_pixel + channel};
  if (p.shortcut) place.shortcut = p.shortcut + (int64_t(row) * p.width + x) * p.shortcut_pixel + channel;
  if (p.low) {
    const int near = y / 2, far = std::clamp(y % 2 ? near + 1 : near - 1, 0, p.low_height - 1);
    const int64_t first = int64_t(image) * p.low_height, low_row = p.low_width * p.low_pixel;
    place.low = p.low + (first + near) * low_row + channel;
    place.low_far = p.low + (first + far) * low_row + channel;
  }
  place.y = y;
  return place;
}

}  // namespace elastic
