// The operators of residual blocks.
//
//   residual_blocks          a sequence of residual blocks as one call (residual_batch.cpp)
//   residual_blocks_profile  the same, returning the seconds that one thread spent in each step of each block
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "common/checks.h"
#include "inference/residual_batch.h"

namespace elastic {

namespace {

using at::Tensor;

Tensor run(const Tensor& x, const Tensor& weights, at::IntArrayRef numbers, double* seconds) {
  const Plan plan = read_plan(numbers.vec());
  const InferenceKernels& kernels = inference_kernels();
  check_float_map(x, "x");
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

}  // namespace

}  // namespace elastic

TORCH_LIBRARY_FRAGMENT(elastic_cnn, m) {
  m.def("residual_blocks(Tensor x, Tensor weights, int[] plan) -> Tensor");
  m.def("residual_blocks_profile(Tensor x, Tensor weights, int[] plan) -> Tensor");
}
TORCH_LIBRARY_IMPL(elastic_cnn, CPU, m) {
  m.impl("residual_blocks", &elastic::residual_blocks);
  m.impl("residual_blocks_profile", &elastic::residual_blocks_profile);
}
