// A block of two runs of up to 16 pixels by 32 outputs on the processor's matrix unit (AMX): eight tiles, four of them sums.
//
// A step multiplies up to 16 words of inputs: two tiles of pixels with two tiles of 16 outputs, each read once for two
// products. Weights lie as the vectors read them, [word][32 outputs], so both forms share one packing.
//
// With ELASTIC_EMULATE_AMX the same operations are plain C++, so that the code around them is tested where no processor
// has the unit.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "common/element.h"

#if defined(ELASTIC_BF16) && (defined(__AMX_BF16__) || defined(ELASTIC_EMULATE_AMX))
#define ELASTIC_MATRIX_UNIT

namespace elastic::ELASTIC_LEVEL {

constexpr int kRun = 16;        // pixels of a tile; a block is two such runs, each anywhere in the input
constexpr int kMostWords = 16;  // of inputs that one step multiplies

#ifndef ELASTIC_EMULATE_AMX

class MatrixUnit {
 public:
  MatrixUnit() = default;
  ~MatrixUnit() { _tile_release(); }
  MatrixUnit(const MatrixUnit&) = delete;
  MatrixUnit& operator=(const MatrixUnit&) = delete;

  // Sums of zero, of runs of so many pixels (`second` may be 0), for steps of so many words. Tiles 0 to 3: sums, by runs
  // and by halves of the outputs; 4, 5: inputs; 6, 7: weights.
  ELASTIC_INLINE void begin(int first, int second, int words) {
    if (first != first_ || second != second_ || words != words_) configure(first, second, words);
    _tile_zero(0);
    _tile_zero(1);
    if (second) {
      _tile_zero(2);
      _tile_zero(3);
    }
  }
  // first, second: of the runs' first pixels; step: bytes from one pixel to the next; weights: [word][32 outputs].
  ELASTIC_INLINE void multiply(const Element* first, const Element* second, int64_t step, const float* weights) {
    _tile_loadd(6, weights, 128);
    _tile_loadd(4, first, step);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, weights + 16, 128);
    _tile_dpbf16ps(1, 4, 7);
    if (second_) {
      _tile_loadd(5, second, step);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  // sums: [run][kRun pixels][32 outputs]
  ELASTIC_INLINE void end(float* sums) {
    _tile_stored(0, sums, 128);
    _tile_stored(1, sums + 16, 128);
    if (second_) {
      _tile_stored(2, sums + kRun * 32, 128);
      _tile_stored(3, sums + kRun * 32 + 16, 128);
    }
  }

 private:
  struct alignas(64) Config {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
  };
  void configure(int first, int second, int words) {
    const uint8_t one = uint8_t(first), two = uint8_t(second ? second : 1), deep = uint8_t(words);
    Config config;
    const uint8_t rows[8] = {one, one, two, two, one, two, deep, deep};
    for (int tile = 0; tile < 8; tile++) config.row_bytes[tile] = uint16_t(tile == 4 || tile == 5 ? 4 * words : 64);
    std::memcpy(config.rows, rows, sizeof(rows));
    _tile_loadconfig(&config);
    first_ = first;
    second_ = second;
    words_ = words;
  }
  int first_ = 0, second_ = 0, words_ = 0;
};

#else

class MatrixUnit {
 public:
  void begin(int first, int second, int words) {
    rows_[0] = first;
    rows_[1] = second;
    words_ = words;
    std::memset(sums_, 0, sizeof(sums_));
  }
  void multiply(const Element* first, const Element* second, int64_t step, const float* weights) {
    const Element* runs[2] = {first, second};
    for (int run = 0; run < 2; run++)
      for (int row = 0; row < rows_[run]; row++) {
        const char* pixel = reinterpret_cast<const char*>(runs[run]) + row * step;
        for (int word = 0; word < words_; word++)
          for (int output = 0; output < 32; output++)
            for (int half = 0; half < kPack; half++)
              sums_[run][row][output] += number(pixel + 4 * word + 2 * half) *
                                         number(reinterpret_cast<const char*>(weights + 32 * word + output) + 2 * half);
      }
  }
  void end(float* sums) { std::memcpy(sums, sums_, sizeof(sums_)); }

 private:
  static float number(const char* at) {
    Bfloat16 value;
    std::memcpy(&value, at, sizeof(value));
    return value;
  }
  int rows_[2] = {}, words_ = 0;
  float sums_[2][kRun][32];
};

#endif

}  // namespace elastic::ELASTIC_LEVEL

#endif
