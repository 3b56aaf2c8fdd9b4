// Threads that walk through the network side by side, each with its share of every step.
#pragma once

#include <sched.h>

#include <atomic>

namespace minibert {

// Where the members of a team wait for each other.  They spin: a step takes microseconds, and to be
// woken by the system would take as long.
class Barrier {
   public:
    explicit Barrier(int members) : members_(members) {}

    void wait() {
        if (members_ == 1) return;
        int turn = turn_.load(std::memory_order_acquire);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == members_) {
            arrived_.store(0, std::memory_order_relaxed);
            turn_.store(turn + 1, std::memory_order_release);
            return;
        }
        for (long spins = 0; turn_.load(std::memory_order_acquire) == turn; ++spins)
            if (spins > 20000) sched_yield();  // more threads than processors
    }

   private:
    const int members_;
    std::atomic<int> arrived_{0};
    std::atomic<int> turn_{0};
};

// One member of a team: its number, how many there are, and where they meet.
struct Member {
    int rank;
    int size;
    Barrier* barrier;

    void meet() const { barrier->wait(); }

    // Its share of `count` things, neighbours of each other: [first, last).
    int first(int count) const { return (long)count * rank / size; }
    int last(int count) const { return (long)count * (rank + 1) / size; }
};

}  // namespace minibert
