// The functions of one instruction set, by name.
#include "common/amx.h"
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

#ifdef ELASTIC_MATRIX_UNIT
constexpr int kChunk = 448;  // products take less of the time here: each call's own costs, and weights read again, more
#else
constexpr int kChunk = 112;  // with 256 channels of float32, 112 KB
#endif

const InferenceKernels kernels = {kChunk, convolution, grouped_convolution, pool,
                                  mean,   linear,      normalize,           normalize_pool};

}  // namespace elastic::ELASTIC_LEVEL
