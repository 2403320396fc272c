// Which instruction set the products and grouped convolutions of the training form run in.
#pragma once
#include <cstdlib>
#include <string>

namespace elastic_train {

enum class Level { none, avx2, avx512 };

// The widest of this processor; ELASTIC_KERNELS_ISA=avx2 asks for the narrower one.
inline Level level() {
#if defined(__x86_64__)
  static const Level chosen = [] {
    const char* wish = std::getenv("ELASTIC_KERNELS_ISA");
    const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
    if (wide && (!wish || std::string(wish) != "avx2")) return Level::avx512;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? Level::avx2 : Level::none;
  }();
  return chosen;
#else
  return Level::none;
#endif
}

}  // namespace elastic_train
