// Which instruction set's kernels serve, and what the operators ask about them.
#include <torch/library.h>

#include "common/level.h"
#include "training/kernels.h"

namespace elastic {

template <>
const TrainingKernels<float>& training_kernels<float>() {
  return by_level(&avx512::kernels32, &avx2::kernels32)();
}

template <>
const TrainingKernels<double>& training_kernels<double>() {
  return by_level(&avx512::kernels64, &avx2::kernels64)();
}

template <>
const TrainingKernels<Bfloat16>& training_kernels<Bfloat16>() {
  return by_bf16_level(&avx512_bf16::kernels16, &avx512_bf16::kernels16)();
}

TORCH_LIBRARY_FRAGMENT(elastic_cnn, m) {
  m.def("train_level() -> str", &level_name);
  m.def("train_bf16_level() -> str", &bf16_level_name);
}

}  // namespace elastic
