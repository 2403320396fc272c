// Threads that compute one call together, and the memory they compute in.
#pragma once
#include <omp.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <thread>

namespace elastic {

// All members wait for each other by spinning: steps last tens of microseconds, less than waking a thread takes.
// Where a member does not run (more threads than processors), the others soon give their processor away.
class Barrier {
 public:
  explicit Barrier(int members) : members_(members) {}
  void wait() {
    if (members_ == 1) return;
    const int round = round_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == members_ - 1) {
      arrived_.store(0, std::memory_order_relaxed);
      round_.store(round + 1, std::memory_order_release);
      return;
    }
    for (int spins = 0; round_.load(std::memory_order_acquire) == round; spins++) {
      if (spins < 20000)
        __builtin_ia32_pause();
      else
        std::this_thread::yield();
    }
  }

 private:
  const int members_;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<int> round_{0};
};

// body(member, members, barrier) on up to `wanted` threads (OpenMP's, which are torch's too), in one parallel region;
// alone where already inside one.
template <class Body>
void together(int wanted, const Body& body) {
  if (wanted == 1 || omp_in_parallel()) {
    Barrier barrier(1);
    body(0, 1, barrier);
    return;
  }
  Barrier* barrier = nullptr;
#pragma omp parallel num_threads(wanted)
  {
#pragma omp single
    barrier = new Barrier(omp_get_num_threads());
    body(omp_get_thread_num(), omp_get_num_threads(), *barrier);
  }
  delete barrier;
}

// The part of [0, count) that is `member`'s.
struct Range {
  int begin, end;
};
inline Range range_of(int count, int member, int members) {
  return {int(int64_t(count) * member / members), int(int64_t(count) * (member + 1) / members)};
}

// How evenly so many units divide among members: 1 where nobody waits.
inline double evenness(int units, int members) {
  const int most = (units + members - 1) / members;
  return double(units) / (double(most) * members);
}

// Seconds by a clock that never goes back.
inline double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// body(image, alone) for the images of a batch, which all members enter: where they may, each takes an image for itself
// while there are as many as members; what is left over they compute together, in any one's memory.
template <class Body>
void for_each_image(int64_t images, bool may_be_alone, int member, int members, Barrier& barrier, const Body& body) {
  const int64_t whole = may_be_alone ? images / members * members : 0;
  for (int64_t image = member; image < whole; image += members) body(image, true);
  if (may_be_alone) barrier.wait();
  for (int64_t image = whole; image < images; image++) body(image, false);
}

// At least `floats` floats, aligned to a cache line, in huge pages where the system has them; content is what the last
// call left. Memory goes back to a small pool that the next call takes from: fresh pages would cost more than a block.
class Scratch {
 public:
  explicit Scratch(int64_t floats);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  float* data() const { return block_; }

 private:
  float* block_;
  int64_t size_;
};

// Asks the system to keep this memory in huge pages from now on; only advice.
void advise_huge_pages(const void* data, size_t bytes);

}  // namespace elastic
