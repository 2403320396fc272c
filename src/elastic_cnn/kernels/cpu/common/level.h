// Which instruction set the kernels use on this processor: asked once, at the first call of either part.
#pragma once
#include <c10/util/Exception.h>

#include <cstdlib>
#include <string>

namespace elastic {

enum class Level { none, avx2, avx512 };

inline Level widest_level() {
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
  if (avx2) return avx512 ? Level::avx512 : Level::avx2;
#endif
  return Level::none;
}

inline Level choose_level() {
  const char* wish = std::getenv("ELASTIC_KERNELS_ISA");
  const std::string wanted = wish ? wish : "";
  TORCH_CHECK_VALUE(wanted.empty() || wanted == "avx512" || wanted == "avx2",
                    "ELASTIC_KERNELS_ISA must be avx512 or avx2, got ", wanted);
  const Level widest = widest_level();
  TORCH_CHECK_VALUE(wanted != "avx512" || widest == Level::avx512,
                    "ELASTIC_KERNELS_ISA asks for avx512, which this processor does not have");
  return wanted == "avx2" && widest == Level::avx512 ? Level::avx2 : widest;
}

// The widest of this processor, or the narrower one that `ELASTIC_KERNELS_ISA` asks for.
inline Level level() {
  static const Level chosen = choose_level();
  return chosen;
}

// `avx512` or `avx2`; empty where the processor has neither.
inline std::string level_name() { return level() == Level::avx512 ? "avx512" : level() == Level::avx2 ? "avx2" : ""; }

[[noreturn]] inline void raise_no_level() {
  TORCH_CHECK(false, "this processor has neither AVX-512 nor AVX2, which the native kernels need; use the plain form");
}

}  // namespace elastic
