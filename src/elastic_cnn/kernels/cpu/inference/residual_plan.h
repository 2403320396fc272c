// What a sequence of residual blocks is: a row of whole numbers a block, and where its packed weights lie.
#pragma once
#include <cstdint>
#include <vector>

#include "inference/plan.h"

namespace elastic {

// One resolution of a block: conv1 (1x1), ReLU, conv2 (3x3 in groups), ReLU, conv3 (1x1).
struct BranchPlan {
  int groups, group_width;
  bool
      lanes;  // conv2 with sixteen groups as the lanes of a vector (`GroupedConvolution`), else as a product (`Convolution`)
  int inner;  // channels after conv1; with lanes, the groups are rounded up to sixteen
  int outer;  // after conv2: as many, but where branches join there
  int64_t w1, b1, w2, b2, w3;
  int panels() const { return panels_of(inner); }
  int64_t pixel() const { return pixel_of(inner); }
  int outer_panels() const { return panels_of(outer); }
  int vectors() const { return lanes ? outer / 16 : 2 * outer_panels(); }  // that conv2 computes
  int64_t outer_pixel() const { return pixel_of(outer); }
};

struct BlockPlan {
  int in, out, stride;
  BranchPlan high, low;  // low.groups is 0 in a block of one resolution
  bool joined;           // the low branch ends in conv2 and joins the high one there, before its ReLU and conv3
  bool projection;       // the shortcut is a 1x1 convolution of this stride
  int hidden;            // of the squeeze-and-excitation gate, 0 without one
  int64_t b3, wp, bp, gate_high, gate_low, gate_b1, gate_w2, gate_b2;
  bool elastic() const { return low.groups > 0; }
  bool low_to_end() const { return elastic() && !joined; }
  int in_vectors() const { return int(round_up(in, kPanel) / 16); }
  int out_panels() const { return panels_of(out); }
  int64_t in_pixel() const { return pixel_of(in); }
  int64_t out_pixel() const { return pixel_of(out); }
  int64_t hidden_wide() const { return round_up(hidden, kVector); }
};

struct Plan {
  std::vector<BlockPlan> blocks;
  int64_t weights = 0;  // floats that the packed weights take
};

constexpr int kPlanFields = 12;

// Reads rows of (in, out, stride, groups, group width, lanes, low groups, low group width, low lanes, projection,
// hidden, channels where branches join before conv3 or 0). The packed weights follow in that order too, see packing.py. Raises where the numbers make no sense.
Plan read_plan(const std::vector<int64_t>& numbers);

}  // namespace elastic
