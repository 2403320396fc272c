// The memory that a call computes in.
#pragma once
#include <cstddef>
#include <cstdint>

#include "common/element.h"

namespace elastic {

// At least `floats` floats, aligned to a cache line, in huge pages where the system has them; content is what the last
// call left. Memory goes back to a small pool that the next call takes from: fresh pages would cost more than a block.
class Scratch {
 public:
  explicit Scratch(int64_t floats);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  float* data() const { return block_; }
  Element* elements() const { return reinterpret_cast<Element*>(block_); }

 private:
  float* block_;
  int64_t size_;
};

// Asks the system to keep this memory in huge pages from now on; only advice.
void advise_huge_pages(const void* data, size_t bytes);

}  // namespace elastic
