// How torch learns of an operator: a line each, beside the function that computes it.
#pragma once
#include <torch/library.h>

#include "common/checks.h"

// Registers torch.ops.elastic_cnn.NAME, with `_bf16` behind its name in the library for bfloat16. `compute` is the
// operator on the CPU; `output`, which checks the arguments and makes the result (checks.h), on the meta device.
// schema: arguments and results. Stands at a file's end, in the namespace `elastic`.
#define ELASTIC_OPERATOR(name, schema, compute, output)                              \
  TORCH_LIBRARY_FRAGMENT(elastic_cnn, m) { m.def(name ELASTIC_SUFFIX schema); }      \
  TORCH_LIBRARY_IMPL(elastic_cnn, CPU, m) { m.impl(name ELASTIC_SUFFIX, &compute); } \
  TORCH_LIBRARY_IMPL(elastic_cnn, Meta, m) { m.impl(name ELASTIC_SUFFIX, &output); }
