// The end of an elastic block: y = relu(norm(z + up(low)) + shortcut), with the norm in training mode. Backward
// also goes without shortcut and ReLU (`active` is empty, all count): what follows is then computed elsewhere.
//
//   forward   1. z += up(low) and the sums of the result             read z, low, write z
//             2. y = relu(z * scale + shift + shortcut), and `active`  read z, shortcut, write y
//   backward  1. g = dy where active; sums of g and g (z - mean)       read dy, z
//             2. dz = on_gradient * g + on_map * z + constant, and
//                dlow = the adjoint of up at dz, while dz is in cache  read dy, z, write dz
//
// up is bilinear interpolation by two, half-pixel, cropped to z's size. Along one axis, high row r takes 3/4 of low row
// r / 2 and 1/4 of its nearer neighbour (above for even r, below for odd), the border repeating itself. A high row is
// mixed from two low rows first, then along its width.
//
// `active` has one bit an element, (N, H, ceil(W / 8), C) bytes: bit k of byte (.., j, c) is pixel 8 j + k. So the
// backward passes need not read y, and channels stay the fastest axis of every loop.
#include <cstring>

#include "common/operators.h"
#include "training/statistics.h"
#include "training/upsample.h"

namespace elastic {
namespace {

int64_t active_row(int64_t width, int64_t channels) { return (width + 7) / 8 * channels; }

struct Shape {
  int64_t images, channels, height, width;
  explicit Shape(const Tensor& z) : images(z.size(0)), channels(z.size(1)), height(z.size(2)), width(z.size(3)) {}
  int64_t rows() const { return images * height; }
  int64_t row() const { return width * channels; }
};

// z += up(low) for rows [begin, end) of all images' rows.
template <class T>
void add_up_rows(const Shape& shape, const T* low, int64_t begin, int64_t end, T* z, std::vector<Number<T>>& mixed) {
  const int64_t low_height = half(shape.height), low_row = half(shape.width) * shape.channels;
  mixed.resize(low_row + 2 * shape.channels);
  for (int64_t row = begin; row < end; row++) {
    const int64_t image = row / shape.height, r = row % shape.height, i = r / 2;
    const int64_t neighbour = r % 2 ? std::min(i + 1, low_height - 1) : std::max<int64_t>(i - 1, 0);
    const T* map = low + image * low_height * low_row;
    training_kernels<T>().add_upsampled(map + i * low_row, map + neighbour * low_row, shape.width, shape.channels,
                                        mixed.data(), z + row * shape.row());
  }
}

// Pass 1 of forward.
template <class T>
void statistics_pass(const Tensor& z, const T* low, const Norm& norm, const Tensor& statistics) {
  const Shape shape(z);
  const int64_t row = shape.row();
  T* map = data<T>(z);
  std::vector<ChannelSums<T>> sums(num_threads(), ChannelSums<T>(shape.channels));
  const std::vector<Number<T>> pivot(map, map + shape.channels);
  parallel_rows(shape.rows(), [&](int64_t thread, int64_t begin, int64_t end) {
    std::vector<Number<T>> mixed;
    for (int64_t r = begin; r < end; r++) {
      add_up_rows(shape, low, r, r + 1, map, mixed);
      add_statistics(map + r * row, pivot.data(), shape.width, sums[thread]);
    }
  });
  finish_statistics(sums, pivot.data(), shape.rows() * shape.width, norm, statistics);
}

// Pass 2 of forward.
template <class T>
void finish_pass(const Tensor& z, const T* residual, const Tensor& statistics, const Tensor& y, const Tensor& active) {
  const Shape shape(z);
  const int64_t row = shape.row(), bits = active_row(shape.width, shape.channels);
  const T* map = data<T>(z);
  T* out = data<T>(y);
  uint8_t* mask = active.data_ptr<uint8_t>();
  const Statistics<T> s(statistics);
  parallel_rows(shape.rows(), [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++)
      training_kernels<T>().finish(map + r * row, residual + r * row, s.scale, s.shift, shape.width, shape.channels,
                                   out + r * row, mask + r * bits);
  });
}

// Pass 2 of backward for a run of low rows: dz of the high rows 2 i and 2 i + 1 that belong to them, each once, and
// dlow, which also needs the high row before and the one after: where those belong to another thread, or are not
// made yet, they are made in a buffer of its own.
template <class T>
class Adjoint {
 public:
  template <class MakeRow>
  static void run(const Shape& shape, int64_t begin, int64_t end, const MakeRow& make, T* dz, T* dlow) {
    const int64_t low_height = half(shape.height), row = shape.row();
    const int64_t low_row = half(shape.width) * shape.channels;
    std::vector<Number<T>> column(row);
    std::vector<T> before(row), after(row);
    for (int64_t at = begin; at < end; at++) {
      const int64_t image = at / low_height, i = at % low_height;
      const bool first = at == begin || i == 0, last = at + 1 == end || i + 1 == low_height;
      auto high = [&](int64_t r) { return (image * shape.height + r); };
      if (first) make(high(2 * i), dz + high(2 * i) * row);
      if (first && 2 * i + 1 < shape.height) make(high(2 * i + 1), dz + high(2 * i + 1) * row);
      for (int64_t r = 2 * i + 2; !last && r < std::min(2 * i + 4, shape.height); r++)
        make(high(r), dz + high(r) * row);
      int64_t taps[4];
      Number<T> weights[4];
      const T* rows[4];
      adjoint_taps(i, low_height, shape.height, taps, weights);
      for (int k = 0; k < 4; k++) rows[k] = dz + high(taps[k]) * row;
      if (first && i > 0) make(high(2 * i - 1), before.data()), rows[0] = before.data();
      if (last && 2 * i + 2 < shape.height) make(high(2 * i + 2), after.data()), rows[3] = after.data();
      training_kernels<T>().upsample_adjoint(rows, weights, shape.width, shape.channels, column.data(),
                                             dlow + at * low_row);
    }
  }
};

template <class T>
void backward(const Tensor& dy, const Tensor& active, const Tensor& z, const Tensor& statistics, const Tensor& dz,
              T* dlow, const Tensor& weight, const Tensor& bias) {
  const Shape shape(z);
  const int64_t row = shape.row(), bits = active_row(shape.width, shape.channels);
  const T *map = data<T>(z), *gradients = data<T>(dy);
  const uint8_t* mask = active.numel() ? active.data_ptr<uint8_t>() : nullptr;
  T* out = data<T>(dz);
  const Statistics<T> s(statistics);
  std::vector<ChannelSums<T>> sums(num_threads(), ChannelSums<T>(shape.channels));
  parallel_rows(shape.rows(), [&](int64_t thread, int64_t begin, int64_t end) {
    ChannelSums<T>& own = sums[thread];
    const int64_t rows_in_float = std::max<int64_t>(kRowsInFloat / shape.width, 1);
    for (int64_t r = begin; r < end; r++) {
      training_kernels<T>().tail_gradient_sum(gradients + r * row, mask ? mask + r * bits : nullptr, map + r * row,
                                              s.mean, shape.width, shape.channels, own.a.data(), own.b.data());
      if ((r - begin) % rows_in_float == rows_in_float - 1 || r + 1 == end) own.flush();
    }
  });
  const NormGradient<T> norm(sums, statistics, shape.rows() * shape.width, weight, bias);
  auto make = [&](int64_t r, T* to) {
    training_kernels<T>().tail_gradient(gradients + r * row, mask ? mask + r * bits : nullptr, map + r * row,
                                        norm.on_gradient.data(), norm.on_map.data(), norm.constant.data(), shape.width,
                                        shape.channels, to);
  };
  if (dlow) {
    parallel_rows(shape.images * half(shape.height),
                  [&](int64_t, int64_t begin, int64_t end) { Adjoint<T>::run(shape, begin, end, make, out, dlow); });
  } else {
    parallel_rows(shape.rows(), [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; r++) make(r, out + r * row);
    });
  }
}

Tensor sum_statistics_output(const Tensor& z, const Tensor& low, const Tensor& weight, const Tensor& bias,
                             const Tensor& running_mean, const Tensor& running_var, double momentum, double eps) {
  check_map(z, "the map");
  check_map_of(low, z, low_sizes(z, z.sym_size(1)), "the low branch, half the map,");
  const Norm norm{weight, bias, running_mean, running_var, momentum, eps};
  check_norm(norm, z, z.sym_size(1), z.sym_size(0), z.sym_size(2), z.sym_size(3));
  return empty_statistics(z, z.sym_size(1));
}

Tensor sum_statistics(const Tensor& z, const Tensor& low, const Tensor& weight, const Tensor& bias,
                      const Tensor& running_mean, const Tensor& running_var, double momentum, double eps) {
  const Tensor statistics = sum_statistics_output(z, low, weight, bias, running_mean, running_var, momentum, eps);
  const Norm norm{weight, bias, running_mean, running_var, momentum, eps};
  for_element_type(z.scalar_type(), [&]<class T>(T) { statistics_pass(z, data<T>(low), norm, statistics); });
  return statistics;
}

std::tuple<Tensor, Tensor> finish_output(const Tensor& z, const Tensor& statistics, const Tensor& shortcut) {
  check_map(z, "the map");
  check_statistics(statistics, z, z.sym_size(1));
  check_map_of(shortcut, z, z.sym_sizes(), "the shortcut");
  return {empty_like_map(z), empty_active(z)};
}

std::tuple<Tensor, Tensor> finish_forward(const Tensor& z, const Tensor& statistics, const Tensor& shortcut) {
  const std::tuple<Tensor, Tensor> results = finish_output(z, statistics, shortcut);
  const auto& [y, active] = results;
  for_element_type(z.scalar_type(), [&, &y = y, &active = active]<class T>(T) {
    finish_pass(z, data<T>(shortcut), statistics, y, active);
  });
  return results;
}

// An empty `active`: there was neither a shortcut nor a ReLU.
std::tuple<Tensor, Tensor, Tensor, Tensor> tail_backward_output(const Tensor& dy, const Tensor& active, const Tensor& z,
                                                                const Tensor& statistics, bool has_low) {
  check_map(z, "the map");
  check_map_of(dy, z, z.sym_sizes(), "the gradient");
  check_statistics(statistics, z, z.sym_size(1));
  if (active.dim() != 1 || active.sym_size(0).maybe_as_int() != 0) check_active(active, z);
  const SymInt channels = z.sym_size(1);
  return {empty_like_map(z), has_low ? empty_map(z, low_sizes(z, channels)) : empty_vector(z, 0),
          empty_vector(z, channels), empty_vector(z, channels)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> tail_backward(const Tensor& dy, const Tensor& active, const Tensor& z,
                                                         const Tensor& statistics, bool has_low) {
  const std::tuple<Tensor, Tensor, Tensor, Tensor> results = tail_backward_output(dy, active, z, statistics, has_low);
  const auto& [dz, dlow, weight, bias] = results;
  for_element_type(z.scalar_type(), [&, &dz = dz, &dlow = dlow, &weight = weight, &bias = bias]<class T>(T) {
    backward<T>(dy, active, z, statistics, dz, has_low ? data<T>(dlow) : nullptr, weight, bias);
  });
  return results;
}

}  // namespace

ELASTIC_OPERATOR("train_sum_statistics",
                 "(Tensor(a!) z, Tensor low, Tensor weight, Tensor bias, Tensor(b!) running_mean, Tensor(c!) "
                 "running_var, float momentum, float eps) -> Tensor",
                 sum_statistics, sum_statistics_output)
ELASTIC_OPERATOR("train_finish", "(Tensor z, Tensor statistics, Tensor shortcut) -> (Tensor, Tensor)", finish_forward,
                 finish_output)
ELASTIC_OPERATOR(
    "train_tail_backward",
    "(Tensor dy, Tensor active, Tensor z, Tensor statistics, bool has_low) -> (Tensor, Tensor, Tensor, Tensor)",
    tail_backward, tail_backward_output)

}  // namespace elastic
