// LayerNorm of a sum, which remembers what its gradient takes, and that gradient.
//
//     z = (x + y - mean) / √(var + eps);  out = z · weight + bias
//     with g = out' · weight:  x' = y' = (g - mean(g) - z · mean(g z)) / √(var + eps)
//
// Arithmetic intensity: that of `norm.h`; a row stays in the first-level cache throughout.
#pragma once

#include <cmath>

#include "bfloat16.h"
#include "norm.h"

namespace minibert {

// Of one row; `normal` gets z, and what is returned is 1 / √(var + eps).
template <class Number>
inline float add_norm_forward(const float* x, const Number* y, int width, const Norm& norm,
                              float* out, Number* normal) {
    Floats total = all(0.0f), squares = all(0.0f);
    in_vectors(width, [&](long i, auto size) {
        const Floats value = load_first(x + i, size) + load_first(y + i, size);
        store_first(out + i, value, size);
        total += value;
    });
    const float mean = sum(total) / width;
    in_vectors(width, [&](long i, auto size) {
        const Floats apart = (size < LANES ? load_some(out + i, size, mean) : load(out + i)) - mean;
        squares += apart * apart;
    });
    const float factor = 1 / std::sqrt(sum(squares) / width + norm.eps);
    in_vectors(width, [&](long i, auto size) {
        const Floats z = (load_first(out + i, size) - mean) * factor;
        store_first(normal + i, z, size);
        store_first(out + i, z * load_first(norm.weight + i, size) + load_first(norm.bias + i, size),
                    size);
    });
    return factor;
}

// Of one row; its parts of the gradients of weight and bias are added to them.
template <class Number>
inline void add_norm_backward(const float* gradient, const Number* normal, float factor,
                              const float* weight, int width, float* to_x, Number* to_y,
                              float* to_weight, float* to_bias) {
    Floats total = all(0.0f), along = all(0.0f);
    in_vectors(width, [&](long i, auto size) {
        const Floats from = load_first(gradient + i, size), z = load_first(normal + i, size);
        store_first(to_weight + i, load_first(to_weight + i, size) + from * z, size);
        store_first(to_bias + i, load_first(to_bias + i, size) + from, size);
        const Floats g = from * load_first(weight + i, size);
        total += g;
        along += g * z;
    });
    const float mean = sum(total) / width, mean_along = sum(along) / width;
    in_vectors(width, [&](long i, auto size) {
        const Floats g = load_first(gradient + i, size) * load_first(weight + i, size);
        const Floats value = (g - mean - load_first(normal + i, size) * mean_along) * factor;
        store_first(to_x + i, value, size);
        store_first(to_y + i, value, size);
    });
}

}  // namespace minibert
