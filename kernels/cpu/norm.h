// LayerNorm of sums, and the embeddings that are such sums.
//
// Arithmetic intensity: 8 operations a value that is read twice from the second-level cache and
// written once: the bound is that cache, and the time next to the linear layers' small.
#pragma once

#include <cmath>

#include "simd.h"

namespace minibert {

struct Norm {
    const float* weight;  // (width)
    const float* bias;    // (width)
    float eps;
};

// x = (x - mean) / √(var + eps) · weight + bias, where `total` is the sum of x by lanes
MINIBERT_INLINE void normalise(float* x, Floats total, int width, const Norm& norm) {
    const int whole = width / LANES * LANES, left = width - whole;
    const float mean = sum(total) / width;
    Floats squares = all(0.0f);
    for (int i = 0; i < whole; i += LANES) {
        const Floats apart = load(x + i) - mean;
        squares += apart * apart;
    }
    if (left) {
        const Floats apart = load_some(x + whole, left, mean) - mean;
        squares += apart * apart;
    }
    const float factor = 1 / std::sqrt(sum(squares) / width + norm.eps);
    for (int i = 0; i < whole; i += LANES)
        store(x + i, (load(x + i) - mean) * factor * load(norm.weight + i) + load(norm.bias + i));
    if (left) {
        const Floats weight = load_some(norm.weight + whole, left);
        const Floats bias = load_some(norm.bias + whole, left);
        store_some(x + whole, (load_some(x + whole, left) - mean) * factor * weight + bias, left);
    }
}

inline void add_norm(float* x, const float* y, int width, const Norm& norm) {
    const int whole = width / LANES * LANES, left = width - whole;
    Floats total = all(0.0f);
    for (int i = 0; i < whole; i += LANES) {
        const Floats value = load(x + i) + load(y + i);
        store(x + i, value);
        total += value;
    }
    if (left) {
        const Floats value = load_some(x + whole, left) + load_some(y + whole, left);
        store_some(x + whole, value, left);
        total += value;
    }
    normalise(x, total, width, norm);
}

inline void embed(const float* token, const float* type, const float* position, float* x, int width,
                  const Norm& norm) {
    for (int i = 0; i < width; ++i) x[i] = token[i] + type[i];
    add_norm(x, position, width, norm);
}

}  // namespace minibert
