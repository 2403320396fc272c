// A pass whose ends take sums by column (ColumnSums), divided into a part a thread, with the batch statistics of its
// result where those are wanted.
#pragma once
#include "training/statistics.h"

namespace elastic {

// body(begin, end, sums) for each part of `rows`; sums and pivots, one a part, may be null.
template <class T, class Body>
void run_parts(int64_t rows, std::vector<ChannelSums<T>>* sums, std::vector<T>* pivots, const Body& body) {
  in_parts(rows, [&](int64_t part, int64_t begin, int64_t end) {
    ColumnSums<T> own;
    if (sums) {
      ChannelSums<T>& of_part = (*sums)[part];
      own = {of_part.a.data(), of_part.b.data(), of_part.total_a.data(), of_part.total_b.data()};
    }
    if (pivots) own.pivot = pivots[part].data(), own.first_row = begin;
    body(begin, end, own);
  });
}

// The same for the statistics of a map of `rows` rows of `pixels` pixels. Each part sums around a pixel of its own, so
// its sums are moved to the first part's.
template <class T, class Body>
void run_statistics(int64_t rows, int64_t pixels, int64_t channels, const Norm& norm, const Tensor& statistics,
                    const Body& body) {
  std::vector<ChannelSums<T>> sums(parts(), ChannelSums<T>(channels));
  std::vector<std::vector<T>> pivots(parts(), std::vector<T>(channels));
  run_parts(rows, &sums, pivots.data(), body);
  for (int64_t part = 1; part < parts(); part++)
    for (int64_t c = 0; c < channels; c++) {
      const double count = (rows * (part + 1) / parts() - rows * part / parts()) * pixels;
      const double moved = double(pivots[part][c]) - pivots[0][c], sum = sums[part].total_a[c];
      sums[part].total_a[c] = sum + count * moved;
      sums[part].total_b[c] += 2 * moved * sum + count * moved * moved;
    }
  finish_statistics(sums, pivots[0].data(), rows * pixels, norm, statistics);
}

// g becomes the gradient of z, where g is the gradient of a norm's output, already zero where its ReLU was not active;
// sums: of g and g * (z - mean). The gradients of the norm's weight and bias.
template <class T>
std::tuple<Tensor, Tensor> finish_norm_gradient(std::vector<ChannelSums<T>>& sums, const Tensor& z,
                                                const Tensor& statistics, const Tensor& g) {
  const int64_t channels = z.size(1), rows = z.numel() / channels;
  const Statistics<T> s(statistics);
  const NormGradient<T> norm(sums, statistics, rows);
  T* to = g.data_ptr<T>();
  in_parts(rows, [&](int64_t, int64_t begin, int64_t end) {
    const int64_t at = begin * channels;
    training_kernels<T>().norm_gradient(to + at, z.data_ptr<T>() + at, s.scale, s.shift, norm.on_gradient.data(),
                                        norm.on_map.data(), norm.constant.data(), end - begin, channels, true, to + at);
  });
  return {norm.weight, norm.bias};
}

}  // namespace elastic
