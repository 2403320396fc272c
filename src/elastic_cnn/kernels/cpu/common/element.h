// What the inference kernels' maps hold: float32, or bfloat16 in a library that is compiled with ELASTIC_BF16.
//
// A product multiplies its weights a word of 32 bits at a time: one float, or two bfloat16 of neighbouring input channels,
// weights[...][input pair][output][2]. What is added to or multiplied with sums (biases, scales, gates) is float32 in both.
#pragma once
#include "common/bfloat16.h"
#include "common/maps.h"

namespace elastic {

#ifdef ELASTIC_BF16
using Element = Bfloat16;
#else
using Element = float;
#endif

// Behind the names of operators that take such maps.
#ifdef ELASTIC_BF16
#define ELASTIC_SUFFIX "_bf16"
#else
#define ELASTIC_SUFFIX ""
#endif

constexpr int kPack = int(sizeof(float) / sizeof(Element));  // channels a word

// Words that so many input channels take; the last one may be half empty, its weight then zero.
ELASTIC_INLINE int64_t words(int64_t channels) { return (channels + kPack - 1) / kPack; }

}  // namespace elastic
