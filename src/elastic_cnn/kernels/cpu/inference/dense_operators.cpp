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

Tensor output_of(const Tensor& x, const Tensor& weights, const DensePlan& plan) {
  check_element_map(x, "x");
  const auto channels = x.sym_size(1).maybe_as_int();
  TORCH_CHECK_VALUE(!channels || *channels == plan.stages.front().in, "the first dense block takes ",
                    plan.stages.front().in, " channels, got an input of ", x.sym_sizes());
  c10::SymInt height = x.sym_size(2), width = x.sym_size(3);
  for (size_t stage = 1; stage < plan.stages.size(); stage++) {
    height = height / 2;
    width = width / 2;
    TORCH_CHECK_VALUE(height.maybe_as_int() != 0 && width.maybe_as_int() != 0, "a map of ", x.sym_sizes(),
                      " cannot be halved ", plan.stages.size() - 1, " times");
  }
  check_weights(weights, x, plan.weights);
  return empty_map(x, {x.sym_size(0), c10::SymInt(plan.stages.back().channels), height, width});
}

Tensor run(const Tensor& x, const Tensor& weights, at::IntArrayRef numbers, double* seconds) {
  const DensePlan plan = read_dense_plan(numbers.vec());
  const InferenceKernels& kernels = inference_kernels();
  const Tensor output = output_of(x, weights, plan);
  const Tensor input = x.contiguous(at::MemoryFormat::ChannelsLast);
  const DenseLayout layout(plan, int(x.size(2)), int(x.size(3)));
  const int64_t images = x.size(0);
  const int threads = at::get_num_threads();
  const bool alone = seconds == nullptr && images >= threads;  // a profile shows how threads work together
  const Scratch scratch(threads * layout.own + (alone ? threads : 1) * layout.shared);
  const DenseRunner runner(kernels, plan, layout, packed_weights(weights));
  const Element* from = elements(input);
  Element* to = mutable_elements(output);
  const int64_t in_step = x.size(1) * x.size(2) * x.size(3),
                out_step = output.size(1) * output.size(2) * output.size(3);
  Element* shared_maps = scratch.elements() + threads * layout.own;
  parallel(threads, [&](const Worker& worker) {
    Element* own = scratch.elements() + worker.index * layout.own;
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

Tensor dense_blocks_output(const Tensor& x, const Tensor& weights, at::IntArrayRef numbers) {
  return output_of(x, weights, read_dense_plan(numbers.vec()));
}

Tensor dense_blocks(const Tensor& x, const Tensor& weights, at::IntArrayRef plan) {
  return run(x, weights, plan, nullptr);
}

Tensor profile_output(const Tensor& x, const Tensor& weights, at::IntArrayRef numbers) {
  output_of(x, weights, read_dense_plan(numbers.vec()));
  return at::zeros({int64_t(numbers.size()) / kDenseFields, kDenseSteps}, x.options().dtype(at::kDouble));
}

Tensor dense_blocks_profile(const Tensor& x, const Tensor& weights, at::IntArrayRef plan) {
  const Tensor seconds = profile_output(x, weights, plan);
  run(x, weights, plan, seconds.mutable_data_ptr<double>());
  return seconds;
}

}  // namespace

}  // namespace elastic

TORCH_LIBRARY_FRAGMENT(elastic_cnn, m) {
  m.def("dense_blocks" ELASTIC_SUFFIX "(Tensor x, Tensor weights, int[] plan) -> Tensor");
  m.def("dense_blocks_profile" ELASTIC_SUFFIX "(Tensor x, Tensor weights, int[] plan) -> Tensor");
}
TORCH_LIBRARY_IMPL(elastic_cnn, CPU, m) {
  m.impl("dense_blocks" ELASTIC_SUFFIX, &elastic::dense_blocks);
  m.impl("dense_blocks_profile" ELASTIC_SUFFIX, &elastic::dense_blocks_profile);
}
TORCH_LIBRARY_IMPL(elastic_cnn, Meta, m) {
  m.impl("dense_blocks" ELASTIC_SUFFIX, &elastic::dense_blocks_output);
  m.impl("dense_blocks_profile" ELASTIC_SUFFIX, &elastic::profile_output);
}
