// bfloat16, the upper half of a float32: what maps hold where less is to be read; sums and weights are float32.
#pragma once
#include <cstring>

#include "common/maps.h"

namespace elastic {

struct Bfloat16 {
  uint16_t bits;

  Bfloat16() = default;
  // To the nearest, ties to even. A NaN stays one.
  ELASTIC_INLINE Bfloat16(float value) {
    uint32_t wide;
    std::memcpy(&wide, &value, sizeof(wide));
    const uint32_t rounded = (wide + 0x7fff + ((wide >> 16) & 1)) >> 16;
    bits = static_cast<uint16_t>(value != value ? 0x7fc0 : rounded);
  }
  ELASTIC_INLINE operator float() const {
    const uint32_t wide = uint32_t(bits) << 16;
    float value;
    std::memcpy(&value, &wide, sizeof(value));
    return value;
  }
};

}  // namespace elastic
