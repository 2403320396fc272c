// Where the maps of a run of blocks lie in its scratch memory.
#pragma once
#include <cstddef>
#include <map>
#include <tuple>
#include <vector>

#include "inference/residual_plan.h"

namespace elastic {

using PaddedKey = std::tuple<int, int, int, bool>;  // height, width, panels, of a low branch
int64_t padded_floats(const PaddedKey& key);        // of one image

// Where things lie in the scratch memory of a run of blocks, in floats from its beginning.
struct Layout {
  struct Size {
    int height, width, out_height, out_width, low_height, low_width;
  };
  std::size_t first, end;               // the blocks
  int images;                           // that they take together, at most
  std::vector<Size> sizes;              // of every block of the plan
  std::map<PaddedKey, int64_t> padded;  // maps with a border; blocks of equal sizes share them
  int64_t maps[2];                      // read and written in turn
  int64_t inner, low_inner, low_out, pooled;
  int64_t mean_high, mean_low, hidden, gate, row_weights, column_weights;
  int64_t floats = 0;
  // height, width: of the plan's input.
  Layout(const Plan& plan, std::size_t first, std::size_t end, int height, int width, int images);
  static std::vector<Size> sizes_of(const Plan& plan, int height, int width);
  int64_t in_pixels() const { return int64_t(sizes[first].height) * sizes[first].width; }
  int64_t out_pixels() const { return int64_t(sizes[end - 1].out_height) * sizes[end - 1].out_width; }
};

}  // namespace elastic
