// The steps of a residual block, see residual_block.h.
#include "inference/residual_block.h"

namespace elastic {

namespace {

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

void BlockRun::conv1(bool low, Range rows, Range panels) {
  const BranchPlan& branch = low ? b_.low : b_.high;
  Convolution p = product(low ? at(r_.layout_.pooled) : m_.input, low ? b_.in_pixel() : m_.in_pixel, b_.in,
                          weights(branch.w1), weights(branch.b1), nullptr, branch.pixel(),
                          low ? size_.low_height : size_.height, low ? size_.low_width : size_.width);
  p.out_row = (p.width + 2) * p.out_pixel;
  p.output = at(padded(low)) + p.out_row + p.out_pixel;
  p.relu = true;
  stack(p, p.height * p.in_row, (p.height + 2) * p.out_row);
  finish(p, rows, panels, low ? kConv1Low : kConv1);
}

void BlockRun::pool(Range rows, Range vectors) {
  Pool p{m_.input, m_.in_pixel, size_.height, size_.width, at(r_.layout_.pooled), b_.in_pixel()};
  for_images(rows, size_.low_height, [&](Range part) {
    k_.pool(p, {part.begin, part.end, vectors.begin, vectors.end});
    p.input += int64_t(size_.height) * size_.width * p.pixel;
    p.output += int64_t(size_.low_height) * size_.low_width * p.out_pixel;
  });
  mark(kPool);
}

void BlockRun::conv2(bool low, Range rows, Range vectors) {
  const BranchPlan& branch = low ? b_.low : b_.high;
  const int width = low ? size_.low_width : size_.width, height = low ? size_.low_height : size_.height;
  const int64_t pixel = branch.pixel(), row = (width + 2) * pixel;
  Element* output = at(low ? r_.layout_.low_inner : r_.layout_.inner);
  const int out_width = low ? size_.low_width : size_.out_width, out_height = low ? size_.low_height : size_.out_height;
  if (branch.lanes) {
    GroupedConvolution p{at(padded(low)),    pixel,  row,   b_.stride, branch.group_width, weights(branch.w2),
                         weights(branch.b2), output, pixel, out_width};
    for_images(rows, out_height, [&](Range part) {
      k_.grouped_convolution(p, {part.begin, part.end, vectors.begin, vectors.end});
      p.input += (height + 2) * row;
      p.output += int64_t(out_height) * out_width * pixel;
    });
    mark(low ? kConv2Low : kConv2);
    return;
  }
  Convolution p = product(at(padded(low)), pixel, branch.group_width, weights(branch.w2), weights(branch.b2), output,
                          branch.outer_pixel(), out_height, out_width);
  widen(p, width, b_.stride);
  p.groups = branch.groups;
  p.relu = true;
  if (b_.joined && low)
    p.relu = false;
  else if (b_.joined)
    enlarge(p, r_.layout_.low_inner, b_.low.outer_pixel());
  stack(p, (height + 2) * row, p.height * p.out_row);
  finish(p, rows, {vectors.begin / 2, vectors.end / 2}, low ? kConv2Low : kConv2);
}

void BlockRun::enlarge(Convolution& p, int64_t low, int64_t pixel) const {
  p.low = at(low);
  p.low_pixel = pixel;
  p.low_height = size_.low_height;
  p.low_width = size_.low_width;
}

void BlockRun::conv3_low(Range rows, Range panels) {
  Convolution p = product(at(r_.layout_.low_inner), b_.low.outer_pixel(), b_.low.outer, weights(b_.low.w3), nullptr,
                          at(r_.layout_.low_out), b_.out_pixel(), size_.low_height, size_.low_width);
  stack(p, p.height * p.in_row, p.height * p.out_row);
  finish(p, rows, panels, kConv3Low);
}

void BlockRun::shortcut(Range rows, Range panels) {
  if (!b_.projection) return;
  Convolution p = product(m_.projected, m_.projected_pixel, b_.in, weights(b_.wp), weights(b_.bp), m_.output,
                          m_.out_pixel, size_.out_height, size_.out_width);
  p.in_row = m_.projected_row;
  stack(p, m_.projected_image, p.height * p.out_row);
  finish(p, rows, panels, kShortcut);
}

void BlockRun::conv3(Range rows, Range panels) {
  Convolution p = product(at(r_.layout_.inner), b_.high.outer_pixel(), b_.high.outer, weights(b_.high.w3),
                          weights(b_.b3), m_.output, m_.out_pixel, size_.out_height, size_.out_width);
  p.shortcut = b_.projection ? m_.output : m_.shortcut;
  p.shortcut_pixel = b_.projection ? m_.out_pixel : m_.shortcut_pixel;
  p.scale = b_.hidden ? floats_at(r_.layout_.gate) : nullptr;
  p.relu = true;
  if (b_.low_to_end()) enlarge(p, r_.layout_.low_out, b_.out_pixel());
  stack(p, p.height * p.in_row, p.height * p.out_row);
  finish(p, rows, panels, kConv3);
}

void BlockRun::gate() {
  const Layout& l = r_.layout_;
  float *rows = floats_at(l.row_weights), *columns = floats_at(l.column_weights);
  if (worker_.index == 0) {
    std::fill(rows, rows + size_.out_height, 1.f / float(size_.out_height));
    std::fill(columns, columns + size_.out_width, 1.f / float(size_.out_width));
    enlarged_weights(rows + size_.out_height, size_.low_height, size_.out_height);
    enlarged_weights(columns + size_.out_width, size_.low_width, size_.out_width);
  }
  worker_.wait();
  const Mean high{at(l.inner), b_.high.outer_pixel(), size_.out_height, size_.out_width, rows,
                  columns,     floats_at(l.mean_high)};
  const Range part = range_of(2 * b_.high.outer_panels(), worker_);
  k_.mean(high, part.begin, part.end);
  if (b_.low_to_end()) {
    const Mean low{at(l.low_inner),         b_.low.outer_pixel(),      size_.low_height,     size_.low_width,
                   rows + size_.out_height, columns + size_.out_width, floats_at(l.mean_low)};
    const Range low_part = range_of(2 * b_.low.outer_panels(), worker_);
    k_.mean(low, low_part.begin, low_part.end);
  }
  worker_.wait();
  const int hidden = int(b_.hidden_wide());
  const Range h = range_of(hidden / kVector, worker_);
  using A = Activation;
  const A first = b_.low_to_end() ? A::kNone : A::kRelu;
  k_.linear({floats_at(l.mean_high), weights(b_.gate_high), weights(b_.gate_b1), floats_at(l.hidden), b_.high.outer,
             hidden, first},
            h.begin, h.end);
  if (b_.low_to_end())
    k_.linear({floats_at(l.mean_low), weights(b_.gate_low), floats_at(l.hidden), floats_at(l.hidden), b_.low.outer,
               hidden, A::kRelu},
              h.begin, h.end);
  worker_.wait();
  const Range o = range_of(2 * b_.out_panels(), worker_);
  k_.linear({floats_at(l.hidden), weights(b_.gate_w2), weights(b_.gate_b2), floats_at(l.gate), hidden,
             b_.out_panels() * kPanel, A::kSigmoid},
            o.begin, o.end);
  worker_.wait();
  mark(kGate);
}

void BlockRun::stack(Convolution& p, int64_t in_image, int64_t out_image) const {
  if (m_.images == 1) return;
  p.image_height = p.height;
  p.in_image = in_image;
  p.out_image = out_image;
  p.height *= m_.images;
}

void BlockRun::finish(Convolution& p, Range rows, Range panels, Step step) {
  const bool whole = rows.end - rows.begin == p.height && (worker_.count > 1 || m_.images > 1);
  p.chunk = whole ? p.height * p.width : k_.chunk;
  k_.convolution(p, {rows.begin, rows.end, panels.begin, panels.end});
  mark(step);
}

}  // namespace elastic
