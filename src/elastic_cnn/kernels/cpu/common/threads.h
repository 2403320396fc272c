// Threads that compute one call together: a parallel region, a barrier, and how work is divided.
#pragma once
#include <omp.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <thread>

namespace elastic {

// All threads wait for each other by spinning: steps last tens of microseconds, less than waking a thread takes.
// Where a thread does not run (more threads than processors), the others soon give their processor away.
class Barrier {
 public:
  struct Broken {};  // thrown in those that wait for a thread that will not come

  explicit Barrier(int threads = 1) : threads_(threads) {}
  void set_threads(int threads) { threads_ = threads; }
  void wait() {
    if (threads_ == 1) return;
    const int round = round_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == threads_ - 1) {
      arrived_.store(0, std::memory_order_relaxed);
      round_.store(round + 1, std::memory_order_release);
      return;
    }
    for (int spins = 0; round_.load(std::memory_order_acquire) == round; spins++) {
      if (broken_.load(std::memory_order_relaxed)) throw Broken();
      if (spins < 20000)
        pause();
      else
        std::this_thread::yield();
    }
  }
  // Nobody waits any longer: a thread left the region by an exception.
  void break_off() { broken_.store(true, std::memory_order_relaxed); }

 private:
  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

  int threads_;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<int> round_{0};
  std::atomic<bool> broken_{false};
};

// One of the threads of a parallel region.
struct Worker {
  int index, count;
  Barrier& barrier;
  void wait() const { barrier.wait(); }
};

// body(worker) on up to `threads` threads (OpenMP's, which are torch's too), in one parallel region; alone where already
// inside one. An exception of one of them ends all of them and is thrown again here.
template <class Body>
void parallel(int threads, const Body& body) {
  Barrier barrier;
  if (threads == 1 || omp_in_parallel()) return body(Worker{0, 1, barrier});
  std::exception_ptr fault;
#pragma omp parallel num_threads(threads)
  {
#pragma omp single
    barrier.set_threads(omp_get_num_threads());
    try {
      body(Worker{omp_get_thread_num(), omp_get_num_threads(), barrier});
    } catch (const Barrier::Broken&) {  // another thread's exception is the one to tell
    } catch (...) {
#pragma omp critical(elastic_fault)
      fault = std::current_exception();
      barrier.break_off();
    }
  }
  if (fault) std::rethrow_exception(fault);
}

struct Range {
  int begin, end;
};

// The piece of [0, count) that is this worker's.
inline Range range_of(int count, const Worker& worker) {
  return {int(int64_t(count) * worker.index / worker.count), int(int64_t(count) * (worker.index + 1) / worker.count)};
}

// How evenly so many units divide among threads: 1 where nobody waits.
inline double evenness(int units, int threads) {
  const int most = (units + threads - 1) / threads;
  return double(units) / (double(most) * threads);
}

// Whether threads divide rows of a map or panels of its channels: what can be divided more evenly.
inline bool divides_by_rows(int rows, int panels, int threads) {
  return threads == 1 || evenness(rows, threads) >= evenness(panels, threads) - 0.02;
}

// Seconds by a clock that never goes back.
inline double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// body(image, alone) for the images of a batch, which all workers enter: where they may, each takes an image for itself
// while there are as many as workers; what is left over they compute together, in any one's memory.
template <class Body>
void for_each_image(int64_t images, bool may_be_alone, const Worker& worker, const Body& body) {
  const int64_t whole = may_be_alone ? images / worker.count * worker.count : 0;
  for (int64_t image = worker.index; image < whole; image += worker.count) body(image, true);
  if (may_be_alone) worker.wait();
  for (int64_t image = whole; image < images; image++) body(image, false);
}

}  // namespace elastic
