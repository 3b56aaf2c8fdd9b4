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

#include "simd.h"

namespace minibert {

#if defined(__AVX512F__) && defined(__AVX512BW__)
constexpr int QUERIES = 8;
#else
constexpr int QUERIES = 4;
#endif

inline int rounded_up(int count, int step) { return (count + step - 1) / step * step; }

// Floats of scratch that one head takes.
inline long attention_scratch(int length, int dim) {
    const long keys = rounded_up(length, 2 * LANES), width = rounded_up(dim, 2 * LANES);
    return rounded_up(dim, LANES) * keys + length * width + QUERIES * keys;
}

// Rows become columns: blocks beside the diagonal change places, ever smaller ones.
MINIBERT_INLINE void transpose(Floats (&row)[LANES]) {
#pragma GCC unroll 4
    for (int width = LANES / 2; width; width /= 2) {
        Ints upper, lower;
        for (int lane = 0; lane < LANES; ++lane) {
            upper[lane] = lane & width ? LANES + lane - width : lane;
            lower[lane] = lane & width ? LANES + lane : lane + width;
        }
#pragma GCC unroll 16
        for (int i = 0; i < LANES; ++i)
            if (!(i & width)) {
                const Floats a = row[i], b = row[i + width];
                row[i] = __builtin_shuffle(a, b, upper);
                row[i + width] = __builtin_shuffle(a, b, lower);
            }
    }
}

template <int count>
MINIBERT_INLINE void attend(const float* q, long stride, const float* keys, const float* values,
                            int length, int dim, float* scores, float* out, long out_stride) {
    const int n_keys = rounded_up(length, 2 * LANES), width = rounded_up(dim, 2 * LANES);
    for (int key = 0; key < n_keys; key += 2 * LANES) {
        Floats sums[count][2] = {};
        for (int i = 0; i < dim; ++i) {
            const Floats a = load(keys + (long)i * n_keys + key);
            const Floats b = load(keys + (long)i * n_keys + key + LANES);
#pragma GCC unroll 8
            for (int query = 0; query < count; ++query) {
                const Floats x = all(q[query * stride + i]);
                sums[query][0] += x * a;
                sums[query][1] += x * b;
            }
        }
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
        for (int key = 0; key < length; ++key) {
            const Floats a = load(values + (long)key * width + column);
            const Floats b = load(values + (long)key * width + column + LANES);
#pragma GCC unroll 8
            for (int query = 0; query < count; ++query) {
                const Floats p = all(scores[query * n_keys + key]);
                sums[query][0] += p * a;
                sums[query][1] += p * b;
            }
        }
        for (int query = 0; query < count; ++query)
            for (int half = 0; half < 2; ++half) {
                const int left = dim - column - half * LANES;
                float* to = out + query * out_stride + column + half * LANES;
                const Floats value = sums[query][half] / total[query];
                if (left >= LANES)
                    store(to, value);
                else if (left > 0)
                    store_some(to, value, left);
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
                    block[lane] = left >= LANES ? load(from) : load_some(from, left);
            }
            transpose(block);
            for (int lane = 0; lane < LANES; ++lane) store(keys + (long)(i + lane) * n_keys + key, block[lane]);
        }
    for (int key = 0; key < length; ++key) {
        std::memcpy(values + (long)key * width, v + key * stride, 4 * dim);
        std::memset(values + (long)key * width + dim, 0, 4 * (width - dim));
    }
    int query = 0;
    for (int left = length; left > 0;) {
        const int blocks = (left + QUERIES - 1) / QUERIES, count = (left + blocks - 1) / blocks;
        const float* from = q + query * stride;
        float* to = out + query * out_stride;
        switch (count) {
#define MINIBERT_ATTEND(n)                                                                          \
    case n:                                                                                         \
        attend<(n <= QUERIES ? n : 1)>(from, stride, keys, values, length, dim, scores, to,         \
                                       out_stride);                                                 \
        break;
            MINIBERT_ATTEND(1)
            MINIBERT_ATTEND(2)
            MINIBERT_ATTEND(3)
            MINIBERT_ATTEND(4)
            MINIBERT_ATTEND(5)
            MINIBERT_ATTEND(6)
            MINIBERT_ATTEND(7)
            MINIBERT_ATTEND(8)
#undef MINIBERT_ATTEND
        }
        query += count;
        left -= count;
    }
}

}  // namespace minibert
