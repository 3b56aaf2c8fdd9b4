// y = x Wᵀ + b for rows of x, in float32, bfloat16, 16-bit or 8-bit integers, with what follows it.
//
// Weights lie in panels of PANEL outputs, all inputs of a panel one after the other, in the order in
// which they are read.  A tile of up to ROWS rows and one panel of outputs is summed up in registers;
// ROWS * PANEL_VECTORS sums and PANEL_VECTORS weights fill those that there are.
//
// Arithmetic intensity: a tile reads PANEL weights and ROWS inputs for ROWS * PANEL products, so at 8
// by 48 each load from the first-level cache feeds 2.2 vector instructions: the bound is the rate of
// the multiplication units, two vectors a cycle.
//
// Weights come from the third-level cache or from memory, once for all rows: while a panel is
// multiplied, the next one is fetched into the second level, a part of it with each tile.  Fetched with
// the first tile that needs it, it would hold that one up, and nothing would be fetched during the rest.
//
// Integers: x is quantised by row, W by output.  Products and their sums are exact.
//     8 bits:  x ≈ s_row (q - zero_row), q unsigned;  W ≈ s_out w
//              y = s_out (s_row Σ q w - s_row zero_row Σ w) + b
//     16 bits: x ≈ s_row q, q signed; sums of BLOCK inputs fit 32 bits, blocks are added in float32.
//
// Three products of bfloat16: x ≈ x_hi + x_lo, W ≈ W_hi + W_lo, each part rounded to bfloat16;
//     y = x_hi W_hi + x_lo W_hi + x_hi W_lo + b
// is a map of rows (x_hi x_lo x_hi) by weights (W_hi W_hi W_lo), of three times as many inputs.
//
// Matrices on tiles: 16 groups of inputs by 16 outputs of a panel are a tile as they lie there.  A
// block of 32 rows by a panel of 48 outputs has its sums in six tiles; for six products, of 16 cycles
// each, it loads 2 tiles of inputs and 5 of weights, of 8 cycles each: the bound is the rate of the
// products, and after a short row of inputs that of the vector units, which turn sums into outputs
// meanwhile.
#pragma once

#include <algorithm>
#include <type_traits>

#include "bfloat16.h"
#include "parts.h"
#include "simd.h"
#include "team.h"
#include "tiles.h"

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

// What a linear map computes with.
enum Numbers { FLOAT32, BFLOAT16, INT16, INT8, BFLOAT16X3 };

// How a linear map is computed, and how its inputs and weights lie in memory.
struct Float32 {
    typedef float Input;
    static constexpr bool BY_VECTORS = true, BY_TILES = false;
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
    static constexpr bool BY_VECTORS = true, BY_TILES = false;
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
    static constexpr bool BY_VECTORS = true, BY_TILES = tiles::COMPILED;
    template <int sum>
    static MINIBERT_INLINE void multiply_tiles() { tiles::multiply_bytes<sum>(); }
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

// Inputs are rounded to bfloat16, sums are float32.  By vectors it would be slower than float32.
struct Bfloat16 {
    typedef uint16_t Input;
    static constexpr bool BY_VECTORS = false, BY_TILES = tiles::COMPILED;
    static constexpr int GROUP = 2;
    typedef Floats Sum;
    static MINIBERT_INLINE Floats value(Floats sum) { return sum; }
    template <int sum>
    static MINIBERT_INLINE void multiply_tiles() { tiles::multiply_bfloat16<sum>(); }
};

// Nearly float32: only the product of the two small parts, at most 2⁻¹⁶ of the whole, is left out.
struct Bfloat16x3 : Bfloat16 {};

// A linear map; `outputs` and `inputs` are rounded up to PANEL and to BLOCK, with zeros; of Bfloat16x3
// each third of the inputs is.
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

// Weights that are needed next: a panel's width of them is fetched every so many groups of inputs.
struct Ahead {
    const char* from;
    int every, left;

    MINIBERT_INLINE void fetch() {
        if (--left) return;
        left = every;
        for (int v = 0; v < PANEL_VECTORS; ++v) __builtin_prefetch(from + 4 * LANES * v, 0, 2);
        from += 4 * PANEL;
    }
};

// The sums of one tile: `count` rows from `x` on by one panel, in float32.
template <class Kind, int count>
MINIBERT_INLINE void tile(const typename Kind::Input* x, long stride, const char* panel, int inputs,
                          Ahead ahead, Floats (&out)[count][PANEL_VECTORS]) {
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
            ahead.fetch();
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
    if constexpr (std::is_same<typename Kind::Sum, Floats>::value) return sum + bias;
    if constexpr (std::is_same<Kind, Int16>::value)
        return sum * scale * load(linear.scale + column) + bias;
    return sum * scale * load(linear.scale + column) - scale * zero * load(linear.sums + column) + bias;
}

// One row's outputs of a panel, of their sums of products.
template <class Kind, class Then>
MINIBERT_INLINE void write_row(const Rows<Kind>& x, int row, const Linear& linear, int number,
                               const Floats (&sums)[PANEL_VECTORS], float* y, Then then) {
    const float scale = x.scale ? x.scale[row] : 1, zero = x.zero ? x.zero[row] : 0;
#pragma GCC unroll 4
    for (int v = 0; v < PANEL_VECTORS; ++v) {
        const int column = number * PANEL + v * LANES;
        store(y + column, then(finished<Kind>(sums[v], linear, column, scale, zero)));
    }
}

// Where a panel lies.
template <class Kind>
const char* panel_of(const Linear& linear, int number) {
    return (const char*)linear.weights + (long)linear.inputs / Kind::GROUP * 4 * PANEL * number;
}

template <class Kind, int count, class Then>
MINIBERT_INLINE void tile_of_rows(const Rows<Kind>& x, int row, const Linear& linear, int number,
                                  Ahead ahead, float* y, long stride, Then then) {
    Floats out[count][PANEL_VECTORS] = {};
    tile<Kind, count>(x.values + row * x.stride, x.stride, panel_of<Kind>(linear, number),
                      linear.inputs, ahead, out);
    for (int i = 0; i < count; ++i)
        write_row(x, row + i, linear, number, out[i], y + (row + i) * stride, then);
}

// ---- matrices on tiles

static_assert(PANEL % tiles::ROWS == 0 || !tiles::COMPILED);
constexpr int TILES = (PANEL + tiles::ROWS - 1) / tiles::ROWS;  // side by side in a panel
constexpr int BLOCK_TILES = tiles::SUMS / TILES;  // one upon the other in a block of rows
constexpr int BLOCK_ROWS = BLOCK_TILES * tiles::ROWS;
constexpr int WEIGHTS_STEP = tiles::ROWS * 4 * PANEL;  // bytes of a panel that are multiplied at once

// The sums of products of up to BLOCK_ROWS rows by a panel.
template <class Kind>
using BlockSums = typename Kind::Sum[BLOCK_ROWS][PANEL_VECTORS];

// The sums of `high` tiles of rows by one panel; meanwhile(step) is done between the products.
template <class Kind, int high, class Meanwhile>
MINIBERT_INLINE void block(const char* rows, long stride, const char* panel, int steps,
                           BlockSums<Kind>& sums, Meanwhile meanwhile) {
    for_each<high * TILES>([](auto sum) { tiles::zero<sum>(); });
    for (int step = 0; step < steps; ++step, rows += tiles::BYTES, panel += WEIGHTS_STEP) {
        for_each<high>([&](auto i) {
            tiles::load_inputs(rows + i * tiles::ROWS * stride, stride);
            for_each<TILES>([&](auto j) {
                // There and back, so that the weights that were loaded last are used twice.
                constexpr int from = decltype(i)::value, turn = decltype(j)::value;
                constexpr int column = from % 2 ? TILES - 1 - turn : turn;
                if (from == 0 || turn > 0) tiles::load_weights(panel + column * tiles::BYTES, 4 * PANEL);
                Kind::template multiply_tiles<from * TILES + column>();
            });
        });
        meanwhile(step);
    }
    for_each<high * TILES>([&](auto sum) {
        tiles::store<sum>((char*)sums[sum / TILES * tiles::ROWS] + sum % TILES * tiles::BYTES, 4 * PANEL);
    });
}

// The rows of a block are written while the products of the next block are under way: products and
// what turns their sums into outputs take different units of the processor, and as long.
template <class Kind, class Then>
void linear_by_tiles(const Rows<Kind>& x, int first, int last, const Linear& linear, int panel,
                     int last_panel, float* y, long stride, Then then) {
    const int steps = linear.inputs / (tiles::ROWS * Kind::GROUP);
    const long input_stride = x.stride * (long)sizeof(typename Kind::Input);
    alignas(64) BlockSums<Kind> sums[2];
    struct {
        int row, rows, panel;
        const BlockSums<Kind>* sums;
    } ready = {first, 0, panel, sums};
    const auto write = [&](int from, int to) {
        for (int i = from; i < std::min(to, ready.rows); ++i) {
            Floats values[PANEL_VECTORS];
            for (int v = 0; v < PANEL_VECTORS; ++v) values[v] = Kind::value((*ready.sums)[i][v]);
            const int row = ready.row + i;
            write_row(x, row, linear, ready.panel, values, y + row * stride, then);
        }
    };
    int turn = 0;
    __asm__ volatile("" ::: "memory");  // GCC does not know that tiles read what was stored before
    for (; panel < last_panel; ++panel) {
        const char* weights = (const char*)linear.weights + (long)panel * steps * WEIGHTS_STEP;
        for (int row = first; row < last; row += BLOCK_ROWS, turn ^= 1) {
            const int share = (ready.rows + steps - 1) / steps;
            const auto meanwhile = [&](int step) {
                if (row == first)
                    for (int i = 0; i < WEIGHTS_STEP; i += 64)
                        __builtin_prefetch(weights + (step + 2) * WEIGHTS_STEP + i);
                write(step * share, (step + 1) * share);
            };
            const char* rows = (const char*)x.values + row * input_stride;
            const int count = std::min(BLOCK_ROWS, last - row);
            with_size<BLOCK_TILES>((count + tiles::ROWS - 1) / tiles::ROWS, 0, [&](int, auto high) {
                block<Kind, high>(rows, input_stride, weights, steps, sums[turn], meanwhile);
            });
            ready = {row, count, panel, &sums[turn]};
        }
    }
    write(0, ready.rows);
}

// y[row] = then(x[row] Wᵀ + b) for rows [first, last) and the panels [panel, last_panel).
// By tiles it reads on to the end of the last 16 rows.  `following`, or nullptr, is the panel of another
// map that is multiplied after these.
template <class Kind, class Then>
void linear(const Rows<Kind>& x, int first, int last, const Linear& linear, int panel,
            int last_panel, float* y, long stride, Then then, const char* following = nullptr) {
    if constexpr (Kind::BY_TILES)
        if (!Kind::BY_VECTORS || tiles::usable())
            return linear_by_tiles(x, first, last, linear, panel, last_panel, y, stride, then);
    if constexpr (Kind::BY_VECTORS) {
        const int parts = (last - first + ROWS - 1) / ROWS, steps = linear.inputs / Kind::GROUP;
        for (; panel < last_panel; ++panel) {
            const char* next =
                panel + 1 < last_panel ? panel_of<Kind>(linear, panel + 1) : following;
            int turn = 0;
            in_even_parts<ROWS>(last - first, [&](int row, auto count) {
                const long share = (long)steps / parts * turn++ * 4 * PANEL;
                const int every = next ? parts : steps + 1;  // where there is none: never
                tile_of_rows<Kind, count>(x, first + row, linear, panel, {next + share, every, every},
                                          y, stride, then);
            });
        }
    }
}

// ---- quantising rows of `count` numbers, for a linear map of `inputs`, as rounded up

// Writes the nearest that bfloat16 has, halves to even; returns what they are.
MINIBERT_INLINE Floats store_bfloat16(uint16_t* to, Floats value) {
    const Halves narrow = narrowed(value);
    std::memcpy(to, &narrow, sizeof narrow);
    return widened(narrow);
}

inline void quantise(Bfloat16, const float* x, int count, int inputs, uint16_t* q, float*, float*) {
    for (int i = 0; i < inputs; i += LANES) store_bfloat16(q + i, load_padded(x, count, i));
}

inline void quantise(Bfloat16x3, const float* x, int count, int inputs, uint16_t* q, float*, float*) {
    const int third = inputs / 3;
    for (int i = 0; i < third; i += LANES) {
        const Floats value = load_padded(x, count, i);
        const Floats high = store_bfloat16(q + i, value);
        store_bfloat16(q + third + i, value - high);
        store_bfloat16(q + 2 * third + i, high);
    }
}

// x ≈ scale * q with |q| <= 16383: half of what 16 bits hold, so that sums fit 32.
inline void quantise(Int16, const float* x, int count, int inputs, int16_t* q, float* scale, float*) {
    constexpr float LARGEST = 16383;
    Floats top = all(0.0f);
    for (int i = 0; i < count; i += LANES) {
        const Floats value = load_first(x + i, count - i);
        top = larger(top, magnitude(value));
    }
    const float magnitude = largest(top);
    *scale = magnitude / LARGEST;
    const float inverse = magnitude > 0 ? LARGEST / magnitude : 0;
    for (int i = 0; i < inputs; i += LANES) {
        const Floats value = load_padded(x, count, i);
        const Shorts narrow = __builtin_convertvector(nearest(value * inverse), Shorts);
        std::memcpy(q + i, &narrow, sizeof narrow);
    }
}

// x ≈ scale * (q - zero) with q in [0, 255]; 0 is always among what can be told exactly.
inline void quantise(Int8, const float* x, int count, int inputs, uint8_t* q, float* scale, float* zero) {
    Floats top = all(0.0f), bottom = all(0.0f);
    for (int i = 0; i < count; i += LANES) {
        const Floats value = load_first(x + i, count - i);
        top = larger(top, value);
        bottom = smaller(bottom, value);
    }
    const float low = smallest(bottom), span = largest(top) - low;
    const float inverse = span > 0 ? 255 / span : 0;
    *scale = span / 255;
    *zero = (float)__builtin_lrintf(-low * inverse);
    typedef uint8_t Bytes __attribute__((vector_size(LANES)));
    for (int i = 0; i < inputs; i += LANES) {
        const Floats value = load_padded(x, count, i);
        Floats moved = smaller(larger(to_floats(nearest(value * inverse)) + *zero, all(0.0f)), all(255.0f));
        const Bytes narrow = __builtin_convertvector(nearest(moved), Bytes);
        std::memcpy(q + i, &narrow, sizeof narrow);
    }
}

}  // namespace minibert
