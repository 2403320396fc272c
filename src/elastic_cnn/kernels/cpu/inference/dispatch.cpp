// Which instruction set's kernels serve, and what the Python side asks of the machine.
#include "common/level.h"
#include "common/operators.h"
#include "common/scratch.h"
#include "inference/kernels.h"

namespace elastic {

#ifdef ELASTIC_BF16

const InferenceKernels& inference_kernels() { return *by_bf16_level(&amx_bf16::kernels, &avx512_bf16::kernels); }

TORCH_LIBRARY_FRAGMENT(elastic_cnn, m) { m.def("bf16_level() -> str", &bf16_level_name); }

#else

const InferenceKernels& inference_kernels() { return *by_level(&avx512::kernels, &avx2::kernels); }

namespace {

void advise_output(const at::Tensor& x) { check_contiguous(x, "memory in huge pages"); }

void advise(const at::Tensor& x) {
  advise_output(x);
  advise_huge_pages(x.const_data_ptr(), x.nbytes());
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(elastic_cnn, m) { m.def("kernel_level() -> str", &level_name); }
ELASTIC_OPERATOR("advise_huge_pages", "(Tensor x) -> ()", advise, advise_output)

#endif

}  // namespace elastic
