// The functions of one instruction set, by name.
#include "kernels.h"


namespace elastic::ELASTIC_LEVEL {

void product(const Product&, const Part&);
void grouped(const Grouped&, const Part&);
void pool(const Pool&, const Part&);
void max_pool(const MaxPool&);
void mean(const Mean&, int, int);
void dense(const Dense&, int, int);
void tail(const Tail&, int, int);
void mean_pool(const float*, float*, int, int, int, int, int);
void normalize(const Normalize&);
void normalize_pool(const NormalizePool&);

const Kernels kernels = {product, grouped, pool, max_pool,  mean,
                         dense,   tail,    mean_pool, normalize, normalize_pool};

}  // namespace elastic::ELASTIC_LEVEL
