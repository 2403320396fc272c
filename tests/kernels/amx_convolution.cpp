// The convolution with the matrix unit emulated, and the same with vectors, behind plain C for `test_bf16_kernels.py`.
#include "inference/kernels.h"

namespace elastic {
namespace amx_bf16 {
void convolution(const Convolution&, const Slice&);
}
namespace avx512_bf16 {
void convolution(const Convolution&, const Slice&);
}
}  // namespace elastic

// A 1x1 or 3x3 convolution of a (height, width, pixel) map, with a border of one pixel where it has nine taps, to
// (height, width, out_pixel); `low` of half the size and `shortcut` of the output's may be null.
extern "C" void run(int matrix_unit, const void* input, long pixel, int taps, int channels, int groups, const float* weights,
                    const float* bias, const void* low, const void* shortcut, void* output, long out_pixel, int outputs,
                    int height, int width) {
  using namespace elastic;
  const long row = (taps == 9 ? width + 2 : width) * pixel;
  Convolution p{};
  p.input = static_cast<const Element*>(input);
  p.in_pixel = p.tap_pixel = pixel;
  p.in_row = p.tap_row = row;
  p.taps = taps;
  p.tap_columns = taps == 9 ? 3 : 1;
  p.groups = groups;
  p.group_width = channels / groups;
  p.weights = weights;
  p.bias = bias;
  p.output = static_cast<Element*>(output);
  p.out_pixel = out_pixel;
  p.out_row = width * out_pixel;
  p.height = height;
  p.width = width;
  p.shortcut = static_cast<const Element*>(shortcut);
  p.shortcut_pixel = out_pixel;
  p.low = static_cast<const Element*>(low);
  p.low_pixel = out_pixel;
  p.low_height = half(height);
  p.low_width = half(width);
  p.relu = true;
  const Slice all{0, height, 0, (outputs + kPanel - 1) / kPanel};
  (matrix_unit ? amx_bf16::convolution : avx512_bf16::convolution)(p, all);
}
