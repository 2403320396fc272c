// Which instruction set the kernels use on this processor: asked once, at the first call.
#include "level.h"

#include <c10/util/Exception.h>

#include <cstdlib>

namespace elastic {

namespace {

bool has_avx512() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq");
#else
  return false;
#endif
}

bool has_avx2() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return false;
#endif
}

std::string choose() {
  const char* wish = std::getenv("ELASTIC_KERNELS_ISA");
  const std::string wanted = wish ? wish : "";
  TORCH_CHECK_VALUE(wanted.empty() || wanted == "avx512" || wanted == "avx2",
                    "ELASTIC_KERNELS_ISA must be avx512 or avx2, got ", wanted);
  if (wanted != "avx2" && has_avx512() && has_avx2()) return "avx512";
  TORCH_CHECK_VALUE(wanted != "avx512", "ELASTIC_KERNELS_ISA asks for avx512, which this processor does not have");
  return has_avx2() ? "avx2" : "";
}

}  // namespace

const std::string& level() {
  static const std::string chosen = choose();
  return chosen;
}

}  // namespace elastic
