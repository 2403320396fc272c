// The functions of one instruction set, by name.
#include "common/vectors.h"
#include "inference/kernels.h"

namespace elastic::ELASTIC_LEVEL {

static_assert(kVector == kLanes);

void convolution(const Convolution&, const Slice&);
void grouped_convolution(const GroupedConvolution&, const Slice&);
void pool(const Pool&, const Slice&);
void mean(const Mean&, int, int);
void linear(const Linear&, int, int);
void normalize(const Normalize&);
void normalize_pool(const NormalizePool&);

const InferenceKernels kernels = {convolution, grouped_convolution, pool, mean, linear, normalize, normalize_pool};

}  // namespace elastic::ELASTIC_LEVEL
