// Many things, each computed by one thread.
#pragma once

#include <atomic>
#include <new>

namespace minibert {

// Of `count` things, each by one thread; 1 where memory was short for any of them.
template <class Task>
int in_parallel(int count, int threads, Task task) {
    std::atomic<bool> enough{true};
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
    for (int i = 0; i < count; ++i) try {
            task(i);
        } catch (const std::bad_alloc&) {
            enough = false;
        }
    return !enough;
}

}  // namespace minibert
