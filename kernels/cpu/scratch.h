// Memory that grows and is kept: pages of the system cost more than what is computed in them.
#pragma once

#include <cstdlib>
#include <new>

namespace minibert {

// Aligned to a cache line; of one thread.
class Scratch {
   public:
    char* at_least(size_t bytes) {
        if (bytes > bytes_) {
            std::free(memory_);
            memory_ = (char*)std::aligned_alloc(64, (bytes + 63) / 64 * 64);
            bytes_ = memory_ ? bytes : 0;
            if (!memory_) throw std::bad_alloc();
        }
        return memory_;
    }
    ~Scratch() { std::free(memory_); }

   private:
    char* memory_ = nullptr;
    size_t bytes_ = 0;
};

}  // namespace minibert
