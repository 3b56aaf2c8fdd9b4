// Which values are dropped, as a function of a seed and the value's number: nothing is kept for the
// backward pass, and no thread has to draw before another.
//
// Arithmetic intensity: four multiplications of integers a vector, which are done while memory is
// waited for.
#pragma once

#include "bfloat16.h"

namespace minibert {

struct Dropout {
    uint64_t seed;
    uint32_t n_dropped;  // of 2^16
    float factor;        // of what is kept

    // The factor of each of LANES values from the one of that number on: 0 where it is dropped.
    MINIBERT_INLINE Floats factors(uint32_t number) const {
        const Words once = mixed(((Words)numbered() + number) ^ (uint32_t)seed);
        const Words draws = mixed(once + (uint32_t)(seed >> 32)) >> 16;
        return draws >= n_dropped ? all(factor) : all(0.0f);
    }

   private:
    // Source: Wellons, https://github.com/skeeto/hash-prospector, lowbias32.
    static MINIBERT_INLINE Words mixed(Words x) {
        x ^= x >> 16;
        x *= 0x7FEB352Du;
        x ^= x >> 15;
        x *= 0x846CA68Bu;
        return x ^ (x >> 16);
    }
};

}  // namespace minibert
