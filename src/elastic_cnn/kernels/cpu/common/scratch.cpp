// The pool of scratch memory behind `Scratch`, and huge pages for packed weights.
#include <sys/mman.h>

#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

#include "common/scratch.h"

namespace elastic {

namespace {

#if defined(__SANITIZE_ADDRESS__)  // blocks of the very size that was asked for, so that a step beyond one is seen
constexpr uintptr_t kHugePage = 64;
constexpr size_t kKept = 0;
#else
constexpr uintptr_t kHugePage = uintptr_t(2) << 20;
constexpr size_t kKept = 4;  // blocks that wait for the next call
#endif

struct Block {
  float* data;
  int64_t size;
};
std::mutex pool_lock;
std::vector<Block>& pool() {
  static auto* blocks = new std::vector<Block>();  // never destroyed: threads may outlive static objects
  return *blocks;
}

}  // namespace

Scratch::Scratch(int64_t floats) {
  {
    const std::lock_guard<std::mutex> guard(pool_lock);
    auto& blocks = pool();
    for (size_t i = 0; i < blocks.size(); i++)
      if (blocks[i].size >= floats) {
        block_ = blocks[i].data;
        size_ = blocks[i].size;
        blocks.erase(blocks.begin() + i);
        return;
      }
  }
  const size_t bytes = (size_t(floats) * sizeof(float) + kHugePage - 1) / kHugePage * kHugePage;
  void* memory = nullptr;
  if (posix_memalign(&memory, kHugePage, bytes) != 0) throw std::bad_alloc();
  advise_huge_pages(memory, bytes);
  block_ = static_cast<float*>(memory);
  size_ = int64_t(bytes / sizeof(float));
}

Scratch::~Scratch() {
  const std::lock_guard<std::mutex> guard(pool_lock);
  auto& blocks = pool();
  if (kKept == 0) {
    std::free(block_);
    return;
  }
  if (blocks.size() == kKept) {  // the smallest block goes
    size_t least = 0;
    for (size_t i = 1; i < blocks.size(); i++)
      if (blocks[i].size < blocks[least].size) least = i;
    if (blocks[least].size >= size_) {
      std::free(block_);
      return;
    }
    std::free(blocks[least].data);
    blocks.erase(blocks.begin() + least);
  }
  blocks.push_back({block_, size_});
}

void advise_huge_pages(const void* data, size_t bytes) {
  const auto begin = reinterpret_cast<uintptr_t>(data);
  const uintptr_t first = (begin + kHugePage - 1) / kHugePage * kHugePage,
                  last = (begin + bytes) / kHugePage * kHugePage;
  if (kKept > 0 && last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
}

}  // namespace elastic
