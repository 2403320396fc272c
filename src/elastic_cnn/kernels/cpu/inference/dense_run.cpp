// A DenseNet's trunk as the threads run it.
//
// The map. All features of a dense block lie in one map that is as wide as its last layer leaves it; a layer writes its
// new channels behind those that it read. Nothing is concatenated.
//
// A layer, in two steps with a barrier between.
//   1. A chunk of rows goes through norm and ReLU into a thread's own memory, for an elastic layer together with its
//      2x2 pooling, and from there through conv1 of both resolutions into maps with a border.
//   2. conv2 of the low resolution, then conv2 of the high one, whose tile adds the enlarged low map. A thread computes
//      the low rows that its own high rows mix, one or two of which its neighbour computes too, and waits for none.
// Layers take two pairs of bordered maps in turn, so that none writes what a slower thread still reads.
//
// Division. Threads take rows, and of the low resolution pixels, so that 7 x 7 of them divide evenly. Where rows
// divide worse than panels (7 x 7 at high resolution), conv1 divides its panels, so that each weight is read by one
// thread, and every thread takes the norm of all pixels itself.
#include "inference/dense_run.h"

#include <algorithm>
#include <cstring>

namespace elastic {

namespace {

int rows_in(int pixels, int width) { return std::max(1, pixels / width); }
Range both(Range a, Range b) { return {std::max(a.begin, b.begin), std::min(a.end, b.end)}; }
bool empty(Range r) { return r.begin >= r.end; }

}  // namespace

// A stage of one image, as one worker sees it.
class DenseRun {
 public:
  DenseRun(const DenseRunner& runner, size_t stage, const DenseWorker& me, double* seconds)
      : r_(runner),
        k_(runner.kernels_),
        stage_(runner.plan_.stages[stage]),
        size_(runner.layout_.sizes[stage]),
        me_(me),
        wide_(me.shared + runner.layout_.wide[stage % 2]),
        next_(me.shared + runner.layout_.wide[1 - stage % 2]),
        seconds_(seconds),
        since_(seconds ? now() : 0) {
    by_panels_ = me.worker.count > 1 && evenness(panels_of(stage_.widest(false)), me.worker.count) >
                                            evenness(size_.height, me.worker.count) + 0.02;
    rows_ = range_of(size_.height, me.worker);
    low_pixels_ = range_of(size_.low_height * size_.low_width, me.worker);
    meets_ = by_panels_;
    for (int m = 1; m < me.worker.count && stage_.elastic(); m++) {
      const Worker other{m, me.worker.count, me.worker.barrier};
      const int row = range_of(size_.height, other).begin;
      const int pixel = range_of(size_.low_height * size_.low_width, other).begin;
      meets_ = meets_ || row % 2 || row / 2 * size_.low_width != pixel;  // a window's rows are two threads'
    }
  }

  void layers() {
    int turn = 0;
    for (const DenseLayer& layer : stage_.layers) {
      next_row();
      high_map_ = me_.shared + size_.high_maps[turn];
      low_map_ = me_.shared + size_.low_maps[turn];
      turn = 1 - turn;
      if (layer.elastic())
        first_step_elastic(layer);
      else
        first_step(layer);
      wait();
      if (!empty(rows_)) second_step(layer);
      if (meets_) wait();
    }
    if (!meets_) wait();
  }

  void copy_in(const Element* input) {
    const int64_t pixel = stage_.pixel();
    const Range part = range_of(size_.height * size_.width, me_.worker);
    for (int64_t p = part.begin; p < part.end; p++)
      std::memcpy(wide_ + p * pixel, input + p * stage_.in, stage_.in * sizeof(Element));
    mark(kDenseCopy);
    wait();
  }

  void copy_out(Element* output) {
    const Range part = range_of(size_.height * size_.width, me_.worker);
    const int64_t channels = stage_.channels;
    if (stage_.normed) next_row();
    if (!stage_.normed) {
      for (int64_t p = part.begin; p < part.end; p++)
        std::memcpy(output + p * channels, wide_ + p * stage_.pixel(), channels * sizeof(Element));
    } else {
      const int64_t pixel = pixel_of(stage_.channels);
      for (int64_t at = part.begin; at < part.end; at += kDenseChunk) {
        const int count = int(std::min<int64_t>(kDenseChunk, part.end - at));
        normalize(stage_.transition, at, count);
        for (int64_t p = 0; p < count; p++)
          std::memcpy(output + (at + p) * channels, normed() + p * pixel, channels * sizeof(Element));
      }
    }
    mark(kDenseCopy);
    wait();
  }

  // Pools first, then convolves a quarter of the pixels: both are linear, and nothing stands between them.
  void transition() {
    next_row();
    const DenseTransition& t = stage_.transition;
    const int height = size_.height / 2, width = size_.width / 2;
    const Range mine = range_of(height * width, me_.worker);
    for (int at = mine.begin; at < mine.end; at += kDenseChunk) {
      const Range part{at, std::min(mine.end, at + kDenseChunk)};
      for (int row = part.begin / width; row * width < part.end; row++) {
        const Range columns = both({part.begin - row * width, part.end - row * width}, {0, width});
        NormalizePool p = window_rows(t, row);
        p.first = columns.begin;
        p.last = columns.end;
        p.pooled = pooled() + int64_t(row * width + columns.begin - part.begin) * p.out_pixel;
        k_.normalize_pool(p);
      }
      mark(kDenseNorm);
      const int64_t pixel = r_.plan_.stages[&stage_ - r_.plan_.stages.data() + 1].pixel();
      Convolution p = pointwise(t, t.weights, t.bias, next_, pixel, width * pixel, width);
      low_part(p, part, {0, panels_of(t.out)});
      mark(kDenseConv1);
    }
    wait();
  }

  double* seconds() const { return seconds_; }  // of the row that was computed last

 private:
  void first_step(const DenseLayer& l) {
    const Range rows = by_panels_ ? Range{0, size_.height} : rows_;
    const int each = rows_in(kDenseChunk, size_.width);
    for (int at = rows.begin; at < rows.end; at += each) {
      const Range part{at, std::min(rows.end, at + each)};
      normalize(l, int64_t(at) * size_.width, (part.end - at) * size_.width);
      mark(kDenseNorm);
      conv1(l, part);
    }
  }

  void first_step_elastic(const DenseLayer& l) {
    const int width = size_.low_width;
    const Range rows = by_panels_ ? Range{0, size_.height} : rows_;
    const Range pixels = by_panels_ ? Range{0, size_.low_height * width} : low_pixels_;
    int first = pixels.begin / width, last = (pixels.end + width - 1) / width;
    if (!empty(rows)) first = std::min(first, rows.begin / 2), last = std::max(last, half(rows.end));
    const int each = rows_in(kDenseChunk, 2 * size_.width);
    for (int at = first; at < last; at += each) {
      const int end = std::min(last, at + each);
      const Range high = both(rows, {2 * at, 2 * end}), low = both(pixels, {at * width, end * width});
      for (int row = at; row < end; row++) normalize_pool(l, row, high, low);
      mark(kDenseNorm);
      if (!empty(high)) conv1(l, high);
      if (!empty(low)) conv1_low(l, low);
    }
  }

  // The windows of a low row: the high rows of `high` to `normed`, the pixels of `low` to `pooled`.
  void normalize_pool(const DenseLayer& l, int row, Range high, Range low) {
    const int width = size_.low_width;
    NormalizePool p = window_rows(l, row);
    for (int i = 0; i < 2; i++)
      if (2 * row + i >= high.begin && 2 * row + i < high.end)
        p.outputs[i] = normed() + int64_t(2 * row + i - high.begin) * size_.width * p.out_pixel;
    const bool kept = p.outputs[0] || p.outputs[1];
    Range columns = both({low.begin - row * width, low.end - row * width}, {0, width});
    if (empty(columns)) columns = {0, 0};
    auto run = [&](int begin, int end, Element* to) {
      p.first = begin;
      p.last = end;
      p.pooled = to;
      if (begin < end && (kept || to)) k_.normalize_pool(p);
    };
    run(0, columns.begin, nullptr);
    run(columns.begin, columns.end, pooled() + int64_t(row * width + columns.begin - low.begin) * p.out_pixel);
    run(columns.end, width, nullptr);
  }

  NormalizePool window_rows(const NormedStep& step, int row) const {
    NormalizePool p{};
    const int64_t line = size_.width * stage_.pixel();
    p.rows[0] = wide_ + 2 * row * line;
    p.rows[1] = 2 * row + 1 < size_.height ? p.rows[0] + line : p.rows[0];
    p.in_pixel = stage_.pixel();
    p.scale = weights(step.scale);
    p.shift = weights(step.shift);
    p.out_pixel = pixel_of(step.in);
    p.width = size_.width;
    p.vectors = step.vectors();
    return p;
  }

  void normalize(const NormedStep& step, int64_t at, int count) {
    k_.normalize({wide_ + at * stage_.pixel(), stage_.pixel(), weights(step.scale), weights(step.shift), normed(),
                  pixel_of(step.in), count, step.vectors()});
  }

  void conv1(const DenseLayer& l, Range rows) {
    const int64_t row = (size_.width + 2) * size_.high_pixel;
    Convolution p = pointwise(l, l.high.w1, l.high.b1, high_map_ + (rows.begin + 1) * row + size_.high_pixel,
                              size_.high_pixel, row, size_.width);
    p.input = normed();
    p.height = rows.end - rows.begin;
    p.chunk = p.height * p.width;
    p.relu = true;
    const Range panels = panels_of_mine(l.high);
    k_.convolution(p, {0, p.height, panels.begin, panels.end});
    mark(kDenseConv1);
  }

  void conv1_low(const DenseLayer& l, Range pixels) {
    const int64_t row = (size_.low_width + 2) * size_.low_pixel;
    Convolution p =
        pointwise(l, l.low.w1, l.low.b1, low_map_ + row + size_.low_pixel, size_.low_pixel, row, size_.low_width);
    p.relu = true;
    low_part(p, pixels, panels_of_mine(l.low));
    mark(kDenseConv1Low);
  }

  // These pixels of a product whose input is what `pooled` holds of them.
  void low_part(Convolution& p, Range pixels, Range panels) {
    const int first = pixels.begin / p.width, last = (pixels.end + p.width - 1) / p.width;
    const int skip = pixels.begin - first * p.width, drop = last * p.width - pixels.end;
    p.input = pooled() - skip * p.in_pixel;
    p.output += first * p.out_row;
    p.height = last - first;
    p.chunk = p.height * p.width;
    k_.convolution(p, {0, p.height, panels.begin, panels.end, skip, drop});
  }

  Convolution pointwise(const NormedStep& step, int64_t w, int64_t b, Element* output, int64_t out_pixel,
                        int64_t out_row, int width) const {
    Convolution p = product(nullptr, pixel_of(step.in), step.in, weights(w), weights(b), output, out_pixel, 0, width);
    p.out_row = out_row;
    return p;
  }

  void second_step(const DenseLayer& l) {
    Convolution p = conv2(l.high, high_map_, size_.high_pixel, size_.height, size_.width);
    if (l.elastic()) {
      Convolution low = conv2(l.low, low_map_, size_.low_pixel, size_.low_height, size_.low_width);
      low.output = me_.own + r_.layout_.low_out;
      low.out_pixel = pixel_of(l.growth);
      low.out_row = low.width * low.out_pixel;
      const int last = rows_.end - 1;  // row 2i mixes low rows i and i-1, row 2i+1 rows i and i+1
      const Range rows = both({half(rows_.begin) - 1, half(last) + 1}, {0, low.height});
      k_.convolution(low, {rows.begin, rows.end, 0, l.panels()});
      mark(kDenseConv2Low);
      p.low = low.output;
      p.low_pixel = low.out_pixel;
      p.low_height = low.height;
      p.low_width = low.width;
    }
    p.bias = weights(l.bias);
    p.output = wide_ + l.in;
    p.out_pixel = stage_.pixel();
    p.out_row = p.width * p.out_pixel;
    k_.convolution(p, {rows_.begin, rows_.end, 0, l.panels()});
    mark(kDenseConv2);
  }

  Convolution conv2(const DenseBranch& branch, const Element* map, int64_t pixel, int height, int width) const {
    Convolution p = product(map, pixel, branch.inner, weights(branch.w2), nullptr, nullptr, 0, height, width);
    widen(p, width, 1);
    p.chunk = height * width;
    return p;
  }

  Range panels_of_mine(const DenseBranch& branch) const {
    return by_panels_ ? range_of(branch.panels(), me_.worker) : Range{0, branch.panels()};
  }
  Element* normed() const { return me_.own + r_.layout_.normed; }
  Element* pooled() const { return me_.own + r_.layout_.pooled; }
  const float* weights(int64_t offset) const { return r_.weights_ + offset; }
  void wait() {
    me_.worker.wait();
    mark(kDenseWait);
  }
  void next_row() {
    if (seconds_) seconds_ += kDenseSteps;
  }
  void mark(DenseStep step) {
    if (!seconds_) return;
    const double time = now();
    seconds_[step] += time - since_;
    since_ = time;
  }

  const DenseRunner& r_;
  const InferenceKernels& k_;
  const DenseStage& stage_;
  const DenseLayout::Size& size_;
  const DenseWorker& me_;
  Element *wide_, *next_, *high_map_ = nullptr, *low_map_ = nullptr;
  bool by_panels_, meets_;
  Range rows_, low_pixels_;
  double* seconds_;
  double since_;
};

void DenseRunner::image(const Element* input, Element* output, const DenseWorker& me) const {
  double* seconds = me.worker.index == 0 ? me.seconds : nullptr;
  for (size_t i = 0; i < plan_.stages.size(); i++) {
    DenseRun run(*this, i, me, seconds);
    if (i == 0) run.copy_in(input);
    run.layers();
    if (i + 1 < plan_.stages.size())
      run.transition();
    else
      run.copy_out(output);
    seconds = run.seconds();
  }
}

}  // namespace elastic
