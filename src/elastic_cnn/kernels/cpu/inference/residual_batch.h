// How a batch goes through a plan.
//
// Blocks of large maps. While there are as many images as threads, each thread takes an image for itself and waits for
// nobody; what is left over, an image alone above all, is computed by all threads together, which meet at barriers.
//
// Blocks of small maps, at the plan's end. A stack of images goes through them together: weights are most of what is
// read there, and are then read once a stack; and a tile of pixels is filled by several images.
#pragma once
#include <optional>

#include "inference/residual_run.h"

namespace elastic {

class Batch {
 public:
  // seconds: as Runner's; where they are asked for, all threads work together.
  Batch(const InferenceKernels& kernels, const Plan& plan, int height, int width, int64_t images, int threads,
        double* seconds);

  int64_t out_height() const { return sizes_.back().out_height; }
  int64_t out_width() const { return sizes_.back().out_width; }
  // From (images, height, width, in) to (images, height', width', out), both contiguous, channels last.
  void run(const float* weights, const Element* input, Element* output) const;

 private:
  void work(const float* weights, const Element* input, Element* output, Element* scratch, const Worker& worker) const;
  void large_maps(const Runner& own, const Runner& shared, const Element* input, Element* output, int64_t count,
                  const Worker& worker) const;

  const InferenceKernels& kernels_;
  const Plan& plan_;
  const std::vector<Layout::Size> sizes_;
  const int64_t images_;
  const int threads_;
  double* const seconds_;
  bool alone_;                           // threads take whole images
  int64_t group_;                        // images from one meeting of all threads to the next
  std::optional<Layout> large_, small_;  // of the blocks, where there are such
};

}  // namespace elastic
