// The operators of the inference kernels: what they check, and how the work is given to threads.
//
//   residual_blocks          a sequence of residual blocks as one call (batch.cpp)
//   residual_blocks_profile  the same, returning the seconds that one thread spent in each step of each block
//   stem                     convolution, ReLU and max pooling (stem.cpp)
//   tail, mean_pool2         single passes of an elastic layer, for blocks that are not run as a whole
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>

#include "batch.h"
#include "checks.h"
#include "level.h"
#include "stem.h"

namespace elastic {

namespace {

using at::Tensor;

Tensor run(const Tensor& x, const Tensor& weights, at::IntArrayRef numbers, double* seconds) {
  const Plan plan = read_plan(numbers.vec());
  const Kernels& kernels = chosen_kernels();
  check_map(x, "x");
  const int64_t images = x.size(0), height = x.size(2), width = x.size(3);
  TORCH_CHECK_VALUE(x.size(1) == plan.blocks.front().in, "the first block takes ", plan.blocks.front().in,
                    " channels, got an input of ", x.sizes());
  check_weights(weights, plan.weights);
  const Tensor input = x.contiguous(at::MemoryFormat::ChannelsLast);
  const Batch batch(kernels, plan, int(height), int(width), images, at::get_num_threads(), seconds);
  Tensor output = empty_map(x, {images, plan.blocks.back().out, batch.out_height(), batch.out_width()});
  batch.run(weights.const_data_ptr<float>(), input.const_data_ptr<float>(), output.mutable_data_ptr<float>());
  return output;
}

Tensor residual_blocks(const Tensor& x, const Tensor& weights, at::IntArrayRef plan) {
  return run(x, weights, plan, nullptr);
}

Tensor residual_blocks_profile(const Tensor& x, const Tensor& weights, at::IntArrayRef plan) {
  Tensor seconds = at::zeros({int64_t(plan.size()) / kPlanFields, kSteps}, at::kDouble);
  run(x, weights, plan, seconds.mutable_data_ptr<double>());
  return seconds;
}

Tensor stem(const Tensor& x, const Tensor& weights, const Tensor& bias, int64_t kernel, int64_t stride) {
  const Kernels& kernels = chosen_kernels();
  check_map(x, "x");
  TORCH_CHECK_VALUE(kernel >= 1 && kernel <= 31 && kernel % 2 == 1, "a stem's kernel must be odd and in 1..31, got ", kernel);
  TORCH_CHECK_VALUE(stride >= 1 && stride <= 4, "a stem's stride must lie in 1..4, got ", stride);
  for (const Tensor* t : {&weights, &bias})
    TORCH_CHECK_VALUE(t->dim() == 1 && t->scalar_type() == at::kFloat && t->is_contiguous() && t->device().is_cpu(),
                      "a stem's packed weights and bias must be contiguous float32 vectors on the CPU");
  TORCH_CHECK_VALUE(bias.numel() >= 1 && bias.numel() <= (1 << 16), "a stem needs 1 to 65536 output channels");
  const Stem s{int(x.size(1)), int(x.size(2)), int(x.size(3)), int(bias.numel()), int(kernel), int(stride)};
  TORCH_CHECK_VALUE(weights.numel() == s.weights(), "the stem needs ", s.weights(), " packed weights, got ",
                    weights.numel());
  const int64_t images = x.size(0), out_step = int64_t(s.out) * s.out_height() * s.out_width();
  Tensor output = empty_map(x, {images, s.out, s.out_height(), s.out_width()});
  const int threads = at::get_num_threads();
  const int64_t wide = round_up(s.out, kPanel);
  const Scratch scratch(s.scratch(threads) + wide);
  float* biases = scratch.data() + s.scratch(threads);
  std::fill(biases, biases + wide, 0.f);
  std::copy_n(bias.const_data_ptr<float>(), s.out, biases);
  const int64_t strides[] = {x.stride(1), x.stride(2), x.stride(3)}, step = x.stride(0);
  const float *image = x.const_data_ptr<float>(), *packed = weights.const_data_ptr<float>();
  float* to = output.mutable_data_ptr<float>();
  together(threads, [&](int member, int members, Barrier& barrier) {
    for (int64_t i = 0; i < images; i++)
      run_stem(kernels, s, image + i * step, strides, packed, biases, scratch.data(), to + i * out_step, member,
               members, barrier);
  });
  return output;
}

Tensor tail(const Tensor& x, const std::optional<Tensor>& bias, const std::optional<Tensor>& shortcut,
            const std::optional<Tensor>& low, bool relu) {
  const Kernels& kernels = chosen_kernels();
  check_map(x, "x");
  const int64_t images = x.size(0), channels = x.size(1), height = x.size(2), width = x.size(3);
  const int64_t low_height = (height + 1) / 2, low_width = (width + 1) / 2;
  const auto format = at::MemoryFormat::ChannelsLast;
  Tensor map = x.contiguous(format), biases, shortcuts, lows;
  if (bias) {
    TORCH_CHECK_VALUE(bias->device().is_cpu() && bias->scalar_type() == at::kFloat && bias->dim() == 1 &&
                          bias->size(0) == channels,
                      "bias must be a float32 vector of ", channels, " numbers on the CPU, got ", bias->sizes());
    biases = bias->contiguous();
  }
  if (shortcut) {
    check_map(*shortcut, "shortcut");
    TORCH_CHECK_VALUE(shortcut->sizes() == x.sizes(), "shortcut must have the size of x, ", x.sizes(), ", got ",
                      shortcut->sizes());
    shortcuts = shortcut->contiguous(format);
  }
  if (low) {
    check_map(*low, "low");
    const int64_t wanted[] = {images, channels, low_height, low_width};
    TORCH_CHECK_VALUE(low->sizes() == at::IntArrayRef(wanted), "low must be half of x, rounded up, ",
                      at::IntArrayRef(wanted), ", got ", low->sizes());
    lows = low->contiguous(format);
  }
  Tensor output = empty_map(x, x.sizes());
  auto pointer = [](const Tensor& t) { return t.defined() ? t.const_data_ptr<float>() : nullptr; };
  const float *from = pointer(map), *from_shortcut = pointer(shortcuts), *from_low = pointer(lows);
  float* to = output.mutable_data_ptr<float>();
  at::parallel_for(0, images * height, 8, [&](int64_t begin, int64_t end) {
    for (int64_t at = begin; at < end;) {  // rows of all images behind one another
      const int64_t image = at / height, row = at % height;
      const int64_t rows = std::min(end - at, height - row), step = image * height * width * channels;
      Tail p{from + step, pointer(biases), from_shortcut ? from_shortcut + step : nullptr,
             from_low ? from_low + image * low_height * low_width * channels : nullptr, to + step,
             int(height), int(width), int(channels), relu};
      kernels.tail(p, int(row), int(row + rows));
      at += rows;
    }
  });
  return output;
}

Tensor mean_pool2(const Tensor& x) {
  const Kernels& kernels = chosen_kernels();
  check_map(x, "x");
  const int64_t images = x.size(0), channels = x.size(1), height = x.size(2), width = x.size(3);
  const int64_t out_height = (height + 1) / 2, out_width = (width + 1) / 2;
  const Tensor map = x.contiguous(at::MemoryFormat::ChannelsLast);
  Tensor output = empty_map(x, {images, channels, out_height, out_width});
  const float* from = map.const_data_ptr<float>();
  float* to = output.mutable_data_ptr<float>();
  at::parallel_for(0, images * out_height, 8, [&](int64_t begin, int64_t end) {
    for (int64_t at = begin; at < end;) {
      const int64_t image = at / out_height, row = at % out_height, rows = std::min(end - at, out_height - row);
      kernels.mean_pool(from + image * height * width * channels, to + image * out_height * out_width * channels,
                        int(height), int(width), int(channels), int(row), int(row + rows));
      at += rows;
    }
  });
  return output;
}

std::string level_name() {  // empty where the processor has neither instruction set
  const Level chosen = level();
  return chosen == Level::avx512 ? "avx512" : chosen == Level::avx2 ? "avx2" : "";
}

void advise(const Tensor& x) { advise_huge_pages(x.const_data_ptr(), x.nbytes()); }

}  // namespace

}  // namespace elastic

TORCH_LIBRARY_FRAGMENT(elastic_cnn, m) {
  m.def("kernel_level() -> str", []() { return elastic::level_name(); });
  m.def("residual_blocks(Tensor x, Tensor weights, int[] plan) -> Tensor");
  m.def("residual_blocks_profile(Tensor x, Tensor weights, int[] plan) -> Tensor");
  m.def("tail(Tensor x, Tensor? bias, Tensor? shortcut, Tensor? low, bool relu) -> Tensor");
  m.def("stem(Tensor x, Tensor weights, Tensor bias, int kernel, int stride) -> Tensor");
  m.def("mean_pool2(Tensor x) -> Tensor");
  m.def("advise_huge_pages(Tensor x) -> ()");
}
TORCH_LIBRARY_IMPL(elastic_cnn, CPU, m) {
  m.impl("residual_blocks", &elastic::residual_blocks);
  m.impl("residual_blocks_profile", &elastic::residual_blocks_profile);
  m.impl("tail", &elastic::tail);
  m.impl("stem", &elastic::stem);
  m.impl("mean_pool2", &elastic::mean_pool2);
  m.impl("advise_huge_pages", &elastic::advise);
}
