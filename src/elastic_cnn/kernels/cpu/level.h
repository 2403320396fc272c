// Which instruction set the kernels use on this processor.
#pragma once
#include <string>

namespace elastic {

// "avx512", "avx2", or "" where the processor has neither. `ELASTIC_KERNELS_ISA` may ask for the narrower one.
const std::string& level();

}  // namespace elastic
