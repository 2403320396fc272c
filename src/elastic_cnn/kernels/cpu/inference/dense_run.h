// Runs a DenseNet's trunk on one image, all workers together.
#pragma once
#include <vector>

#include "common/threads.h"
#include "inference/dense_plan.h"
#include "inference/kernels.h"

namespace elastic {

constexpr int kDenseChunk = 112;  // pixels that go through norm and conv1 in one go

// Where things lie in scratch memory, in floats: `shared` from the beginning of what the workers of an image
// share, `own` of what is one worker's.
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
  int64_t shared = 0, own = 0;  // floats in all
  DenseLayout(const DensePlan& plan, int height, int width);
};

// Seconds that worker 0 spent, a row for each row of the plan; filled only where asked for.
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

// A worker with the memory that it shares with the others of its image, and its own.
struct DenseWorker {
  Element *shared, *own;
  Worker worker;
  double* seconds;  // null where not asked for
};

class DenseRunner {
 public:
  DenseRunner(const InferenceKernels& kernels, const DensePlan& plan, const DenseLayout& layout, const float* weights)
      : kernels_(kernels), plan_(plan), layout_(layout), weights_(weights) {}

  // Zeroes the borders, which no step writes. Once a call and shared memory, before its first image; ends with a barrier.
  void clear_borders(const DenseWorker& me) const;
  // One image from (height, width, in) to (height', width', channels), both contiguous, channels last.
  void image(const Element* input, Element* output, const DenseWorker& me) const;

 private:
  const InferenceKernels& kernels_;
  const DensePlan& plan_;
  const DenseLayout& layout_;
  const float* weights_;
  friend class DenseRun;
};

}  // namespace elastic
