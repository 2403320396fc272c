// The steps that blocks are made of, as plain structs, and a table of their functions for each instruction set.
//
// Maps. Inside a call a map lies as rows of pixels of channels (NHWC). Its channels are rounded up to a whole panel of
// 32, the surplus always zero, and a cache line lies unused after each pixel, so that the pixels of a tile do not fall onto
// the same cache sets where the channels are a power of two. No kernel therefore needs a mask. A map that a 3x3
// convolution reads has a border of one pixel of zeros around it.
//
// A step is asked for a slice (rows by panels or vectors of channels), so that threads can divide it either way.
#pragma once
#include <cstdint>

#include "common/element.h"

namespace elastic {

constexpr int kPanel = 32;        // output channels whose weights lie together: weights[panel][tap][input word][32]
constexpr int kGap = 16 * kPack;  // unused numbers after each pixel: a cache line
constexpr int kVector = 16;       // channels of a vector, on every instruction set

// Which inputs the 32 outputs of a panel read: all of them in a convolution without groups, those of their
// groups otherwise.
struct Inputs {
  int first, count;
};
inline Inputs inputs_of_panel(int panel, int groups, int group_width) {
  if (groups == 1) return {0, group_width};
  const int channels = groups * group_width, begin = panel * kPanel;
  const int end = begin + kPanel < channels ? begin + kPanel : channels;
  const int first = begin / group_width * group_width, last = (end + group_width - 1) / group_width * group_width;
  return {first, last - first};
}

// out(pixel, :) = bias + sum over taps and inputs of weights * in(pixel, :), then what the optional pointers ask for:
//   scale:    times a factor a channel, the upsampled map included
//   low:      + up2(low), bilinear, half-pixel, times 16 (the weights that made `low` hold the 1/16)
//   shortcut: + shortcut(pixel, :)      (may be the output itself)
//   relu:     max(., 0)
struct Convolution {
  const Element* input;                // first tap of the first output pixel
  int64_t in_pixel, in_row;            // numbers from one output pixel's input to the next one's, the stride included
  int taps = 1;                        // 9 for 3x3
  int tap_columns = 1;                 // taps that lie in one row
  int64_t tap_pixel = 0, tap_row = 0;  // numbers from one tap to the next, along a row and between rows
  int groups = 1, group_width;         // input channels a group; the depth without groups
  const float* weights;
  const float* bias;  // one a channel, or null
  Element* output;
  int64_t out_pixel, out_row;
  int height, width;  // of the output
  // Several images behind one another, `height` rows in all: rows an image, and numbers from one image to the next.
  // 0: one image. The low maps and shortcuts of the images follow one another without a gap.
  int image_height = 0;
  int64_t in_image = 0, out_image = 0;
  const float* scale = nullptr;
  const Element* shortcut = nullptr;
  int64_t shortcut_pixel = 0;    // rows follow without a border
  const Element* low = nullptr;  // (low_height, low_width), without a border
  int64_t low_pixel = 0;
  int low_height = 0, low_width = 0;
  bool relu = false;
  int chunk = 112;  // pixels that go through all panels before the next pixels do; their inputs then stay in the cache
};

// A 1x1 product of maps without a border, whose pixels lie so far apart.
inline Convolution product(const Element* input, int64_t in_pixel, int depth, const float* weights, const float* bias,
                           Element* output, int64_t out_pixel, int height, int width) {
  Convolution p{};
  p.input = input;
  p.in_pixel = in_pixel;
  p.in_row = width * in_pixel;
  p.group_width = depth;
  p.weights = weights;
  p.bias = bias;
  p.output = output;
  p.out_pixel = out_pixel;
  p.out_row = width * out_pixel;
  p.height = height;
  p.width = width;
  return p;
}

// Lets a product be a 3x3 convolution of this stride, of a map of `map_width` columns with a border.
inline void widen(Convolution& p, int map_width, int stride) {
  p.tap_pixel = p.in_pixel;
  p.tap_row = (map_width + 2) * p.in_pixel;
  p.in_pixel *= stride;
  p.in_row = stride * p.tap_row;
  p.taps = 9;
  p.tap_columns = 3;
}

struct Slice {
  int row, row_end;        // output rows
  int first, last;         // panels of a product, vectors of sixteen channels elsewhere
  int skip = 0, drop = 0;  // pixels left out of the first and of the last row (a 1x1 product of an unbroken run alone)
};

// A 3x3 convolution of many narrow groups, ReLU after it. Sixteen groups are the sixteen lanes of a vector: channel
// c of group g lies at slab * 16 * group_width + c * 16 + lane where g = 16 * slab + lane, and a multiplication of
// vectors is sixteen groups' multiplication, without a shuffle. weights[output vector][tap][input word][16].
struct GroupedConvolution {
  const Element* input;  // first tap of the first output pixel, in a map with a border
  int64_t in_pixel, in_row;
  int stride, group_width;
  const float* weights;
  const float* bias;
  Element* output;
  int64_t out_pixel;
  int width;  // of the output, whose rows follow without a border
};

// Sums over 2x2 windows; one that reaches over the edge is weighted so that a quarter of it is the mean of what is inside.
struct Pool {
  const Element* input;
  int64_t pixel;
  int height, width;  // of the input
  Element* output;    // (ceil(height / 2), ceil(width / 2))
  int64_t out_pixel;
};

// relu(scale * x + shift) of pixels that lie behind one another; vectors of sixteen channels.
struct Normalize {
  const Element* input;
  int64_t in_pixel;
  const float *scale, *shift;
  Element* output;
  int64_t out_pixel;
  int pixels, vectors;
};

// The same of two rows, and sums over their 2x2 windows; what is not wanted is null. A row that is missing below is the
// one above again, and a column that is missing to the right the one to its left.
struct NormalizePool {
  const Element* rows[2];  // of the input
  int64_t in_pixel;
  const float *scale, *shift;
  Element* outputs[2];  // the rows' first pixels
  Element* pooled;      // where the window of column `first` goes
  int64_t out_pixel;
  int width, first, last;  // pixels a row; windows
  int vectors;
};

// 3x3 windows of stride 2, padding 1, of a map that is nowhere negative, whose pixels are whole vectors; null rows lie
// outside. A NaN in a window is its maximum, as in torch.
struct MaxPool {
  const Element* rows[3];
  int64_t pixel;
  int width;  // of the input
  Element* output;
  int64_t out_pixel;
  int channels;
};

// Weighted mean of a map over its pixels: sum of row_weight * column_weight * map(row, column, :).
struct Mean {
  const Element* map;
  int64_t pixel;
  int height, width;
  const float *row_weight, *column_weight;
  float* mean;
};

// out = act(start + weights^T in), weights (inputs, outputs), outputs in whole vectors; `start` may be the output.
enum class Activation { kNone, kRelu, kSigmoid };
struct Linear {
  const float *input, *weights, *start;
  float* output;
  int inputs, outputs;
  Activation activation;
};

struct InferenceKernels {
  int chunk;  // pixels that go through a block's convolutions together, while they lie in the second-level cache
  void (*convolution)(const Convolution&, const Slice&);
  void (*grouped_convolution)(const GroupedConvolution&, const Slice&);
  void (*pool)(const Pool&, const Slice&);             // rows of the output
  void (*mean)(const Mean&, int first, int last);      // vectors of channels
  void (*linear)(const Linear&, int first, int last);  // vectors of outputs
  void (*normalize)(const Normalize&);
  void (*normalize_pool)(const NormalizePool&);
};

#ifdef ELASTIC_BF16
namespace avx512_bf16 {
extern const InferenceKernels kernels;
}
namespace amx_bf16 {
extern const InferenceKernels kernels;
}
#else
namespace avx512 {
extern const InferenceKernels kernels;
}
namespace avx2 {
extern const InferenceKernels kernels;
}
#endif

// Those of this processor; raises where there are none.
const InferenceKernels& inference_kernels();

}  // namespace elastic
