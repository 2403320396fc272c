// How an operator reaches its kernel, and how torch learns of it: a line each, beside the function that computes it.
#pragma once
#include <torch/library.h>

#include "common/checks.h"
#include "common/level.h"

// Declares a kernel, `void NAME(...)` of a `*_simd.cpp`, and NAME_kernel(), which is that of this processor's instruction
// set; raises where there is none. For kernels of one operator; those that several call stand in a part's `kernels.h`.
#ifdef ELASTIC_BF16
#define ELASTIC_KERNEL(name, ...) \
  namespace avx512_bf16 {         \
  void name(__VA_ARGS__);         \
  }                               \
  namespace amx_bf16 {            \
  void name(__VA_ARGS__);         \
  }                               \
  inline auto* name##_kernel() { return by_bf16_level(&amx_bf16::name, &avx512_bf16::name); }
#else
#define ELASTIC_KERNEL(name, ...) \
  namespace avx512 {              \
  void name(__VA_ARGS__);         \
  }                               \
  namespace avx2 {                \
  void name(__VA_ARGS__);         \
  }                               \
  inline auto* name##_kernel() { return by_level(&avx512::name, &avx2::name); }
#endif

// Registers torch.ops.elastic_cnn.NAME, with `_bf16` behind its name in the library for bfloat16. `compute` is the
// operator on the CPU; `output`, which checks the arguments and makes the result (checks.h), on the meta device.
// schema: arguments and results. Stands at a file's end, in the namespace `elastic`.
#define ELASTIC_OPERATOR(name, schema, compute, output)                              \
  TORCH_LIBRARY_FRAGMENT(elastic_cnn, m) { m.def(name ELASTIC_SUFFIX schema); }      \
  TORCH_LIBRARY_IMPL(elastic_cnn, CPU, m) { m.impl(name ELASTIC_SUFFIX, &compute); } \
  TORCH_LIBRARY_IMPL(elastic_cnn, Meta, m) { m.impl(name ELASTIC_SUFFIX, &output); }
