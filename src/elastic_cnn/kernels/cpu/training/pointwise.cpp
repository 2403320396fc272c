// Operators of the training form's 1 x 1 convolutions (stride 1, no groups), on the kernels of gemm_simd.cpp and
// gemm_weight_simd.cpp.
//
//   forward    z = f(a) W^T [+ up(low)], and z's batch statistics, in one pass; f is the norm and ReLU before it, so
//              that their output is never written
//   backward   of the input: g = dz W where the ReLU before was active, and the sums of its norm's gradient; or, for a
//              block's first convolution, dz W + the gradients of the shortcut and of the pooled map
//              of the weight: dz^T f(a)
#include <memory>

#include "common/level.h"
#include "training/parts.h"

namespace elastic {
namespace {

template <class T>
std::unique_ptr<T[]> pack(const Tensor& weight, bool transposed) {
  const int64_t o = weight.size(0), i = weight.size(1);
  const TrainingKernels<T>& kernels = training_kernels<T>();
  const T* w = weight.data_ptr<T>();  // (O, I); as B: (I, O) forward, (O, I) backward
  const int64_t k = transposed ? o : i, n = transposed ? i : o;
  std::unique_ptr<T[]> packed(new T[kernels.packed_size(k, n)]);
  in_parts((n + kernels.panel - 1) / kernels.panel, [&](int64_t, int64_t first, int64_t last) {
    kernels.pack(w, transposed ? i : 1, transposed ? 1 : i, k, n, first, last, packed.get());
  });
  return packed;
}

template <class T>
void run(const Gemm<T>& gemm, int64_t rows, std::vector<ChannelSums<T>>* sums) {
  run_parts<T>(rows, sums, nullptr, [&](int64_t begin, int64_t end, const ColumnSums<T>& own) {
    training_kernels<T>().gemm(gemm, begin, end, own);
  });
}

template <class T>
void set_norm_before(const std::optional<Tensor>& statistics, const T*& scale, const T*& shift) {
  if (!statistics) return;
  const Statistics<T> s(*statistics);
  scale = s.scale;
  shift = s.shift;
}

int64_t pixels(const Tensor& map) { return map.numel() / map.size(1); }

Tensor check_weight(const Tensor& weight, int64_t in, int64_t out) {
  TORCH_CHECK(weight.dim() == 4 && weight.size(2) == 1 && weight.size(3) == 1, "the weight is not of a 1 x 1 kernel");
  TORCH_CHECK((in < 0 || weight.size(1) == in) && (out < 0 || weight.size(0) == out),
              "the weight does not fit the map");
  return weight.contiguous();
}

std::tuple<Tensor, Tensor> pointwise(const Tensor& a, const std::optional<Tensor>& before, const Tensor& weight_,
                                     const std::optional<Tensor>& low, const std::optional<Tensor>& norm_weight,
                                     const std::optional<Tensor>& norm_bias, const std::optional<Tensor>& running_mean,
                                     const std::optional<Tensor>& running_var, double momentum, double eps) {
  check_map(a, "the map");
  const Tensor weight = check_weight(weight_, a.size(1), -1);
  const int64_t o = weight.size(0), height = a.size(2), width = a.size(3);
  if (low) check_map(*low, "the low branch");
  TORCH_CHECK(!low || (low->size(0) == a.size(0) && low->size(1) == o && low->size(2) == (height + 1) / 2 &&
                       low->size(3) == (width + 1) / 2),
              "the low branch's size is not half the map's, rounded up");
  TORCH_CHECK(!low || norm_weight, "a low branch is added where statistics are taken");
  Tensor z = empty_map(a, {a.size(0), o, height, width});
  Tensor statistics = at::empty({4, norm_weight ? o : 0}, a.options());
  AT_DISPATCH_FLOATING_TYPES(a.scalar_type(), "train_pointwise", [&] {
    const std::unique_ptr<scalar_t[]> packed = pack<scalar_t>(weight, false);
    Gemm<scalar_t> gemm;
    gemm.a = a.data_ptr<scalar_t>();
    gemm.packed = packed.get();
    gemm.c = z.data_ptr<scalar_t>();
    gemm.k = a.size(1);
    gemm.n = o;
    set_norm_before(before, gemm.scale, gemm.shift);
    if (!norm_weight) return run<scalar_t>(gemm, pixels(a), nullptr);
    gemm.low = low ? low->data_ptr<scalar_t>() : nullptr;
    gemm.height = height;
    gemm.width = width;
    gemm.epilogue = Epilogue::statistics;
    const Norm norm{*norm_weight, *norm_bias, *running_mean, *running_var, momentum, eps};
    run_statistics<scalar_t>(pixels(a), 1, o, norm, statistics,
                             [&](int64_t begin, int64_t end, const ColumnSums<scalar_t>& sums) {
                               training_kernels<scalar_t>().gemm(gemm, begin, end, sums);
                             });
  });
  return {z, statistics};
}

std::tuple<Tensor, Tensor, Tensor> pointwise_norm_gradient(const Tensor& dz, const Tensor& weight_, const Tensor& z,
                                                           const Tensor& statistics) {
  check_map(dz, "the gradient");
  check_map(z, "the map");
  const Tensor weight = check_weight(weight_, z.size(1), dz.size(1));
  const int64_t channels = z.size(1), rows = pixels(z);
  Tensor g = empty_map(z, z.sizes()), of_weight, of_bias;
  AT_DISPATCH_FLOATING_TYPES(z.scalar_type(), "train_pointwise_norm_gradient", [&] {
    const std::unique_ptr<scalar_t[]> packed = pack<scalar_t>(weight, true);
    const Statistics<scalar_t> s(statistics);
    Gemm<scalar_t> gemm;
    gemm.a = dz.data_ptr<scalar_t>();
    gemm.packed = packed.get();
    gemm.c = g.data_ptr<scalar_t>();
    gemm.k = dz.size(1);
    gemm.n = channels;
    gemm.epilogue = Epilogue::norm_gradient;
    gemm.z = z.data_ptr<scalar_t>();
    gemm.z_scale = s.scale;
    gemm.z_shift = s.shift;
    gemm.z_mean = s.mean;
    std::vector<ChannelSums<scalar_t>> sums(parts(), ChannelSums<scalar_t>(channels));
    run(gemm, rows, &sums);
    std::tie(of_weight, of_bias) = finish_norm_gradient(sums, z, statistics, g);
  });
  return {g, of_weight, of_bias};
}

Tensor pointwise_input_gradient(const Tensor& dz, const Tensor& weight_, const std::optional<Tensor>& dy,
                                const std::optional<Tensor>& active, const std::optional<Tensor>& pooled) {
  check_map(dz, "the gradient");
  const Tensor weight = check_weight(weight_, -1, dz.size(1));
  const int64_t height = dz.size(2), width = dz.size(3);
  TORCH_CHECK(dy.has_value() == active.has_value(), "dy and active come together");
  if (dy) check_map(*dy, "the output's gradient");
  if (pooled) check_map(*pooled, "the pooled map's gradient");
  Tensor dx = empty_map(dz, {dz.size(0), weight.size(1), height, width});
  AT_DISPATCH_FLOATING_TYPES(dz.scalar_type(), "train_pointwise_input_gradient", [&] {
    const std::unique_ptr<scalar_t[]> packed = pack<scalar_t>(weight, true);
    Gemm<scalar_t> gemm;
    gemm.a = dz.data_ptr<scalar_t>();
    gemm.packed = packed.get();
    gemm.c = dx.data_ptr<scalar_t>();
    gemm.k = dz.size(1);
    gemm.n = weight.size(1);
    gemm.epilogue = dy || pooled ? Epilogue::input_gradient : Epilogue::none;
    gemm.dy = dy ? dy->data_ptr<scalar_t>() : nullptr;
    gemm.active = active ? active->data_ptr<uint8_t>() : nullptr;
    gemm.pooled = pooled ? pooled->data_ptr<scalar_t>() : nullptr;
    gemm.height = height;
    gemm.width = width;
    run<scalar_t>(gemm, pixels(dz), nullptr);
  });
  return dx;
}

// Parts take rows of the maps, each with a sum of its own, as long as those sums are small; else columns of the weight.
Tensor pointwise_weight_gradient(const Tensor& dz, const Tensor& a, const std::optional<Tensor>& before) {
  check_map(dz, "the gradient");
  check_map(a, "the map");
  TORCH_CHECK(pixels(dz) == pixels(a), "gradient and map have other sizes");
  const int64_t o = dz.size(1), i = a.size(1), rows = pixels(a), number = parts();
  constexpr int64_t kMostElements = 1 << 20;
  const int64_t row_parts = std::clamp<int64_t>(kMostElements / (o * i), 1, number);
  const int64_t column_parts = number / row_parts;
  Tensor partial = at::zeros({row_parts, o, i, 1, 1}, dz.options());
  AT_DISPATCH_FLOATING_TYPES(dz.scalar_type(), "train_pointwise_weight_gradient", [&] {
    WeightGradient<scalar_t> gradient;
    gradient.dz = dz.data_ptr<scalar_t>();
    gradient.a = a.data_ptr<scalar_t>();
    gradient.o = o;
    gradient.i = i;
    set_norm_before(before, gradient.scale, gradient.shift);
    const int64_t panel = training_kernels<scalar_t>().panel, panels = (i + panel - 1) / panel;
    at::parallel_for(0, row_parts * column_parts, 1, [&](int64_t first, int64_t last) {
      for (int64_t part = first; part < last; part++) {
        const int64_t row = part / column_parts, column = part % column_parts;
        WeightGradient<scalar_t> own = gradient;
        own.dweight = partial.data_ptr<scalar_t>() + row * o * i;
        training_kernels<scalar_t>().weight_gradient(own, rows * row / row_parts, rows * (row + 1) / row_parts,
                                                     std::min(i, panels * column / column_parts * panel),
                                                     std::min(i, panels * (column + 1) / column_parts * panel));
      }
    });
  });
  Tensor dweight = row_parts == 1 ? partial[0] : partial.sum(0);
  return dweight;
}

}  // namespace
}  // namespace elastic

TORCH_LIBRARY_FRAGMENT(elastic_cnn, m) {
  m.def(
      "train_pointwise(Tensor a, Tensor? before, Tensor weight, Tensor? low, Tensor? norm_weight, Tensor? norm_bias, "
      "Tensor(a!)? running_mean, Tensor(b!)? running_var, float momentum, float eps) -> (Tensor, Tensor)");
  m.def(
      "train_pointwise_norm_gradient(Tensor dz, Tensor weight, Tensor z, Tensor statistics) "
      "-> (Tensor, Tensor, Tensor)");
  m.def(
      "train_pointwise_input_gradient(Tensor dz, Tensor weight, Tensor? dy, Tensor? active, Tensor? pooled) "
      "-> Tensor");
  m.def("train_pointwise_weight_gradient(Tensor dz, Tensor a, Tensor? before) -> Tensor");
}
TORCH_LIBRARY_IMPL(elastic_cnn, CPU, m) {
  m.impl("train_pointwise", &elastic::pointwise);
  m.impl("train_pointwise_norm_gradient", &elastic::pointwise_norm_gradient);
  m.impl("train_pointwise_input_gradient", &elastic::pointwise_input_gradient);
  m.impl("train_pointwise_weight_gradient", &elastic::pointwise_weight_gradient);
}
