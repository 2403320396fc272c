// A network's first layers in one pass: convolution, ReLU and 3x3 max pooling of stride 2.
#pragma once
#include "kernels.h"
#include "team.h"

namespace elastic {

struct Stem {
  int channels, height, width, out;  // of the image, and channels of the result
  int kernel, stride;                // kernel odd, padding kernel / 2
  int conv_height() const { return (height - 1) / stride + 1; }
  int conv_width() const { return (width - 1) / stride + 1; }
  int out_height() const { return (conv_height() + 1) / 2; }
  int out_width() const { return (conv_width() + 1) / 2; }
  int64_t weights() const { return round_up(out, kPanel) * kernel * kernel * channels; }
  int64_t scratch(int members) const;  // floats
};

// An image with any strides, to (out_height, out_width, out) dense. `bias` holds whole panels.
void run_stem(const Kernels& kernels, const Stem& stem, const float* image, const int64_t strides[3],
              const float* weights, const float* bias, float* scratch, float* output, int member, int members,
              Barrier& barrier);

}  // namespace elastic
