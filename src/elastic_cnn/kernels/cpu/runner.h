// Runs a plan's blocks on one image, all threads together.
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

// Where things lie in the scratch memory of a call, in floats from its beginning.
struct Layout {
  int height, width;  // of the input
  struct Size {
    int height, width, out_height, out_width, low_height, low_width;
  };
  std::vector<Size> sizes;                              // of each block
  size_t stacked_from;                                  // blocks from here on take `stack` images together
  int stack = 1;
  // Maps with a border; blocks of equal sizes share them.
  struct Padded {
    int64_t at = 0, images = 0;
  };
  std::map<PaddedKey, Padded> padded;
  int64_t maps[2][2];  // two that are read and written in turn, of one image and of a stack
  int64_t inner, low_inner, low_out, pooled;
  int64_t mean_high, mean_low, hidden, gate, row_weights, column_weights;
  int64_t floats = 0;
  Layout(const Plan& plan, int height, int width, int64_t images);

 private:
  void choose_stack(const Plan& plan, int64_t images);
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
  // At most `stack` images from (height, width, in) to (height', width', out), both dense, channels last.
  void images(const float* input, float* output, int count, int member, int members, Barrier& barrier) const;

 private:
  // Images that lie in the first of their two maps go through these blocks; returns where they lie then.
  const float* blocks(size_t first, size_t end, int images, int member, int members, Barrier& barrier) const;

  const Kernels& kernels_;
  const Plan& plan_;
  const Layout& layout_;
  const float* weights_;
  float* scratch_;
  double* seconds_;
  friend class BlockRun;
};

}  // namespace elastic
