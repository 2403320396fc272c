// What a squeeze-and-excitation gate needs: means of a map's channels, and products of a matrix with one vector.
//
// A mean over positions passes through the 1x1 convolution behind it, so the squeeze is taken from the narrow map before
// that convolution, whose matrix is multiplied into the gate's first layer when the weights are packed. The gate is
// known before the wide map is computed, and multiplies it as it is written (`Convolution::scale`).
#include <cmath>

#include "common/vectors.h"
#include "inference/kernels.h"

namespace elastic::ELASTIC_LEVEL {

void mean(const Mean& p, int first, int last) {
  for (int c = first * kLanes; c < last * kLanes; c += kLanes) {
    F16 sum = zero();
    for (int row = 0; row < p.height; row++) {
      F16 line = zero();
      const Element* a = p.map + int64_t(row) * p.width * p.pixel + c;
      for (int x = 0; x < p.width; x++, a += p.pixel) line = fma(load(a), all(p.column_weight[x]), line);
      sum = fma(line, all(p.row_weight[row]), sum);
    }
    store(p.mean + c, sum);
  }
}

void linear(const Linear& p, int first, int last) {
  for (int c = first * kLanes; c < last * kLanes; c += kLanes) {
    F16 sum = load(p.start + c);
    for (int k = 0; k < p.inputs; k++) sum = fma(all(p.input[k]), load(p.weights + int64_t(k) * p.outputs + c), sum);
    if (p.activation == Activation::kRelu) sum = relu(sum);
    store(p.output + c, sum);
    if (p.activation == Activation::kSigmoid)
      for (int i = c; i < c + kLanes; i++) p.output[i] = 1.f / (1.f + std::exp(-p.output[i]));
  }
}

}  // namespace elastic::ELASTIC_LEVEL
