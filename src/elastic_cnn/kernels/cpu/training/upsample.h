// The adjoint of up, the bilinear interpolation by two, along one axis (tail.cpp).
#pragma once
#include <algorithm>

#include "training/kernels.h"

namespace elastic {

// Which of `count` high positions low position i feeds, and by how much; positions outside get weight 0.
template <class T>
ELASTIC_INLINE void adjoint_taps(int64_t i, int64_t low, int64_t high, int64_t* taps, T* weights) {
  for (int64_t k = 0; k < 4; k++) {
    const int64_t at = 2 * i - 1 + k;
    const bool border = (k == 1 && i == 0) || (k == 2 && i == low - 1);  // these take the neighbour's quarter as well
    weights[k] = at < 0 || at >= high ? T(0) : k == 0 || k == 3 ? T(0.25) : border ? T(1) : T(0.75);
    taps[k] = std::min(std::max<int64_t>(at, 0), high - 1);
  }
}

}  // namespace elastic
