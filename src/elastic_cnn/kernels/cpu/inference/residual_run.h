// Runs blocks of a plan on images that lie behind one another.
#pragma once
#include "common/threads.h"
#include "inference/residual_layout.h"

namespace elastic {

// Seconds that worker 0 spent, a row a block; filled only where asked for.
enum Step { kConv1, kPool, kConv1Low, kConv2, kConv2Low, kConv3Low, kShortcut, kConv3, kGate, kWait, kSteps };

// This worker's piece of `pixels` pixels of so many channels, zeros up to whole panels after them if there is room.
void copy_pixels(const Element* from, int64_t from_pixel, int64_t channels, Element* to, int64_t to_pixel,
                 int64_t pixels, const Worker& worker);

// The maps that a block reads and writes; *_pixel: numbers from one pixel to the next, rows follow without a border.
struct BlockMaps {
  int images;  // behind one another; more than one only in blocks without a gate
  const Element* input;
  int64_t in_pixel;
  Element* output;  // may be the shortcut
  int64_t out_pixel;
  const Element* shortcut;  // added before the last ReLU, of the output's size; unused by a block with a projection
  int64_t shortcut_pixel;
  const Element* projected;  // what a projection reads, one pixel for each of the output's
  int64_t projected_pixel, projected_row, projected_image;
};

class Runner {
 public:
  Runner(const InferenceKernels& kernels, const Plan& plan, const Layout& layout, const float* weights,
         Element* scratch, double* seconds)
      : kernels_(kernels), plan_(plan), layout_(layout), weights_(weights), scratch_(scratch), seconds_(seconds) {}

  // Zeroes the borders, which no step writes. Once a call, before the first image; ends with a barrier.
  void clear_borders(const Worker& worker) const;
  // One block; ends with a barrier.
  void block(size_t index, const BlockMaps& maps, const Worker& worker) const;
  // The layout's blocks on so many images, from (height, width, in) to (height', width', out), contiguous, channels last.
  void run(const Element* input, Element* output, int images, const Worker& worker) const;

 private:
  const InferenceKernels& kernels_;
  const Plan& plan_;
  const Layout& layout_;
  const float* weights_;
  Element* scratch_;
  double* seconds_;
  friend class BlockRun;
};

}  // namespace elastic
