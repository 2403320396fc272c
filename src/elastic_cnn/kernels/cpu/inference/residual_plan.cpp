// Reading and checking a plan: whatever the numbers are, what passes here can be computed without leaving a buffer.
#include "inference/residual_plan.h"

#include <c10/util/Exception.h>

namespace elastic {

namespace {

constexpr int64_t kMost = 1 << 16;  // channels, which keeps every product of sizes far inside 64 bits

int positive(int64_t value, const char* what) {
  TORCH_CHECK_VALUE(value >= 1 && value <= kMost, "a plan's ", what, " must lie in 1..", kMost, ", got ", value);
  return int(value);
}

bool flag(int64_t value, const char* what) {
  TORCH_CHECK_VALUE(value == 0 || value == 1, "a plan's ", what, " must be 0 or 1, got ", value);
  return value == 1;
}

class Cursor {
 public:
  int64_t take(int64_t floats) {
    const int64_t at = next_;
    next_ += round_up(floats, kPanel);
    return at;
  }
  int64_t total() const { return next_; }

 private:
  int64_t next_ = 0;
};

int64_t conv2_size(const BranchPlan& b) {
  if (b.lanes) return b.inner * 9 * words(b.group_width);
  int64_t rows = 0;
  for (int panel = 0; panel < b.outer_panels(); panel++)
    rows += words(inputs_of_panel(panel, b.groups, b.group_width).count);
  return rows * 9 * kPanel;
}

// out: 0 without conv3. joined: channels after conv2, 0 where they are those after conv1.
BranchPlan read_branch(const int64_t* numbers, int in, int out, int joined, Cursor& cursor) {
  BranchPlan b{};
  b.groups = positive(numbers[0], "groups");
  b.group_width = positive(numbers[1], "group width");
  b.lanes = flag(numbers[2], "lanes");
  const int64_t inner = (b.lanes ? round_up(b.groups, 16) : b.groups) * b.group_width;
  b.inner = positive(inner, "inner channels");
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
  Cursor cursor;
  for (size_t i = 0; i < numbers.size(); i += kPlanFields) {
    const int64_t* row = numbers.data() + i;
    BlockPlan b{};
    b.in = positive(row[0], "input channels");
    b.out = positive(row[1], "output channels");
    b.stride = positive(row[2], "stride");
    TORCH_CHECK_VALUE(b.stride <= 2, "a block's stride must be 1 or 2, got ", b.stride);
    const int joined = row[11] ? positive(row[11], "joined channels") : 0;
    b.joined = joined > 0;
    b.high = read_branch(row + 3, b.in, b.out, joined, cursor);
    if (row[6] != 0) {
      TORCH_CHECK_VALUE(b.stride == 1, "a block with a low-resolution branch has stride 1, got ", b.stride);
      b.low = read_branch(row + 6, b.in, b.joined ? 0 : b.out, joined, cursor);
    }
    TORCH_CHECK_VALUE(!b.joined || b.elastic(), "a block of one resolution has no branches that join");
    b.projection = flag(row[9], "projection");
    TORCH_CHECK_VALUE(row[10] >= 0 && row[10] <= kMost, "a plan's hidden channels must not be negative, got ", row[10]);
    b.hidden = int(row[10]);
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
