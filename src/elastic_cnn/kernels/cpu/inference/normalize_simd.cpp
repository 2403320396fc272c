// A dense layer's norm and ReLU, in one pass over the features that it reads; alone, or with the 2x2 pooling after it.
//
//   normalize       pixels that lie behind one another, four at a time so that scale and shift are read once for them
//   normalize_pool  windows of two rows: what the rows become, and the sums over the windows, from one reading
//
// Channels are computed in whole vectors; those beyond the last hold whatever lay there and are never read.
#include "common/vectors.h"
#include "inference/kernels.h"

namespace elastic::ELASTIC_LEVEL {
namespace {

template <int M>
ELASTIC_INLINE void pixels(const Normalize& p, const Element* in, Element* out) {
  for (int64_t c = 0; c < int64_t(p.vectors) * kLanes; c += kLanes) {
    const F16 scale = load(p.scale + c), shift = load(p.shift + c);
#pragma GCC unroll 4
    for (int i = 0; i < M; i++)
      store(out + i * p.out_pixel + c, relu(fma(load(in + i * p.in_pixel + c), scale, shift)));
  }
}

}  // namespace

void normalize(const Normalize& p) {
  int64_t at = 0;
  for (; at + 4 <= p.pixels; at += 4) pixels<4>(p, p.input + at * p.in_pixel, p.output + at * p.out_pixel);
  for (; at < p.pixels; at++) pixels<1>(p, p.input + at * p.in_pixel, p.output + at * p.out_pixel);
}

void normalize_pool(const NormalizePool& p) {
  for (int column = p.first; column < p.last; column++) {
    const int left = 2 * column, right = left + 1 < p.width ? left + 1 : left;
    const Element *a = p.rows[0] + left * p.in_pixel, *b = p.rows[0] + right * p.in_pixel;
    const Element *c = p.rows[1] + left * p.in_pixel, *d = p.rows[1] + right * p.in_pixel;
    Element* top = p.outputs[0] ? p.outputs[0] + left * p.out_pixel : nullptr;
    Element* bottom = p.outputs[1] ? p.outputs[1] + left * p.out_pixel : nullptr;
    Element* pooled = p.pooled ? p.pooled + (column - p.first) * p.out_pixel : nullptr;
    const int64_t next = (right - left) * p.out_pixel;
    for (int64_t k = 0; k < int64_t(p.vectors) * kLanes; k += kLanes) {
      const F16 scale = load(p.scale + k), shift = load(p.shift + k);
      const F16 w = relu(fma(load(a + k), scale, shift)), x = relu(fma(load(b + k), scale, shift));
      const F16 y = relu(fma(load(c + k), scale, shift)), z = relu(fma(load(d + k), scale, shift));
      if (top) {
        store(top + k, w);
        store(top + next + k, x);
      }
      if (bottom) {
        store(bottom + k, y);
        store(bottom + next + k, z);
      }
      if (pooled) store(pooled + k, (w + x) + (y + z));
    }
  }
}

}  // namespace elastic::ELASTIC_LEVEL
