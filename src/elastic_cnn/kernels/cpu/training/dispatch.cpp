// Which instruction set's kernels serve, and what the operators ask about them.
#include <torch/library.h>

#include "common/level.h"
#include "training/kernels.h"

namespace elastic {

template <>
const TrainingKernels<float>& training_kernels<float>() {
#if defined(__x86_64__)
  if (level() == Level::avx512) return avx512::kernels32();
  if (level() == Level::avx2) return avx2::kernels32();
#endif
  raise_no_level();
}

template <>
const TrainingKernels<double>& training_kernels<double>() {
#if defined(__x86_64__)
  if (level() == Level::avx512) return avx512::kernels64();
  if (level() == Level::avx2) return avx2::kernels64();
#endif
  raise_no_level();
}

template <>
const TrainingKernels<Bfloat16>& training_kernels<Bfloat16>() {
#if defined(__x86_64__)
  if (bf16_level() != Bf16Level::none) return avx512_bf16::kernels16();
#endif
  raise_no_bf16();
}

}  // namespace elastic

TORCH_LIBRARY_FRAGMENT(elastic_cnn, m) {
  m.def("train_level() -> str", []() { return elastic::level_name(); });
  m.def("train_bf16_level() -> str", []() { return elastic::bf16_level_name(); });
}
