// What a DenseNet's trunk is: rows of four whole numbers, and where the packed weights of each row lie.
#pragma once
#include <cstdint>
#include <vector>

#include "inference/plan.h"

namespace elastic {

// One resolution of a dense layer: conv1 (1x1, with bias), ReLU, conv2 (3x3).
struct DenseBranch {
  int inner;  // channels between the convolutions, 0 in a layer without this resolution
  int64_t w1, b1, w2;
  int panels() const { return panels_of(inner); }
  int64_t pixel() const { return pixel_of(inner); }
};

// A step that reads the first `in` channels of a stage's map through a norm and a ReLU.
struct NormedStep {
  int in;
  int64_t scale, shift;
  int vectors() const { return int(round_up(in, kVector) / kVector); }
};

// Writes `growth` channels behind those that it reads.
struct DenseLayer : NormedStep {
  int growth;
  DenseBranch high, low;
  int64_t bias;
  bool elastic() const { return low.inner > 0; }
  int panels() const { return panels_of(growth); }
};

// Pooling over whole 2x2 windows and a 1x1 convolution, into the next stage's map.
struct DenseTransition : NormedStep {
  int out;  // 0 where none follows
  int64_t weights, bias;
};

// A dense block, whose map every layer reads and adds to, and what follows it.
struct DenseStage {
  int in, channels;  // before the first layer and after the last
  std::vector<DenseLayer> layers;
  DenseTransition transition;
  bool normed;  // the result goes through a norm and a ReLU (`transition` without outputs)
  bool elastic() const;
  int widest(bool low) const;    // inner channels
  int64_t pixel() const;         // the last layer's panels may reach beyond the last channel
  int64_t growth_pixel() const;  // of the widest layer
};

struct DensePlan {
  std::vector<DenseStage> stages;
  int64_t weights = 0;  // floats that the packed weights take
};

constexpr int kDenseFields = 4;
enum DenseRow { kInputRow, kLayerRow, kTransitionRow, kNormRow };

// Reads rows of (kind, n, high, low): the input of n channels; a layer of n new channels with so many inner ones a
// resolution (low: 0 without one); a transition to n channels; the last norm (0, 0, 0). Weights follow in that order,
// see packing_dense.py. Raises where the numbers make no sense.
DensePlan read_dense_plan(const std::vector<int64_t>& numbers);

}  // namespace elastic
