// Runs a DenseNet's trunk on one image, all threads of a team together.
#pragma once
#include <vector>

#include "dense_plan.h"
#include "kernels.h"
#include "team.h"

namespace elastic {

constexpr int kDenseChunk = 112;  // pixels that go through norm and conv1 in one go

// Where things lie in scratch memory, in floats: `team` from the beginning of a team's part, `own` of a member's.
struct DenseLayout {
  struct Size {
    int height, width, low_height, low_width;
    int64_t high_maps[2], low_maps[2];  // with a border, between conv1 and conv2; layers take them in turn
    int64_t high_pixel, low_pixel;
    int64_t high_size() const { return int64_t(height + 2) * (width + 2) * high_pixel; }
    int64_t low_size() const { return low_pixel ? int64_t(low_height + 2) * (low_width + 2) * low_pixel : 0; }
  };
  std::vector<Size> sizes;  // of each stage
  int64_t wide[2];          // the map that a stage's layers read and add to; stages take them in turn
  int64_t normed, pooled, low_out;
  int64_t team = 0, own = 0;  // floats in all
  DenseLayout(const DensePlan& plan, int height, int width);
};

// Seconds that member 0 spent, a row for each row of the plan; filled only where asked for.
enum DenseStep {
  kDenseNorm,
  kDenseConv1,
  kDenseConv1Low,
  kDenseConv2Low,
  kDenseConv2,
  kDenseCopy,
  kDenseWait,
  kDenseSteps
};

// A thread's place: the team it belongs to, the memory it shares with it and its own.
struct DensePlace {
  float *team, *own;
  int member, members;
  Barrier& barrier;
  double* seconds;  // null where not asked for
};

class DenseRunner {
 public:
  DenseRunner(const Kernels& kernels, const DensePlan& plan, const DenseLayout& layout, const float* weights)
      : kernels_(kernels), plan_(plan), layout_(layout), weights_(weights) {}

  // Zeroes the borders, which no step writes. Once a call and team, before its first image; ends with a barrier.
  void clear_borders(const DensePlace& place) const;
  // One image from (height, width, in) to (height', width', channels), both dense, channels last.
  void image(const float* input, float* output, const DensePlace& place) const;

 private:
  const Kernels& kernels_;
  const DensePlan& plan_;
  const DenseLayout& layout_;
  const float* weights_;
  friend class DenseRun;
};

}  // namespace elastic
