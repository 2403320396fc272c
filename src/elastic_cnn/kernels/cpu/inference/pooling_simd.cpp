// Pooling.
//
//   pool      2x2 sums inside a block, on maps as they lie there, since the weights that read them hold the 1/4
//   max_pool  the stem's 3x3 maxima of stride 2, to any number of channels
#include <cstring>

#include "common/vectors.h"
#include "inference/kernels.h"

namespace elastic::ELASTIC_LEVEL {

void pool(const Pool& p, const Slice& slice) {
  const int width = half(p.width);
  for (int row = slice.row; row < slice.row_end; row++) {
    const Element* top = p.input + int64_t(2 * row) * p.width * p.pixel;
    const Element* bottom = 2 * row + 1 < p.height ? top + p.width * p.pixel : top;
    for (int x = 0; x < width; x++) {
      // at the edge the same pixel stands for one that is missing, which keeps the mean
      const int64_t left = 2 * x * p.pixel, right = 2 * x + 1 < p.width ? left + p.pixel : left;
      Element* out = p.output + (int64_t(row) * width + x) * p.out_pixel;
      for (int c = slice.first * kLanes; c < slice.last * kLanes; c += kLanes)
        store(out + c,
              (load(top + left + c) + load(top + right + c)) + (load(bottom + left + c) + load(bottom + right + c)));
    }
  }
}

void max_pool(const MaxPool& p) {
  for (int x = 0; x < half(p.width); x++) {
    Element* out = p.output + x * p.out_pixel;
    for (int c = 0; c < p.channels; c += kLanes) {
      F16 most = zero();
      for (const Element* row : p.rows)
        for (int at = 2 * x - 1; row && at <= 2 * x + 1; at++)
          if (at >= 0 && at < p.width) most = larger_magnitude(most, load(row + at * p.pixel + c));
      if (c + kLanes <= p.channels) {
        store(out + c, most);
      } else {
        Element last[kLanes];
        store(last, most);
        std::memcpy(out + c, last, (p.channels - c) * sizeof(Element));
      }
    }
  }
}

}  // namespace elastic::ELASTIC_LEVEL
