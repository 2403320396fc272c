// Where a trunk's maps lie in scratch memory, and their borders.
#include <algorithm>

#include "inference/dense_run.h"

namespace elastic {

DenseLayout::DenseLayout(const DensePlan& plan, int height, int width) {
  int64_t wide_size[2] = {0, 0}, normed_size = 0, pooled_size = 0, low_out_size = 0;
  for (size_t i = 0; i < plan.stages.size(); i++) {
    const DenseStage& stage = plan.stages[i];
    Size s{height, width, (height + 1) / 2, (width + 1) / 2, {}, {}, 0, 0};
    s.high_pixel = pixel_of(stage.widest(false));
    s.low_pixel = stage.elastic() ? pixel_of(stage.widest(true)) : 0;
    for (int turn = 0; turn < 2; turn++) {
      s.high_maps[turn] = take(shared, s.high_size());
      s.low_maps[turn] = take(shared, s.low_size());
    }
    wide_size[i % 2] = std::max(wide_size[i % 2], int64_t(height) * width * stage.pixel());
    const int64_t chunk = std::max(kDenseChunk, 2 * width), pixel = pixel_of(stage.channels);
    normed_size = std::max(normed_size, chunk * pixel);
    pooled_size = std::max(pooled_size, chunk * pixel);
    if (stage.elastic())
      low_out_size = std::max(low_out_size, int64_t(s.low_height) * s.low_width * stage.growth_pixel());
    sizes.push_back(s);
    height /= 2;
    width /= 2;
  }
  for (int turn = 0; turn < 2; turn++) wide[turn] = take(shared, wide_size[turn]);
  normed = take(own, normed_size);
  pooled = take(own, pooled_size);
  low_out = take(own, low_out_size);
}

void DenseRunner::clear_borders(const DenseWorker& me) const {
  int turn = 0;
  for (const DenseLayout::Size& s : layout_.sizes)
    for (int map = 0; map < 2; map++) {
      if (turn++ % me.worker.count != me.worker.index) continue;
      clear_border(me.shared + s.high_maps[map], s.height, s.width, s.high_pixel);
      if (s.low_pixel) clear_border(me.shared + s.low_maps[map], s.low_height, s.low_width, s.low_pixel);
    }
  me.worker.wait();
}

}  // namespace elastic
