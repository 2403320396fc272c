// The functions of one instruction set, by name. Each source sets its own.
#include "training/tile.h"

namespace elastic::ELASTIC_LEVEL {

template <class T>
void set_gemm(TrainingKernels<T>& table);
template <class T>
void set_gemm_weight(TrainingKernels<T>& table);
template <class T>
void set_grouped(TrainingKernels<T>& table);
template <class T>
void set_grouped_weight(TrainingKernels<T>& table);
template <class T>
void set_batch_norm(TrainingKernels<T>& table);
template <class T>
void set_tail(TrainingKernels<T>& table);
template <class T>
void set_input(TrainingKernels<T>& table);

namespace {

template <class T>
TrainingKernels<T> make() {
  TrainingKernels<T> table{};
  set_gemm(table);
  set_gemm_weight(table);
  set_grouped(table);
  set_grouped_weight(table);
  set_batch_norm(table);
  set_tail(table);
  set_input(table);
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
