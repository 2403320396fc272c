// See residual_batch.h.
#include "inference/residual_batch.h"

#include <algorithm>

#include "common/scratch.h"

namespace elastic {

namespace {

constexpr int kSmall = 64, kTogether = 448;  // pixels of a small map, and of a stack of them

// The first of the blocks at the plan's end that have small maps and no gate, which is of one image.
size_t first_of_small(const Plan& plan, const std::vector<Layout::Size>& sizes) {
  size_t first = sizes.size();
  while (first > 0) {
    const Layout::Size& s = sizes[first - 1];
    if (plan.blocks[first - 1].hidden || s.out_height * s.out_width > kSmall) break;
    first--;
  }
  return first;
}

}  // namespace

Batch::Batch(const InferenceKernels& kernels, const Plan& plan, int height, int width, int64_t images, int threads,
             double* seconds)
    : kernels_(kernels),
      plan_(plan),
      sizes_(Layout::sizes_of(plan, height, width)),
      images_(images),
      threads_(threads),
      seconds_(seconds),
      alone_(threads > 1 && images >= threads && !seconds && !omp_in_parallel()),
      group_(std::max<int64_t>(images, 1)) {
  const size_t end = sizes_.size(), split = images > 1 ? first_of_small(plan, sizes_) : end;
  if (split < end) {
    const int pixels = sizes_[split].out_height * sizes_[split].out_width;
    group_ = std::clamp<int64_t>(kTogether / pixels, 1, images);
    if (alone_ && group_ > threads) group_ -= group_ % threads;
    small_.emplace(plan, split, end, height, width, int(group_));
  }
  if (split > 0) large_.emplace(plan, 0, split, height, width, 1);
}

void Batch::run(const float* weights, const Element* input, Element* output) const {
  int64_t floats = 0;
  if (large_) floats += large_->floats * (alone_ ? threads_ : 1);
  if (small_) floats += small_->floats;
  if (large_ && small_) floats += group_ * small_->in_pixels() * plan_.blocks[small_->first].in;
  const Scratch scratch(words(floats));
  parallel(threads_, [&](const Worker& worker) { work(weights, input, output, scratch.elements(), worker); });
}

void Batch::work(const float* weights, const Element* input, Element* output, Element* scratch,
                 const Worker& worker) const {
  const int64_t in_step = int64_t(sizes_[0].height) * sizes_[0].width * plan_.blocks.front().in;
  const int64_t out_step = out_height() * out_width() * plan_.blocks.back().out;
  const Layout& any = large_ ? *large_ : *small_;
  const Runner own(kernels_, plan_, any, weights, scratch + (alone_ && large_ ? worker.index * large_->floats : 0),
                   seconds_);
  const Runner shared(kernels_, plan_, any, weights, scratch, seconds_);
  if (large_) {
    Barrier nobody;
    const Worker single{0, 1, nobody};
    if (alone_)
      own.clear_borders(single);
    else
      shared.clear_borders(worker);
    scratch += large_->floats * (alone_ ? threads_ : 1);
  }
  const Runner last(kernels_, plan_, small_ ? *small_ : any, weights, scratch, seconds_);
  if (small_) last.clear_borders(worker);
  Element* between = small_ && large_ ? scratch + small_->floats : nullptr;
  for (int64_t at = 0; at < images_; at += group_) {
    const int64_t count = std::min(group_, images_ - at);
    const Element* from = input + at * in_step;
    Element* to = output + at * out_step;
    if (large_) large_maps(own, shared, from, between ? between : to, count, worker);
    if (small_) last.run(between ? between : from, to, int(count), worker);
  }
}

void Batch::large_maps(const Runner& own, const Runner& shared, const Element* input, Element* output, int64_t count,
                       const Worker& worker) const {
  const int64_t in_step = large_->in_pixels() * plan_.blocks.front().in;
  const int64_t out_step = large_->out_pixels() * plan_.blocks[large_->end - 1].out;
  Barrier nobody;
  const Worker single{0, 1, nobody};
  for_each_image(count, alone_, worker, [&](int64_t image, bool alone) {
    const Element* from = input + image * in_step;
    Element* to = output + image * out_step;
    if (alone)
      own.run(from, to, 1, single);
    else
      shared.run(from, to, 1, worker);
  });
}

}  // namespace elastic
