// Numbers of bfloat16, the upper halves of floats; all arithmetic is done on floats.
#pragma once

#include "simd.h"

namespace minibert {

struct Bf16 {
    uint16_t bits;
};

typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));

MINIBERT_INLINE Words all_words(uint32_t x) { return x - Words{}; }

MINIBERT_INLINE Floats widened(Halves x) {
    const Words bits = __builtin_convertvector(x, Words) << 16;
    return (Floats)bits;
}
// To the nearest, halves to even; what is no number stays none.
MINIBERT_INLINE Halves narrowed(Floats x) {
    const Words bits = (Words)x;
    const Words rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
    return __builtin_convertvector(x == x ? rounded : all_words(0x7FC0), Halves);
}

MINIBERT_INLINE Floats load(const Bf16* from) {
    Halves x;
    std::memcpy(&x, from, sizeof x);
    return widened(x);
}
MINIBERT_INLINE Floats load_some(const Bf16* from, int count) {
    Halves x = {};
    std::memcpy(&x, from, 2 * count);
    return widened(x);
}
MINIBERT_INLINE void store(Bf16* to, Floats x) {
    const Halves narrow = narrowed(x);
    std::memcpy(to, &narrow, sizeof narrow);
}
MINIBERT_INLINE void store_some(Bf16* to, Floats x, int count) {
    const Halves narrow = narrowed(x);
    std::memcpy(to, &narrow, 2 * count);
}

}  // namespace minibert
