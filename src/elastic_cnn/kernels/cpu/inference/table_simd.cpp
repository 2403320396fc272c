// The functions of one instruction set, by name.
#include "inference/kernels.h"

namespace elastic::ELASTIC_LEVEL {

void convolution(const Convolution&, const Slice&);
void grouped_convolution(const GroupedConvolution&, const Slice&);
void pool(const Pool&, const Slice&);
void max_pool(const MaxPool&);
void mean(const Mean&, int, int);
void dense(const Dense&, int, int);
void normalize(const Normalize&);
void normalize_pool(const NormalizePool&);

const InferenceKernels kernels = {convolution, grouped_convolution, pool,          max_pool, mean,
                                  dense,       normalize,           normalize_pool};

}  // namespace elastic::ELASTIC_LEVEL
