// What every call from Python has in common: the dtype of its numbers, the threads it may use, their memory, and the
// status that it returns.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <new>
#include "element.hpp"

#define EG_EXPORT __attribute__((visibility("default")))

namespace evergraft {

extern "C" {
// The threads of torch's own OpenMP, so that torch and the kernels share one pool. If `parallel` is null, everything
// runs on the calling thread.
struct Threads {
  void (*parallel)(void (*)(void*), void*, unsigned count, unsigned flags);  // GOMP_parallel
  int count;
};
}

enum Status { OK, OUT_OF_MEMORY, MALFORMED };
enum Dtype { FLOAT32, BFLOAT16 };

// Calls work(i) once for each i = 0 ... n - 1, on as many threads as there are.
template <class F> void parallel(const Threads& threads, int64_t n, F work) {
  struct Shared {
    F& work;
    int64_t n;
    std::atomic<int64_t> next{0};
    std::atomic<int> failed{0};
  } shared{work, n};
  auto run = [](void* data) {
    auto& s = *(Shared*)data;
    try {
      for (int64_t i; (i = s.next++) < s.n;) s.work(i);
    } catch (Status) {
      s.failed = 1;
    }
  };
  int count = (int)std::min<int64_t>(threads.count, n);
  if (threads.parallel && count > 1) threads.parallel(run, &shared, count, 0);
  else run(&shared);
  if (shared.failed) throw OUT_OF_MEMORY;
}

// Memory of a thread that is kept from call to call, so that the system does not have to map its pages each time.
template <class T> struct Buffer {
  T* data = nullptr;
  size_t size = 0;
  ~Buffer() { free(data); }
  T* at_least(size_t n) {
    if (n > size) {
      free(data);
      data = (T*)aligned_alloc(64, (n * sizeof(T) + 63) / 64 * 64);
      size = data ? n : 0;
      if (!data) throw OUT_OF_MEMORY;
    }
    return data;
  }
};

// Calls work() and returns its status.
template <class F> int guarded(F work) {
  try {
    work();
  } catch (Status status) {
    return status;
  } catch (const std::bad_alloc&) {
    return OUT_OF_MEMORY;
  }
  return OK;
}

// Calls work with a number of the dtype and returns its status.
template <class F> int guarded(int dtype, F work) {
  return guarded([&] { dtype == BFLOAT16 ? work(Bf16{}) : work(0.0f); });
}

}  // namespace evergraft
