// softmax(q kᵀ / √dim) v of one head of one sequence, its products those of 16-bit integers: twice as
// many a vector as of floats, and exact.
//
//     k ≈ a k', v ≈ b v'    one scale a column, over the tokens of this sequence
//     a q ≈ r q'            one scale, so that scores are r q' k'
//     p = 2^13 e^(score - largest), rounded; divided by its sum at the end
//
// A multiplication takes numbers in pairs: of a key two columns, LANES apart; of values two keys that
// are neighbours.
//
// Arithmetic intensity: as in attention.h, and the products take half as long.  The exponentials,
// only as near as their rounding, are then a third of the time.
#pragma once

#include "attention.h"
#include "linear.h"

namespace minibert {

constexpr int LARGEST_VALUE = 4095;
constexpr int KEYS_AT_ONCE = 64;  // 2^13 · 4095 · 64 < 2^31: sums of so many fit, whatever they are
constexpr int LOWEST_SCORE = -(1 << 30);

// The most that q' and k' may be: scores stay within 2^30, so their differences fit 32 bits.
inline float largest_factor(int dim) {
    return std::min(32767.0f, std::floor(std::sqrt((float)(1 << 30) / dim)));
}

// 2^13 2^x for -31 < x <= 0, to the nearest whole number.
MINIBERT_INLINE Ints probability(Floats x) {
    constexpr float POWER[] = {8191.99414f, 5678.05371f, 1968.10718f, 458.079071f, 78.3979111f};
    constexpr float SHIFT = 12582912;  // 1.5 · 2^23: what is added to it is rounded
    const Floats moved = x + SHIFT;
    const Floats power = polynomial(x - (moved - SHIFT), POWER);
    return nearest((Floats)((Ints)power + ((Ints)moved << 23)));
}

// The sums over `terms` pairs of x[query][term] · rows[term], `vectors` vectors of columns wide.
template <int count, int vectors>
MINIBERT_INLINE void products(const int32_t* x, long x_stride, int terms, const int32_t* rows,
                              long row_stride, Ints (&sums)[count][vectors]) {
    for (int i = 0; i < terms; ++i) {
        Ints row[vectors];
#pragma GCC unroll 2
        for (int v = 0; v < vectors; ++v) row[v] = Integers::weights(rows + i * row_stride + v * LANES);
#pragma GCC unroll 8
        for (int query = 0; query < count; ++query) {
            const Ints pair = Integers::inputs(x + query * x_stride + i);
#pragma GCC unroll 2
            for (int v = 0; v < vectors; ++v)
                sums[query][v] = Int16::multiply_add(sums[query][v], pair, row[v]);
        }
    }
}

class IntegerAttention {
   public:
    static long bytes(int length, int dim) {
        const long keys = rounded_up(length, LANES), width = rounded_up(dim, 2 * LANES);
        return 4 * (2 * width + keys * width + QUERIES * (width + 2 * keys));
    }

    IntegerAttention(int length, int dim, char* scratch)
        : length_(length),
          dim_(dim),
          n_keys_(rounded_up(length, LANES)),
          width_(rounded_up(dim, 2 * LANES)),
          most_(largest_factor(dim)),
          key_scale_((float*)scratch),
          value_scale_(key_scale_ + width_),
          keys_((int32_t*)(value_scale_ + width_)),
          values_(keys_ + (long)n_keys_ * width_ / 2),
          queries_(values_ + (long)n_keys_ * width_ / 2),
          scores_(queries_ + QUERIES * width_),
          shares_((int16_t*)(scores_ + QUERIES * (long)n_keys_)) {}

    void run(const float* q, const float* k, const float* v, long stride, float* out,
             long out_stride) {
        take_keys(k, stride);
        take_values(v, stride);
        scale_queries(q, stride);
        in_even_parts<QUERIES>(length_, [&](int query, auto count) {
            attend<count>(q + query * stride, stride, out + query * out_stride, out_stride);
        });
    }

   private:
    const int length_, dim_;
    const int n_keys_, width_;  // rounded up
    const float most_;          // that q' and k' may be
    float query_factor_, score_scale_;
    int least_score_;  // below the largest, from where on a probability is none
    float* const key_scale_;
    float* const value_scale_;
    int32_t* const keys_;     // (width / 2, n_keys)
    int32_t* const values_;   // (n_keys / 2, width)
    int32_t* const queries_;  // (QUERIES, width / 2)
    int32_t* const scores_;   // (QUERIES, n_keys)
    int16_t* const shares_;   // (QUERIES, n_keys)

    // Of LANES keys from `first` on; `rest` where there are no more.
    Ints of_keys(int first, Ints x, int rest) const {
        if (first + LANES <= length_) return x;
        return numbered() < length_ - first ? x : all(rest);
    }

    // Finds the scale of LANES columns of all keys; gives its inverse.
    Floats scaled(const float* rows, long stride, int column, float most, float* scale) const {
        Floats top = all(0.0f);
        for (int key = 0; key < length_; ++key) {
            const Floats value = load_padded(rows + key * stride, dim_, column);
            top = larger(top, magnitude(value));
        }
        store(scale + column, top * (1 / most));
        return top > 0.0f ? most / top : all(0.0f);
    }

    void take_keys(const float* k, long stride) {
        for (int column = 0; column < width_; column += 2 * LANES) {
            const Floats first = scaled(k, stride, column, most_, key_scale_);
            const Floats second = scaled(k, stride, column + LANES, most_, key_scale_);
            int32_t* to = keys_ + (long)column / 2 * n_keys_;
            for (int key = 0; key < n_keys_; key += LANES) {
                Floats block[LANES];
                for (int lane = 0; lane < LANES; ++lane) {
                    const float* row = k + (key + lane) * stride;
                    if (key + lane < length_)
                        block[lane] = (Floats)paired(nearest(load_padded(row, dim_, column) * first),
                                                     nearest(load_padded(row, dim_, column + LANES) * second));
                    else
                        block[lane] = all(0.0f);
                }
                transpose(block);
                for (int lane = 0; lane < LANES; ++lane)
                    store((float*)to + (long)lane * n_keys_ + key, block[lane]);
            }
        }
    }

    void take_values(const float* v, long stride) {
        for (int column = 0; column < width_; column += LANES) {
            const Floats inverse = scaled(v, stride, column, LARGEST_VALUE, value_scale_);
            for (int key = 0; key < length_; key += 2) {
                const float* row = v + key * stride;
                const Floats next = key + 1 < length_ ? load_padded(row + stride, dim_, column) : all(0.0f);
                const Ints pair = paired(nearest(load_padded(row, dim_, column) * inverse), nearest(next * inverse));
                *(UnalignedInts*)(values_ + (long)key / 2 * width_ + column) = pair;
            }
        }
    }

    // The scale of all queries.
    void scale_queries(const float* q, long stride) {
        Floats top = all(0.0f);
        for (int query = 0; query < length_; ++query)
            for (int column = 0; column < width_; column += LANES) {
                const Floats value = load_padded(q + query * stride, dim_, column) * load(key_scale_ + column);
                top = larger(top, magnitude(value));
            }
        const float magnitude = largest(top), scale = magnitude / most_;
        query_factor_ = magnitude > 0 ? most_ / magnitude : 0;
        score_scale_ = scale * 1.44269504f / std::sqrt((float)dim_);  // powers of 2, not of e
        least_score_ = magnitude > 0 ? (int)std::max(-30 / score_scale_, -2e9f) : 0;
    }

    void take_query(const float* q, int32_t* to) const {
        for (int column = 0; column < width_; column += 2 * LANES) {
            const auto part = [&](int from) {
                return nearest(load_padded(q, dim_, from) * load(key_scale_ + from) * query_factor_);
            };
            *(UnalignedInts*)(to + column / 2) = paired(part(column), part(column + LANES));
        }
    }

    template <int count, int vectors>
    MINIBERT_INLINE void score(int key, Ints (&top)[count]) {
        Ints sums[count][vectors] = {};
        products<count, vectors>(queries_, width_ / 2, width_ / 2, keys_ + key, n_keys_, sums);
#pragma GCC unroll 8
        for (int query = 0; query < count; ++query)
#pragma GCC unroll 2
            for (int v = 0; v < vectors; ++v) {
                const int first = key + v * LANES;
                const Ints value = of_keys(first, sums[query][v], LOWEST_SCORE);
                *(UnalignedInts*)(scores_ + (long)query * n_keys_ + first) = value;
                top[query] = larger(top[query], value);
            }
    }

    // Makes scores probabilities times 2^13; gives their sum.
    int share(int query, int top) {
        Ints total = all(0);
        for (int key = 0; key < n_keys_; key += LANES) {
            const Ints score = Integers::weights(scores_ + (long)query * n_keys_ + key) - top;
            const Floats below = to_floats(larger(score, all(least_score_))) * score_scale_;
            const Ints part = of_keys(key, probability(below), 0);
            const Shorts narrow = __builtin_convertvector(part, Shorts);
            std::memcpy(shares_ + (long)query * n_keys_ + key, &narrow, sizeof narrow);
            total += part;
        }
        return sum(total);
    }

    template <int count>
    MINIBERT_INLINE void attend(const float* q, long stride, float* out, long out_stride) {
        float factor[count];
        Ints top[count];
        for (int query = 0; query < count; ++query) {
            take_query(q + query * stride, queries_ + query * width_ / 2);
            top[query] = all(LOWEST_SCORE);
        }
        int key = 0;
        for (; key + 2 * LANES <= n_keys_; key += 2 * LANES) score<count, 2>(key, top);
        if (key < n_keys_) score<count, 1>(key, top);
        for (int query = 0; query < count; ++query)
            factor[query] = 1.0f / share(query, largest(top[query]));
        for (int column = 0; column < width_; column += 2 * LANES) {
            Floats context[count][2] = {};
            for (int key = 0; key < length_; key += KEYS_AT_ONCE) {
                const int pairs = (std::min(KEYS_AT_ONCE, length_ - key) + 1) / 2;
                Ints sums[count][2] = {};
                products<count, 2>((const int32_t*)(shares_ + key), n_keys_ / 2, pairs,
                                   values_ + (long)key / 2 * width_ + column, width_, sums);
#pragma GCC unroll 8
                for (int query = 0; query < count; ++query)
                    for (int half = 0; half < 2; ++half)
                        context[query][half] += to_floats(sums[query][half]);
            }
            for (int query = 0; query < count; ++query)
                for (int half = 0; half < 2; ++half) {
                    const int from = column + half * LANES, left = dim_ - from;
                    float* to = out + query * out_stride + from;
                    const Floats value = context[query][half] * load(value_scale_ + from) * factor[query];
                    if (left > 0) store_first(to, value, left);
                }
        }
    }
};

}  // namespace minibert
