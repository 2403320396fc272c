// Reading and checking a plan: whatever the numbers are, what passes here can be computed without leaving a buffer.
#include "inference/residual_plan.h"

namespace elastic {

namespace {

bool flag(int64_t value, const char* what) {
  TORCH_CHECK_VALUE(value == 0 || value == 1, "a plan's ", what, " must be 0 or 1, got ", value);
  return value == 1;
}

int64_t conv2_size(const BranchPlan& b) {
  if (b.lanes) return b.inner * 9 * words(b.group_width);
  int64_t rows = 0;
  for (int panel = 0; panel < b.outer_panels(); panel++)
    rows += words(inputs_of_panel(panel, b.groups, b.group_width).count);
  return rows * 9 * kPanel;
}

// out: 0 without conv3. joined: channels after conv2, 0 where they are those after conv1.
BranchPlan read_branch(const int64_t* numbers, int in, int out, int joined, WeightCursor& cursor) {
  BranchPlan b{};
  b.groups = plan_number(numbers[0], 1, "a plan's groups");
  b.group_width = plan_number(numbers[1], 1, "a plan's group width");
  b.lanes = flag(numbers[2], "lanes");
  const int64_t inner = (b.lanes ? round_up(b.groups, 16) : b.groups) * b.group_width;
  b.inner = plan_number(inner, 1, "a plan's inner channels");
  TORCH_CHECK_VALUE(!joined || (b.groups == 1 && !b.lanes), "branches that join before conv3 have one group, no lanes");
  b.outer = joined ? joined : b.inner;
  const int64_t wide = round_up(b.inner, kPanel), outer_wide = round_up(b.outer, kPanel);
  b.w1 = cursor.take(wide * words(in));
  b.b1 = cursor.take(wide);
  b.w2 = cursor.take(conv2_size(b));
  b.b2 = cursor.take(outer_wide);
  b.w3 = cursor.take(round_up(out, kPanel) * words(b.outer));
  return b;
}

}  // namespace

Plan read_plan(const std::vector<int64_t>& numbers) {
  TORCH_CHECK_VALUE(!numbers.empty() && numbers.size() % kPlanFields == 0, "a plan holds ", kPlanFields,
                    " numbers a block, got ", numbers.size());
  Plan plan;
  WeightCursor cursor;
  for (size_t i = 0; i < numbers.size(); i += kPlanFields) {
    const int64_t* row = numbers.data() + i;
    BlockPlan b{};
    b.in = plan_number(row[0], 1, "a plan's input channels");
    b.out = plan_number(row[1], 1, "a plan's output channels");
    b.stride = plan_number(row[2], 1, "a plan's stride");
    TORCH_CHECK_VALUE(b.stride <= 2, "a block's stride must be 1 or 2, got ", b.stride);
    const int joined = row[11] ? plan_number(row[11], 1, "a plan's joined channels") : 0;
    b.joined = joined > 0;
    b.high = read_branch(row + 3, b.in, b.out, joined, cursor);
    if (row[6] != 0) {
      TORCH_CHECK_VALUE(b.stride == 1, "a block with a low-resolution branch has stride 1, got ", b.stride);
      b.low = read_branch(row + 6, b.in, b.joined ? 0 : b.out, joined, cursor);
    }
    TORCH_CHECK_VALUE(!b.joined || b.elastic(), "a block of one resolution has no branches that join");
    b.projection = flag(row[9], "projection");
    b.hidden = plan_number(row[10], 0, "a plan's hidden channels");
    TORCH_CHECK_VALUE(b.projection || (b.in == b.out && b.stride == 1), "a block from ", b.in, " to ", b.out,
                      " channels with stride ", b.stride, " needs a projection");
    TORCH_CHECK_VALUE(plan.blocks.empty() || plan.blocks.back().out == b.in, "a block of ", b.in,
                      " channels follows one that yields ", plan.blocks.empty() ? 0 : plan.blocks.back().out);
    const int64_t out_wide = round_up(b.out, kPanel);
    b.b3 = cursor.take(out_wide);
    if (b.projection) {
      b.wp = cursor.take(out_wide * words(b.in));
      b.bp = cursor.take(out_wide);
    }
    if (b.hidden) {
      b.gate_high = cursor.take(b.high.outer * b.hidden_wide());
      if (b.low_to_end()) b.gate_low = cursor.take(b.low.outer * b.hidden_wide());
      b.gate_b1 = cursor.take(b.hidden_wide());
      b.gate_w2 = cursor.take(b.hidden_wide() * out_wide);
      b.gate_b2 = cursor.take(out_wide);
    }
    plan.blocks.push_back(b);
  }
  plan.weights = cursor.total();
  return plan;
}

}  // namespace elastic
