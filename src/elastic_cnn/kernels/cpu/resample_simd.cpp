// Average pooling over 2x2 windows, and the tail of an elastic layer as one pass of its own.
//
//   pool       inside a block, on maps as they lie there: sums, since the weights that read them hold the 1/4
//   max_pool   the stem's, on maps after a ReLU: what lies outside counts as zero
//   mean_pool  the means, on dense channels_last tensors of any number of channels
//   tail       relu(map + bias + shortcut + up2(low)), on dense channels_last tensors of any number of channels
//
// up2 is bilinear with half-pixel centres: rows and columns are mixed as 3:1 with their neighbour, edges repeat, and an
// odd height or width is cropped. Channels are read sixteen at a time; those left over are read one by one.
#include "kernels.h"
#include "simd.h"

namespace elastic::ELASTIC_LEVEL {
namespace {

int clamp(int at, int size) { return at < 0 ? 0 : (at < size ? at : size - 1); }

// One number with the operations of F16, for the channels that are left over.
struct F1 {
  float v;
};
ELASTIC_INLINE F1 operator+(F1 a, F1 b) { return {a.v + b.v}; }
ELASTIC_INLINE F1 operator*(F1 a, F1 b) { return {a.v * b.v}; }
ELASTIC_INLINE F1 fma(F1 a, F1 b, F1 c) { return {__builtin_fmaf(a.v, b.v, c.v)}; }
ELASTIC_INLINE F1 larger(F1 a, F1 b) { return {a.v > b.v ? a.v : b.v}; }
ELASTIC_INLINE F1 relu(F1 a) { return {a.v < 0.f ? 0.f : a.v}; }
ELASTIC_INLINE void store(float* p, F1 a) { *p = a.v; }
template <class F>
ELASTIC_INLINE F read(const float* p);
template <>
ELASTIC_INLINE F16 read<F16>(const float* p) {
  return load(p);
}
template <>
ELASTIC_INLINE F1 read<F1>(const float* p) {
  return {*p};
}
template <class F>
ELASTIC_INLINE F constant(float a);
template <>
ELASTIC_INLINE F16 constant<F16>(float a) {
  return all(a);
}
template <>
ELASTIC_INLINE F1 constant<F1>(float a) {
  return {a};
}

// body(channel, F16 or F1) for every channel.
template <class Body>
ELASTIC_INLINE void for_channels(int channels, const Body& body) {
  int c = 0;
  for (; c + kLanes <= channels; c += kLanes) body(c, F16{});
  for (; c < channels; c++) body(c, F1{});
}

// The four pixels of a window; at the edge the same pixel stands for one that is missing, which keeps the mean.
template <class F>
ELASTIC_INLINE F window(const float* a, const float* b, const float* c, const float* d) {
  return (read<F>(a) + read<F>(b)) + (read<F>(c) + read<F>(d));
}

}  // namespace

void pool(const Pool& p, const Part& part) {
  const int width = (p.width + 1) / 2;
  for (int row = part.row; row < part.row_end; row++) {
    const float* top = p.input + int64_t(2 * row) * p.width * p.pixel;
    const float* bottom = 2 * row + 1 < p.height ? top + p.width * p.pixel : top;
    for (int x = 0; x < width; x++) {
      const int64_t left = 2 * x * p.pixel, right = 2 * x + 1 < p.width ? left + p.pixel : left;
      float* out = p.output + (int64_t(row) * width + x) * p.out_pixel;
      for (int c = part.first * kLanes; c < part.last * kLanes; c += kLanes)
        store(out + c, window<F16>(top + left + c, top + right + c, bottom + left + c, bottom + right + c));
    }
  }
}

void max_pool(const MaxPool& p) {
  for (int x = 0; x < (p.width + 1) / 2; x++) {
    float* out = p.output + x * p.out_pixel;
    for_channels(p.channels, [&](int c, auto kind) __attribute__((always_inline)) {
      using F = decltype(kind);
      F most = constant<F>(0.f);
      for (const float* row : p.rows)
        for (int at = 2 * x - 1; row && at <= 2 * x + 1; at++)
          if (at >= 0 && at < p.width) most = larger(read<F>(row + at * p.pixel + c), most);
      store(out + c, most);
    });
  }
}

void mean_pool(const float* image, float* output, int height, int width, int channels, int row, int row_end) {
  const int out_width = (width + 1) / 2;
  for (; row < row_end; row++) {
    const float* top = image + int64_t(2 * row) * width * channels;
    const float* bottom = 2 * row + 1 < height ? top + int64_t(width) * channels : top;
    for (int x = 0; x < out_width; x++) {
      const int64_t left = int64_t(2 * x) * channels, right = 2 * x + 1 < width ? left + channels : left;
      float* out = output + (int64_t(row) * out_width + x) * channels;
      for_channels(channels, [&](int c, auto kind) __attribute__((always_inline)) {
        using F = decltype(kind);
        const F sum = window<F>(top + left + c, top + right + c, bottom + left + c, bottom + right + c);
        store(out + c, sum * constant<F>(0.25f));
      });
    }
  }
}

void tail(const Tail& p, int row, int row_end) {
  const int64_t channels = p.channels, line = p.width * channels;
  const int low_height = (p.height + 1) / 2, low_width = (p.width + 1) / 2;
  for (; row < row_end; row++) {
    const int other = clamp(row % 2 ? row / 2 + 1 : row / 2 - 1, low_height);
    const float* near = p.low ? p.low + int64_t(row / 2) * low_width * channels : nullptr;
    const float* far = p.low ? p.low + int64_t(other) * low_width * channels : nullptr;
    for (int x = 0; x < p.width; x++) {
      const int64_t at = row * line + x * channels;
      const int64_t here = x / 2 * channels, there = clamp(x % 2 ? x / 2 + 1 : x / 2 - 1, low_width) * channels;
      for_channels(p.channels, [&](int c, auto kind) __attribute__((always_inline)) {
        using F = decltype(kind);
        const F three = constant<F>(3.f);
        F sum = read<F>(p.map + at + c);
        if (p.bias) sum = sum + read<F>(p.bias + c);
        if (p.shortcut) sum = sum + read<F>(p.shortcut + at + c);
        if (p.low) {
          const F at_here = fma(three, read<F>(near + here + c), read<F>(far + here + c));
          const F at_there = fma(three, read<F>(near + there + c), read<F>(far + there + c));
          sum = fma(fma(three, at_here, at_there), constant<F>(1.f / 16), sum);
        }
        store(p.output + at + c, p.relu ? relu(sum) : sum);
      });
    }
  }
}

}  // namespace elastic::ELASTIC_LEVEL
