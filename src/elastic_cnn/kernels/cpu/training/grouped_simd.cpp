// SlabConvolution 3 x 3 convolutions and their adjoint in slabs (slab.h), compiled once for each instruction set
// (ELASTIC_LEVEL).
//
// Some rows of a slab's input are brought into the slab's layout, normalised on the way; each two output channels of
// all its groups are summed in registers for a run of up to kRows pixels of a row; the rows of the output go back into
// the map's layout, and what follows the convolution (epilogue.h) is done to them while they are in the cache.
#include <array>
#include <utility>

#include "training/slab.h"

namespace elastic::ELASTIC_LEVEL {

namespace {

// One of the 9 positions of the kernel that reach a run of output pixels.
template <class T>
struct Tap {
  const Number<T>*input, *weights;
};

// A run of output pixels: what they have in common.
template <class T>
struct Run {
  std::array<Tap<T>, 9> taps;
  int count = 0;
  int64_t of_group, in_step, out_step;  // elements from pixel to pixel
};

template <class T, int M>
void tile(const Run<T>& run, int64_t from, Number<T>* out) {
  using V = typename Vector<T>::type;
  constexpr int L = Vector<T>::lanes;
  V sum[M][2];
#pragma GCC unroll 16
  for (int i = 0; i < M; i++) sum[i][0] = sum[i][1] = V{};
  for (int t = 0; t < run.count; t++) {
    const Number<T>*a = run.taps[t].input + from * run.in_step, *w = run.taps[t].weights;
    const int64_t step = run.in_step;
#pragma GCC unroll 1
    for (int64_t k = 0; k < run.of_group; k++, a += L, w += 2 * L) {
      const V w0 = load<V>(w), w1 = load<V>(w + L);
#pragma GCC unroll 16
      for (int i = 0; i < M; i++) {
        const V x = load<V>(a + i * step);
        sum[i][0] += x * w0;
        sum[i][1] += x * w1;
      }
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < M; i++) {
    store(out + i * run.out_step, sum[i][0]);
    store(out + i * run.out_step + L, sum[i][1]);
  }
}

template <class T>
using Tile = void (*)(const Run<T>&, int64_t, Number<T>*);
template <class T, int... I>
constexpr std::array<Tile<T>, sizeof...(I) + 1> tiles_of(std::integer_sequence<int, I...>) {
  return {nullptr, tile<T, I + 1>...};
}
template <class T>
constexpr std::array<Tile<T>, kRows + 1> tiles = tiles_of<T>(std::make_integer_sequence<int, kRows>{});

// `count` pixels in nearly equal tiles.
template <class T>
void run_tiles(const Run<T>& run, int64_t count, Number<T>* out) {
  const int64_t number = (count + kRows - 1) / kRows;
  for (int64_t i = 0; i < number; i++) {
    const int64_t from = count * i / number, to = count * (i + 1) / number;
    tiles<T>[to - from](run, from, out + from* run.out_step);
  }
}

// Row y of the output, two channels of each group. weights: [tap][channel of the input][2][lanes].
template <class T>
void forward_row(const GroupedShape& s, const SlabRows<T>& in, int64_t y, const Number<T>* weights, Number<T>* out) {
  constexpr int L = Vector<T>::lanes;
  Run<T> run;
  run.of_group = s.of_group;
  run.in_step = s.stride * in.of_pixel;
  run.out_step = in.of_pixel;
  for (int64_t tap = 0; tap < 9; tap++) {
    const int64_t from = y * s.stride + tap / 3 - 1;
    if (from < 0 || from >= s.height) continue;
    run.taps[run.count++] = {in.pixel(from, tap % 3 - 1), weights + tap * s.of_group * 2 * L};
  }
  run_tiles(run, s.out_width(), out);
}

// Row y of the gradient of the convolution's input: pixel x takes tap (i, j) of the output's gradient at
// ((y + 1 - i) / stride, (x + 1 - j) / stride), where that is whole; so every stride-th pixel has the same taps.
template <class T>
void adjoint_row(const GroupedShape& s, const SlabRows<T>& in, int64_t y, const Number<T>* weights, Number<T>* out) {
  constexpr int L = Vector<T>::lanes;
  for (int64_t phase = 0; phase < s.stride && phase < s.width; phase++) {
    Run<T> run;
    run.of_group = s.of_group;
    run.in_step = in.of_pixel;
    run.out_step = s.stride * in.of_pixel;
    for (int64_t tap = 0; tap < 9; tap++) {
      const int64_t down = y + 1 - tap / 3, right = phase + 1 - tap % 3;
      if (down % s.stride || right % s.stride || down < 0 || down / s.stride >= s.out_height()) continue;
      run.taps[run.count++] = {in.pixel(down / s.stride, right / s.stride), weights + tap * s.of_group * 2 * L};
    }
    run_tiles(run, (s.width - phase + s.stride - 1) / s.stride, out + phase * in.of_pixel);
  }
}

// A row of the output in the map's layout: in C, at `to`, where that holds numbers, else in `row`.
template <class T>
Product<T> out_of_slab(const SlabConvolution<T>& g, const Shuffle<T>& shuffle, const Number<T>* slab, int64_t to,
                       int64_t width, Number<T>* row) {
  int64_t stride = g.shape.of_group * Vector<T>::lanes;
  if constexpr (Product<T>::in_place) row = g.output.c + to, stride = g.shape.channels;
  for_width(g.shape.of_group, [&](auto w) { from_slab<w()>(shuffle, slab, width, stride, row); });
  return {row, stride};
}

// Rows [begin, end) of one image's output, one slab. row: memory for one of them.
template <class T>
void run_rows(const SlabConvolution<T>& g, const Shuffle<T>& shuffle, int64_t image, int64_t begin, int64_t end,
              int64_t slab, SlabRows<T>& in, SlabRows<T>& out, Number<T>* row, const ColumnSums<T>& sums) {
  const GroupedShape& s = g.shape;
  const int64_t in_height = g.adjoint ? s.out_height() : s.height, in_width = g.adjoint ? s.out_width() : s.width;
  const int64_t height = g.adjoint ? s.height : s.out_height(), width = g.adjoint ? s.width : s.out_width();
  const int64_t of_slab = s.of_group * Vector<T>::lanes, channel = slab * of_slab;
  const int64_t first = g.adjoint ? (begin - 1) / s.stride : begin * s.stride - 1;
  const int64_t last = g.adjoint ? end / s.stride + 1 : (end - 1) * s.stride + 2;
  in.read(shuffle, g.input + image * in_height * in_width * s.channels + channel, g.scale ? g.scale + channel : nullptr,
          g.scale ? g.shift + channel : nullptr, s.channels, std::max<int64_t>(first, 0), std::min(last, in_height));
  out.first = begin;
  for (int64_t pair = 0; pair < s.of_group; pair += 2) {
    const Number<T>* weights = g.packed + (channel + pair * Vector<T>::lanes) * 9 * s.of_group;
    for (int64_t y = begin; y < end; y++)
      (g.adjoint ? adjoint_row<T> : forward_row<T>)(s, in, y, weights, out.pixel(y, 0) + pair * Vector<T>::lanes);
  }
  for (int64_t y = begin; y < end; y++) {
    const int64_t pixel = (image * height + y) * width;
    const Product<T> product = out_of_slab(g, shuffle, out.pixel(y, 0), pixel * s.channels + channel, width, row);
    if (sums.pivot && sums.first_row == image * height + y) std::copy_n(product.at, of_slab, sums.pivot + channel);
    tile_epilogue<T>(g.output, product, pixel, width, nullptr, channel, of_slab, sums);
  }
}

template <class T>
void run_grouped(const SlabConvolution<T>& g, int64_t begin, int64_t end, const ColumnSums<T>& sums) {
  const GroupedShape& s = g.shape;
  const Shuffle<T> shuffle;
  const int64_t height = g.adjoint ? s.height : s.out_height(), most = rows_at_a_time<T>(s);
  SlabRows<T> in(g.adjoint ? s.out_width() : s.width, s.of_group, most * s.stride + 2);
  SlabRows<T> out(g.adjoint ? s.width : s.out_width(), s.of_group, most);
  const std::unique_ptr<Number<T>[]> buffer(new Number<T>[out.row]);
  for (int64_t row = begin, next; row < end; row = next) {
    const int64_t image = row / height, y = row % height;
    next = std::min({end, (image + 1) * height, row + most});
    for (int64_t slab = 0; slab * s.of_group * Vector<T>::lanes < s.channels; slab++)
      run_rows(g, shuffle, image, y, y + next - row, slab, in, out, buffer.get(), sums);
    move_sums(sums, s.channels);
  }
}

// [slab][pair of the output's channels][tap][channel of the input][2][lanes]; adjoint: input and output are exchanged.
template <class T>
void pack_grouped(const Number<T>* weight, const GroupedShape& s, bool adjoint, Number<T>* packed) {
  constexpr int L = Vector<T>::lanes;
  const int64_t width = s.of_group;
  for (int64_t first = 0; first < s.channels; first += width * L)
    for (int64_t pair = 0; pair < width; pair += 2)
      for (int64_t tap = 0; tap < 9; tap++)
        for (int64_t k = 0; k < width; k++)
          for (int64_t v = pair; v < pair + 2; v++)
            for (int64_t lane = 0; lane < L; lane++) {
              const int64_t o = adjoint ? k : v, i = adjoint ? v : k;
              *packed++ = weight[((first + lane * width + o) * width + i) * 9 + tap];
            }
}

}  // namespace

template <class T>
void set_grouped(TrainingKernels<T>& table) {
  table.lanes = Vector<T>::lanes;
  table.pack_grouped = &pack_grouped<T>;
  table.grouped = &run_grouped<T>;
}
ELASTIC_FOR_ELEMENT_TYPES(set_grouped)

}  // namespace elastic::ELASTIC_LEVEL
