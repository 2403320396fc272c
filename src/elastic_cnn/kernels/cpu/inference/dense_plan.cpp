// Reading and checking a trunk's plan: what passes here can be computed without leaving a buffer.
#include "inference/dense_plan.h"

#include <algorithm>

namespace elastic {

namespace {

class Reader {
 public:
  DensePlan read(const std::vector<int64_t>& numbers) {
    TORCH_CHECK_VALUE(!numbers.empty() && numbers.size() % kDenseFields == 0, "a dense plan holds ", kDenseFields,
                      " numbers a row, got ", numbers.size());
    TORCH_CHECK_VALUE(numbers[0] == kInputRow, "a dense plan begins with its input");
    open(plan_number(numbers[1], 1, "a dense plan's input channels"));
    for (size_t i = kDenseFields; i < numbers.size(); i += kDenseFields) {
      const int64_t* row = numbers.data() + i;
      TORCH_CHECK_VALUE(!plan_.stages.back().normed, "a dense plan's last norm ends it");
      if (row[0] == kLayerRow)
        layer(row);
      else if (row[0] == kTransitionRow)
        transition(row);
      else if (row[0] == kNormRow)
        last_norm();
      else
        TORCH_CHECK_VALUE(false, "a dense plan's row is a layer, a transition or the last norm, got ", row[0]);
    }
    plan_.weights = cursor_.total();
    return std::move(plan_);
  }

 private:
  void open(int channels) {
    DenseStage stage{};
    stage.in = stage.channels = channels;
    plan_.stages.push_back(stage);
  }
  NormedStep norm() {
    NormedStep step{};
    step.in = plan_.stages.back().channels;
    TORCH_CHECK_VALUE(step.in % kPack == 0, "a dense plan for bfloat16 has even numbers of channels, got ", step.in);
    step.scale = cursor_.take(step.in);
    step.shift = cursor_.take(step.in);
    return step;
  }
  DenseBranch branch(int inner, int in, int growth) {
    DenseBranch b{};
    b.inner = inner;
    if (!inner) return b;
    b.w1 = cursor_.take(round_up(inner, kPanel) * words(in));
    b.b1 = cursor_.take(round_up(inner, kPanel));
    b.w2 = cursor_.take(round_up(growth, kPanel) * 9 * words(inner));
    return b;
  }
  void layer(const int64_t* row) {
    DenseLayer l{};
    static_cast<NormedStep&>(l) = norm();
    l.growth = plan_number(row[1], 1, "a dense plan's new channels");
    l.high = branch(plan_number(row[2], 1, "a dense plan's inner channels"), l.in, l.growth);
    l.low = branch(plan_number(row[3], 0, "a dense plan's low inner channels"), l.in, l.growth);
    l.bias = cursor_.take(round_up(l.growth, kPanel));
    DenseStage& stage = plan_.stages.back();
    stage.channels = plan_number(int64_t(stage.channels) + l.growth, 1, "a dense plan's channels");
    stage.layers.push_back(l);
  }
  void transition(const int64_t* row) {
    DenseTransition t{};
    static_cast<NormedStep&>(t) = norm();
    t.out = plan_number(row[1], 1, "a dense plan's transition");
    t.weights = cursor_.take(round_up(t.out, kPanel) * words(t.in));
    t.bias = cursor_.take(round_up(t.out, kPanel));
    plan_.stages.back().transition = t;
    open(t.out);
  }
  void last_norm() {
    DenseStage& stage = plan_.stages.back();
    static_cast<NormedStep&>(stage.transition) = norm();
    stage.normed = true;
  }

  DensePlan plan_;
  WeightCursor cursor_;
};

}  // namespace

bool DenseStage::elastic() const {
  return std::any_of(layers.begin(), layers.end(), [](const DenseLayer& l) { return l.elastic(); });
}

int DenseStage::widest(bool low) const {
  int most = 0;
  for (const DenseLayer& l : layers) most = std::max(most, (low ? l.low : l.high).inner);
  return most;
}

int64_t DenseStage::pixel() const {
  int64_t end = round_up(in, kPanel);
  for (const DenseLayer& l : layers) end = std::max(end, l.in + round_up(l.growth, kPanel));
  return pixel_of(end);
}

int64_t DenseStage::growth_pixel() const {
  int most = 0;
  for (const DenseLayer& l : layers) most = std::max(most, l.growth);
  return pixel_of(most);
}

DensePlan read_dense_plan(const std::vector<int64_t>& numbers) { return Reader().read(numbers); }

}  // namespace elastic
