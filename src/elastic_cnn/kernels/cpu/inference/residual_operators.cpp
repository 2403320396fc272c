// residual_blocks: a sequence of residual blocks as one call (residual_batch.cpp).
#include <ATen/Parallel.h>

#include "inference/operators.h"
#include "inference/residual_batch.h"

namespace elastic {

namespace {

struct ResidualBlocks {
  using Plan = elastic::Plan;
  static constexpr int kFields = kPlanFields, kTimed = kSteps;

  static Plan read(const std::vector<int64_t>& numbers) { return read_plan(numbers); }

  static MapSizes sizes(const Tensor& x, const Plan& plan) {
    check_channels(x, plan.blocks.front().in, "the first block");
    c10::SymInt height = x.sym_size(2), width = x.sym_size(3);
    for (const BlockPlan& block : plan.blocks) {
      height = strided(height, block.stride);
      width = strided(width, block.stride);
    }
    return {x.sym_size(0), c10::SymInt(plan.blocks.back().out), height, width};
  }

  static void run(const Call<Plan>& call) {
    const Batch batch(call.kernels, call.plan, call.height, call.width, call.images, at::get_num_threads(),
                      call.seconds);
    batch.run(call.weights, call.input, call.output);
  }
};

}  // namespace

ELASTIC_PLANNED_OPERATOR("residual_blocks", ResidualBlocks)

}  // namespace elastic
