// Runs blocks of a plan on images that lie behind one another.
#pragma once
#include <map>
#include <tuple>
#include <vector>

#include "kernels.h"
#include "plan.h"
#include "team.h"

namespace elastic {

using PaddedKey = std::tuple<int, int, int, bool>;  // height, width, panels, of a low branch
int64_t padded_floats(const PaddedKey& key);        // of one image

// Where things lie in the scratch memory of a run of blocks, in floats from its beginning.
struct Layout {
  struct Size {
    int height, width, out_height, out_width, low_height, low_width;
  };
  size_t first, end;  // the blocks
  int images;         // that they take together, at most
  std::vector<Size> sizes;  // of every block of the plan
  std::map<PaddedKey, int64_t> padded;  // maps with a border; blocks of equal sizes share them
  int64_t maps[2];                      // read and written in turn
  int64_t inner, low_inner, low_out, pooled;
  int64_t mean_high, mean_low, hidden, gate, row_weights, column_weights;
  int64_t floats = 0;
  // height, width: of the plan's input.
  Layout(const Plan& plan, size_t first, size_t end, int height, int width, int images);
  static std::vector<Size> sizes_of(const Plan& plan, int height, int width);
  int64_t in_pixels() const { return int64_t(sizes[first].height) * sizes[first].width; }
  int64_t out_pixels() const { return int64_t(sizes[end - 1].out_height) * sizes[end - 1].out_width; }

 private:
  int64_t take(int64_t size);
};

// Seconds that member 0 spent, a row a block; filled only where asked for.
enum Step { kConv1, kPool, kConv1Low, kConv2, kConv2Low, kConv3Low, kShortcut, kConv3, kGate, kWait, kSteps };

// Whether `members` threads divide rows of a map or panels of its channels: what can be divided more evenly.
bool divides_by_rows(int rows, int panels, int members);

// This member's part of `pixels` pixels of so many channels, zeros up to whole panels after them if there is room.
void copy_pixels(const float* from, int64_t from_pixel, int64_t channels, float* to, int64_t to_pixel, int64_t pixels,
                 int member, int members);

// The maps that a block reads and writes; *_pixel: floats from one pixel to the next, rows follow without a border.
struct BlockMaps {
  int images;  // behind one another; more than one only in blocks without a gate
  const float* input;
  int64_t in_pixel;
  float* output;  // may be the shortcut
  int64_t out_pixel;
  const float* shortcut;  // added before the last ReLU, of the output's size; unused by a block with a projection
  int64_t shortcut_pixel;
  const float* projected;  // what a projection reads, one pixel for each of the output's
  int64_t projected_pixel, projected_row, projected_image;
};

class Runner {
 public:
  Runner(const Kernels& kernels, const Plan& plan, const Layout& layout, const float* weights, float* scratch,
         double* seconds)
      : kernels_(kernels), plan_(plan), layout_(layout), weights_(weights), scratch_(scratch), seconds_(seconds) {}

  // Zeroes the borders, which no step writes. Once a call, before the first image; ends with a barrier.
  void clear_borders(int member, int members, Barrier& barrier) const;
  // One block; ends with a barrier.
  void block(size_t index, const BlockMaps& maps, int member, int members, Barrier& barrier) const;
  // The layout's blocks on so many images, from (height, width, in) to (height', width', out), dense, channels last.
  void run(const float* input, float* output, int images, int member, int members, Barrier& barrier) const;

 private:
  const Kernels& kernels_;
  const Plan& plan_;
  const Layout& layout_;
  const float* weights_;
  float* scratch_;
  double* seconds_;
  friend class BlockRun;
};

}  // namespace elastic
