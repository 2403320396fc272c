// What plans of every kind are read with, how many panels and numbers their channels take, and their maps' borders.
#pragma once
#include <c10/util/Exception.h>

#include <cstring>

#include "inference/kernels.h"

namespace elastic {

inline int panels_of(int64_t channels) { return int(round_up(channels, kPanel) / kPanel); }
inline int64_t pixel_of(int64_t channels) { return round_up(channels, kPanel) + kGap; }

constexpr int64_t kMostChannels = 1 << 16;  // which keeps every product of sizes far inside 64 bits

// A number of a plan. Raises unless it lies in least..65536; what: its name, for that sentence.
inline int plan_number(int64_t value, int64_t least, const char* what) {
  TORCH_CHECK_VALUE(value >= least && value <= kMostChannels, what, " must lie in ", least, "..", kMostChannels,
                    ", got ", value);
  return int(value);
}

// Where pieces of packed weights lie that follow one another, each filled to whole panels.
class WeightCursor {
 public:
  explicit WeightCursor(int64_t first = 0) : next_(first) {}
  int64_t take(int64_t floats) {
    const int64_t at = next_;
    next_ += round_up(floats, kPanel);
    return at;
  }
  int64_t total() const { return next_; }

 private:
  int64_t next_;
};

// Where a buffer of so many numbers begins, behind the `floats` that are taken. Each starts on a cache line of its own
// set, so that maps of equal size do not fall onto each other.
inline int64_t take(int64_t& floats, int64_t size) {
  const int64_t at = floats;
  floats += round_up(size, 64) + 64 * 5;
  return at;
}

// Zeroes the border of a map of height x width pixels, `pixel` numbers apart, that begins here with its border.
inline void clear_border(Element* map, int height, int width, int64_t pixel) {
  const int64_t row = (width + 2) * pixel;
  std::memset(map, 0, row * sizeof(Element));
  for (int y = 1; y <= height; y++) {
    std::memset(map + y * row, 0, pixel * sizeof(Element));
    std::memset(map + (y + 1) * row - pixel, 0, pixel * sizeof(Element));
  }
  std::memset(map + (height + 1) * row, 0, row * sizeof(Element));
}

}  // namespace elastic
