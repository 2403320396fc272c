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

Tensor output_of(const Tensor& x, const Tensor& weights, const Plan& plan) {
  check_element_map(x, "x");
  const auto channels = x.sym_size(1).maybe_as_int();
  TORCH_CHECK_VALUE(!channels || *channels == plan.blocks.front().in, "the first block takes ", plan.blocks.front().in,
                    " channels, got an input of ", x.sym_sizes());
  check_weights(weights, x, plan.weights);
  c10::SymInt height = x.sym_size(2), width = x.sym_size(3);
  for (const BlockPlan& block : plan.blocks) {
    height = strided(height, block.stride);
    width = strided(width, block.stride);
  }
  return empty_map(x, {x.sym_size(0), c10::SymInt(plan.blocks.back().out), height, width});
}

Tensor run(const Tensor& x, const Tensor& weights, at::IntArrayRef numbers, double* seconds) {
  const Plan plan = read_plan(numbers.vec());
  const InferenceKernels& kernels = inference_kernels();
  const Tensor output = output_of(x, weights, plan);
  const Tensor input = x.contiguous(at::MemoryFormat::ChannelsLast);
  const Batch batch(kernels, plan, int(x.size(2)), int(x.size(3)), x.size(0), at::get_num_threads(), seconds);
  batch.run(packed_weights(weights), elements(input), mutable_elements(output));
  return output;
}

Tensor residual_blocks_output(const Tensor& x, const Tensor& weights, at::IntArrayRef numbers) {
  return output_of(x, weights, read_plan(numbers.vec()));
}

Tensor residual_blocks(const Tensor& x, const Tensor& weights, at::IntArrayRef plan) {
  return run(x, weights, plan, nullptr);
}

Tensor profile_output(const Tensor& x, const Tensor& weights, at::IntArrayRef numbers) {
  const Plan plan = read_plan(numbers.vec());
  output_of(x, weights, plan);
  return at::zeros({int64_t(plan.blocks.size()), kSteps}, x.options().dtype(at::kDouble));
}

Tensor residual_blocks_profile(const Tensor& x, const Tensor& weights, at::IntArrayRef plan) {
  const Tensor seconds = profile_output(x, weights, plan);
  run(x, weights, plan, seconds.mutable_data_ptr<double>());
  return seconds;
}

}  // namespace

}  // namespace elastic

TORCH_LIBRARY_FRAGMENT(elastic_cnn, m) {
  m.def("residual_blocks" ELASTIC_SUFFIX "(Tensor x, Tensor weights, int[] plan) -> Tensor");
  m.def("residual_blocks_profile" ELASTIC_SUFFIX "(Tensor x, Tensor weights, int[] plan) -> Tensor");
}
TORCH_LIBRARY_IMPL(elastic_cnn, CPU, m) {
  m.impl("residual_blocks" ELASTIC_SUFFIX, &elastic::residual_blocks);
  m.impl("residual_blocks_profile" ELASTIC_SUFFIX, &elastic::residual_blocks_profile);
}
TORCH_LIBRARY_IMPL(elastic_cnn, Meta, m) {
  m.impl("residual_blocks" ELASTIC_SUFFIX, &elastic::residual_blocks_output);
  m.impl("residual_blocks_profile" ELASTIC_SUFFIX, &elastic::profile_output);
}
