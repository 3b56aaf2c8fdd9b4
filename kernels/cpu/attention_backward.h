// Attention of one head of one sequence with dropout, and its gradient.
//
//     p = softmax(q kᵀ / √dim);  out = (p ∘ m) v        with m the factors of dropout
//     v' = (p ∘ m)ᵀ out';  p' = (out' vᵀ) ∘ m;  s' = p ∘ (p' - Σ p p');  q' = s' k / √dim
//     k' = s'ᵀ q / √dim
//
// Of each query only the logarithm of its sum of exponentials is remembered: the backward pass
// computes probabilities again, and the factors of dropout are a function of their number.  All is
// float32 inside, whatever comes and goes.
//
// Arithmetic intensity: forward that of `attention.h`, backward 10 · length · dim operations a query
// on scores in the first or second-level cache.
#pragma once

#include <cmath>
#include <limits>

#include "attention.h"
#include "dropout.h"

namespace minibert {

// Where the numbers of one head lie: tokens `stride` apart.
template <class Number>
struct Head {
    Number* first;
    long stride;

    MINIBERT_INLINE Number* token(long number) const { return first + number * stride; }
};

struct Attended {
    int queries, keys, dim;
    const Dropout* dropout;  // nullptr: nothing is dropped
    uint32_t number;         // of the first query's first probability
    uint32_t query_step;     // between the first probabilities of two queries
};

// Floats of scratch that one head takes, backward; forward takes less.
inline long attention_backward_scratch(int queries, int keys, int dim) {
    const long columns = rounded_up(keys, 2 * LANES), width = rounded_up(dim, 2 * LANES);
    return 2 * width * columns + 2 * (keys + queries) * width + 2l * queries * columns;
}

// Rows of float32, filled up with zeros to `width`.
template <class Number>
inline void widen(const Head<const Number>& from, int rows, int dim, int width, float* to) {
    for (int row = 0; row < rows; ++row)
        for (int i = 0; i < width; i += LANES)
            store(to + (long)row * width + i, load_padded(from.token(row), dim, i));
}

// (rows, width) to (width, columns), the columns behind the last row zeros.
inline void transpose(const float* from, int rows, int width, int columns, float* to) {
    for (int row = 0; row < columns; row += LANES)
        for (int i = 0; i < width; i += LANES) {
            Floats block[LANES];
            for (int lane = 0; lane < LANES; ++lane)
                block[lane] =
                    row + lane < rows ? load(from + (long)(row + lane) * width + i) : all(0.0f);
            transpose(block);
            for (int lane = 0; lane < LANES; ++lane)
                store(to + (long)(i + lane) * columns + row, block[lane]);
        }
}

// `count` rows of out = x m, (rows, columns), where x[row][term] lies at row * x_row + term * x_term.
template <int count>
MINIBERT_INLINE void multiply_rows(const float* x, long x_row, long x_term, int terms, const float* m,
                                   int columns, float* out) {
    for (int column = 0; column < columns; column += 2 * LANES) {
        Floats sums[count][2] = {};
        for (int term = 0; term < terms; ++term) {
            const float* from = m + (long)term * columns + column;
            const Floats a = load(from), b = load(from + LANES);
#pragma GCC unroll 8
            for (int i = 0; i < count; ++i) {
                const Floats value = all(x[i * x_row + term * x_term]);
                sums[i][0] += value * a;
                sums[i][1] += value * b;
            }
        }
        for (int i = 0; i < count; ++i) {
            store(out + (long)i * columns + column, sums[i][0]);
            store(out + (long)i * columns + column + LANES, sums[i][1]);
        }
    }
}

inline void multiply(const float* x, long x_row, long x_term, int rows, int terms, const float* m,
                     int columns, float* out) {
    in_even_parts<QUERIES>(rows, [&](int row, auto count) {
        multiply_rows<count>(x + row * x_row, x_row, x_term, terms, m, columns,
                             out + (long)row * columns);
    });
}

template <class Number>
inline void narrow(const float* from, int rows, int dim, int width, float factor,
                   const Head<Number>& to) {
    for (int row = 0; row < rows; ++row)
        in_vectors(dim, [&](long i, auto size) {
            store_first(to.token(row) + i, load(from + (long)row * width + i) * factor, size);
        });
}

// The factors of dropout of LANES probabilities.
MINIBERT_INLINE Floats kept(const Attended& about, int query, int key) {
    if (!about.dropout) return all(1.0f);
    return about.dropout->factors(about.number + query * about.query_step + key);
}

// `logs` gets the logarithm of each query's sum of exponentials, `log_step` apart.
template <class Number>
void attention_forward(const Head<const Number>& q, const Head<const Number>& k,
                       const Head<const Number>& v, const Attended& about,
                       const Head<Number>& out, float* logs, long log_step, float* scratch) {
    const int dim = about.dim, keys = about.keys, queries = about.queries;
    const int columns = rounded_up(keys, 2 * LANES), width = rounded_up(dim, 2 * LANES);
    float *values = scratch, *transposed = values + (long)keys * width;
    float *asking = transposed + (long)width * columns, *scores = asking + (long)queries * width;
    widen(k, keys, dim, width, values);
    transpose(values, keys, width, columns, transposed);
    widen(v, keys, dim, width, values);
    widen(q, queries, dim, width, asking);
    multiply(asking, width, 1, queries, dim, transposed, columns, scores);
    const float factor = 1 / std::sqrt((float)dim);
    for (int query = 0; query < queries; ++query) {
        float* row = scores + (long)query * columns;
        // What is no number among the scores would be lost in the largest and in the exponential.
        Floats defects = all(0.0f);
        for (int key = 0; key < columns; key += LANES) defects += load(row + key) - load(row + key);
        for (int key = keys; key < columns; ++key) row[key] = -std::numeric_limits<float>::infinity();
        Floats top = load(row), sums = all(0.0f);
        for (int key = LANES; key < columns; key += LANES) top = larger(top, load(row + key));
        const float most = largest(top);
        for (int key = 0; key < columns; key += LANES) {
            const Floats p = exp_of_negative((load(row + key) - most) * factor);
            sums += p;
            store(row + key, p * kept(about, query, key));
        }
        const float total = sum(sums);
        logs[query * log_step] = most * factor + std::log(total);
        const Floats inverse = all(1 / total + sum(defects));
        for (int key = 0; key < columns; key += LANES) store(row + key, load(row + key) * inverse);
    }
    multiply(scores, columns, 1, queries, keys, values, width, asking);
    narrow(asking, queries, dim, width, 1.0f, out);
}

template <class Number>
void attention_backward(const Head<const Number>& gradient, const Head<const Number>& q,
                        const Head<const Number>& k, const Head<const Number>& v,
                        const Attended& about, const float* logs, long log_step,
                        const Head<Number>& to_q, const Head<Number>& to_k,
                        const Head<Number>& to_v, float* scratch) {
    const int dim = about.dim, keys = about.keys, queries = about.queries;
    const int columns = rounded_up(keys, 2 * LANES), width = rounded_up(dim, 2 * LANES);
    float *wide_q = scratch, *wide_k = wide_q + (long)queries * width;
    float *wide_out = wide_k + (long)keys * width, *result = wide_out + (long)queries * width;
    float *transposed = result + (long)keys * width, *transposed_v = transposed + (long)width * columns;
    float *p = transposed_v + (long)width * columns, *s = p + (long)queries * columns;
    widen(v, keys, dim, width, result);
    transpose(result, keys, width, columns, transposed_v);
    widen(k, keys, dim, width, wide_k);
    transpose(wide_k, keys, width, columns, transposed);
    widen(q, queries, dim, width, wide_q);
    widen(gradient, queries, dim, width, wide_out);
    multiply(wide_q, width, 1, queries, dim, transposed, columns, p);
    multiply(wide_out, width, 1, queries, dim, transposed_v, columns, s);
    const float factor = 1 / std::sqrt((float)dim);
    for (int query = 0; query < queries; ++query) {
        float *p_row = p + (long)query * columns, *s_row = s + (long)query * columns;
        for (int key = keys; key < columns; ++key) p_row[key] = -std::numeric_limits<float>::infinity();
        const float log = logs[query * log_step];
        Floats along = all(0.0f);
        for (int key = 0; key < columns; key += LANES) {
            const Floats probability = exp_of_negative(load(p_row + key) * factor - log);
            const Floats m = kept(about, query, key);
            const Floats to_p = load(s_row + key) * m;
            along += probability * to_p;
            store(p_row + key, probability);
            store(s_row + key, to_p);
        }
        const Floats all_along = all(sum(along));
        for (int key = 0; key < columns; key += LANES) {
            const Floats probability = load(p_row + key);
            store(s_row + key, probability * (load(s_row + key) - all_along));
            store(p_row + key, probability * kept(about, query, key));
        }
    }
    multiply(p, 1, columns, keys, queries, wide_out, width, result);
    narrow(result, keys, dim, width, 1.0f, to_v);
    multiply(s, 1, columns, keys, queries, wide_q, width, result);
    narrow(result, keys, dim, width, factor, to_k);
    multiply(s, columns, 1, queries, keys, wide_k, width, wide_out);
    narrow(wide_out, queries, dim, width, factor, to_q);
}

}  // namespace minibert
