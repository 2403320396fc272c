// dense_blocks: DenseNet's trunk, that is dense blocks, transitions and the last norm, as one call (dense_run.cpp).
//
// Images are divided among threads as long as every thread gets one; what remains is computed by all together.
#include <ATen/Parallel.h>

#include "common/scratch.h"
#include "inference/dense_run.h"
#include "inference/operators.h"

namespace elastic {

namespace {

struct DenseBlocks {
  using Plan = DensePlan;
  static constexpr int kFields = kDenseFields, kTimed = kDenseSteps;

  static Plan read(const std::vector<int64_t>& numbers) { return read_dense_plan(numbers); }

  static MapSizes sizes(const Tensor& x, const Plan& plan) {
    check_channels(x, plan.stages.front().in, "the first dense block");
    c10::SymInt height = x.sym_size(2), width = x.sym_size(3);
    for (size_t stage = 1; stage < plan.stages.size(); stage++) {
      height = height / 2;
      width = width / 2;
      TORCH_CHECK_VALUE(height.maybe_as_int() != 0 && width.maybe_as_int() != 0, "a map of ", x.sym_sizes(),
                        " cannot be halved ", plan.stages.size() - 1, " times");
    }
    return {x.sym_size(0), c10::SymInt(plan.stages.back().channels), height, width};
  }

  static void run(const Call<Plan>& call) {
    const DenseLayout layout(call.plan, call.height, call.width);
    const int threads = at::get_num_threads();
    const bool alone = call.seconds == nullptr && call.images >= threads;  // a profile shows how threads work together
    const Scratch scratch(threads * layout.own + (alone ? threads : 1) * layout.shared);
    const DenseRunner runner(call.kernels, call.plan, layout, call.weights);
    Element* shared_maps = scratch.elements() + threads * layout.own;
    parallel(threads, [&](const Worker& worker) {
      Element* own = scratch.elements() + worker.index * layout.own;
      Barrier nobody(1);
      const DenseWorker mine{shared_maps + (alone ? worker.index * layout.shared : 0), own, {0, 1, nobody}, nullptr};
      const DenseWorker shared{shared_maps, own, worker, call.seconds};
      runner.clear_borders(alone ? mine : shared);
      for_each_image(call.images, alone, worker, [&](int64_t image, bool one) {
        runner.image(call.input + image * call.in_image, call.output + image * call.out_image, one ? mine : shared);
      });
    });
  }
};

}  // namespace

ELASTIC_PLANNED_OPERATOR("dense_blocks", DenseBlocks)

}  // namespace elastic
