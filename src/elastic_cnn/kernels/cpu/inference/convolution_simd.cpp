// Convolutions as matrix products: 1x1 with any stride, and 3x3 that mix many channels, with what follows them fused.
//
// The tile. 14 pixels by 32 output channels are summed in registers (AVX2: 6 by 16, so a panel is read in two halves).
// A step of the inner loop reads 32 weights, which lie together, and one number of each pixel, which is broadcast. For
// each of 16 loads there are 28 multiplications, and 28 independent sums hide their latency.
//
// The order. `chunk` pixels go through all panels: their inputs stay in the second-level cache while weights stream
// by. A panel's weights serve all tiles of the chunk; meanwhile the next panel's are fetched, and while the first panel
// is used, the next tile's inputs are.
//
// The end. A tile's sums meet bias, upsampled low-resolution map, shortcut and ReLU in registers and are written once.
//   up2:  row 2i mixes low rows i and i-1 as 3:1, row 2i+1 rows i and i+1; columns likewise; edges repeat. The mixed
//         column `here` serves the pixels 2j and 2j+1, so each low column is read once a tile and row.
#include "common/vectors.h"
#include "inference/convolution_blocks.h"
#include "inference/convolution_pixels.h"
#include "inference/kernels.h"

namespace elastic::ELASTIC_LEVEL {
namespace {

constexpr int kSoon = 8;  // steps after which a weight is needed that is fetched into the first-level cache now

struct TileArguments {  // one tile: where it reads and writes
  const Element* input;
  const float *weights, *bias, *scale;
  Element* output;
  const Element* shortcut;
  int until_row_end;             // pixels of the tile that lie in its first row
  int until_image_end;           // rows from the tile's first one to its image's last
  const Element *low, *low_far;  // the low rows mixed as 3:1
  int low_column;
  const float* next;  // weights to fetch meanwhile
  int64_t next_step;
  const Element* ahead;  // inputs to fetch meanwhile
  int64_t ahead_step;
  Inputs inputs;
};

template <int M>
ELASTIC_INLINE void accumulate(const Convolution& p, const TileArguments& s, F16 (&sum)[M][kTileVectors]) {
  const float* w = s.weights;
  const float* next = s.next;
  const Element* ahead = s.ahead;
  const int64_t step = p.in_pixel;
  const int count = int(words(s.inputs.count));
  for (int tap = 0; tap < p.taps; tap++) {
    const Element* a =
        s.input + (tap / p.tap_columns) * p.tap_row + (tap % p.tap_columns) * p.tap_pixel + s.inputs.first;
    for (int k = 0; k < count; k++, a += kPack, w += kPanel) {
      Words weights[kTileVectors];
#pragma GCC unroll 2
      for (int v = 0; v < kTileVectors; v++) weights[v] = load_words(w + kLanes * v);
      _mm_prefetch(reinterpret_cast<const char*>(next), _MM_HINT_T1);
      next += s.next_step;
      _mm_prefetch(reinterpret_cast<const char*>(ahead), _MM_HINT_T1);
      ahead += s.ahead_step;
#pragma GCC unroll 2
      for (int v = 0; v < kTileVectors; v++)
        _mm_prefetch(reinterpret_cast<const char*>(w + kSoon * kPanel + kLanes * v), _MM_HINT_T0);
#pragma GCC unroll 14
      for (int i = 0; i < M; i++) {
        const Words x = all_words(a + i * step);
#pragma GCC unroll 2
        for (int v = 0; v < kTileVectors; v++) sum[i][v] = fma(x, weights[v], sum[i][v]);
      }
    }
  }
}

template <int M>
ELASTIC_INLINE void add_upsampled(const Convolution& p, const TileArguments& s, F16 (&sum)[M][kTileVectors]) {
  const F16 three = all(3.f);
#pragma GCC unroll 2
  for (int v = 0; v < kTileVectors; v++) {
    auto column = [&](int j) __attribute__((always_inline)) {
      j = j < 0 ? 0 : (j < p.low_width ? j : p.low_width - 1);
      const int64_t at = j * p.low_pixel + kLanes * v;
      return fma(three, load(s.low + at), load(s.low_far + at));
    };
    F16 before = column(s.low_column - 1), here = column(s.low_column);
#pragma GCC unroll 7
    for (int i = 0; i < M; i += 2) {
      const F16 after = column(s.low_column + i / 2 + 1), most = three * here;
      sum[i][v] = sum[i][v] + (most + before);
      if (i + 1 < M) sum[i + 1][v] = sum[i + 1][v] + (most + after);
      before = here;
      here = after;
    }
  }
}

// body(i, where the i-th pixel of the tile goes), over the ends of rows and of images.
template <int M, class Body>
ELASTIC_INLINE void for_outputs(const Convolution& p, const TileArguments& s, const Body& body) {
  Element* out = s.output;
  int left = s.until_row_end, rows = s.until_image_end;
#pragma GCC unroll 14
  for (int i = 0; i < M; i++) {
    if (left == 0) {
      out += p.out_row - p.width * p.out_pixel;
      left = p.width;
      if (--rows == 0) {
        out += p.out_image - p.image_height * p.out_row;
        rows = p.image_height;
      }
    }
    body(i, out);
    out += p.out_pixel;
    left--;
  }
}

// Asks for the tile's output lines while its sums are made; a store that misses would hold up those behind it.
template <int M>
ELASTIC_INLINE void claim_output(const Convolution& p, const TileArguments& s) {
  for_outputs<M>(p, s, [&](int, Element* out) __attribute__((always_inline)) {
#pragma GCC unroll 2
    for (int v = 0; v < kTileVectors; v++) prefetch_to_write(out + kLanes * v);
  });
}

template <int M>
void tile(const Convolution& p, const TileArguments& s) {
  F16 sum[M][kTileVectors];
  claim_output<M>(p, s);
#pragma GCC unroll 2
  for (int v = 0; v < kTileVectors; v++) {
    const F16 start = s.bias ? load(s.bias + kLanes * v) : zero();
#pragma GCC unroll 14
    for (int i = 0; i < M; i++) sum[i][v] = start;
  }
  accumulate<M>(p, s, sum);
  if (p.low) add_upsampled<M>(p, s, sum);
  if (p.scale) {
#pragma GCC unroll 2
    for (int v = 0; v < kTileVectors; v++) {
      const F16 scale = load(s.scale + kLanes * v);
#pragma GCC unroll 14
      for (int i = 0; i < M; i++) sum[i][v] = sum[i][v] * scale;
    }
  }
  if (p.shortcut) {
#pragma GCC unroll 14
    for (int i = 0; i < M; i++)
#pragma GCC unroll 2
      for (int v = 0; v < kTileVectors; v++)
        sum[i][v] = sum[i][v] + load(s.shortcut + i * p.shortcut_pixel + kLanes * v);
  }
  if (p.relu) {
#pragma GCC unroll 14
    for (int i = 0; i < M; i++)
#pragma GCC unroll 2
      for (int v = 0; v < kTileVectors; v++) sum[i][v] = relu(sum[i][v]);
  }
  for_outputs<M>(p, s, [&](int i, Element* out) __attribute__((always_inline)) {
#pragma GCC unroll 2
    for (int v = 0; v < kTileVectors; v++) store(out + kLanes * v, sum[i][v]);
  });
}

using Tile = void (*)(const Convolution&, const TileArguments&);
struct Tiles {
  Tile of[kTilePixels + 1];
};
template <int... I>
constexpr Tiles make_tiles(std::integer_sequence<int, I...>) {
  return {{nullptr, tile<I + 1>...}};
}
constexpr Tiles kTiles = make_tiles(std::make_integer_sequence<int, kTilePixels>{});  // by number of pixels

// Tiles of a chunk: runs of pixels that lie behind one another in the input, each at most a tile.
// Without taps, stride and low map rows do not matter to a tile: it may run over a row's end.
bool runs_over_rows(const Convolution& p) {
  const bool images = p.image_height == 0 || p.in_image == p.in_row * p.image_height;
  return p.taps == 1 && !p.low && p.in_row == p.in_pixel * p.width && images;
}

// body(row, column, pixels) for tiles.
template <class Body>
ELASTIC_INLINE void for_tiles(const Convolution& p, bool flat, int64_t begin, int64_t end, const Body& body) {
  if (flat) {
    for (int64_t at = begin; at < end; at += kTilePixels)
      body(int(at / p.width), int(at % p.width), int(end - at < kTilePixels ? end - at : kTilePixels));
    return;
  }
  const int each = tile_width(p.width);
  for (int row = int(begin / p.width); row < end / p.width; row++)
    for (int x = 0; x < p.width; x += each) body(row, x, p.width - x < each ? p.width - x : each);
}

// The tile whose first pixel is this one, without what is fetched meanwhile.
ELASTIC_INLINE TileArguments arguments(const Convolution& p, Inputs inputs, const float* weights, int64_t channel,
                                       int row, int x) {
  TileArguments s{};
  const PixelPlace place = place_of(p, channel, row, x);
  s.inputs = inputs;
  s.input = place.input;
  s.weights = weights;
  s.bias = p.bias ? p.bias + channel : nullptr;
  s.scale = p.scale ? p.scale + channel : nullptr;
  s.output = place.output;
  s.until_row_end = p.width - x;
  s.until_image_end = p.image_height - place.y;
  s.shortcut = place.shortcut;
  s.low = place.low;
  s.low_far = place.low_far;
  s.low_column = x / 2;
  return s;
}

}  // namespace

void convolution(const Convolution& p, const Slice& slice) {
  if (slice.row >= slice.row_end || slice.first >= slice.last) return;
  const bool flat = runs_over_rows(p);
  const int64_t begin = int64_t(slice.row) * p.width + slice.skip, end = int64_t(slice.row_end) * p.width - slice.drop;
  int64_t chunk = flat ? p.chunk / kTilePixels * kTilePixels : int64_t(p.chunk / p.width) * p.width;
  const int64_t least = flat ? kTilePixels : p.width;
  if (chunk < least) chunk = least;
#ifdef ELASTIC_MATRIX_UNIT
  MatrixUnit unit;
#endif
  const float* first_weights = p.weights;
  for (int panel = 0; panel < slice.first; panel++)
    first_weights += int64_t(p.taps) * words(inputs_of_panel(panel, p.groups, p.group_width).count) * kPanel;
  for (int64_t at = begin; at < end; at += chunk) {
    const int64_t stop = at + chunk < end ? at + chunk : end;
    const float* weights = first_weights;
    for (int panel = slice.first; panel < slice.last; panel++) {
      const Inputs inputs = inputs_of_panel(panel, p.groups, p.group_width);
      const int64_t depth = p.taps * words(inputs.count), size = depth * kPanel;
      const int64_t tiles = (stop - at + kTilePixels - 1) / kTilePixels;
      const int64_t step = (kPanel / (kPanel / kLanes / kTileVectors) + tiles - 1) / tiles;
      const float* next = panel + 1 < slice.last ? weights + size : first_weights;
#ifdef ELASTIC_MATRIX_UNIT
      if (const int step_words = words_a_step(int(words(inputs.count)))) {
        panel_by_blocks(p, unit, inputs, step_words, weights, int64_t(panel) * kPanel, at, stop);
        weights += size;
        continue;
      }
#endif
      for (int half = 0; half < kPanel / kLanes; half += kTileVectors)
        for_tiles(p, flat, at, stop, [&](int row, int x, int count) __attribute__((always_inline)) {
          const int64_t channel = int64_t(panel) * kPanel + half * kLanes;
          TileArguments s = arguments(p, inputs, weights + half * kLanes, channel, row, x);
          s.next = next;
          s.next_step = step;
          next += step * depth;
          s.ahead = flat ? s.input + kTilePixels * p.in_pixel : s.input;
          s.ahead_step = flat && panel == slice.first && half == 0 ? kLanes * kPack : 0;
          kTiles.of[count](p, s);
        });
      weights += size;
    }
  }
}

}  // namespace elastic::ELASTIC_LEVEL
