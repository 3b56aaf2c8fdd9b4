// softmax(q kᵀ / √dim) v of one head of one sequence, of any length, without padding.
//
// Keys are transposed once, so that the scores of a query with LANES keys are one vector; queries are
// taken QUERIES at a time, so that each key and each value is loaded once for all of them.  Scores
// never leave the first-level cache.
//
// Arithmetic intensity: 4 · length · dim operations and `length` exponentials a query.  At 20 tokens
// of 32 numbers the transposition and the ends of vectors cost as much as the products; from 128 on
// the bound is the rate of the multiplication units, and of the exponentials.
#pragma once

#include <cmath>
#include <limits>

#include "parts.h"
#include "simd.h"

namespace minibert {

#if defined(MINIBERT_AVX512)
constexpr int QUERIES = 8;
#else
constexpr int QUERIES = 4;
#endif

// Floats of scratch that one head takes.
inline long attention_scratch(int length, int dim) {
    const long keys = rounded_up(length, 2 * LANES), width = rounded_up(dim, 2 * LANES);
    return rounded_up(dim, LANES) * keys + length * width + QUERIES * keys;
}

// Rows become columns: blocks beside the diagonal change places, ever smaller ones.
template <int width = LANES / 2>
MINIBERT_INLINE void transpose(Floats (&row)[LANES]) {
    if constexpr (width > 0) {
        static constexpr Lanes upper =
            lanes([](int lane) { return lane & width ? LANES + lane - width : lane; });
        static constexpr Lanes lower =
            lanes([](int lane) { return lane & width ? LANES + lane : lane + width; });
#pragma GCC unroll 16
        for (int i = 0; i < LANES; ++i)
            if (!(i & width)) {
                const Floats a = row[i], b = row[i + width];
                row[i] = __builtin_shuffle(a, b, vector_of(upper));
                row[i + width] = __builtin_shuffle(a, b, vector_of(lower));
            }
        transpose<width / 2>(row);
    }
}

// The sums over `terms` of x[query][term] · rows[term], two vectors of columns wide.
template <int count>
MINIBERT_INLINE void products(const float* x, long x_stride, int terms, const float* rows,
                              long row_stride, Floats (&sums)[count][2]) {
    for (int i = 0; i < terms; ++i) {
        const Floats a = load(rows + i * row_stride), b = load(rows + i * row_stride + LANES);
#pragma GCC unroll 8
        for (int query = 0; query < count; ++query) {
            const Floats value = all(x[query * x_stride + i]);
            sums[query][0] += value * a;
            sums[query][1] += value * b;
        }
    }
}

template <int count>
MINIBERT_INLINE void attend(const float* q, long stride, const float* keys, const float* values,
                            int length, int dim, float* scores, float* out, long out_stride) {
    const int n_keys = rounded_up(length, 2 * LANES), width = rounded_up(dim, 2 * LANES);
    for (int key = 0; key < n_keys; key += 2 * LANES) {
        Floats sums[count][2] = {};
        products<count>(q, stride, dim, keys + key, n_keys, sums);
#pragma GCC unroll 8
        for (int query = 0; query < count; ++query) {
            store(scores + query * n_keys + key, sums[query][0]);
            store(scores + query * n_keys + key + LANES, sums[query][1]);
        }
    }
    const float factor = 1 / std::sqrt((float)dim);
    float total[count];
    for (int query = 0; query < count; ++query) {
        float* row = scores + query * n_keys;
        for (int key = length; key < n_keys; ++key) row[key] = -std::numeric_limits<float>::infinity();
        Floats top = load(row);
        for (int key = LANES; key < n_keys; key += LANES) top = larger(top, load(row + key));
        const float most = largest(top);
        Floats sums = all(0.0f);
        for (int key = 0; key < n_keys; key += LANES) {
            const Floats p = exp_of_negative((load(row + key) - most) * factor);
            store(row + key, p);
            sums += p;
        }
        total[query] = sum(sums);
    }
    for (int column = 0; column < width; column += 2 * LANES) {
        Floats sums[count][2] = {};
        products<count>(scores, n_keys, length, values + column, width, sums);
        for (int query = 0; query < count; ++query)
            for (int half = 0; half < 2; ++half) {
                const int left = dim - column - half * LANES;
                float* to = out + query * out_stride + column + half * LANES;
                const Floats value = sums[query][half] / total[query];
                if (left > 0) store_first(to, value, left);
            }
    }
}

// Of one head: q, k, v and out are its first token's numbers, tokens `stride` and `out_stride` apart.
inline void attention(const float* q, const float* k, const float* v, long stride, int length,
                      int dim, float* out, long out_stride, float* scratch) {
    const int n_keys = rounded_up(length, 2 * LANES), width = rounded_up(dim, 2 * LANES);
    float* keys = scratch;
    float* values = keys + (long)rounded_up(dim, LANES) * n_keys;
    float* scores = values + (long)length * width;
    for (int key = 0; key < n_keys; key += LANES)
        for (int i = 0; i < dim; i += LANES) {
            Floats block[LANES];
            const int left = dim - i;
            for (int lane = 0; lane < LANES; ++lane) {
                const float* from = k + (key + lane) * stride + i;
                if (key + lane >= length)
                    block[lane] = all(0.0f);
                else
                    block[lane] = load_first(from, left);
            }
            transpose(block);
            for (int lane = 0; lane < LANES; ++lane) store(keys + (long)(i + lane) * n_keys + key, block[lane]);
        }
    for (int key = 0; key < length; ++key) {
        std::memcpy(values + (long)key * width, v + key * stride, 4 * dim);
        std::memset(values + (long)key * width + dim, 0, 4 * (width - dim));
    }
    in_even_parts<QUERIES>(length, [&](int query, auto count) {
        attend<count>(q + query * stride, stride, keys, values, length, dim, scores,
                      out + query * out_stride, out_stride);
    });
}

}  // namespace minibert
