// y = x Wᵀ + b for rows of x, in float32, 16-bit or 8-bit integers, with what follows it.
//
// Weights lie in panels of PANEL outputs, all inputs of a panel one after the other, in the order in
// which they are read.  A tile of up to ROWS rows and one panel of outputs is summed up in registers;
// ROWS * PANEL_VECTORS sums and PANEL_VECTORS weights fill those that there are.
//
// Arithmetic intensity: a tile reads PANEL weights and ROWS inputs for ROWS * PANEL products, so at 8
// by 48 each load from the first-level cache feeds 2.2 vector instructions: the bound is the rate of
// the multiplication units, two vectors a cycle.
//
// Integers: x is quantised by row, W by output.  Products and their sums are exact.
//     8 bits:  x ≈ s_row (q - zero_row), q unsigned;  W ≈ s_out w
//              y = s_out (s_row Σ q w - s_row zero_row Σ w) + b
//     16 bits: x ≈ s_row q, q signed; sums of BLOCK inputs fit 32 bits, blocks are added in float32.
#pragma once

#include <algorithm>
#include <type_traits>

#include "parts.h"
#include "simd.h"
#include "team.h"

namespace minibert {

#if defined(MINIBERT_AVX512)
constexpr int ROWS = 8;
constexpr int PANEL_VECTORS = 3;
#else
constexpr int ROWS = 4;
constexpr int PANEL_VECTORS = 2;
#endif
constexpr int PANEL = PANEL_VECTORS * LANES;
constexpr int BLOCK = 128;  // inputs that are summed up as 16-bit integers

// How a linear map is computed, and how its inputs and weights lie in memory.
struct Float32 {
    typedef float Input;
    static constexpr int GROUP = 1;  // inputs that one multiplication takes of each output
    typedef Floats Sum;
    static MINIBERT_INLINE Floats weights(const void* from) { return load((const float*)from); }
    static MINIBERT_INLINE Floats inputs(const float* from) { return all(*from); }
    static MINIBERT_INLINE Floats multiply_add(Floats sum, Floats x, Floats w) { return sum + x * w; }
    static MINIBERT_INLINE Floats value(Floats sum) { return sum; }
};

// Whole numbers, 32 bits of them at a time.
struct Integers {
    typedef Ints Sum;
    static MINIBERT_INLINE Ints weights(const void* from) { return *(const UnalignedInts*)from; }
    static MINIBERT_INLINE Ints inputs(const void* from) {
        int32_t group;
        std::memcpy(&group, from, 4);
        return all(group);
    }
    static MINIBERT_INLINE Floats value(Ints sum) { return to_floats(sum); }
};

struct Int16 : Integers {
    typedef int16_t Input;
    static constexpr int GROUP = 2;
    static MINIBERT_INLINE Ints multiply_add(Ints sum, Ints x, Ints w) {
#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
        return (Ints)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)x, (__m512i)w);
#elif defined(__AVX512BW__)
        return sum + (Ints)_mm512_madd_epi16((__m512i)x, (__m512i)w);
#elif defined(__AVX2__)
        return sum + (Ints)_mm256_madd_epi16((__m256i)x, (__m256i)w);
#else
        return sum + ((x << 16) >> 16) * ((w << 16) >> 16) + (x >> 16) * (w >> 16);
#endif
    }
};

struct Int8 : Integers {
    typedef uint8_t Input;
    static constexpr int GROUP = 4;
    static MINIBERT_INLINE Ints multiply_add(Ints sum, Ints x, Ints w) {
#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
        return (Ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)x, (__m512i)w);
#elif defined(__AVX2__) && !defined(__AVX512BW__) && defined(__AVXVNNI__)
        return (Ints)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)x, (__m256i)w);
#elif defined(__AVX2__) && !defined(__AVX512BW__)
        // Of bytes 0 and 2, and 1 and 3, as 16-bit integers: pairs of bytes would overflow them.
        __m256i low = _mm256_set1_epi16(255), even = (__m256i)((w << 8) & 0xFF00FF00u), odd;
        even = _mm256_srai_epi16(even, 8);
        odd = _mm256_srai_epi16((__m256i)w, 8);
        return sum + (Ints)_mm256_madd_epi16(_mm256_and_si256((__m256i)x, low), even) +
               (Ints)_mm256_madd_epi16(_mm256_srli_epi16((__m256i)x, 8), odd);
#else
#pragma GCC unroll 4
        for (int byte = 0; byte < 4; ++byte)
            sum += ((x >> (8 * byte)) & 255) * ((w << (24 - 8 * byte)) >> 24);
        return sum;
#endif
    }
};

// A linear map; `outputs` and `inputs` are rounded up to PANEL and to BLOCK, with zeros.
struct Linear {
    const void* weights;
    const float* bias;    // (outputs)
    const float* scale;   // (outputs), of integers
    const float* sums;    // (outputs), s_out Σ w, of 8-bit integers
    int outputs, inputs;  // as rounded up
};

// Rows of inputs: of integers, each with its scale, and of 8-bit ones its zero.
template <class Kind>
struct Rows {
    const typename Kind::Input* values;
    long stride;
    const float* scale;
    const float* zero;
};

// The sums of one tile: `count` rows from `x` on by one panel, in float32.
template <class Kind, int count>
MINIBERT_INLINE void tile(const typename Kind::Input* x, long stride, const char* panel, int inputs,
                          Floats (&out)[count][PANEL_VECTORS]) {
    constexpr bool blocked = std::is_same<Kind, Int16>::value;
    for (int start = 0; start < inputs; start += blocked ? BLOCK : inputs) {
        const int stop = blocked ? start + BLOCK : inputs;
        typename Kind::Sum sums[count][PANEL_VECTORS];
#pragma GCC unroll 8
        for (int row = 0; row < count; ++row)
#pragma GCC unroll 4
            for (int v = 0; v < PANEL_VECTORS; ++v) sums[row][v] = typename Kind::Sum{};
        for (int k = start; k < stop; k += Kind::GROUP, panel += 4 * PANEL) {
            for (int v = 0; v < PANEL_VECTORS; ++v) __builtin_prefetch(panel + 1536 + 64 * v);
            typename Kind::Sum w[PANEL_VECTORS];
#pragma GCC unroll 4
            for (int v = 0; v < PANEL_VECTORS; ++v) w[v] = Kind::weights(panel + 4 * LANES * v);
#pragma GCC unroll 8
            for (int row = 0; row < count; ++row) {
                const auto input = Kind::inputs(x + row * stride + k);
#pragma GCC unroll 4
                for (int v = 0; v < PANEL_VECTORS; ++v)
                    sums[row][v] = Kind::multiply_add(sums[row][v], input, w[v]);
            }
        }
#pragma GCC unroll 8
        for (int row = 0; row < count; ++row)
#pragma GCC unroll 4
            for (int v = 0; v < PANEL_VECTORS; ++v) {
                const Floats value = Kind::value(sums[row][v]);
                out[row][v] = start ? out[row][v] + value : value;
            }
    }
}

// What a sum of products stands for: scales, zeros and bias applied.
template <class Kind>
MINIBERT_INLINE Floats finished(Floats sum, const Linear& linear, int column, float scale, float zero) {
    const Floats bias = load(linear.bias + column);
    if constexpr (std::is_same<Kind, Float32>::value) return sum + bias;
    if constexpr (std::is_same<Kind, Int16>::value)
        return sum * scale * load(linear.scale + column) + bias;
    return sum * scale * load(linear.scale + column) - scale * zero * load(linear.sums + column) + bias;
}

template <class Kind, int count, class Then>
MINIBERT_INLINE void tile_of_rows(const Rows<Kind>& x, int row, const Linear& linear, int number,
                                  float* y, long stride, Then then) {
    const long bytes = (long)linear.inputs / Kind::GROUP * 4 * PANEL;
    Floats out[count][PANEL_VECTORS] = {};
    tile<Kind, count>(x.values + row * x.stride, x.stride,
                      (const char*)linear.weights + number * bytes, linear.inputs, out);
    for (int i = 0; i < count; ++i) {
        const float scale = x.scale ? x.scale[row + i] : 1, zero = x.zero ? x.zero[row + i] : 0;
#pragma GCC unroll 4
        for (int v = 0; v < PANEL_VECTORS; ++v) {
            const int column = number * PANEL + v * LANES;
            const Floats value = finished<Kind>(out[i][v], linear, column, scale, zero);
            store(y + (row + i) * stride + column, then(value));
        }
    }
}

// y[row] = then(x[row] Wᵀ + b) for rows [first, last) and the panels [panel, last_panel).
template <class Kind, class Then>
void linear(const Rows<Kind>& x, int first, int last, const Linear& linear, int panel,
            int last_panel, float* y, long stride, Then then) {
    for (; panel < last_panel; ++panel)
        in_even_parts<ROWS>(last - first, [&](int row, auto count) {
            tile_of_rows<Kind, count>(x, first + row, linear, panel, y, stride, then);
        });
}

// ---- quantising rows

// x ≈ scale * q with |q| <= 16383: half of what 16 bits hold, so that sums fit 32.
inline void quantise(const float* x, int count, int stride, int16_t* q, float* scale, float*) {
    constexpr float LARGEST = 16383;
    Floats top = all(0.0f);
    for (int i = 0; i < count; i += LANES) {
        const Floats value = i + LANES <= count ? load(x + i) : load_some(x + i, count - i);
        top = larger(top, larger(value, -value));
    }
    const float magnitude = largest(top);
    *scale = magnitude / LARGEST;
    const float inverse = magnitude > 0 ? LARGEST / magnitude : 0;
    typedef int16_t Shorts __attribute__((vector_size(2 * LANES)));
    for (int i = 0; i < stride; i += LANES) {
        const int left = count - i;
        const Floats value = left >= LANES ? load(x + i) : left > 0 ? load_some(x + i, left) : all(0.0f);
        const Shorts narrow = __builtin_convertvector(nearest(value * inverse), Shorts);
        std::memcpy(q + i, &narrow, sizeof narrow);
    }
}

// x ≈ scale * (q - zero) with q in [0, 255]; 0 is always among what can be told exactly.
inline void quantise(const float* x, int count, int stride, uint8_t* q, float* scale, float* zero) {
    Floats top = all(0.0f), bottom = all(0.0f);
    for (int i = 0; i < count; i += LANES) {
        const Floats value = i + LANES <= count ? load(x + i) : load_some(x + i, count - i);
        top = larger(top, value);
        bottom = smaller(bottom, value);
    }
    const float low = smallest(bottom), span = largest(top) - low;
    const float inverse = span > 0 ? 255 / span : 0;
    *scale = span / 255;
    *zero = (float)__builtin_lrintf(-low * inverse);
    typedef uint8_t Bytes __attribute__((vector_size(LANES)));
    for (int i = 0; i < stride; i += LANES) {
        const int left = count - i;
        const Floats value = left >= LANES ? load(x + i) : left > 0 ? load_some(x + i, left) : all(0.0f);
        Floats moved = smaller(larger(to_floats(nearest(value * inverse)) + *zero, all(0.0f)), all(255.0f));
        const Bytes narrow = __builtin_convertvector(nearest(moved), Bytes);
        std::memcpy(q + i, &narrow, sizeof narrow);
    }
}

}  // namespace minibert
