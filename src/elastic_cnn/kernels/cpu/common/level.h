// Which instruction set the kernels use on this processor: asked once, at the first call of either part.
#pragma once
#include <c10/util/Exception.h>

#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

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

enum class Bf16Level { none, avx512, amx };

// Asks the system for the matrix unit's registers, which a process must before its first use of them.
inline bool has_matrix_unit() {
#if defined(ELASTIC_EMULATE_AMX)
  return true;
#elif defined(__x86_64__) && defined(__linux__)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return __builtin_cpu_supports("amx-bf16") && __builtin_cpu_supports("amx-tile") &&
         syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

inline Bf16Level choose_bf16_level() {
#if defined(__x86_64__)
  if (level() != Level::avx512 || !__builtin_cpu_supports("avx512bf16")) return Bf16Level::none;
  const char* wish = std::getenv("ELASTIC_KERNELS_ISA");  // avx512: not the matrix unit
  return (!wish || !*wish) && has_matrix_unit() ? Bf16Level::amx : Bf16Level::avx512;
#else
  return Bf16Level::none;
#endif
}

// What multiplies bfloat16 on this processor.
inline Bf16Level bf16_level() {
  static const Bf16Level chosen = choose_bf16_level();
  return chosen;
}

inline std::string bf16_level_name() {
  return bf16_level() == Bf16Level::amx ? "amx_bf16" : bf16_level() == Bf16Level::avx512 ? "avx512_bf16" : "";
}

// That one of two things which is for this processor's instruction set; raises where it has neither.
template <class Choice>
Choice by_level(Choice avx512, Choice avx2) {
  TORCH_CHECK(level() != Level::none, "this processor has neither AVX-512 nor AVX2, which the native kernels need; ",
              "use the plain form");
  return level() == Level::avx512 ? avx512 : avx2;
}

// The same for bfloat16.
template <class Choice>
Choice by_bf16_level(Choice amx, Choice avx512) {
  TORCH_CHECK(bf16_level() != Bf16Level::none, "this processor has no AVX-512 BF16, which the native kernels for ",
              "bfloat16 need; use float32");
  return bf16_level() == Bf16Level::amx ? amx : avx512;
}

}  // namespace elastic
