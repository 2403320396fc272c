// 3x3 convolutions of many narrow groups (ResNeXt's 32 groups of 4 to 32 channels), bias and ReLU included.
//
// The layout (kernels.h, `GroupedConvolution`) puts sixteen groups into the lanes of a vector, so input, weight and output vectors
// are multiplied as they lie. The tile is a run of pixels of one row by two output vectors (AVX2: one) of the same
// slab of sixteen groups: each input vector that is read serves both. Widths that no tile divides are covered by
// nearly equal narrower tiles.
#include "common/vectors.h"
#include "inference/kernels.h"

namespace elastic::ELASTIC_LEVEL {
namespace {

template <int M, int V>
void tile(const GroupedConvolution& p, const Element* input, const float* weights, const float* bias, Element* output) {
  F16 sum[M][V];
#pragma GCC unroll 2
  for (int v = 0; v < V; v++) {
    const F16 start = load(bias + kLanes * v);
#pragma GCC unroll 14
    for (int i = 0; i < M; i++) sum[i][v] = start;
  }
  const int64_t step = p.stride * p.in_pixel, other = 9 * words(p.group_width) * kLanes;
  const float* w = weights;
  const int depth = int(words(p.group_width));
  for (int tap = 0; tap < 9; tap++) {
    const Element* a = input + (tap / 3) * p.in_row + (tap % 3) * p.in_pixel;
    for (int k = 0; k < depth; k++, a += kLanes * kPack, w += kLanes) {
      Words weight[V];
#pragma GCC unroll 2
      for (int v = 0; v < V; v++) weight[v] = load_words(w + v * other);
#pragma GCC unroll 14
      for (int i = 0; i < M; i++) {
        Words x = load_words(a + i * step);
        hold(x);
#pragma GCC unroll 2
        for (int v = 0; v < V; v++) sum[i][v] = fma(x, weight[v], sum[i][v]);
      }
    }
  }
#pragma GCC unroll 14
  for (int i = 0; i < M; i++)
#pragma GCC unroll 2
    for (int v = 0; v < V; v++) store(output + i * p.out_pixel + kLanes * v, relu(sum[i][v]));
}

using Tile = void (*)(const GroupedConvolution&, const Element*, const float*, const float*, Element*);
struct Tiles {
  Tile of[kTilePixels + 1];
};
template <int V, int... I>
constexpr Tiles make_tiles(std::integer_sequence<int, I...>) {
  return {{nullptr, tile<I + 1, V>...}};
}
constexpr Tiles kWide = make_tiles<kTileVectors>(std::make_integer_sequence<int, kTilePixels>{});
constexpr Tiles kNarrow = make_tiles<1>(std::make_integer_sequence<int, kTilePixels>{});

}  // namespace

void grouped_convolution(const GroupedConvolution& p, const Slice& slice) {
  const int each = tile_width(p.width);
  for (int row = slice.row; row < slice.row_end; row++) {
    int vectors = 1;
    for (int vector = slice.first; vector < slice.last; vector += vectors) {
      const int slab = vector / p.group_width, slab_end = (slab + 1) * p.group_width;
      const int last = slab_end < slice.last ? slab_end : slice.last;
      vectors = last - vector >= kTileVectors ? kTileVectors : 1;
      const Tiles& tiles = vectors == kTileVectors ? kWide : kNarrow;
      const Element* input = p.input + int64_t(row) * p.stride * p.in_row + int64_t(slab) * kLanes * p.group_width;
      const float* weights = p.weights + vector * 9 * words(p.group_width) * kLanes;
      Element* output = p.output + int64_t(row) * p.width * p.out_pixel + vector * kLanes;
      for (int x = 0; x < p.width; x += each)
        tiles.of[p.width - x < each ? p.width - x : each](p, input + int64_t(x) * p.stride * p.in_pixel, weights,
                                                          p.bias + vector * kLanes, output + x * p.out_pixel);
    }
  }
}

}  // namespace elastic::ELASTIC_LEVEL
