// The operators of DenseNet's trunk.
//
//   dense_blocks          dense blocks, transitions and the last norm as one call (dense_run.cpp)
//   dense_blocks_profile  the same, returning the seconds that one thread spent in each step of each row of the plan
//
// Images are divided among threads as long as every thread gets one; what remains is computed by all together.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "common/checks.h"
#include "common/scratch.h"
#include "inference/dense_run.h"

namespace elastic {

namespace {

using at::Tensor;

void check_size(const DensePlan& plan, const Tensor& x) {
  const auto halvings = plan.stages.size() - 1;
  TORCH_CHECK_VALUE(halvings < 16 && x.size(2) >> halvings >= 1 && x.size(3) >> halvings >= 1, "a map of ", x.sizes(),
                    " cannot be halved ", halvings, " times");
}

Tensor run(const Tensor& x, const Tensor& weights, at::IntArrayRef numbers, double* seconds) {
  const DensePlan plan = read_dense_plan(numbers.vec());
  const InferenceKernels& kernels = inference_kernels();
  check_float_map(x, "x");
  TORCH_CHECK_VALUE(x.size(1) == plan.stages.front().in, "the first dense block takes ", plan.stages.front().in,
                    " channels, got an input of ", x.sizes());
  check_size(plan, x);
  check_weights(weights, plan.weights);
  const Tensor input = x.contiguous(at::MemoryFormat::ChannelsLast);
  const DenseLayout layout(plan, int(x.size(2)), int(x.size(3)));
  const auto& size = layout.sizes.back();
  const int64_t images = x.size(0), channels = plan.stages.back().channels;
  Tensor output = empty_map(x, {images, channels, size.height, size.width});
  const int threads = at::get_num_threads();
  const bool alone = seconds == nullptr && images >= threads;  // a profile shows how threads work together
  const Scratch scratch(threads * layout.own + (alone ? threads : 1) * layout.shared);
  const DenseRunner runner(kernels, plan, layout, weights.const_data_ptr<float>());
  const float* from = input.const_data_ptr<float>();
  float* to = output.mutable_data_ptr<float>();
  const int64_t in_step = x.size(1) * x.size(2) * x.size(3), out_step = channels * size.height * size.width;
  float* shared_maps = scratch.data() + threads * layout.own;
  parallel(threads, [&](const Worker& worker) {
    float* own = scratch.data() + worker.index * layout.own;
    Barrier nobody(1);
    const DenseWorker mine{shared_maps + (alone ? worker.index * layout.shared : 0), own, {0, 1, nobody}, nullptr};
    const DenseWorker shared{shared_maps, own, worker, seconds};
    runner.clear_borders(alone ? mine : shared);
    for_each_image(images, alone, worker, [&](int64_t image, bool one) {
      runner.image(from + image * in_step, to + image * out_step, one ? mine : shared);
    });
  });
  return output;
}

Tensor dense_blocks(const Tensor& x, const Tensor& weights, at::IntArrayRef plan) {
  return run(x, weights, plan, nullptr);
}

Tensor dense_blocks_profile(const Tensor& x, const Tensor& weights, at::IntArrayRef plan) {
  Tensor seconds = at::zeros({int64_t(plan.size()) / kDenseFields, kDenseSteps}, at::kDouble);
  run(x, weights, plan, seconds.mutable_data_ptr<double>());
  return seconds;
}

}  // namespace

}  // namespace elastic

TORCH_LIBRARY_FRAGMENT(elastic_cnn, m) {
  m.def("dense_blocks(Tensor x, Tensor weights, int[] plan) -> Tensor");
  m.def("dense_blocks_profile(Tensor x, Tensor weights, int[] plan) -> Tensor");
}
TORCH_LIBRARY_IMPL(elastic_cnn, CPU, m) {
  m.impl("dense_blocks", &elastic::dense_blocks);
  m.impl("dense_blocks_profile", &elastic::dense_blocks_profile);
}
