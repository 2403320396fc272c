// How bfloat16 is multiplied: a word of 32 bits, two elements that are multiplied with two others and added to the same
// sum, in the place of a float. Compiled for AVX-512 BF16.
#pragma once
#include "training/tile.h"

namespace elastic::ELASTIC_LEVEL {

typedef uint32_t Word __attribute__((may_alias));
using Floats = Vector<Bfloat16>::type;
constexpr int kLanes = Vector<Bfloat16>::lanes, kColumns = Vector<Bfloat16>::columns;
constexpr int64_t kWords = 256;  // of a row of both factors that lie together

ELASTIC_INLINE int64_t words(int64_t elements) { return (elements + 1) / 2; }

// sums (R, kColumns) = the product of a, the word (i, k) at a[i * kRowStep + k * kWordStep], and a panel of B, the words
// (k, j) at b[k * kColumns + j]. There are `count` words; after kWords of them `a` goes on at a + block_step.
// `ahead(i)`, for each row i in turn, fetches what is wanted soon.
template <int R, int kRowStep, int kWordStep, class Ahead>
ELASTIC_INLINE void word_product(const Word* __restrict a, int64_t block_step, const Word* __restrict b, int64_t count,
                                 float* __restrict sums, const Ahead& ahead) {
  __m512 sum[R][2];
#pragma GCC unroll 16
  for (int i = 0; i < R; i++) sum[i][0] = sum[i][1] = _mm512_setzero_ps();
  for (int64_t done = 0; done < count; done += kWords, a += block_step) {
    const int64_t depth = std::min(kWords, count - done);
    int64_t k = 0;
#pragma GCC unroll 1
    for (int run = 0; run < R; run++) {
      if (!done) ahead(run);
#pragma GCC unroll 1
      for (const int64_t stop = depth * (run + 1) / R; k < stop; k++, b += kColumns) {
        const __m512bh b0 = reinterpret_cast<__m512bh>(_mm512_loadu_si512(b));
        const __m512bh b1 = reinterpret_cast<__m512bh>(_mm512_loadu_si512(b + kLanes));
#pragma GCC unroll 16
        for (int i = 0; i < R; i++) {
          const __m512bh value = reinterpret_cast<__m512bh>(_mm512_set1_epi32(int(a[i * kRowStep + k * kWordStep])));
          sum[i][0] = _mm512_dpbf16_ps(sum[i][0], value, b0);
          sum[i][1] = _mm512_dpbf16_ps(sum[i][1], value, b1);
        }
      }
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < R; i++) {
    _mm512_storeu_ps(sums + i * kColumns, sum[i][0]);
    _mm512_storeu_ps(sums + i * kColumns + kLanes, sum[i][1]);
  }
}

// relu(from * scale + shift), or `from` where no scale is given, of elements that are there.
template <class V>
ELASTIC_INLINE V normalized(const Bfloat16* from, const float* scale, const float* shift) {
  const V value = load<V>(from);
  if (!scale) return value;
  const V y = value * load<V>(scale) + load<V>(shift);
  return y < V{} ? V{} : y;
}

// kLanes elements of a row, normalised where a scale is given, in the lower halves of words.
ELASTIC_INLINE __m512i low_halves(const Bfloat16* from, const float* scale, const float* shift) {
  __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  if (scale) {
    const Floats value = normalized<Floats>(from, scale, shift);
    halves = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(reinterpret_cast<__m512>(value)));
  }
  return _mm512_cvtepu16_epi32(halves);
}

// The words of `count` elements of two rows, the first's in the lower halves; without a second row, zeros in the upper.
// They are normalised where kNormalized.
template <bool kNormalized>
inline void interleave(const Bfloat16* first, const Bfloat16* second, const float* scale, const float* shift,
                       int64_t count, Word* to) {
  auto at = [](const float* numbers, int64_t j) { return kNormalized ? numbers + j : nullptr; };
  int64_t j = 0;
  for (; j + kLanes <= count; j += kLanes) {
    __m512i words = low_halves(first + j, at(scale, j), at(shift, j));
    if (second)
      words = _mm512_or_si512(words, _mm512_slli_epi32(low_halves(second + j, at(scale, j), at(shift, j)), 16));
    _mm512_storeu_si512(to + j, words);
  }
  for (; j < count; j++) {
    const Bfloat16 low = normalized<float>(first + j, at(scale, j), at(shift, j));
    to[j] = low.bits;
    if (second) to[j] |= Word(Bfloat16(normalized<float>(second + j, at(scale, j), at(shift, j))).bits) << 16;
  }
}

}  // namespace elastic::ELASTIC_LEVEL
