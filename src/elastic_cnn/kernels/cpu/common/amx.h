// A block of 32 pixels by 32 outputs on the processor's matrix unit (AMX): eight tiles, four of them sums.
//
// A step multiplies 16 words of inputs: two tiles of 16 pixels with two tiles of 16 outputs, each read once for two
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

constexpr int kBlockRows = 32;   // pixels
constexpr int kBlockWords = 16;  // of inputs that one step multiplies

#ifndef ELASTIC_EMULATE_AMX

class MatrixUnit {
 public:
  MatrixUnit() = default;
  ~MatrixUnit() { _tile_release(); }
  MatrixUnit(const MatrixUnit&) = delete;
  MatrixUnit& operator=(const MatrixUnit&) = delete;

  // Sums of zero, of so many pixels. Tiles 0 to 3: sums, by halves of the pixels and of the outputs; 4, 5: inputs;
  // 6, 7: weights.
  ELASTIC_INLINE void begin(int rows) {
    if (rows != rows_) configure(rows);
    _tile_zero(0);
    _tile_zero(1);
    if (rows > 16) {
      _tile_zero(2);
      _tile_zero(3);
    }
  }
  // input: the first pixel's; step: bytes from one pixel to the next; weights: of 16 words.
  ELASTIC_INLINE void multiply(const Element* input, int64_t step, const float* weights) {
    _tile_loadd(6, weights, 128);
    _tile_loadd(7, weights + 16, 128);
    _tile_loadd(4, input, step);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    if (rows_ > 16) {
      _tile_loadd(5, reinterpret_cast<const char*>(input) + 16 * step, step);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  // sums: [pixel][32 outputs]
  ELASTIC_INLINE void end(float* sums) {
    _tile_stored(0, sums, 128);
    _tile_stored(1, sums + 16, 128);
    if (rows_ > 16) {
      _tile_stored(2, sums + 16 * 32, 128);
      _tile_stored(3, sums + 16 * 32 + 16, 128);
    }
  }

 private:
  struct alignas(64) Config {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
  };
  void configure(int rows) {
    const uint8_t first = uint8_t(rows < 16 ? rows : 16), second = uint8_t(rows > 16 ? rows - 16 : 1);
    Config config;
    for (int tile = 0; tile < 8; tile++) config.row_bytes[tile] = 64;
    const uint8_t of_tile[8] = {first, first, second, second, first, second, 16, 16};
    std::memcpy(config.rows, of_tile, sizeof(of_tile));
    _tile_loadconfig(&config);
    rows_ = rows;
  }
  int rows_ = 0;
};

#else

class MatrixUnit {
 public:
  void begin(int rows) {
    rows_ = rows;
    std::memset(sums_, 0, sizeof(sums_));
  }
  void multiply(const Element* input, int64_t step, const float* weights) {
    for (int row = 0; row < rows_; row++) {
      const char* pixel = reinterpret_cast<const char*>(input) + row * step;
      for (int word = 0; word < kBlockWords; word++)
        for (int output = 0; output < 32; output++)
          for (int half = 0; half < kPack; half++)
            sums_[row][output] += number(pixel + 4 * word + 2 * half) *
                                  number(reinterpret_cast<const char*>(weights + 32 * word + output) + 2 * half);
    }
  }
  void end(float* sums) { std::memcpy(sums, sums_, rows_ * sizeof(sums_[0])); }

 private:
  static float number(const char* at) {
    uint16_t bits;
    std::memcpy(&bits, at, sizeof(bits));
    const uint32_t wide = uint32_t(bits) << 16;
    float value;
    std::memcpy(&value, &wide, sizeof(value));
    return value;
  }
  int rows_ = 0;
  float sums_[kBlockRows][32];
};

#endif

}  // namespace elastic::ELASTIC_LEVEL

#endif
