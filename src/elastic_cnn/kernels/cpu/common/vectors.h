// Sixteen floats as one value, for sources that are compiled once for each instruction set (`*_simd.cpp`).
//
// The builder compiles such a source with ELASTIC_LEVEL=avx512 and again with ELASTIC_LEVEL=avx2; all it defines lies in
// the namespace elastic::ELASTIC_LEVEL, so that both live in one library and none is called on a processor without it.
// On AVX-512 the sixteen floats are one register, on AVX2 two. Loads and stores ask for no alignment.
#pragma once
#include <immintrin.h>

#include <utility>

#include "common/element.h"

namespace elastic::ELASTIC_LEVEL {

constexpr int kLanes = 16;

#if defined(__AVX512F__)

// The register tile: 14 pixels x 2 vectors = 28 sums, 2 weights and 1 input of the 32 registers.
constexpr int kTilePixels = 14;
constexpr int kTileVectors = 2;

struct F16 {
  __m512 v;
};
// Keeps `a` in its register: the compiler would rather read it again from memory at each use.
ELASTIC_INLINE void hold(F16& a) { asm("" : "+v"(a.v)); }
ELASTIC_INLINE F16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
ELASTIC_INLINE void store(float* p, F16 a) { _mm512_storeu_ps(p, a.v); }
ELASTIC_INLINE F16 all(float a) { return {_mm512_set1_ps(a)}; }
ELASTIC_INLINE F16 fma(F16 a, F16 b, F16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
ELASTIC_INLINE F16 operator+(F16 a, F16 b) { return {_mm512_add_ps(a.v, b.v)}; }
ELASTIC_INLINE F16 operator*(F16 a, F16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
// The larger of `a`, which is not negative, and the size of `b`. Such numbers are ordered as their bits are, and those of
// a NaN lie above all others.
ELASTIC_INLINE F16 larger_magnitude(F16 a, F16 b) {
  const __m512i size = _mm512_and_si512(_mm512_castps_si512(b.v), _mm512_set1_epi32(0x7fffffff));
  return {_mm512_castsi512_ps(_mm512_max_epi32(_mm512_castps_si512(a.v), size))};
}
// The second operand is returned where one is not a number, so a NaN in `a` survives.
ELASTIC_INLINE F16 relu(F16 a) { return {_mm512_max_ps(_mm512_setzero_ps(), a.v)}; }

#else

// 6 pixels x 1 vector of two registers = 12 sums, 2 weights and 1 input of the 16 registers.
constexpr int kTilePixels = 6;
constexpr int kTileVectors = 1;

struct F16 {
  __m256 lo, hi;
};
ELASTIC_INLINE void hold(F16&) {}  // read once here
ELASTIC_INLINE F16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
ELASTIC_INLINE void store(float* p, F16 a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}
ELASTIC_INLINE F16 all(float a) { return {_mm256_set1_ps(a), _mm256_set1_ps(a)}; }
ELASTIC_INLINE F16 fma(F16 a, F16 b, F16 c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
ELASTIC_INLINE F16 operator+(F16 a, F16 b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
ELASTIC_INLINE F16 operator*(F16 a, F16 b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
ELASTIC_INLINE __m256 larger_magnitude(__m256 a, __m256 b) {
  const __m256i size = _mm256_and_si256(_mm256_castps_si256(b), _mm256_set1_epi32(0x7fffffff));
  return _mm256_castsi256_ps(_mm256_max_epi32(_mm256_castps_si256(a), size));
}
ELASTIC_INLINE F16 larger_magnitude(F16 a, F16 b) {
  return {larger_magnitude(a.lo, b.lo), larger_magnitude(a.hi, b.hi)};
}
ELASTIC_INLINE F16 relu(F16 a) {
  return {_mm256_max_ps(_mm256_setzero_ps(), a.lo), _mm256_max_ps(_mm256_setzero_ps(), a.hi)};
}

#endif

static_assert(kTilePixels % 2 == 0, "a tile begins at an even column, so that pixel pairs share upsampled columns");

#ifdef ELASTIC_BF16
// Sixteen words, each two bfloat16 that are multiplied with two others and added to the same sum.
struct Words {
  __m512i v;
};
ELASTIC_INLINE void hold(Words& a) { asm("" : "+v"(a.v)); }
ELASTIC_INLINE F16 load(const Element* p) {
  const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16))};
}
ELASTIC_INLINE void store(Element* p, F16 a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(a.v)));
}
ELASTIC_INLINE Words load_words(const void* p) { return {_mm512_loadu_si512(p)}; }
ELASTIC_INLINE Words all_words(const Element* p) {
  int word;
  __builtin_memcpy(&word, p, sizeof(word));
  return {_mm512_set1_epi32(word)};
}
ELASTIC_INLINE F16 fma(Words a, Words b, F16 c) {
  return {_mm512_dpbf16_ps(c.v, reinterpret_cast<__m512bh>(a.v), reinterpret_cast<__m512bh>(b.v))};
}
#else
using Words = F16;
ELASTIC_INLINE Words load_words(const float* p) { return load(p); }
ELASTIC_INLINE Words all_words(const float* p) { return all(*p); }
#endif

ELASTIC_INLINE void prefetch_to_write(const void* p) {
  asm volatile("prefetchw %0" : : "m"(*static_cast<const char*>(p)));
}

ELASTIC_INLINE F16 zero() { return all(0.f); }

// Width of the tiles that cover a row of `width` pixels: even, nearly equal, at most `most` (even).
ELASTIC_INLINE int tile_width(int width, int most = kTilePixels) {
  const int tiles = (width + most - 1) / most;
  const int each = (width + tiles - 1) / tiles;
  return each + each % 2;
}

}  // namespace elastic::ELASTIC_LEVEL
