// A residual block as one worker computes it: how the block is divided among threads (residual_block.cpp), and
// its steps, each on a range of rows and a range of panels or vectors of channels (residual_steps.cpp).
#pragma once
#include <algorithm>

#include "inference/residual_run.h"

namespace elastic {

class BlockRun {
 public:
  BlockRun(const Runner& runner, size_t index, const BlockMaps& maps, const Worker& worker)
      : r_(runner),
        k_(runner.kernels_),
        b_(runner.plan_.blocks[index]),
        size_(runner.layout_.sizes[index]),
        m_(maps),
        worker_(worker),
        seconds_(worker.index == 0 && runner.seconds_ ? runner.seconds_ + index * kSteps : nullptr),
        since_(seconds_ ? now() : 0) {}

  void run();

 private:
  bool by_rows() const;
  // Before anything else conv1 computes a thread's outermost rows, which its neighbours' 3x3 read; behind the barrier
  // a chunk of rows then goes through conv1, 3x3 and conv3 in one go, and lies in the thread's cache all the while.
  void rows();
  void finish_rows(Range part);
  void channels();

  // -- the steps, each on a range of rows and a range of panels (or vectors) of channels
  void conv1(bool low, Range rows, Range panels);
  void pool(Range rows, Range vectors);
  void conv2(bool low, Range rows, Range vectors);
  void conv3_low(Range rows, Range panels);
  void shortcut(Range rows, Range panels);
  void conv3(Range rows, Range panels);
  // The gate from the narrow maps; `inner` and `low_inner` are complete, and a barrier lies behind them.
  void gate();

  // Lets a product add the low map, enlarged.
  void enlarge(Convolution& p, int64_t low, int64_t pixel) const;
  // Lets a product run over all images of the stack, so far apart.
  void stack(Convolution& p, int64_t in_image, int64_t out_image) const;
  // body(rows of an image) for each image of the stack; `rows` are all rows of all of them, or some of the only one.
  template <class Body>
  void for_images(Range rows, int height, const Body& body) const {
    if (m_.images == 1) return body(rows);
    for (int image = 0; image < m_.images; image++) body({0, height});
  }
  void finish(Convolution& p, Range rows, Range panels, Step step);

  static int rows_in(int pixels, int width) { return std::max(1, pixels / width); }
  static Range all_panels(const BranchPlan& branch) { return {0, branch.panels()}; }
  static Range all_vectors(const BranchPlan& branch) { return {0, branch.vectors()}; }
  Range vectors_of(const BranchPlan& branch) const {
    const Range panels = range_of(branch.outer_panels(), worker_);
    return {2 * panels.begin, std::min(2 * panels.end, branch.vectors())};
  }
  int64_t padded(bool low) const {
    if (low) return r_.layout_.padded.at({size_.low_height, size_.low_width, b_.low.panels(), true});
    return r_.layout_.padded.at({size_.height, size_.width, b_.high.panels(), false});
  }
  Element* at(int64_t offset) const { return r_.scratch_ + offset; }
  float* floats_at(int64_t offset) const { return reinterpret_cast<float*>(at(offset)); }
  const float* weights(int64_t offset) const { return r_.weights_ + offset; }
  void wait() {
    worker_.wait();
    mark(kWait);
  }
  void mark(Step step) {
    if (!seconds_) return;
    const double time = now();
    seconds_[step] += time - since_;
    since_ = time;
  }

  const Runner& r_;
  const InferenceKernels& k_;
  const BlockPlan& b_;
  const Layout::Size& size_;
  const BlockMaps m_;
  const Worker worker_;
  double* seconds_;
  double since_;
};

}  // namespace elastic
