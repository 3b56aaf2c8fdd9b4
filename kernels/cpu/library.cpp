// What the library offers, by C's calling convention: the encoder, and the kernels one by one.
// Functions return 0, or 1 where memory is short: what they were to write then means nothing.

#include "encoder.h"
#include "in_parallel.h"
#include "training.h"

using namespace minibert;

namespace {

template <class Kind>
int linear_of(const Linear& map, const float* x, long rows, int inputs, float* y, int outputs,
              int threads) {
    constexpr int AT_ONCE = 64;
    const int stride = rounded_up(inputs, BLOCK);
    return in_parallel((rows + AT_ONCE - 1) / AT_ONCE, threads, [&](int block) {
        thread_local Scratch narrow_memory, wide_memory;
        const int first = block * AT_ONCE, count = std::min<long>(AT_ONCE, rows - first);
        float* sums = (float*)wide_memory.at_least(4l * AT_ONCE * (map.outputs + 2));
        float *scale = sums + (long)AT_ONCE * map.outputs, *zero = scale + AT_ONCE;
        const auto same = [](Floats value) { return value; };
        const float* from = x + (long)first * inputs;
        if constexpr (std::is_same<Kind, Float32>::value) {
            const Rows<Kind> in{from, inputs, nullptr, nullptr};
            linear<Kind>(in, 0, count, map, 0, map.outputs / PANEL, sums, map.outputs, same);
        } else {
            typedef typename Kind::Input Input;
            auto* narrow = (Input*)narrow_memory.at_least(sizeof(Input) * AT_ONCE * stride);
            for (int row = 0; row < count; ++row)
                quantise(from + (long)row * inputs, inputs, stride, narrow + row * stride,
                         scale + row, zero + row);
            const Rows<Kind> in{narrow, stride, scale, zero};
            linear<Kind>(in, 0, count, map, 0, map.outputs / PANEL, sums, map.outputs, same);
        }
        for (int row = 0; row < count; ++row)
            std::memcpy(y + (long)(first + row) * outputs, sums + (long)row * map.outputs,
                        4l * outputs);
    });
}

}  // namespace

extern "C" {

int minibert_panel() { return PANEL; }
int minibert_block() { return BLOCK; }

const char* minibert_instructions() {
#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
    return "AVX-512 VNNI";
#elif defined(__AVX512BW__)
    return "AVX-512";
#elif defined(__AVXVNNI__)
    return "AVX-VNNI";
#elif defined(__AVX2__)
    return "AVX2";
#else
    return "no vector instructions by name";
#endif
}

int minibert_encode(const Network* network, const Batch* batch, int budget, int threads) {
    try {
        if (network->bits == 8) return !encode<Int8>(*network, *batch, budget, threads);
        if (network->bits == 16) return !encode<Int16>(*network, *batch, budget, threads);
        return !encode<Float32>(*network, *batch, budget, threads);
    } catch (const std::bad_alloc&) {
        return 1;
    }
}

// y (rows, outputs) = x (rows, inputs) Wᵀ + b
int minibert_linear(const Linear* map, int bits, const float* x, long rows, int inputs, float* y,
                    int outputs, int threads) {
    if (bits == 8) return linear_of<Int8>(*map, x, rows, inputs, y, outputs, threads);
    if (bits == 16) return linear_of<Int16>(*map, x, rows, inputs, y, outputs, threads);
    return linear_of<Float32>(*map, x, rows, inputs, y, outputs, threads);
}

// q, k, v and out (tokens, heads, dim), sequences one after the other
int minibert_attention(const float* q, const float* k, const float* v, const int32_t* lengths,
                       int sequences, int heads, int dim, float* out, int threads) try {
    std::vector<long> starts(1, 0);
    for (int i = 0; i < sequences; ++i) starts.push_back(starts.back() + lengths[i]);
    return in_parallel(sequences * heads, threads, [&](int task) {
        const int length = lengths[task / heads];
        const long width = (long)heads * dim;
        const long start = starts[task / heads] * width + (long)(task % heads) * dim;
        float* scratch = (float*)attention_memory.at_least(4 * attention_scratch(length, dim));
        attention(q + start, k + start, v + start, width, length, dim, out + start, width, scratch);
    });
} catch (const std::bad_alloc&) {
    return 1;
}

// out (rows, width) = LayerNorm(x + y)
int minibert_add_norm(const float* x, const float* y, const Norm* norm, long rows, int width,
                      float* out, int threads) {
    return in_parallel(rows, threads, [&](int row) {
        std::memcpy(out + (long)row * width, x + (long)row * width, 4l * width);
        add_norm(out + (long)row * width, y + (long)row * width, width, *norm);
    });
}
}
