// What the library offers for training, by C's calling convention: operations and their gradients.
// Numbers are float32, or bfloat16 where a function is told so.  Each is summed up in one order,
// whatever the number of threads.
#pragma once

#include <vector>

#include "attention_backward.h"
#include "norm_backward.h"
#include "products.h"

namespace minibert {

// Values that one thread computes at once.
constexpr long PART = 1 << 14;
constexpr int NORM_ROWS = 64;

inline Left left_factor(Scratch& memory, int rows, int columns) {
    const long stride = rounded_up(columns, BLOCK);
    float* scale = (float*)memory.at_least(2l * rows * stride + 4l * rounded_up(rows, LANES));
    return Left{(int16_t*)(scale + rounded_up(rows, LANES)), scale, rows, stride};
}

template <class Task>
int in_parts(long count, int threads, Task task) {
    return in_parallel((count + PART - 1) / PART, threads, [&](int part) {
        const long first = part * PART, size = std::min(PART, count - first);
        in_vectors(size, [&](long i, auto n) { task(first + i, n); });
    });
}

// task((Number*)nullptr) of the type that is told.
template <class Task>
int with_numbers(bool of_bfloat16, Task task) {
    return of_bfloat16 ? task((Bf16*)nullptr) : task((float*)nullptr);
}

// Where the sequences of packed attention lie; queries are all tokens, or one of each sequence.
struct Sequence {
    long query, token;
    int queries, keys;
};

inline std::vector<Sequence> sequences_of(const int32_t* lengths, int count, bool only_first) {
    std::vector<Sequence> found;
    Sequence next{};
    for (int i = 0; i < count; ++i) {
        next.keys = lengths[i];
        next.queries = only_first ? 1 : lengths[i];
        found.push_back(next);
        next.query += next.queries;
        next.token += next.keys;
    }
    return found;
}

}  // namespace minibert

extern "C" {

struct AttentionCall {
    const void *q, *k, *v;
    long q_stride, k_stride, v_stride;  // between tokens
    const int32_t* lengths;
    int sequences, heads, dim, longest;
    bool only_first, of_bfloat16, drops;
    minibert::Dropout dropout;
    float* logs;  // (queries, heads)
    void* out;    // (queries, heads, dim); of a backward pass the gradient that comes
    void *to_q, *to_k, *to_v;
};

int minibert_attention_training(const AttentionCall* call, bool backward, int threads) try {
    using namespace minibert;
    const auto sequences = sequences_of(call->lengths, call->sequences, call->only_first);
    return with_numbers(call->of_bfloat16, [&](auto* kind) {
        typedef typename std::remove_pointer<decltype(kind)>::type Number;
        return in_parallel(call->sequences * call->heads, threads, [&](int task) {
            thread_local Scratch memory;
            const Sequence& at = sequences[task / call->heads];
            const int heads = call->heads, dim = call->dim, head = task % heads;
            const long width = (long)heads * dim, offset = (long)head * dim;
            const auto from = [&](const void* tensor, long first, long stride) {
                return Head<const Number>{(const Number*)tensor + first * stride + offset, stride};
            };
            const auto to = [&](void* tensor, long first) {
                return Head<Number>{(Number*)tensor + first * width + offset, width};
            };
            const uint32_t step = heads * call->longest;
            const Attended about{at.queries, at.keys, dim, call->drops ? &call->dropout : nullptr,
                                 (uint32_t)at.query * step + head * call->longest, step};
            const auto q = from(call->q, at.query, call->q_stride);
            const auto k = from(call->k, at.token, call->k_stride);
            const auto v = from(call->v, at.token, call->v_stride);
            float* logs = call->logs + at.query * heads + head;
            float* scratch = (float*)memory.at_least(
                4 * attention_backward_scratch(at.queries, at.keys, dim));
            if (backward)
                attention_backward(from(call->out, at.query, width), q, k, v, about, logs, heads,
                                   to(call->to_q, at.query), to(call->to_k, at.token),
                                   to(call->to_v, at.token), scratch);
            else
                attention_forward(q, k, v, about, to(call->out, at.query), logs, heads, scratch);
        });
    });
} catch (const std::bad_alloc&) {
    return 1;
}

// y (rows, outputs) = x (rows, inputs) Wᵀ + b, x and y of bfloat16
int minibert_products(const minibert::Bf16* x, const float* weight, const float* bias, int rows,
                      int inputs, int outputs, minibert::Bf16* y, int threads) try {
    using namespace minibert;
    thread_local Scratch left_memory, right_memory;
    const Left left = left_factor(left_memory, rows, inputs);
    Right right(right_memory, outputs, inputs);
    std::vector<float> biases(right.linear.outputs);
    if (bias) std::copy(bias, bias + outputs, biases.begin());
    right.linear.bias = biases.data();
    return in_parallel(right.linear.outputs / PANEL, threads,
                       [&](int panel) { pack_rows(weight, outputs, inputs, right, panel); }) ||
           in_parallel((rows + NORM_ROWS - 1) / NORM_ROWS, threads,
                       [&](int block) {
                           quantise_rows(x, inputs, left, block * NORM_ROWS,
                                         std::min(rows, (block + 1) * NORM_ROWS));
                       }) ||
           multiply(left, right.linear, outputs, y, threads);
} catch (const std::bad_alloc&) {
    return 1;
}

// The gradients of what `minibert_products` takes; a nullptr is not asked for.
int minibert_products_backward(const minibert::Bf16* gradient, const minibert::Bf16* x,
                               const float* weight, int rows, int inputs, int outputs,
                               minibert::Bf16* to_x, float* to_weight, float* to_bias,
                               int threads) try {
    using namespace minibert;
    thread_local Scratch left_memory, right_memory;
    const std::vector<float> zeros(rounded_up(inputs, PANEL));
    int failed = 0;
    if (to_x) {
        const Left left = left_factor(left_memory, rows, outputs);
        Right right(right_memory, inputs, outputs);
        right.linear.bias = zeros.data();
        failed |= in_parallel(right.linear.outputs / PANEL, threads, [&](int panel) {
            pack_columns(weight, outputs, inputs, right, panel);
        });
        failed |= in_parallel((rows + NORM_ROWS - 1) / NORM_ROWS, threads, [&](int block) {
            quantise_rows(gradient, outputs, left, block * NORM_ROWS,
                          std::min(rows, (block + 1) * NORM_ROWS));
        });
        failed |= multiply(left, right.linear, inputs, to_x, threads);
    }
    if (to_weight || to_bias) {
        const Left left = left_factor(left_memory, outputs, rows);
        failed |= in_parallel((outputs + LANES - 1) / LANES, threads, [&](int block) {
            quantise_columns(gradient, rows, outputs, left, to_bias, block * LANES,
                             std::min(outputs, (block + 1) * LANES));
        });
        if (to_weight) {
            Right right(right_memory, inputs, rows);
            right.linear.bias = zeros.data();
            failed |= in_parallel(right.linear.outputs / PANEL, threads, [&](int panel) {
                pack_columns(x, rows, inputs, right, panel);
            });
            failed |= multiply(left, right.linear, inputs, to_weight, threads);
        }
    }
    return failed;
} catch (const std::bad_alloc&) {
    return 1;
}

// y = x with each value dropped or multiplied: forward and backward are the same.
int minibert_dropout(const void* x, bool of_bfloat16, long count, const minibert::Dropout* dropout,
                     void* y, int threads) {
    using namespace minibert;
    return with_numbers(of_bfloat16, [&](auto* kind) {
        return in_parts(count, threads, [&](long i, auto size) {
            const Floats value = load_first((decltype(kind))x + i, size) * dropout->factors(i);
            store_first((decltype(kind))y + i, value, size);
        });
    });
}

int minibert_gelu(const void* x, bool of_bfloat16, long count, void* y, int threads) {
    using namespace minibert;
    return with_numbers(of_bfloat16, [&](auto* kind) {
        return in_parts(count, threads, [&](long i, auto size) {
            store_first((decltype(kind))y + i, gelu(load_first((decltype(kind))x + i, size)), size);
        });
    });
}

// GELU' = Φ(x) + x φ(x) with φ(x) = e^(-x²/2) / √(2π)
int minibert_gelu_backward(const void* gradient, const void* x, bool of_bfloat16, long count,
                           void* to_x, int threads) {
    using namespace minibert;
    return with_numbers(of_bfloat16, [&](auto* kind) {
        return in_parts(count, threads, [&](long i, auto size) {
            const Floats value = load_first((decltype(kind))x + i, size);
            const Floats density = 0.398942280f * exp_of_negative(value * value * -0.5f);
            const Floats slope = normal_cdf(value) + value * density;
            store_first((decltype(kind))to_x + i,
                        load_first((decltype(kind))gradient + i, size) * slope, size);
        });
    });
}

// out = LayerNorm(x + y), (rows, width); `normal` and `factor` (rows) are for the backward pass.
int minibert_add_norm_training(const float* x, const void* y, bool of_bfloat16,
                               const minibert::Norm* norm, int rows, int width, float* out,
                               void* normal, float* factor, int threads) {
    using namespace minibert;
    return with_numbers(of_bfloat16, [&](auto* kind) {
        return in_parallel((rows + NORM_ROWS - 1) / NORM_ROWS, threads, [&](int block) {
            for (int row = block * NORM_ROWS; row < std::min(rows, (block + 1) * NORM_ROWS); ++row) {
                const long at = (long)row * width;
                factor[row] = add_norm_forward(x + at, (decltype(kind))y + at, width, *norm, out + at,
                                               (decltype(kind))normal + at);
            }
        });
    });
}

int minibert_add_norm_backward(const float* gradient, const void* normal, bool of_bfloat16,
                               const float* factor, const float* weight, int rows, int width,
                               float* to_x, void* to_y, float* to_weight, float* to_bias,
                               int threads) try {
    using namespace minibert;
    const int blocks = (rows + NORM_ROWS - 1) / NORM_ROWS;
    std::vector<float> parts(2l * blocks * width);
    const int failed = with_numbers(of_bfloat16, [&](auto* kind) {
        return in_parallel(blocks, threads, [&](int block) {
            float* part = parts.data() + 2l * block * width;
            for (int row = block * NORM_ROWS; row < std::min(rows, (block + 1) * NORM_ROWS); ++row) {
                const long at = (long)row * width;
                add_norm_backward(gradient + at, (decltype(kind))normal + at, factor[row], weight,
                                  width, to_x + at, (decltype(kind))to_y + at, part, part + width);
            }
        });
    });
    std::fill(to_weight, to_weight + width, 0.0f);
    std::fill(to_bias, to_bias + width, 0.0f);
    for (int block = 0; block < blocks; ++block)
        for (int i = 0; i < width; ++i) {
            to_weight[i] += parts[2l * block * width + i];
            to_bias[i] += parts[2l * block * width + width + i];
        }
    return failed;
} catch (const std::bad_alloc&) {
    return 1;
}
}
