// Gradients of the weights of grouped 3 x 3 convolutions in slabs (slab.h), compiled once for each instruction
// set (ELASTIC_LEVEL). Sums lie as [slab][output channel / kOut][input channel / 4][kernel's row][kOut][3][4][lanes]:
// those of the last four are held in registers over some rows of the maps.
#include "training/slab.h"

namespace elastic::ELASTIC_LEVEL {
namespace {

#ifdef __AVX512F__
constexpr int kOut = 2;  // 24 of 32 registers
#else
constexpr int kOut = 1;  // 12 of 16
#endif
constexpr int kIn = 4;

// Row `tap` of the kernel, over rows [begin, end) of the output.
template <class T>
void tile(const GroupedShape& s, const SlabRows<T>& dz, const SlabRows<T>& in, int64_t begin, int64_t end, int64_t tap,
          int64_t o, int64_t i, Number<T>* sums) {
  using N = Number<T>;
  using V = typename Vector<T>::type;
  constexpr int L = Vector<T>::lanes;
  V sum[kOut][3][kIn];
#pragma GCC unroll 2
  for (int v = 0; v < kOut; v++)
#pragma GCC unroll 3
    for (int j = 0; j < 3; j++)
#pragma GCC unroll 4
      for (int k = 0; k < kIn; k++) sum[v][j][k] = load<V>(sums + ((v * 3 + j) * kIn + k) * L);
  const int64_t of_pixel = in.of_pixel, width = s.out_width();
  for (int64_t y = begin; y < end; y++) {
    const int64_t from = y * s.stride + tap - 1;
    if (from < 0 || from >= s.height) continue;
    const N *d = dz.pixel(y, 0) + o * L, *a = in.pixel(from, -1) + i * L;
#pragma GCC unroll 1
    for (int64_t x = 0; x < width; x++, d += of_pixel, a += s.stride * of_pixel) {
      V gradient[kOut];
#pragma GCC unroll 2
      for (int v = 0; v < kOut; v++) gradient[v] = load<V>(d + v * L);
#pragma GCC unroll 3
      for (int j = 0; j < 3; j++)
#pragma GCC unroll 4
        for (int k = 0; k < kIn; k++) {
          const V value = load<V>(a + j * of_pixel + k * L);
#pragma GCC unroll 2
          for (int v = 0; v < kOut; v++) sum[v][j][k] += gradient[v] * value;
        }
    }
  }
#pragma GCC unroll 2
  for (int v = 0; v < kOut; v++)
#pragma GCC unroll 3
    for (int j = 0; j < 3; j++)
#pragma GCC unroll 4
      for (int k = 0; k < kIn; k++) store(sums + ((v * 3 + j) * kIn + k) * L, sum[v][j][k]);
}

template <class T>
void grouped_weight_gradient(const GroupedWeightGradient<T>& g, int64_t begin, int64_t end) {
  const GroupedShape& s = g.shape;
  const Shuffle<T> shuffle;
  const int64_t height = s.out_height(), width = s.out_width(), most = rows_at_a_time<T>(s);
  const int64_t of_slab = s.of_group * Vector<T>::lanes, of_tile = kOut * 3 * kIn * Vector<T>::lanes;
  SlabRows<T> in(s.width, s.of_group, most * s.stride + 2), dz(width, s.of_group, most);
  for (int64_t row = begin, next; row < end; row = next) {
    const int64_t image = row / height, y = row % height;
    next = std::min({end, (image + 1) * height, row + most});
    const int64_t y_end = y + next - row;
    Number<T>* sums = g.sums;
    for (int64_t channel = 0; channel < s.channels; channel += of_slab) {
      in.read(shuffle, g.input + image * s.height * s.width * s.channels + channel, g.scale + channel,
              g.shift + channel, s.channels, std::max<int64_t>(y * s.stride - 1, 0),
              std::min((y_end - 1) * s.stride + 2, s.height));
      dz.read(shuffle, g.dz + image * height * width * s.channels + channel, nullptr, nullptr, s.channels, y, y_end);
      for (int64_t o = 0; o < s.of_group; o += kOut)
        for (int64_t i = 0; i < s.of_group; i += kIn)
          for (int64_t tap = 0; tap < 3; tap++, sums += of_tile) tile(s, dz, in, y, y_end, tap, o, i, sums);
    }
  }
}

template <class T>
void unpack_weight_gradient(const Number<T>* sums, const GroupedShape& s, Number<T>* dweight) {
  constexpr int L = Vector<T>::lanes;
  const int64_t width = s.of_group;
  for (int64_t first = 0; first < s.channels; first += width * L)
    for (int64_t o = 0; o < width; o += kOut)
      for (int64_t i = 0; i < width; i += kIn)
        for (int64_t tap = 0; tap < 3; tap++)
          for (int64_t v = 0; v < kOut; v++)
            for (int64_t j = 0; j < 3; j++)
              for (int64_t k = 0; k < kIn; k++)
                for (int64_t lane = 0; lane < L; lane++)
                  dweight[((first + lane * width + o + v) * width + i + k) * 9 + tap * 3 + j] = *sums++;
}

}  // namespace

template <class T>
void set_grouped_weight(TrainingKernels<T>& table) {
  table.grouped_weight_gradient = &grouped_weight_gradient<T>;
  table.unpack_grouped = &unpack_weight_gradient<T>;
}
ELASTIC_FOR_ELEMENT_TYPES(set_grouped_weight)

}  // namespace elastic::ELASTIC_LEVEL
