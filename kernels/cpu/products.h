// Products of bfloat16 matrices by 16-bit integers: y = x Wᵀ + b, x' = y' W and W' = y'ᵀ x.
//
// On a CPU without matrix units integers of 16 bits are multiplied twice as fast as float32, and
// whatever is multiplied has been rounded to bfloat16 before.  Each product sums up one of the two
// dimensions of a matrix, so each gets its scales along that one: by row, or by column.
//
// Rounding: left factors to ±16383 of the largest of a row, right ones as large as lets the sum over
// BLOCK fit 32 bits.  Of a row of up to 1,536 numbers that is as near as bfloat16 in the norm, or
// nearer.
//
// Arithmetic intensity: that of `linear.h`; making integers reads each matrix twice.
#pragma once

#include "attention.h"
#include "bfloat16.h"
#include "in_parallel.h"
#include "linear.h"
#include "scratch.h"

namespace minibert {

// Integers (rows, stride) with a scale a row: the left factor of a product.
struct Left {
    int16_t* values;
    float* scale;
    int rows;
    long stride;
};

constexpr float LARGEST_LEFT = 16383;
constexpr float LARGEST_RIGHT = 32767;
// What the integers of a right factor's BLOCK may add up to; each may be rounded up by a half.
constexpr float LARGEST_SUM = 2147483647.0f / LARGEST_LEFT - BLOCK;
// Of smaller numbers the reciprocal would be infinite.
constexpr float SMALLEST = 1e-34f;

// 0 for a number, else none.
MINIBERT_INLINE Floats defect(Floats x) { return x - x; }
MINIBERT_INLINE Floats inverse(Floats scale) {
    return scale > SMALLEST ? 1.0f / scale : all(0.0f);
}
MINIBERT_INLINE Ints rounded(Floats x, Floats inverse) { return nearest(x * inverse); }

template <class Number>
void quantise_rows(const Number* x, int columns, const Left& to, int first, int last) {
    for (int row = first; row < last; ++row) {
        const Number* from = x + (long)row * columns;
        Floats top = all(0.0f), defects = all(0.0f);
        in_vectors(columns, [&](long i, auto size) {
            const Floats value = load_first(from + i, size);
            top = larger(top, magnitude(value));
            defects += defect(value);
        });
        const float scale = largest(top) / LARGEST_LEFT;
        to.scale[row] = scale + sum(defects);
        const Floats by = inverse(all(scale));
        for (int i = 0; i < to.stride; i += LANES) {
            const Shorts narrow =
                __builtin_convertvector(rounded(load_padded(from, columns, i), by), Shorts);
            std::memcpy(to.values + row * to.stride + i, &narrow, sizeof narrow);
        }
    }
}

// The transposed of x (rows, columns), columns [first, last): a row of `to` is a column of x. `sums`
// gets those of the columns, unless it is nullptr.
template <class Number>
void quantise_columns(const Number* x, int rows, int columns, const Left& to, float* sums, int first,
                      int last) {
    for (int column = first; column < last; column += LANES) {
        const int size = std::min(LANES, last - column);
        Floats top = all(0.0f), total = all(0.0f);
        for (int start = 0; start < rows; start += BLOCK) {
            Floats part = all(0.0f);
            for (int row = start; row < std::min(rows, start + BLOCK); ++row) {
                const Floats value = load_first(x + (long)row * columns + column, size);
                top = larger(top, magnitude(value));
                part += value;
            }
            total += part;
        }
        const Floats scale = top * (1 / LARGEST_LEFT), by = inverse(scale);
        store_first(to.scale + column, scale + defect(total), size);
        if (sums) store_first(sums + column, total, size);
        for (int start = 0; start < to.stride; start += 2 * LANES) {
            Floats block[LANES];
            for (int i = 0; i < LANES; ++i) {
                Ints pair_of[2] = {};
                for (int half = 0; half < 2; ++half)
                    if (const int row = start + 2 * i + half; row < rows)
                        pair_of[half] = rounded(load_first(x + (long)row * columns + column, size), by);
                block[i] = (Floats)paired(pair_of[0], pair_of[1]);
            }
            transpose(block);
            for (int lane = 0; lane < size; ++lane)
                std::memcpy(to.values + (column + lane) * to.stride + start, &block[lane],
                            sizeof block[lane]);
        }
    }
}

// A right factor: memory for the panels of a `Linear` of so many outputs and inputs.
class Right {
   public:
    Linear linear;

    Right(Scratch& memory, int outputs, int inputs) {
        const long wide = rounded_up(outputs, PANEL), deep = rounded_up(inputs, BLOCK);
        scale_ = (float*)memory.at_least(2 * wide * deep + 4 * wide);
        panels_ = (char*)(scale_ + wide);
        linear = Linear{panels_, nullptr, scale_, nullptr, (int)wide, (int)deep};
    }
    float* scale(int panel) const { return scale_ + panel * PANEL; }
    float* panel(int panel) const { return (float*)(panels_ + 2l * panel * PANEL * linear.inputs); }

   private:
    float* scale_;
    char* panels_;
};

// From sums of blocks and the largest magnitude to the scale of an output.
MINIBERT_INLINE Floats right_scale(Floats block_sum, Floats top) {
    return larger(block_sum * (1 / LARGEST_SUM), top * (1 / LARGEST_RIGHT));
}

// One panel of outputs that are rows of w (outputs, inputs).
inline void pack_rows(const float* w, int outputs, int inputs, const Right& to, int panel) {
    thread_local Scratch memory;
    const int stride = to.linear.inputs;
    auto* narrow = (int16_t*)memory.at_least(2l * PANEL * stride);
    for (int i = 0; i < PANEL; ++i) {
        const int row = panel * PANEL + i;
        int16_t* into = narrow + (long)i * stride;
        std::memset(into, 0, 2 * stride);
        to.scale(panel)[i] = 0;
        if (row >= outputs) continue;
        const float* from = w + (long)row * inputs;
        Floats top = all(0.0f), defects = all(0.0f);
        float most = 0;
        for (int start = 0; start < inputs; start += BLOCK) {
            Floats part = all(0.0f);
            in_vectors(std::min(BLOCK, inputs - start), [&](long k, auto size) {
                const Floats value = load_first(from + start + k, size);
                top = larger(top, magnitude(value));
                part += magnitude(value);
                defects += defect(value);
            });
            most = std::max(most, sum(part));
        }
        const float scale = right_scale(all(most), all(largest(top)))[0];
        to.scale(panel)[i] = scale + sum(defects);
        const Floats by = inverse(all(scale));
        in_vectors(inputs, [&](long k, auto size) {
            const Shorts q = __builtin_convertvector(rounded(load_first(from + k, size), by), Shorts);
            std::memcpy(into + k, &q, 2 * size);
        });
    }
    float* out = to.panel(panel);
    for (int k = 0; k < stride / 2; k += LANES)
        for (int i = 0; i < PANEL; i += LANES) {
            Floats block[LANES];
            for (int lane = 0; lane < LANES; ++lane)
                std::memcpy(&block[lane], narrow + (long)(i + lane) * stride + 2 * k,
                            sizeof block[lane]);
            transpose(block);
            for (int lane = 0; lane < LANES; ++lane)
                store(out + (long)(k + lane) * PANEL + i, block[lane]);
        }
}

// One panel of outputs that are columns of w (inputs, outputs).
template <class Number>
void pack_columns(const Number* w, int inputs, int outputs, const Right& to, int panel) {
    const int stride = to.linear.inputs;
    for (int i = 0; i < PANEL; i += LANES) {
        const int column = panel * PANEL + i, size = std::min(LANES, outputs - column);
        float* out = to.panel(panel) + i;
        if (size <= 0) {
            store(to.scale(panel) + i, all(0.0f));
            for (int k = 0; k < stride / 2; ++k) store(out + (long)k * PANEL, all(0.0f));
            continue;
        }
        Floats top = all(0.0f), most = all(0.0f), defects = all(0.0f);
        for (int start = 0; start < inputs; start += BLOCK) {
            Floats part = all(0.0f);
            for (int row = start; row < std::min(inputs, start + BLOCK); ++row) {
                const Floats value = magnitude(load_first(w + (long)row * outputs + column, size));
                top = larger(top, value);
                part += value;
            }
            most = larger(most, part);
            defects += defect(part);
        }
        const Floats scale = right_scale(most, top), by = inverse(scale);
        store(to.scale(panel) + i, scale + defects);
        for (int k = 0; k < stride / 2; ++k) {
            Ints pair_of[2] = {};
            for (int half = 0; half < 2; ++half)
                if (const int row = 2 * k + half; row < inputs)
                    pair_of[half] = rounded(load_first(w + (long)row * outputs + column, size), by);
            store(out + (long)k * PANEL, (Floats)paired(pair_of[0], pair_of[1]));
        }
    }
}

// y (rows, outputs) = left rightᵀ + bias
template <class Number>
int multiply(const Left& left, const Linear& right, int outputs, Number* y, int threads) {
    constexpr int AT_ONCE = 64;
    return in_parallel((left.rows + AT_ONCE - 1) / AT_ONCE, threads, [&](int block) {
        thread_local Scratch memory;
        const int first = block * AT_ONCE, count = std::min(AT_ONCE, left.rows - first);
        float* sums = (float*)memory.at_least(4l * AT_ONCE * right.outputs);
        const Rows<Int16> rows{left.values + first * left.stride, left.stride, left.scale + first,
                               nullptr};
        linear<Int16>(rows, 0, count, right, 0, right.outputs / PANEL, sums, right.outputs,
                      [](Floats value) { return value; });
        for (int row = 0; row < count; ++row) {
            const float* from = sums + (long)row * right.outputs;
            in_vectors(outputs, [&](long i, auto size) {
                store_first(y + (long)(first + row) * outputs + i, load(from + i), size);
            });
        }
    });
}

}  // namespace minibert
