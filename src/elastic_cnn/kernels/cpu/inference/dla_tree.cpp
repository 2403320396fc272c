// DLA's smallest tree as one call: two residual blocks and the root that joins what they yield.
//
//   x1  = block1(x), with `bottom` as its shortcut, or as what its projection reads
//   x2  = block2(x1)
//   out = relu(root [x2, x1, children...])         (+ x2 before the ReLU where the root has a shortcut)
//
// Both blocks write into slices of one wide map, and the children are copied behind them, each slice a whole number of
// panels; so the root's 1x1 convolution reads them as they lie, and nothing is concatenated.
#include <ATen/Parallel.h>

#include <algorithm>
#include <vector>

#include "common/operators.h"
#include "common/scratch.h"
#include "inference/residual_run.h"

namespace elastic {

namespace {

using at::Tensor;

struct TreePlan {
  Plan blocks;
  bool root_shortcut;
  std::vector<int> children;    // their channels
  std::vector<int64_t> slices;  // where they begin in the wide map
  int64_t depth;                // channels of the wide map, the surplus of its slices included
  int64_t root, root_bias;      // in the packed weights
  int64_t weights;
  int out() const { return blocks.blocks.back().out; }
  int64_t out_slice() const { return round_up(out(), kPanel); }
  int64_t pixel() const { return depth + kGap; }
};

// Numbers of two blocks (plan.h), whether the root has a shortcut, the channels of each child.
TreePlan read_tree(const std::vector<int64_t>& numbers) {
  constexpr size_t own = 2 * kPlanFields;
  TORCH_CHECK_VALUE(numbers.size() > own, "a tree's plan holds more than ", own, " numbers, got ", numbers.size());
  TreePlan plan{read_plan({numbers.begin(), numbers.begin() + own})};
  TORCH_CHECK_VALUE(plan.blocks.blocks[1].stride == 1, "the second block of a tree has stride 1");
  TORCH_CHECK_VALUE(plan.blocks.blocks[0].out == plan.out(), "both blocks of a tree yield as many channels");
  plan.root_shortcut = numbers[own] != 0;
  plan.depth = 2 * plan.out_slice();
  for (size_t i = own + 1; i < numbers.size(); i++) {
    plan.children.push_back(plan_number(numbers[i], 1, "the channels of a tree's child"));
    plan.slices.push_back(plan.depth);
    plan.depth += round_up(numbers[i], kPanel);
  }
  TORCH_CHECK_VALUE(plan.depth <= (1 << 20), "a tree's root reads at most 2^20 channels, got ", plan.depth);
  WeightCursor cursor(plan.blocks.weights);
  plan.root = cursor.take(plan.out_slice() * words(plan.depth));
  plan.root_bias = cursor.take(plan.out_slice());
  plan.weights = cursor.total();
  return plan;
}

// One image as one worker sees it.
struct TreeRun {
  const TreePlan& plan;
  const InferenceKernels& kernels;
  const Layout& layout;
  const Runner& runner;
  const float* weights;
  Element *wide, *copy;  // (height', width', depth), and the input with its pixels apart
  Element* bottom_copy;  // the same of `bottom`; null where its channels are whole panels and it is read as it lies
  Worker worker;

  const Layout::Size& size() const { return layout.sizes.back(); }
  int64_t out_pixels() const { return int64_t(size().out_height) * size().out_width; }

  void image(const Element* x, const Element* bottom, const std::vector<const Element*>& children,
             Element* output) const {
    const BlockPlan& first = plan.blocks.blocks[0];
    const int64_t pixels = layout.in_pixels();
    copy_pixels(x, first.in, first.in, copy, first.in_pixel(), pixels, worker);
    for (size_t i = 0; i < children.size(); i++)
      copy_pixels(children[i], plan.children[i], plan.children[i], wide + plan.slices[i], plan.pixel(), out_pixels(),
                  worker);
    if (bottom_copy) copy_pixels(bottom, first.in, first.in, bottom_copy, first.in_pixel(), out_pixels(), worker);
    worker.wait();
    const int64_t bottom_pixel = bottom_copy ? first.in_pixel() : first.in;
    if (bottom_copy) bottom = bottom_copy;
    Element *x2 = wide, *x1 = wide + plan.out_slice();
    auto maps = [&](const Element* input, int64_t in_pixel, Element* to, const Element* shortcut, int64_t pixel) {
      return BlockMaps{.images = 1,
                       .input = input,
                       .in_pixel = in_pixel,
                       .output = to,
                       .out_pixel = plan.pixel(),
                       .shortcut = shortcut,
                       .shortcut_pixel = pixel,
                       .projected = shortcut,
                       .projected_pixel = pixel,
                       .projected_row = size().out_width * pixel,
                       .projected_image = 0};
    };
    runner.block(0, maps(copy, first.in_pixel(), x1, bottom, bottom_pixel), worker);
    runner.block(1, maps(x1, plan.pixel(), x2, x1, plan.pixel()), worker);
    root(output);
    worker.wait();
  }

  void root(Element* output) const {
    const bool direct = plan.out() % kPanel == 0;
    Element* to = direct ? output : copy;
    Convolution p = product(wide, plan.pixel(), int(plan.depth), weights + plan.root, weights + plan.root_bias, to,
                            direct ? plan.out() : plan.out_slice(), size().out_height, size().out_width);
    p.shortcut = plan.root_shortcut ? wide : nullptr;
    p.shortcut_pixel = plan.pixel();
    p.relu = true;
    const int panels = panels_of(plan.out());
    if (divides_by_rows(p.height, panels, worker.count)) {
      const Range rows = range_of(p.height, worker);
      p.chunk = int(std::clamp<int64_t>(kCached / plan.depth, 28, 112));
      kernels.convolution(p, {rows.begin, rows.end, 0, panels});
    } else {
      const Range part = range_of(panels, worker);
      p.chunk = p.height * p.width;
      kernels.convolution(p, {0, p.height, part.begin, part.end});
    }
    if (direct) return;
    worker.wait();
    copy_pixels(to, p.out_pixel, plan.out(), output, plan.out(), out_pixels(), worker);
  }

  static constexpr int64_t kCached = 112 * 1024;  // floats of a chunk's inputs that stay in the second-level cache
};

Tensor output_of(const Tensor& x, const Tensor& bottom, at::TensorList children, const Tensor& weights,
                 const TreePlan& plan) {
  const BlockPlan& first = plan.blocks.blocks[0];
  check_element_map(x, "x");
  check_channels(x, first.in, "the tree");
  check_weights(weights, x, plan.weights);
  TORCH_CHECK_VALUE(children.size() == plan.children.size(), "the tree takes ", plan.children.size(), " children, got ",
                    children.size());
  const c10::SymInt images = x.sym_size(0);
  const c10::SymInt height = strided(x.sym_size(2), first.stride), width = strided(x.sym_size(3), first.stride);
  check_like(bottom, x, "bottom");
  check_sizes(bottom, {images, c10::SymInt(first.in), height, width}, "bottom");
  for (size_t i = 0; i < children.size(); i++) {
    check_like(children[i], x, "a child");
    check_sizes(children[i], {images, c10::SymInt(plan.children[i]), height, width}, "a child");
  }
  return empty_map(x, {images, c10::SymInt(plan.out()), bottom.sym_size(2), bottom.sym_size(3)});
}

Tensor dla_tree_output(const Tensor& x, const Tensor& bottom, at::TensorList children, const Tensor& weights,
                       at::IntArrayRef numbers) {
  return output_of(x, bottom, children, weights, read_tree(numbers.vec()));
}

Tensor dla_tree(const Tensor& x, const Tensor& bottom, at::TensorList children, const Tensor& weights,
                at::IntArrayRef numbers) {
  const TreePlan plan = read_tree(numbers.vec());
  const InferenceKernels& kernels = inference_kernels();
  const Tensor output = output_of(x, bottom, children, weights, plan);
  const BlockPlan& first = plan.blocks.blocks[0];
  const auto format = at::MemoryFormat::ChannelsLast;
  const Layout layout(plan.blocks, 0, 2, int(x.size(2)), int(x.size(3)), 1);
  const Layout::Size& size = layout.sizes.back();
  const Tensor input = x.contiguous(format), bottoms = bottom.contiguous(format);
  std::vector<Tensor> kept;
  for (const Tensor& child : children) kept.push_back(child.contiguous(format));
  const int64_t pixels = int64_t(size.out_height) * size.out_width;
  const int64_t wide = round_up(pixels * plan.pixel(), 64),
                bottom_floats = first.in % kPanel ? pixels * first.in_pixel() : 0;
  const int threads = at::get_num_threads();
  const bool may_be_alone = threads > 1 && x.size(0) >= threads && !omp_in_parallel();
  const int64_t floats = layout.floats + wide + round_up(bottom_floats, 64);
  const Scratch scratch(words(floats) * (may_be_alone ? threads : 1));
  const float* packed = packed_weights(weights);
  const Element *from = elements(input), *from_bottom = elements(bottoms);
  Element* to = mutable_elements(output);
  parallel(threads, [&](const Worker& worker) {
    Barrier nobody;
    const Worker single{0, 1, nobody};
    Element* const memory[2] = {scratch.elements(), scratch.elements() + (may_be_alone ? worker.index * floats : 0)};
    const Runner shared(kernels, plan.blocks, layout, packed, memory[0], nullptr);
    const Runner own(kernels, plan.blocks, layout, packed, memory[1], nullptr);
    if (may_be_alone)
      own.clear_borders(single);
    else
      shared.clear_borders(worker);
    std::vector<const Element*> maps(kept.size());
    for_each_image(x.size(0), may_be_alone, worker, [&](int64_t image, bool alone) {
      Element* const wides = memory[alone] + layout.floats;
      const TreeRun run{plan,
                        kernels,
                        layout,
                        alone ? own : shared,
                        packed,
                        wides,
                        memory[alone] + layout.maps[0],
                        bottom_floats ? wides + wide : nullptr,
                        alone ? single : worker};
      for (size_t i = 0; i < kept.size(); i++) maps[i] = elements(kept[i]) + image * pixels * plan.children[i];
      run.image(from + image * layout.in_pixels() * first.in, from_bottom + image * pixels * first.in, maps,
                to + image * pixels * plan.out());
    });
  });
  return output;
}

}  // namespace

ELASTIC_OPERATOR("dla_tree", "(Tensor x, Tensor bottom, Tensor[] children, Tensor weights, int[] plan) -> Tensor",
                 dla_tree, dla_tree_output)

}  // namespace elastic
