// What the processor can do at most: multiply-adds on registers, and reading and writing main memory.
// Compiled for the machine it runs on; called through ctypes (roofline.py).

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif
#if defined(__AMX_BF16__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#ifdef __AVX512F__
constexpr int kLanes = 16, kChains = 24;  // of 32 registers
#else
constexpr int kLanes = 8, kChains = 12;  // of 16 registers
#endif
typedef float Vector __attribute__((vector_size(4 * kLanes)));

static double seconds_of(int threads, const std::function<void(int)>& work) {
  std::vector<std::thread> team;
  const auto began = std::chrono::steady_clock::now();
  for (int i = 0; i < threads; ++i) team.emplace_back(work, i);
  for (auto& thread : team) thread.join();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
}

// `rounds` times kChains independent multiply-adds, as many as hide their latency. The sum keeps them from being left out.
static float chains(long rounds) {
  Vector sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = Vector{} + static_cast<float>(i);
  const Vector scale = Vector{} + 0.999999f, shift = Vector{} + 1e-6f;
  for (long round = 0; round < rounds; ++round)
#pragma GCC unroll 32
    for (int i = 0; i < kChains; ++i) sums[i] = sums[i] * scale + shift;
  float total = 0;
  for (int i = 0; i < kChains; ++i) total += sums[i][0];
  return total;
}

#ifdef __AVX512BF16__
// The same in bfloat16, two multiply-adds a float of the sum.
static float bf16_chains(long rounds) {
  __m512 sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = _mm512_set1_ps(static_cast<float>(i));
  const __m512bh small = _mm512_cvtne2ps_pbh(_mm512_set1_ps(1e-3f), _mm512_set1_ps(1e-3f));
  for (long round = 0; round < rounds; ++round)
#pragma GCC unroll 32
    for (int i = 0; i < kChains; ++i) {
      sums[i] = _mm512_dpbf16_ps(sums[i], small, small);
      asm("" : "+v"(sums[i]));
    }
  float total = 0;
  for (int i = 0; i < kChains; ++i) total += _mm512_reduce_add_ps(sums[i]);
  return total;
}
#endif

#if defined(__AMX_BF16__) && defined(__linux__)
constexpr long kTileOperations = 4 * 2 * 16 * 16 * 32;  // of four products of tiles

static bool may_use_tiles() { return syscall(SYS_arch_prctl, 0x1023, 18) == 0; }  // ARCH_REQ_XCOMP_PERM, tile data

// Four sums of 16 x 16, each with 32 multiply-adds a round, on the matrix unit.
static float tile_chains(long rounds) {
  struct alignas(64) {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
  } config;
  for (int tile = 0; tile < 8; ++tile) config.row_bytes[tile] = 64, config.rows[tile] = 16;
  _tile_loadconfig(&config);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
  for (long round = 0; round < rounds; ++round) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  alignas(64) float sums[256];
  _tile_stored(0, sums, 64);
  _tile_release();
  return sums[0];
}
#endif

// Operations a second in bfloat16, all threads together, on the matrix unit where there is one; 0 where the processor
// does not multiply bfloat16.
extern "C" double peak_bf16_flops(int threads, long rounds) {
  std::vector<float> sink(threads);
#if defined(__AMX_BF16__) && defined(__linux__)
  if (may_use_tiles()) {
    const double seconds = seconds_of(threads, [&](int i) { sink[i] = tile_chains(rounds); });
    return double(kTileOperations) * rounds * threads / seconds;
  }
#endif
#ifdef __AVX512BF16__
  const double seconds = seconds_of(threads, [&](int i) { sink[i] = bf16_chains(rounds); });
  return 4.0 * kLanes * kChains * rounds * threads / seconds;
#else
  return 0;
#endif
}

// Operations a second (a multiply-add is two) in float32, all threads together.
extern "C" double peak_flops(int threads, long rounds) {
  std::vector<float> sink(threads);
  const double seconds = seconds_of(threads, [&](int i) { sink[i] = chains(rounds); });
  return 2.0 * kLanes * kChains * rounds * threads / seconds;
}

// Bytes a second of a[i] = b[i] + s * c[i] over arrays of `count` floats each: two read, one written; best of `repeats`.
extern "C" double peak_bytes(int threads, size_t count, int repeats) {
  std::vector<float> a(count, 1.0f), b(count, 2.0f), c(count, 3.0f);
  double best = 1e30;
  for (int repeat = 0; repeat < repeats; ++repeat) {
    const double seconds = seconds_of(threads, [&](int i) {
      const size_t first = count * i / threads, last = count * (i + 1) / threads;
      float* __restrict out = a.data();
      const float *x = b.data(), *y = c.data();
      for (size_t k = first; k < last; ++k) out[k] = x[k] + 0.5f * y[k];
    });
    if (seconds < best) best = seconds;
  }
  return 3.0 * sizeof(float) * count / best;
}
