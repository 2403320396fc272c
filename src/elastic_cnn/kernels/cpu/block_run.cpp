// A residual block as the threads run it.
//
//   high:  conv1 -> grouped 3x3 -> conv3, whose tile also adds bias, the upsampled low map and the shortcut, and takes
//          the ReLU, so that the wide map is written once and read once (as the shortcut, which it may overwrite)
//   low:   pool -> conv1 -> grouped 3x3 -> conv3, at half the height and width
//
// Division. Threads take rows where there are enough of them: a chunk of rows goes through all convolutions while it
// lies in a thread's cache. On small maps, where weights are many and rows few, threads take channels, so that each
// weight is read by one thread. `by_rows` compares how evenly the work can be divided either way.
#include <algorithm>
#include <chrono>

#include "runner.h"

namespace elastic {

namespace {

double evenness(int units, int members) {
  const int most = (units + members - 1) / members;
  return double(units) / (double(most) * members);
}

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Weight of each low row in the mean of the upsampled, cropped map: 3/4 from the row above it, 1/4 from a neighbour's.
void enlarged_weights(float* weight, int low, int high) {
  std::fill(weight, weight + low, 0.f);
  for (int r = 0; r < high; r++) {
    const int near = r / 2, far = std::clamp(r % 2 ? near + 1 : near - 1, 0, low - 1);
    weight[near] += 0.75f / float(high);
    weight[far] += 0.25f / float(high);
  }
}

}  // namespace

bool divides_by_rows(int rows, int panels, int members) {
  return members == 1 || evenness(rows, members) >= evenness(panels, members) - 0.02;
}

// One block of one image, as one member of the team sees it.
class BlockRun {
 public:
  BlockRun(const Runner& runner, size_t index, const BlockMaps& maps, int member, int members, Barrier& barrier)
      : r_(runner),
        k_(runner.kernels_),
        b_(runner.plan_.blocks[index]),
        size_(runner.layout_.sizes[index]),
        m_(maps),
        member_(member),
        members_(members),
        barrier_(barrier),
        seconds_(member == 0 && runner.seconds_ ? runner.seconds_ + index * kSteps : nullptr),
        since_(seconds_ ? now() : 0) {}

  void run() {
    if (by_rows())
      rows();
    else
      channels();
    wait();
  }

 private:
  bool by_rows() const {
    if (m_.images > 1) return false;
    const int rows = b_.elastic() ? size_.low_height : size_.out_height;
    const int panels = std::min(b_.high.panels(), b_.elastic() ? b_.low.panels() : b_.high.panels());
    return divides_by_rows(rows, panels, members_);
  }

  // Before anything else conv1 computes a thread's outermost rows, which its neighbours' 3x3 read; behind the barrier
  // a chunk of rows then goes through conv1, 3x3 and conv3 in one go, and lies in the thread's cache all the while.
  void rows() {
    const bool elastic = b_.elastic();
    const Range low = range_of(size_.low_height, member_, members_);
    const Range out = elastic ? Range{2 * low.begin, std::min(2 * low.end, size_.height)}
                              : range_of(size_.out_height, member_, members_);
    const Range in{b_.stride * out.begin, std::min(b_.stride * out.end, size_.height)};
    const int head = std::min(in.end, in.begin + (member_ > 0 ? 1 : 0));
    const int foot = std::max(head, in.end - (member_ + 1 < members_ ? 1 : 0));
    conv1(false, {in.begin, head}, all_panels(b_.high));
    conv1(false, {foot, in.end}, all_panels(b_.high));
    if (elastic) {
      const int each = std::max(1, rows_in(kChunk, size_.low_width));
      for (int at = low.begin; at < low.end; at += each) {
        const Range part{at, std::min(low.end, at + each)};
        pool(part, {0, b_.in_vectors()});
        conv1(true, part, all_panels(b_.low));
      }
    }
    wait();
    if (elastic) {
      conv2(true, low, all_vectors(b_.low));
      conv3_low(low, {0, b_.out_panels()});
      wait();
    }
    const int each = rows_in(kChunk, size_.out_width);
    int done = head;
    for (int at = out.begin; at < out.end; at += each) {
      const Range part{at, std::min(out.end, at + each)};
      const int needed = std::max(done, std::min(foot, b_.stride * (part.end - 1) + 2));
      conv1(false, {done, needed}, all_panels(b_.high));
      done = needed;
      conv2(false, part, all_vectors(b_.high));
      if (!b_.hidden) finish_rows(part);
    }
    if (!b_.hidden) return;
    wait();
    gate();
    for (int at = out.begin; at < out.end; at += each) finish_rows({at, std::min(out.end, at + each)});
  }

  void finish_rows(Range part) {
    shortcut(part, {0, b_.out_panels()});
    conv3(part, {0, b_.out_panels()});
  }

  void channels() {
    const Range out{0, m_.images * size_.out_height}, low{0, m_.images * size_.low_height};
    const Range out_part = range_of(b_.out_panels(), member_, members_);
    if (b_.elastic()) pool(low, range_of(b_.in_vectors(), member_, members_));
    conv1(false, {0, m_.images * size_.height}, range_of(b_.high.panels(), member_, members_));
    wait();
    if (b_.elastic()) conv1(true, low, range_of(b_.low.panels(), member_, members_));
    conv2(false, out, vectors_of(b_.high));
    if (b_.elastic()) {
      wait();
      conv2(true, low, vectors_of(b_.low));
    }
    shortcut(out, out_part);
    wait();
    if (b_.elastic()) conv3_low(low, out_part);
    if (b_.hidden) gate();
    conv3(out, out_part);
  }

  // -- the steps, each on a range of rows and a range of panels (or vectors) of channels

  void conv1(bool low, Range rows, Range panels) {
    const BranchPlan& branch = low ? b_.low : b_.high;
    Product p{};
    p.input = low ? at(r_.layout_.pooled) : m_.input;
    p.in_pixel = low ? b_.in_pixel() : m_.in_pixel;
    p.height = low ? size_.low_height : size_.height;
    p.width = low ? size_.low_width : size_.width;
    p.in_row = p.width * p.in_pixel;
    p.taps = p.tap_columns = 1;
    p.groups = 1;
    p.group_width = b_.in;
    p.weights = weights(branch.w1);
    p.bias = weights(branch.b1);
    p.out_pixel = branch.pixel();
    p.out_row = (p.width + 2) * p.out_pixel;
    p.output = at(padded(low)) + p.out_row + p.out_pixel;
    p.relu = true;
    stack(p, p.height * p.in_row, (p.height + 2) * p.out_row);
    finish(p, rows, panels, low ? kConv1Low : kConv1);
  }

  void pool(Range rows, Range vectors) {
    Pool p{m_.input, m_.in_pixel, size_.height, size_.width, at(r_.layout_.pooled), b_.in_pixel()};
    for_images(rows, size_.low_height, [&](Range part) {
      k_.pool(p, {part.begin, part.end, vectors.begin, vectors.end});
      p.input += int64_t(size_.height) * size_.width * p.pixel;
      p.output += int64_t(size_.low_height) * size_.low_width * p.out_pixel;
    });
    mark(kPool);
  }

  void conv2(bool low, Range rows, Range vectors) {
    const BranchPlan& branch = low ? b_.low : b_.high;
    const int width = low ? size_.low_width : size_.width, height = low ? size_.low_height : size_.height;
    const int64_t pixel = branch.pixel(), row = (width + 2) * pixel;
    float* output = at(low ? r_.layout_.low_inner : r_.layout_.inner);
    const int out_width = low ? size_.low_width : size_.out_width, out_height = low ? size_.low_height : size_.out_height;
    if (branch.lanes) {
      Grouped p{at(padded(low)), pixel, row, b_.stride, branch.group_width, weights(branch.w2),
                weights(branch.b2), output, pixel, out_width};
      for_images(rows, out_height, [&](Range part) {
        k_.grouped(p, {part.begin, part.end, vectors.begin, vectors.end});
        p.input += (height + 2) * row;
        p.output += int64_t(out_height) * out_width * pixel;
      });
      mark(low ? kConv2Low : kConv2);
      return;
    }
    Product p{};
    p.input = at(padded(low));
    p.in_pixel = b_.stride * pixel;
    p.in_row = b_.stride * row;
    p.taps = 9;
    p.tap_columns = 3;
    p.tap_pixel = pixel;
    p.tap_row = row;
    p.groups = branch.groups;
    p.group_width = branch.group_width;
    p.weights = weights(branch.w2);
    p.bias = weights(branch.b2);
    p.output = output;
    p.out_pixel = pixel;
    p.out_row = out_width * pixel;
    p.height = out_height;
    p.width = out_width;
    p.relu = true;
    stack(p, (height + 2) * row, p.height * p.out_row);
    finish(p, rows, {vectors.begin / 2, vectors.end / 2}, low ? kConv2Low : kConv2);
  }

  void conv3_low(Range rows, Range panels) {
    Product p = from_inner(b_.low, at(r_.layout_.low_inner), size_.low_height, size_.low_width);
    p.output = at(r_.layout_.low_out);
    stack(p, p.height * p.in_row, p.height * p.out_row);
    finish(p, rows, panels, kConv3Low);
  }

  void shortcut(Range rows, Range panels) {
    if (!b_.projection) return;
    Product p{};
    p.input = m_.projected;
    p.in_pixel = m_.projected_pixel;
    p.in_row = m_.projected_row;
    p.taps = p.tap_columns = 1;
    p.groups = 1;
    p.group_width = b_.in;
    p.weights = weights(b_.wp);
    p.bias = weights(b_.bp);
    p.output = m_.output;
    p.out_pixel = m_.out_pixel;
    p.height = size_.out_height;
    p.width = size_.out_width;
    p.out_row = p.width * p.out_pixel;
    stack(p, m_.projected_image, p.height * p.out_row);
    finish(p, rows, panels, kShortcut);
  }

  void conv3(Range rows, Range panels) {
    Product p = from_inner(b_.high, at(r_.layout_.inner), size_.out_height, size_.out_width);
    p.output = m_.output;
    p.out_pixel = m_.out_pixel;
    p.out_row = p.width * p.out_pixel;
    p.bias = weights(b_.b3);
    p.shortcut = b_.projection ? m_.output : m_.shortcut;
    p.shortcut_pixel = b_.projection ? m_.out_pixel : m_.shortcut_pixel;
    p.scale = b_.hidden ? at(r_.layout_.gate) : nullptr;
    p.relu = true;
    if (b_.elastic()) {
      p.low = at(r_.layout_.low_out);
      p.low_pixel = b_.out_pixel();
      p.low_height = size_.low_height;
      p.low_width = size_.low_width;
    }
    stack(p, p.height * p.in_row, p.height * p.out_row);
    finish(p, rows, panels, kConv3);
  }

  // The gate from the narrow maps; `inner` and `low_inner` are complete, and a barrier lies behind them.
  void gate() {
    const Layout& l = r_.layout_;
    float *rows = at(l.row_weights), *columns = at(l.column_weights);
    if (member_ == 0) {
      std::fill(rows, rows + size_.out_height, 1.f / float(size_.out_height));
      std::fill(columns, columns + size_.out_width, 1.f / float(size_.out_width));
      enlarged_weights(rows + size_.out_height, size_.low_height, size_.out_height);
      enlarged_weights(columns + size_.out_width, size_.low_width, size_.out_width);
    }
    barrier_.wait();
    const Mean high{at(l.inner), b_.high.pixel(), size_.out_height, size_.out_width, rows, columns, at(l.mean_high)};
    const Range part = range_of(2 * b_.high.panels(), member_, members_);
    k_.mean(high, part.begin, part.end);
    if (b_.elastic()) {
      const Mean low{at(l.low_inner),          b_.low.pixel(),           size_.low_height,  size_.low_width,
                     rows + size_.out_height, columns + size_.out_width, at(l.mean_low)};
      const Range low_part = range_of(2 * b_.low.panels(), member_, members_);
      k_.mean(low, low_part.begin, low_part.end);
    }
    barrier_.wait();
    const int hidden = int(b_.hidden_wide());
    const Range h = range_of(hidden / kGap, member_, members_);
    using A = Activation;
    const A first = b_.elastic() ? A::kNone : A::kRelu;
    k_.dense({at(l.mean_high), weights(b_.gate_high), weights(b_.gate_b1), at(l.hidden), b_.high.inner, hidden, first},
             h.begin, h.end);
    if (b_.elastic())
      k_.dense({at(l.mean_low), weights(b_.gate_low), at(l.hidden), at(l.hidden), b_.low.inner, hidden, A::kRelu},
               h.begin, h.end);
    barrier_.wait();
    const Range o = range_of(2 * b_.out_panels(), member_, members_);
    k_.dense({at(l.hidden), weights(b_.gate_w2), weights(b_.gate_b2), at(l.gate), hidden, b_.out_panels() * kPanel,
              A::kSigmoid},
             o.begin, o.end);
    barrier_.wait();
    mark(kGate);
  }

  Product from_inner(const BranchPlan& branch, const float* input, int height, int width) const {
    Product p{};
    p.input = input;
    p.in_pixel = branch.pixel();
    p.in_row = width * branch.pixel();
    p.taps = p.tap_columns = 1;
    p.groups = 1;
    p.group_width = branch.inner;
    p.weights = weights(branch.w3);
    p.out_pixel = b_.out_pixel();
    p.out_row = width * b_.out_pixel();
    p.height = height;
    p.width = width;
    return p;
  }

  // Lets a product run over all images of the stack, so far apart.
  void stack(Product& p, int64_t in_image, int64_t out_image) const {
    if (m_.images == 1) return;
    p.image_height = p.height;
    p.in_image = in_image;
    p.out_image = out_image;
    p.height *= m_.images;
  }

  // body(rows of an image) for each image of the stack; `rows` are all rows of all of them, or some of the only one.
  template <class Body>
  void for_images(Range rows, int height, const Body& body) const {
    if (m_.images == 1) return body(rows);
    for (int image = 0; image < m_.images; image++) body({0, height});
  }

  void finish(Product& p, Range rows, Range panels, Step step) {
    const bool whole = rows.end - rows.begin == p.height && (members_ > 1 || m_.images > 1);
    p.chunk = whole ? p.height * p.width : kChunk;
    k_.product(p, {rows.begin, rows.end, panels.begin, panels.end});
    mark(step);
  }

  static int rows_in(int pixels, int width) { return std::max(1, pixels / width); }
  static Range all_panels(const BranchPlan& branch) { return {0, branch.panels()}; }
  static Range all_vectors(const BranchPlan& branch) { return {0, branch.vectors()}; }
  Range vectors_of(const BranchPlan& branch) const {
    const Range panels = range_of(branch.panels(), member_, members_);
    return {2 * panels.begin, std::min(2 * panels.end, branch.vectors())};
  }
  int64_t padded(bool low) const {
    if (low) return r_.layout_.padded.at({size_.low_height, size_.low_width, b_.low.panels(), true});
    return r_.layout_.padded.at({size_.height, size_.width, b_.high.panels(), false});
  }
  float* at(int64_t offset) const { return r_.scratch_ + offset; }
  const float* weights(int64_t offset) const { return r_.weights_ + offset; }
  void wait() {
    barrier_.wait();
    mark(kWait);
  }
  void mark(Step step) {
    if (!seconds_) return;
    const double time = now();
    seconds_[step] += time - since_;
    since_ = time;
  }

  static constexpr int kChunk = 112;  // pixels: with 256 channels, 112 KB of the second-level cache
  const Runner& r_;
  const Kernels& k_;
  const BlockPlan& b_;
  const Layout::Size& size_;
  const BlockMaps m_;
  const int member_, members_;
  Barrier& barrier_;
  double* seconds_;
  double since_;
};

void Runner::block(size_t index, const BlockMaps& maps, int member, int members, Barrier& barrier) const {
  BlockRun(*this, index, maps, member, members, barrier).run();
}

}  // namespace elastic
