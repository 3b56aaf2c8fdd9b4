// What the library offers, by C's calling convention: the encoder, and the kernels one by one.
// Functions return 0, or 1 where memory is short: what they were to write then means nothing.

#include <string>

#include "encoder.h"
#include "in_parallel.h"
#include "training.h"

using namespace minibert;

namespace {

template <class Kind>
int linear_of(const Linear& map, const float* x, long rows, int inputs, float* y, int outputs,
              int threads) {
    constexpr int AT_ONCE = 64;
    return in_parallel((rows + AT_ONCE - 1) / AT_ONCE, threads, [&](int block) {
        const tiles::InUse in_use(Kind::BY_TILES);
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
            const long stride = map.inputs;
            auto* narrow = (Input*)narrow_memory.at_least(sizeof(Input) * AT_ONCE * stride);
            for (int row = 0; row < count; ++row)
                quantise(Kind(), from + (long)row * inputs, inputs, map.inputs,
                         narrow + row * stride, scale + row, zero + row);
            const Rows<Kind> in{narrow, stride, scale, zero};
            linear<Kind>(in, 0, count, map, 0, map.outputs / PANEL, sums, map.outputs, same);
        }
        for (int row = 0; row < count; ++row)
            std::memcpy(y + (long)(first + row) * outputs, sums + (long)row * map.outputs,
                        4l * outputs);
    });
}

bool need_tiles(int numbers) { return numbers == BFLOAT16 || numbers == BFLOAT16X3; }

// task of the kind of linear maps that compute with such numbers.
template <class Task>
int with_kind(int numbers, const Task& task) {
    if constexpr (tiles::COMPILED) {
        if (numbers == BFLOAT16) return task(Bfloat16());
        if (numbers == BFLOAT16X3) return task(Bfloat16x3());
    }
    if (numbers == INT16) return task(Int16());
    if (numbers == INT8) return task(Int8());
    return task(Float32());
}

}  // namespace

extern "C" {

int minibert_panel() { return PANEL; }
int minibert_block() { return BLOCK; }

// Whether there are kernels here for linear maps of such numbers.
bool minibert_has(int numbers) { return !need_tiles(numbers) || tiles::usable(); }

// What they are computed by.
const char* minibert_instructions(int numbers) {
#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
    static const std::string vectors = "AVX-512 VNNI";
#elif defined(__AVX512BW__)
    static const std::string vectors = "AVX-512";
#elif defined(__AVXVNNI__)
    static const std::string vectors = "AVX-VNNI";
#elif defined(__AVX2__)
    static const std::string vectors = "AVX2";
#else
    static const std::string vectors = "no vector instructions by name";
#endif
    static const std::string tiles_too = std::string(tiles::NAME) + " and " + vectors;
    const bool by_tiles = (numbers == INT8 || need_tiles(numbers)) && tiles::usable();
    return (by_tiles ? tiles_too : vectors).c_str();
}

int minibert_encode(const Network* network, const Batch* batch, int budget, int threads) {
    try {
        return with_kind(network->numbers, [&](auto kind) {
            return !encode<decltype(kind)>(*network, *batch, budget, threads);
        });
    } catch (const std::bad_alloc&) {
        return 1;
    }
}

// y (rows, outputs) = x (rows, inputs) Wᵀ + b
int minibert_linear(const Linear* map, int numbers, const float* x, long rows, int inputs, float* y,
                    int outputs, int threads) {
    return with_kind(numbers, [&](auto kind) {
        return linear_of<decltype(kind)>(*map, x, rows, inputs, y, outputs, threads);
    });
}

// q, k, v and out (tokens, heads, dim), sequences one after the other; products of 32 or 16 bits
int minibert_attention(const float* q, const float* k, const float* v, const int32_t* lengths,
                       int sequences, int heads, int dim, int bits, float* out, int threads) try {
    std::vector<long> starts(1, 0);
    for (int i = 0; i < sequences; ++i) starts.push_back(starts.back() + lengths[i]);
    return in_parallel(sequences * heads, threads, [&](int task) {
        const int length = lengths[task / heads];
        const long width = (long)heads * dim;
        const long start = starts[task / heads] * width + (long)(task % heads) * dim;
        if (bits == 16) {
            char* scratch = attention_memory.at_least(IntegerAttention::bytes(length, dim));
            IntegerAttention(length, dim, scratch)
                .run(q + start, k + start, v + start, width, out + start, width);
        } else {
            char* scratch = attention_memory.at_least(4 * attention_scratch(length, dim));
            attention(q + start, k + start, v + start, width, length, dim, out + start, width,
                      (float*)scratch);
        }
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
