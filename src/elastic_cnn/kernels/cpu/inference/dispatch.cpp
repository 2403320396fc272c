// Which instruction set's kernels serve, and what the Python side asks of the machine.
#include <torch/library.h>

#include "common/checks.h"
#include "common/level.h"
#include "common/scratch.h"
#include "inference/kernels.h"

namespace elastic {

const InferenceKernels& inference_kernels() {
#ifdef ELASTIC_BF16
  if (bf16_level() == Bf16Level::amx) return amx_bf16::kernels;
  if (bf16_level() == Bf16Level::avx512) return avx512_bf16::kernels;
  raise_no_bf16();
#elif defined(__x86_64__)
  if (level() == Level::avx512) return avx512::kernels;
  if (level() == Level::avx2) return avx2::kernels;
#endif
#ifndef ELASTIC_BF16
  raise_no_level();
#endif
}

namespace {

#ifndef ELASTIC_BF16
void advise_output(const at::Tensor& x) { check_contiguous(x, "memory in huge pages"); }

void advise(const at::Tensor& x) {
  advise_output(x);
  advise_huge_pages(x.const_data_ptr(), x.nbytes());
}
#endif

}  // namespace

}  // namespace elastic

#ifdef ELASTIC_BF16
TORCH_LIBRARY_FRAGMENT(elastic_cnn, m) {
  m.def("bf16_level() -> str", []() { return elastic::bf16_level_name(); });
}
#else
TORCH_LIBRARY_FRAGMENT(elastic_cnn, m) {
  m.def("kernel_level() -> str", []() { return elastic::level_name(); });
  m.def("advise_huge_pages(Tensor x) -> ()");
}
TORCH_LIBRARY_IMPL(elastic_cnn, CPU, m) { m.impl("advise_huge_pages", &elastic::advise); }
TORCH_LIBRARY_IMPL(elastic_cnn, Meta, m) { m.impl("advise_huge_pages", &elastic::advise_output); }
#endif
