// Convolutions by the processor's matrix unit, a panel of 32 outputs at a time, in blocks of two runs of pixels.
//
// Runs. A run's pixels lie a step apart in the input. Where rows of the input are short, all of them are taken as one line
// of pixels and cut into runs of sixteen, whatever lies between them (the border that a 3x3 convolution reads): its sums are
// thrown away. So small maps fill the unit too.
//
// Groups. A panel of narrow groups is a product of 32 inputs by 32 outputs, for the most part zeros; still that is faster
// than the lanes of vectors are (`use_lanes` of packing.py).
//
// The end. Sums leave the unit through memory, a block of them at a time; bias, enlarged low map, scale, shortcut and ReLU
// then meet them pixel by pixel.
#pragma once
#include <algorithm>
#include <array>

#include "common/amx.h"
#include "common/vectors.h"
#include "inference/convolution_pixels.h"
#include "inference/kernels.h"

#ifdef ELASTIC_MATRIX_UNIT

namespace elastic::ELASTIC_LEVEL {
namespace {

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

// Pixels of a run that lie in one row.
struct Piece {
  const float* sums;
  PixelPlace place;  // of the first
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
    return fma(three, load(piece.place.low + at), load(piece.place.low_far + at));
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
  const Element* shortcut = piece.place.shortcut;
  Element* out = piece.place.output;
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
    if (here) finish(p, {sums + done * kPanel, place_of(p, channel, row, x), x, here}, bias, scale);
    done += std::min(left, (pitch ? pitch : p.width) - x);
  }
}

// Two runs (the second's count may be 0): their sums by the matrix unit.
void block(const Convolution& p, MatrixUnit& unit, Inputs inputs, int words, const float* weights, int64_t channel,
           Finish finish, const Run (&runs)[2], int pitch) {
  alignas(64) float sums[2 * kRun * kPanel];
  const Element* inputs_of[2];  // a run of no pixels has a place too, which is not read
  for (int i = 0; i < 2; i++) inputs_of[i] = place_of(p, channel, runs[i].row, runs[i].x).input + inputs.first;
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

}  // namespace
}  // namespace elastic::ELASTIC_LEVEL

#endif
