// A kernel whose epilogue takes sums by column (ColumnSums), on as many pieces of its rows as there are threads, with the
// batch statistics of its result where those are wanted.
#pragma once
#include "training/statistics.h"

namespace elastic {

// body(begin, end, sums) for each thread's piece of `rows`; sums and pivots, one a thread, may be null.
template <class T, class Body>
void parallel_sums(int64_t rows, std::vector<ChannelSums<T>>* sums, std::vector<Number<T>>* pivots, const Body& body) {
  parallel_rows(rows, [&](int64_t thread, int64_t begin, int64_t end) {
    ColumnSums<T> own;
    if (sums) {
      ChannelSums<T>& s = (*sums)[thread];
      own = {s.a.data(), s.b.data(), s.total_a.data(), s.total_b.data()};
    }
    if (pivots) own.pivot = pivots[thread].data(), own.first_row = begin;
    body(begin, end, own);
  });
}

// The same for the statistics of a map of `rows` rows of `pixels` pixels. Each thread sums around a pixel of its own,
// so its sums are moved to the first one's.
template <class T, class Body>
void parallel_statistics(int64_t rows, int64_t pixels, int64_t channels, const Norm& norm, const Tensor& statistics,
                         const Body& body) {
  std::vector<ChannelSums<T>> sums(num_threads(), ChannelSums<T>(channels));
  std::vector<std::vector<Number<T>>> pivots(num_threads(), std::vector<Number<T>>(channels));
  parallel_sums<T>(rows, &sums, pivots.data(), body);
  for (int64_t thread = 1; thread < num_threads(); thread++)
    for (int64_t c = 0; c < channels; c++) {
      const double count = (rows * (thread + 1) / num_threads() - rows * thread / num_threads()) * pixels;
      const double moved = double(pivots[thread][c]) - pivots[0][c], sum = sums[thread].total_a[c];
      sums[thread].total_a[c] = sum + count * moved;
      sums[thread].total_b[c] += 2 * moved * sum + count * moved * moved;
    }
  finish_statistics(sums, pivots[0].data(), rows * pixels, norm, statistics);
}

// Lets a product be kept where the norm of these statistics and its ReLU let z pass, with the sums of the norm's gradient.
template <class T>
void take_norm_gradient(Gemm<T>& product, const Tensor& z, const Tensor& statistics) {
  const Statistics<T> s(statistics);
  product.epilogue = Epilogue::norm_gradient;
  product.z = data<T>(z);
  product.z_scale = s.scale;
  product.z_shift = s.shift;
  product.z_mean = s.mean;
}

// g becomes the gradient of z, where g is the gradient of a norm's output, already zero where its ReLU was not active;
// sums: of g and g * (z - mean). Writes the gradients of the norm's weight and bias.
template <class T>
void finish_norm_gradient(std::vector<ChannelSums<T>>& sums, const Tensor& z, const Tensor& statistics, const Tensor& g,
                          const Tensor& weight, const Tensor& bias) {
  const int64_t channels = z.size(1), rows = z.numel() / channels;
  const Statistics<T> s(statistics);
  const NormGradient<T> norm(sums, statistics, rows, weight, bias);
  T* to = data<T>(g);
  parallel_rows(rows, [&](int64_t, int64_t begin, int64_t end) {
    const int64_t at = begin * channels;
    training_kernels<T>().norm_gradient(to + at, data<T>(z) + at, s.scale, s.shift, norm.on_gradient.data(),
                                        norm.on_map.data(), norm.constant.data(), end - begin, channels, true, to + at);
  });
}

}  // namespace elastic
