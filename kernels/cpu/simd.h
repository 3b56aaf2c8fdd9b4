// Vectors of floats as wide as the machine's registers, and the functions that BERT takes of them.
//
// GCC's vector types are used, so the arithmetic reads as arithmetic and runs on any processor;
// instructions by name stand only where the types have no word for them.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif
#if defined(__AVX512F__) && defined(__AVX512BW__)
#define MINIBERT_AVX512
#endif

namespace minibert {

#if defined(MINIBERT_AVX512)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef int16_t Shorts __attribute__((vector_size(2 * LANES)));
typedef float UnalignedFloats __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t UnalignedInts __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

#define MINIBERT_INLINE inline __attribute__((always_inline))

MINIBERT_INLINE Floats load(const float* from) { return *(const UnalignedFloats*)from; }
MINIBERT_INLINE void store(float* to, Floats x) { *(UnalignedFloats*)to = x; }
MINIBERT_INLINE Floats all(float x) { return x - Floats{}; }
MINIBERT_INLINE Ints all(int32_t x) { return x - Ints{}; }

// The first `count` lanes from memory, the others `rest`; and the first `count` lanes to memory.
MINIBERT_INLINE Floats load_some(const float* from, int count, float rest = 0) {
    Floats x = all(rest);
    std::memcpy(&x, from, 4 * count);
    return x;
}
MINIBERT_INLINE void store_some(float* to, Floats x, int count) { std::memcpy(to, &x, 4 * count); }

// The same of any numbers that have these four, and of any count from 1 on.
template <class Number>
MINIBERT_INLINE Floats load_first(const Number* from, int count) {
    return count >= LANES ? load(from) : load_some(from, count);
}
template <class Number>
MINIBERT_INLINE void store_first(Number* to, Floats x, int count) {
    if (count >= LANES)
        store(to, x);
    else
        store_some(to, x, count);
}
// LANES numbers of a row of `count` from the i-th on, zeros behind the last.
template <class Number>
MINIBERT_INLINE Floats load_padded(const Number* row, int count, int i) {
    return i < count ? load_first(row + i, count - i) : all(0.0f);
}

// task(first, size) for each vector of `count` numbers, the last of which may be shorter.
template <class Task>
MINIBERT_INLINE void in_vectors(long count, const Task& task) {
    long i = 0;
    for (; i + LANES <= count; i += LANES) task(i, std::integral_constant<int, LANES>());
    if (i < count) task(i, (int)(count - i));
}

MINIBERT_INLINE Floats larger(Floats a, Floats b) {
#if defined(MINIBERT_AVX512)
    return (Floats)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (Floats)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return a > b ? a : b;
#endif
}
MINIBERT_INLINE Ints larger(Ints a, Ints b) { return a > b ? a : b; }
MINIBERT_INLINE Floats smaller(Floats a, Floats b) {
#if defined(MINIBERT_AVX512)
    return (Floats)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (Floats)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return a < b ? a : b;
#endif
}

MINIBERT_INLINE Floats magnitude(Floats x) { return larger(x, -x); }

// A number a lane, as a constant: GCC would put together a vector of them anew.
struct alignas(4 * LANES) Lanes {
    int32_t from[LANES];
};
template <class Rule>
constexpr Lanes lanes(Rule rule) {
    Lanes made{};
    for (int lane = 0; lane < LANES; ++lane) made.from[lane] = rule(lane);
    return made;
}
MINIBERT_INLINE Ints vector_of(const Lanes& lanes) {
    Ints x;
    std::memcpy(&x, &lanes, sizeof x);
    return x;
}

// By its parameter a constant of this width alone: a process may hold libraries of several.
template <int count = LANES>
MINIBERT_INLINE Ints numbered() {
    static constexpr Lanes numbers = lanes([](int lane) { return lane; });
    return vector_of(numbers);
}

// Lanes are folded in halves, so the order of additions depends on nothing but LANES.
template <int width = LANES / 2, class Vector, class Join>
MINIBERT_INLINE auto folded(Vector x, Join join) {
    if constexpr (width == 0) {
        return x[0];
    } else {
        static constexpr Lanes other_half = lanes([](int lane) { return lane ^ width; });
        return folded<width / 2>(join(x, __builtin_shuffle(x, vector_of(other_half))), join);
    }
}
template <class Vector>
MINIBERT_INLINE auto sum(Vector x) {
    return folded(x, [](Vector a, Vector b) { return a + b; });
}
template <class Vector>
MINIBERT_INLINE auto largest(Vector x) {
    return folded(x, [](Vector a, Vector b) { return larger(a, b); });
}
MINIBERT_INLINE float smallest(Floats x) { return -largest(-x); }

// To the nearest integer, halves to even: adding 1.5 * 2^23 leaves no bit behind the point.
MINIBERT_INLINE Ints nearest(Floats x) {
#if defined(MINIBERT_AVX512)
    return (Ints)_mm512_cvtps_epi32((__m512)x);
#elif defined(__AVX2__)
    return (Ints)_mm256_cvtps_epi32((__m256)x);
#else
    Floats moved = x + 12582912.0f;
    Ints bits;
    std::memcpy(&bits, &moved, sizeof bits);
    return bits - 0x4B400000;
#endif
}
// Two integers of 16 bits in each lane, as a multiplication takes them.
MINIBERT_INLINE Ints paired(Ints low, Ints high) { return (low & 0xFFFF) | (high << 16); }

MINIBERT_INLINE Floats to_floats(Ints x) { return __builtin_convertvector(x, Floats); }

MINIBERT_INLINE Floats reciprocal(Floats x) {
#if defined(MINIBERT_AVX512)
    // 14 bits from the table, all of them after one step of Newton: a division takes thrice as long.
    Floats guess = (Floats)_mm512_rcp14_ps((__m512)x);
    return guess + guess * (1.0f - x * guess);
#else
    return 1.0f / x;
#endif
}

// A polynomial by Horner's rule, coefficients from the constant on.
template <int N>
MINIBERT_INLINE Floats polynomial(Floats x, const float (&coefficients)[N]) {
    Floats value = all(coefficients[N - 1]);
#pragma GCC unroll 16
    for (int i = N - 2; i >= 0; --i) value = value * x + coefficients[i];
    return value;
}

// e^x for x <= 0, to a unit in the last place; 0 from -87 down.  e^x = 2^n e^r with |r| <= ln 2 / 2,
// e^r by its Taylor series.
MINIBERT_INLINE Floats exp_of_negative(Floats x) {
    constexpr float TAYLOR[] = {1, 1, 1 / 2.f, 1 / 6.f, 1 / 24.f, 1 / 120.f, 1 / 720.f};
    x = larger(x, all(-87.5f));
    Ints n = nearest(x * 1.44269504f);
    Floats whole = to_floats(n);
    Floats rest = (x - whole * 0.693145752f) - whole * 1.42860677e-6f;  // ln 2 in two parts
    Ints exponent = (n + 127) << 23;
    Floats power;
    std::memcpy(&power, &exponent, sizeof power);
    Floats value = polynomial(rest, TAYLOR) * power;
    return x > -87.4f ? value : all(0.0f);
}

// Φ, the distribution function of normal(0, 1).  Φ(x) - 1/2 is x P(x²) / Q(x²), fitted for the
// smallest largest error up to |x| = edge, from where on Φ is taken for 0 or 1.
template <int N, int M>
MINIBERT_INLINE Floats normal_cdf(Floats x, float edge, const float (&P)[N], const float (&Q)[M]) {
    Floats near = smaller(larger(x, all(-edge)), all(edge));
    Floats square = near * near;
    Floats half = near * polynomial(square, P) * reciprocal(polynomial(square, Q));
    return 0.5f + smaller(larger(half, all(-0.5f)), all(0.5f));
}

// To 1.6e-8, as far as float32 goes.
MINIBERT_INLINE Floats normal_cdf(Floats x) {
    constexpr float P[] = {0.398942179f,   0.0347850239f,   0.00443503012f, 0.000158957404f,
                           3.13341525e-06f, -2.22570469e-08f, 1.16104097e-10f};
    constexpr float Q[] = {1, 0.253858078f, 0.0284299565f, 0.00176358894f, 5.86760201e-05f};
    return normal_cdf(x, 5.4f, P, Q);
}

MINIBERT_INLINE Floats gelu(Floats x) { return x * normal_cdf(x); }

// To 2e-5 of Φ: what integers of eight bits, or bfloat16, can tell apart is coarser by far.
MINIBERT_INLINE Floats rough_gelu(Floats x) {
    constexpr float P[] = {0.398832146f, 0.0364622406f, 0.00195866221f, -2.05987336e-05f};
    constexpr float Q[] = {1, 0.257066624f, 0.023759143f};
    return x * normal_cdf(x, 4.0f, P, Q);
}

// x / (1 + e^-2u) with u = √(2/π) (x + 0.044715 x³): GELU by its tanh form.
MINIBERT_INLINE Floats gelu_tanh(Floats x) {
    const Floats u = 1.59576912f * (x + 0.044715f * x * x * x);
    const Floats power = exp_of_negative(-magnitude(u));
    return x * (u > 0.0f ? all(1.0f) : power) * reciprocal(1.0f + power);
}

}  // namespace minibert
