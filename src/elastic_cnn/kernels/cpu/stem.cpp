// The stem. The image is copied once into rows of pixels with a border of zeros; there a kernel's row of taps lies in
// one piece (kernel x channels numbers), so the convolution is a `Product` of `kernel` taps of that depth. A thread
// computes four rows of the convolution at a time, keeps the last one of the four before, and pools them while they
// lie in its cache: the large map is never written to memory.
#include "stem.h"

#include <algorithm>
#include <cstring>

namespace elastic {

namespace {

constexpr int kPooled = 2;                // rows of the result at a time
constexpr int kRows = 2 * kPooled + 1;    // rows of the convolution that they read

int64_t padded_row(const Stem& s) { return int64_t(s.width + s.kernel - 1) * s.channels; }
int64_t padded_size(const Stem& s) { return round_up(padded_row(s) * (s.height + s.kernel - 1), 64); }
int64_t pixel(const Stem& s) { return round_up(s.out, kPanel) + kGap; }
int64_t band_size(const Stem& s) { return round_up(kRows * s.conv_width() * pixel(s), 64); }

void copy_row(const Stem& s, const float* image, const int64_t strides[3], int y, float* padded) {
  const int border = s.kernel / 2;
  std::memset(padded, 0, padded_row(s) * sizeof(float));
  if (y < border || y >= s.height + border) return;
  const float* from = image + (y - border) * strides[1];
  float* to = padded + border * s.channels;
  for (int c = 0; c < s.channels; c++)
    for (int x = 0; x < s.width; x++) to[x * s.channels + c] = from[c * strides[0] + x * strides[2]];
}

}  // namespace

int64_t Stem::scratch(int members) const { return padded_size(*this) + members * band_size(*this); }

void run_stem(const Kernels& kernels, const Stem& s, const float* image, const int64_t strides[3], const float* weights,
              const float* bias, float* scratch, float* output, int member, int members, Barrier& barrier) {
  const Range copied = range_of(s.height + s.kernel - 1, member, members);
  for (int y = copied.begin; y < copied.end; y++) copy_row(s, image, strides, y, scratch + y * padded_row(s));
  barrier.wait();
  float* band = scratch + padded_size(s) + member * band_size(s);
  const int64_t row = s.conv_width() * pixel(s);
  const Range mine = range_of(s.out_height(), member, members);
  for (int at = mine.begin; at < mine.end; at += kPooled) {
    const int end = std::min(at + kPooled, mine.end);
    // Row r of the convolution lies at band + (r - first) * row, where first = 2 at - 1 may be outside.
    const int first = 2 * at - 1, last = std::min(2 * end, s.conv_height());
    const bool kept = at > mine.begin;
    if (kept) std::memcpy(band, band + 2 * kPooled * row, row * sizeof(float));
    const int begin = kept ? first + 1 : std::max(first, 0);
    Product p{};
    p.in_pixel = int64_t(s.stride) * s.channels;
    p.in_row = s.stride * padded_row(s);
    p.input = scratch + begin * p.in_row;
    p.taps = s.kernel;
    p.tap_columns = 1;
    p.tap_row = padded_row(s);
    p.groups = 1;
    p.group_width = s.kernel * s.channels;
    p.weights = weights;
    p.bias = bias;
    p.output = band + (begin - first) * row;
    p.out_pixel = pixel(s);
    p.out_row = row;
    p.height = last - begin;
    p.width = s.conv_width();
    p.relu = true;
    kernels.product(p, {0, p.height, 0, int(round_up(s.out, kPanel) / kPanel)});
    for (int r = at; r < end; r++) {
      MaxPool pool{};
      for (int i = 0; i < 3; i++) {
        const int from = 2 * r - 1 + i;
        pool.rows[i] = from >= 0 && from < s.conv_height() ? band + (from - first) * row : nullptr;
      }
      pool.pixel = pixel(s);
      pool.width = s.conv_width();
      pool.output = output + int64_t(r) * s.out_width() * s.out;
      pool.out_pixel = s.out;
      pool.channels = s.out;
      kernels.max_pool(pool);
    }
  }
  barrier.wait();
}

}  // namespace elastic
