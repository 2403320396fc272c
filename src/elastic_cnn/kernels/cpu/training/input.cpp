// The input of an elastic block, which feeds the high branch, the low branch through the pool, and the shortcut.
//
//   forward    pooled = mean over 2 x 2 windows; a window that reaches over the edge takes the mean of what lies inside
//   backward   dx = dx of the high branch + dy where the block's output was active (the shortcut's gradient)
//                 + 1 / (pixels in the window) of the pooled map's gradient, in one pass over the map
//
// `active` is laid out as in tail.cpp.
#include "common/operators.h"
#include "training/statistics.h"

namespace elastic {
namespace {

Tensor pool_output(const Tensor& x) {
  check_map(x, "the map");
  return empty_map(x, low_sizes(x, x.sym_size(1)));
}

Tensor pool_forward(const Tensor& x) {
  const Tensor pooled = pool_output(x);
  const int64_t images = x.size(0), channels = x.size(1), height = x.size(2), width = x.size(3);
  const int64_t low_height = half(height), low_width = half(width);
  for_element_type(x.scalar_type(), [&]<class T>(T) {
    const T* from = data<T>(x);
    T* to = data<T>(pooled);
    parallel_rows(images * low_height, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; row++) {
        const int64_t image = row / low_height, i = row % low_height;
        const T* above = from + (image * height + 2 * i) * width * channels;
        const T* below = 2 * i + 1 < height ? above + width * channels : above;
        training_kernels<T>().pool(above, below, width, channels, to + row * low_width * channels);
      }
    });
  });
  return pooled;
}

void input_gradient_output(const Tensor& dx, const std::optional<Tensor>& dy, const std::optional<Tensor>& active,
                           const std::optional<Tensor>& pooled) {
  check_map(dx, "the gradient");
  TORCH_CHECK_VALUE(dy.has_value() == active.has_value(), "dy and active come together");
  if (dy) check_map_of(*dy, dx, dx.sym_sizes(), "the output's gradient");
  if (active) check_active(*active, dx);
  if (pooled) check_map_of(*pooled, dx, low_sizes(dx, dx.sym_size(1)), "the pooled map's gradient");
}

void input_gradient(const Tensor& dx, const std::optional<Tensor>& dy, const std::optional<Tensor>& active,
                    const std::optional<Tensor>& pooled) {
  input_gradient_output(dx, dy, active, pooled);
  const int64_t images = dx.size(0), channels = dx.size(1), height = dx.size(2), width = dx.size(3);
  const int64_t low_height = half(height), low_row = half(width) * channels, bits = (width + 7) / 8 * channels;
  for_element_type(dx.scalar_type(), [&]<class T>(T) {
    T* to = data<T>(dx);
    const T* from = dy ? data<T>(*dy) : nullptr;
    const T* low = pooled ? data<T>(*pooled) : nullptr;
    const uint8_t* mask = active ? active->data_ptr<uint8_t>() : nullptr;
    parallel_rows(images * height, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; row++) {
        const int64_t image = row / height, r = row % height;
        const Number<T> row_share = r % 2 == 0 && r + 1 == height ? 1 : 0.5;
        const T* window = low ? low + (image * low_height + r / 2) * low_row : nullptr;
        training_kernels<T>().add_input_gradient(from ? from + row * width * channels : nullptr,
                                                 mask ? mask + row * bits : nullptr, window, row_share, width, channels,
                                                 to + row * width * channels);
      }
    });
  });
}

Tensor active_gradient_output(const Tensor& dy, const Tensor& active) {
  check_map(dy, "the gradient");
  check_active(active, dy);
  return empty_like_map(dy);
}

Tensor active_gradient(const Tensor& dy, const Tensor& active) {
  const Tensor g = active_gradient_output(dy, active);
  const int64_t channels = dy.size(1), width = dy.size(3), rows = dy.size(0) * dy.size(2);
  for_element_type(dy.scalar_type(), [&]<class T>(T) {
    parallel_rows(rows, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; row++)
        training_kernels<T>().select_active(data<T>(dy) + row * width * channels,
                                            active.data_ptr<uint8_t>() + row * ((width + 7) / 8) * channels, width,
                                            channels, data<T>(g) + row * width * channels);
    });
  });
  return g;
}

}  // namespace

ELASTIC_OPERATOR("train_pool", "(Tensor x) -> Tensor", pool_forward, pool_output)
ELASTIC_OPERATOR("train_input_gradient", "(Tensor(a!) dx, Tensor? dy, Tensor? active, Tensor? pooled) -> ()",
                 input_gradient, input_gradient_output)
ELASTIC_OPERATOR("train_active_gradient", "(Tensor dy, Tensor active) -> Tensor", active_gradient,
                 active_gradient_output)

}  // namespace elastic
