// A residual block as the threads run it.
//
//   high:  conv1 -> grouped 3x3 -> conv3, whose tile also adds bias, the upsampled low map and the shortcut, and takes
//          the ReLU, so that the wide map is written once and read once (as the shortcut, which it may overwrite)
//   low:   pool -> conv1 -> grouped 3x3 -> conv3, at half the height and width; or, joined, without conv3: the high
//          branch's 3x3 then adds the upsampled low map before its ReLU
//
// Division. Threads take rows where there are enough of them: a chunk of rows goes through all convolutions while it
// lies in a thread's cache. On small maps, where weights are many and rows few, threads take channels, so that each
// weight is read by one thread. `by_rows` compares how evenly the work can be divided either way.
#include "inference/residual_block.h"

namespace elastic {

void BlockRun::run() {
  if (by_rows())
    rows();
  else
    channels();
  wait();
}

bool BlockRun::by_rows() const {
  if (m_.images > 1) return false;
  const int rows = b_.elastic() ? size_.low_height : size_.out_height;
  const int panels = std::min(b_.high.panels(), b_.elastic() ? b_.low.panels() : b_.high.panels());
  return divides_by_rows(rows, panels, worker_.count);
}

void BlockRun::rows() {
  const bool elastic = b_.elastic();
  const Range low = range_of(size_.low_height, worker_);
  const Range out =
      elastic ? Range{2 * low.begin, std::min(2 * low.end, size_.height)} : range_of(size_.out_height, worker_);
  const Range in{b_.stride * out.begin, std::min(b_.stride * out.end, size_.height)};
  const int head = std::min(in.end, in.begin + (worker_.index > 0 ? 1 : 0));
  const int foot = std::max(head, in.end - (worker_.index + 1 < worker_.count ? 1 : 0));
  conv1(false, {in.begin, head}, all_panels(b_.high));
  conv1(false, {foot, in.end}, all_panels(b_.high));
  if (elastic) {
    const int each = std::max(1, rows_in(k_.chunk, size_.low_width));
    for (int at = low.begin; at < low.end; at += each) {
      const Range part{at, std::min(low.end, at + each)};
      pool(part, {0, b_.in_vectors()});
      conv1(true, part, all_panels(b_.low));
    }
  }
  wait();
  if (elastic) {
    conv2(true, low, all_vectors(b_.low));
    if (!b_.joined) conv3_low(low, {0, b_.out_panels()});
    wait();
  }
  const int each = rows_in(k_.chunk, size_.out_width);
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

void BlockRun::finish_rows(Range part) {
  shortcut(part, {0, b_.out_panels()});
  conv3(part, {0, b_.out_panels()});
}

void BlockRun::channels() {
  const Range out{0, m_.images * size_.out_height}, low{0, m_.images * size_.low_height};
  const Range out_part = range_of(b_.out_panels(), worker_);
  if (b_.elastic()) pool(low, range_of(b_.in_vectors(), worker_));
  conv1(false, {0, m_.images * size_.height}, range_of(b_.high.panels(), worker_));
  wait();
  if (b_.elastic()) conv1(true, low, range_of(b_.low.panels(), worker_));
  if (!b_.joined) conv2(false, out, vectors_of(b_.high));
  if (b_.elastic()) {
    wait();
    conv2(true, low, vectors_of(b_.low));
  }
  if (b_.joined) {
    wait();
    conv2(false, out, vectors_of(b_.high));
  }
  shortcut(out, out_part);
  wait();
  if (b_.low_to_end()) conv3_low(low, out_part);
  if (b_.hidden) gate();
  conv3(out, out_part);
}

void Runner::block(size_t index, const BlockMaps& maps, const Worker& worker) const {
  BlockRun(*this, index, maps, worker).run();
}

}  // namespace elastic
