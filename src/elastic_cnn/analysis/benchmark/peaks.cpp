// What the processor can do at most: multiply-adds on registers, and reading and writing main memory.
// Compiled for the machine it runs on; called through ctypes (roofline.py).

#include <chrono>
#include <cstddef>
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
