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
#include <algorithm>
#include <array>

#include "common/amx.h"
#include "common/vectors.h"
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

// body(row, column, pixels) for tiles of at most `most` pixels.
template <class Body>
ELASTIC_INLINE void for_tiles(const Convolution& p, bool flat, int64_t begin, int64_t end, int most, const Body& body) {
  if (flat) {
    for (int64_t at = begin; at < end; at += most)
      body(int(at / p.width), int(at % p.width), int(end - at < most ? end - at : most));
    return;
  }
  const int each = tile_width(p.width, most);
  for (int row = int(begin / p.width); row < end / p.width; row++)
    for (int x = 0; x < p.width; x += each) body(row, x, p.width - x < each ? p.width - x : each);
}

// The first tap of a pixel.
ELASTIC_INLINE const Element* input_of(const Convolution& p, int row, int x) {
  const int image = p.image_height ? row / p.image_height : 0;
  return p.input + image * p.in_image + (row - image * p.image_height) * p.in_row + x * p.in_pixel;
}

// The tile whose first pixel is this one, without what is fetched meanwhile.
ELASTIC_INLINE TileArguments arguments(const Convolution& p, Inputs inputs, const float* weights, int64_t channel,
                                       int row, int x) {
  TileArguments s{};
  const int image = p.image_height ? row / p.image_height : 0, y = row - image * p.image_height;
  const int64_t pixel = int64_t(row) * p.width + x;
  s.inputs = inputs;
  s.input = input_of(p, row, x);
  s.weights = weights;
  s.bias = p.bias ? p.bias + channel : nullptr;
  s.scale = p.scale ? p.scale + channel : nullptr;
  s.output = p.output + image * p.out_image + y * p.out_row + x * p.out_pixel + channel;
  s.until_row_end = p.width - x;
  s.until_image_end = p.image_height - y;
  s.shortcut = p.shortcut ? p.shortcut + pixel * p.shortcut_pixel + channel : nullptr;
  if (p.low) {
    const int near = y / 2, other = y % 2 ? near + 1 : near - 1;
    const int far = other < 0 ? 0 : (other < p.low_height ? other : p.low_height - 1);
    const int64_t first = int64_t(image) * p.low_height, low_row = p.low_width * p.low_pixel;
    s.low = p.low + (first + near) * low_row + channel;
    s.low_far = p.low + (first + far) * low_row + channel;
    s.low_column = x / 2;
  }
  return s;
}

#ifdef ELASTIC_MATRIX_UNIT
// Words of a step that divides `words`, so that no step is a part of one; 0 where none of six or more does.
int words_a_step(int words) {
  for (int steps = (words + kMostWords - 1) / kMostWords; 6 * steps <= words; steps++)
    if (words % steps == 0) return words / steps;
  return 0;
}

// Pixels of the output whose inputs lie a step apart; where a run crosses the ends of rows, positions that are none of
// the output's (a border's) may lie between them.
struct Run {
  int row, x, count;
};

// How the rows [row, end) are cut into runs: each by itself, or as one line of `pitch` positions a row.
struct Runs {
  int pitch, each;  // each: pixels of a run, kRun in a line
  Runs(const Convolution& p, int rows) : pitch(0), each(tile_width(p.width, kRun)) {
    if (p.in_pixel == 0 || p.in_row % p.in_pixel) return;
    const int64_t line = p.in_row / p.in_pixel, by_rows = int64_t(rows) * ((p.width + kRun - 1) / kRun);
    const bool unbroken = line == p.width && !p.low;
    if (line < p.width || (!unbroken && (line * (rows - 1) + p.width + kRun - 1) / kRun >= by_rows)) return;
    pitch = int(line);
    each = kRun;
  }
};

// body(run) over the pixels [begin, end) of one image, which are whole rows unless rows follow without a border.
template <class Body>
ELASTIC_INLINE void for_runs(const Convolution& p, const Runs& runs, int64_t begin, int64_t end, const Body& body) {
  if (!runs.pitch) {
    for (int row = int(begin / p.width); row < end / p.width; row++)
      for (int x = 0; x < p.width; x += runs.each) body(Run{row, x, p.width - x < runs.each ? p.width - x : runs.each});
    return;
  }
  auto place = [&](int64_t pixel) { return pixel / p.width * runs.pitch + pixel % p.width; };
  const int64_t stop = place(end - 1) + 1;
  for (int64_t at = place(begin); at < stop; at += kRun)
    body(Run{int(at / runs.pitch), int(at % runs.pitch), int(stop - at < kRun ? stop - at : kRun)});
}

// Where a piece of a run goes and what is added to it: pixels of one row, or of several that nothing tells apart.
struct Piece {
  const float* sums;
  Element* output;
  const Element *shortcut, *low, *low_far;
  int x, count;
};

ELASTIC_INLINE void store_pair(Element* out, F16 first, F16 second) {
  _mm512_storeu_si512(out, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(second.v, first.v)));
}

// The sums of a piece, and what follows them, a pixel after the other.
template <bool kLow, bool kShortcut, bool kScale, bool kRelu>
void finish_piece(const Convolution& p, const Piece& piece, const float* bias, const float* scale) {
  F16 start[kTileVectors], factor[kTileVectors];
#pragma GCC unroll 2
  for (int v = 0; v < kTileVectors; v++) {
    start[v] = bias ? load(bias + kLanes * v) : zero();
    factor[v] = kScale ? load(scale + kLanes * v) : zero();
  }
  const F16 three = all(3.f);
  auto column = [&](int j, int v) __attribute__((always_inline)) {
    j = j < 0 ? 0 : (j < p.low_width ? j : p.low_width - 1);
    const int64_t at = j * p.low_pixel + kLanes * v;
    return fma(three, load(piece.low + at), load(piece.low_far + at));
  };
  F16 before[kTileVectors], here[kTileVectors], after[kTileVectors];
  auto enter = [&](int j) __attribute__((always_inline)) {
#pragma GCC unroll 2
    for (int v = 0; v < kTileVectors; v++) {
      before[v] = here[v];
      here[v] = after[v];
      after[v] = column(j + 1, v);
    }
  };
  if (kLow) {
#pragma GCC unroll 2
    for (int v = 0; v < kTileVectors; v++) {
      here[v] = column(piece.x / 2 - 1, v);
      after[v] = column(piece.x / 2, v);
    }
    enter(piece.x / 2);
  }
  const float* sums = piece.sums;
  const Element* shortcut = piece.shortcut;
  Element* out = piece.output;
  auto pixel = [&](bool odd) __attribute__((always_inline)) {
    F16 sum[kTileVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kTileVectors; v++) {
      sum[v] = load(sums + kLanes * v) + start[v];
      if (kLow) sum[v] = sum[v] + fma(three, here[v], odd ? after[v] : before[v]);
      if (kScale) sum[v] = sum[v] * factor[v];
      if (kShortcut) sum[v] = sum[v] + load(shortcut + kLanes * v);
      if (kRelu) sum[v] = relu(sum[v]);
    }
    store_pair(out, sum[0], sum[1]);
    sums += kPanel;
    out += p.out_pixel;
    shortcut += kShortcut ? p.shortcut_pixel : 0;
  };
  if (!kLow) {
    for (int i = 0; i < piece.count; i++) pixel(false);
    return;
  }
  for (int x = piece.x, end = piece.x + piece.count; x < end;) {
    if (x % 2 == 0) {
      pixel(false);
      if (++x == end) break;
    }
    pixel(true);
    if (++x < end) enter(x / 2);
  }
}

using Finish = void (*)(const Convolution&, const Piece&, const float*, const float*);
template <int... I>
constexpr std::array<Finish, sizeof...(I)> make_finishes(std::integer_sequence<int, I...>) {
  return {finish_piece<(I & 1) != 0, (I & 2) != 0, (I & 4) != 0, (I & 8) != 0>...};
}
constexpr auto kFinishes = make_finishes(std::make_integer_sequence<int, 16>{});
Finish finish_of(const Convolution& p) {
  return kFinishes[(p.low ? 1 : 0) + (p.shortcut ? 2 : 0) + (p.scale ? 4 : 0) + (p.relu ? 8 : 0)];
}

// What the sums of a run become, row by row; positions between rows are left out.
void finish_run(const Convolution& p, Finish finish, const Run& run, int pitch, const float* sums, int64_t channel) {
  int row = run.row, x = run.x;
  const float *bias = p.bias ? p.bias + channel : nullptr, *scale = p.scale ? p.scale + channel : nullptr;
  for (int done = 0; done < run.count; row++, x = 0) {
    const int left = run.count - done, here = x < p.width ? std::min(p.width - x, left) : 0;
    if (here) {
      const int image = p.image_height ? row / p.image_height : 0, y = row - image * p.image_height;
      const int64_t pixel = int64_t(row) * p.width + x;
      Piece piece{sums + done * kPanel, p.output + image * p.out_image + y * p.out_row + x * p.out_pixel + channel};
      if (p.shortcut) piece.shortcut = p.shortcut + pixel * p.shortcut_pixel + channel;
      if (p.low) {
        const int near = y / 2, far = std::clamp(y % 2 ? near + 1 : near - 1, 0, p.low_height - 1);
        const int64_t first = int64_t(image) * p.low_height, low_row = p.low_width * p.low_pixel;
        piece.low = p.low + (first + near) * low_row + channel;
        piece.low_far = p.low + (first + far) * low_row + channel;
      }
      piece.x = x;
      piece.count = here;
      finish(p, piece, bias, scale);
    }
    done += std::min(left, (pitch ? pitch : p.width) - x);
  }
}

// Two runs (the second's count may be 0): their sums by the matrix unit.
void block(const Convolution& p, MatrixUnit& unit, Inputs inputs, int words, const float* weights, int64_t channel,
           Finish finish, const Run (&runs)[2], int pitch) {
  alignas(64) float sums[2 * kRun * kPanel];
  const Element* inputs_of[2];
  for (int i = 0; i < 2; i++)
    inputs_of[i] = runs[i].count ? input_of(p, runs[i].row, runs[i].x) + inputs.first : nullptr;
  unit.begin(runs[0].count, runs[1].count, words);
  for (int tap = 0; tap < p.taps; tap++) {
    int64_t at = (tap / p.tap_columns) * p.tap_row + (tap % p.tap_columns) * p.tap_pixel;
    for (int k = 0; k < inputs.count; k += words * kPack, at += words * kPack, weights += words * kPanel)
      unit.multiply(inputs_of[0] + at, inputs_of[1] + at, p.in_pixel * int64_t(sizeof(Element)), weights);
  }
  unit.end(sums);
  finish_run(p, finish, runs[0], pitch, sums, channel);
  finish_run(p, finish, runs[1], pitch, sums + kRun * kPanel, channel);
}

// A panel over the pixels [begin, end).
void panel_by_blocks(const Convolution& p, MatrixUnit& unit, Inputs inputs, int words, const float* weights,
                     int64_t channel, int64_t begin, int64_t end) {
  const int64_t image = p.image_height ? int64_t(p.image_height) * p.width : end;
  const bool follows = !p.image_height || p.in_image == p.in_row * p.image_height;
  const Finish finish = finish_of(p);
  for (int64_t at = begin; at < end;) {
    const int64_t rest = image - at % image, stop = follows || end - at < rest ? end : at + rest;
    const Runs kind(p, int((stop - at + p.width - 1) / p.width));
    Run runs[2];
    int filled = 0;
    for_runs(p, kind, at, stop, [&](const Run& run) __attribute__((always_inline)) {
      runs[filled++] = run;
      if (filled < 2) return;
      block(p, unit, inputs, words, weights, channel, finish, runs, kind.pitch);
      filled = 0;
    });
    if (filled) {
      runs[1] = {0, 0, 0};
      block(p, unit, inputs, words, weights, channel, finish, runs, kind.pitch);
    }
    at = stop;
  }
}
#endif

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
        for_tiles(p, flat, at, stop, kTilePixels, [&](int row, int x, int count) __attribute__((always_inline)) {
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
