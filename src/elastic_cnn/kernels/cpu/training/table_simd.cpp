// The functions of one instruction set, by name. Each source sets its own.
#include "training/tile.h"

namespace elastic::ELASTIC_LEVEL {

// The sources.
#define ELASTIC_SOURCES(with) \
  with(gemm) with(gemm_weight) with(grouped) with(grouped_weight) with(batch_norm) with(tail) with(input)

#define ELASTIC_DECLARE(source) \
  template <class T>            \
  void set_##source(TrainingKernels<T>& table);
ELASTIC_SOURCES(ELASTIC_DECLARE)

namespace {

template <class T>
TrainingKernels<T> make() {
  TrainingKernels<T> table{};
#define ELASTIC_SET(source) set_##source(table);
  ELASTIC_SOURCES(ELASTIC_SET)
  return table;
}

}  // namespace

// Made at the first call, which a processor without this instruction set never makes.
#ifdef __AVX512BF16__
const TrainingKernels<Bfloat16>& kernels16() {
  static const TrainingKernels<Bfloat16> table = make<Bfloat16>();
  return table;
}
#else
const TrainingKernels<float>& kernels32() {
  static const TrainingKernels<float> table = make<float>();
  return table;
}
const TrainingKernels<double>& kernels64() {
  static const TrainingKernels<double> table = make<double>();
  return table;
}
#endif

}  // namespace elastic::ELASTIC_LEVEL
