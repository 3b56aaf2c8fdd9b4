// The encoder of BERT over packed sequences.
//
// Many sequences are cut into batches that fit the second-level cache, and each thread takes batches
// through the whole network by itself.  Few are taken by all threads together, each computing its
// share of every step.  A number comes out the same to the last bit either way, and whatever other
// sequences are there: its sum is taken in one order.

#pragma once

#include <algorithm>
#include <new>
#include <vector>

#include "attention.h"
#include "in_parallel.h"
#include "integer_attention.h"
#include "linear.h"
#include "norm.h"
#include "scratch.h"
#include "team.h"

namespace minibert {

struct Layer {
    Linear qkv, output, up, down;
    Norm attention_norm, feed_forward_norm;
};

struct Network {
    int numbers, layers, hidden, heads, intermediate, activation;
    const float *token, *token_type, *position;
    Norm norm;
    const Layer* layer;
};

struct Batch {
    const int32_t* ids;      // of all tokens
    const int32_t* types;    // of all tokens, or missing where all are of the first
    const int32_t* lengths;  // of the sequences
    const int32_t* skips;    // first tokens that are not pooled, or missing
    int sequences, tokens;
    bool pooled;  // the mean of each sequence, in place of its hidden states
    float* out;
};

enum Activation { GELU, GELU_TANH, RELU };

// Rows of the feed-forward network that are widened at once: wide rows stay in the cache.
constexpr int WIDE_ROWS = 64;

// Whether all but the linear maps is computed as precisely as in float32.
template <class Kind>
constexpr bool EXACT = std::is_same<Kind, Float32>::value || std::is_same<Kind, Bfloat16x3>::value;

// The numbers of a batch on their way through the network.
template <class Kind>
struct Workspace {
    static constexpr bool quantised = !std::is_same<Kind, Float32>::value;
    int hidden, wide, fused;         // distances of rows
    int narrow_hidden, narrow_wide;  // of quantised ones
    float *x, *qkv, *context, *y, *up;
    typename Kind::Input *narrow, *narrow_up;
    float *scale, *zero;

    Workspace(Scratch& scratch, const Network& network, int tokens) {
        const Layer& layer = network.layer[0];
        hidden = layer.output.outputs;
        wide = layer.up.outputs;
        fused = layer.qkv.outputs;
        narrow_hidden = layer.qkv.inputs;
        narrow_wide = layer.down.inputs;
        const int wide_rows = std::min(tokens, WIDE_ROWS);
        const auto narrow_bytes = [](long width, int rows) {
            return sizeof(typename Kind::Input) * width * rounded_up(rows, tiles::ROWS);
        };
        size_t size = 0;
        auto place = [&](size_t bytes) {
            const size_t here = size;
            size += (bytes + 63) / 64 * 64 + 64;  // a line apart, so that rows do not collide
            return here;
        };
        const size_t row = 4l * hidden * tokens;
        const size_t places[] = {
            place(row), place(4l * fused * tokens), place(row), place(row),
            place(4l * wide * wide_rows), place(narrow_bytes(narrow_hidden, tokens)),
            place(narrow_bytes(narrow_wide, wide_rows)), place(4l * tokens), place(4l * tokens)};
        char* memory = scratch.at_least(size);
        x = (float*)(memory + places[0]);
        qkv = (float*)(memory + places[1]);
        context = (float*)(memory + places[2]);
        y = (float*)(memory + places[3]);
        up = (float*)(memory + places[4]);
        narrow = (typename Kind::Input*)(memory + places[5]);
        narrow_up = (typename Kind::Input*)(memory + places[6]);
        scale = (float*)(memory + places[7]);
        zero = (float*)(memory + places[8]);
    }
};

template <class Kind>
class Encoder {
   public:
    Encoder(const Network& network, const Batch& batch, const Workspace<Kind>& space,
            const Member& member, char* scratch)
        : net_(network), batch_(batch), space_(space), member_(member), scratch_(scratch) {}

    void run() {
        const tiles::InUse in_use(Kind::BY_TILES);
        embed_tokens();
        for (int i = 0; i < net_.layers; ++i)
            layer(net_.layer[i], i + 1 < net_.layers ? &net_.layer[i + 1].qkv : nullptr);
        write();
    }

   private:
    const Network& net_;
    const Batch& batch_;
    const Workspace<Kind>& space_;
    const Member member_;
    char* scratch_;  // of attention, this member's own

    int first() const { return member_.first(batch_.tokens); }
    int last() const { return member_.last(batch_.tokens); }

    void embed_tokens() {
        int token = 0;
        for (int sequence = 0; sequence < batch_.sequences; ++sequence)
            for (int i = 0; i < batch_.lengths[sequence]; ++i, ++token) {
                if (token < first() || token >= last()) continue;
                const long width = net_.hidden;
                const long type = batch_.types ? batch_.types[token] : 0;
                embed(net_.token + batch_.ids[token] * width, net_.token_type + type * width,
                      net_.position + i * width, x(token), net_.hidden, net_.norm);
                narrow(x(token), token);
            }
        member_.meet();
    }

    float* x(int token) { return space_.x + (long)token * space_.hidden; }
    float* y(int token) { return space_.y + (long)token * space_.hidden; }

    // Quantises a row of `hidden` numbers for the linear map that follows.
    void narrow(const float* row, int token) {
        if constexpr (Workspace<Kind>::quantised)
            quantise(Kind(), row, net_.hidden, space_.narrow_hidden,
                     space_.narrow + (long)token * space_.narrow_hidden, space_.scale + token,
                     space_.zero + token);
    }

    Rows<Kind> inputs(const float* rows) const {
        if constexpr (Workspace<Kind>::quantised)
            return {space_.narrow, space_.narrow_hidden, space_.scale, space_.zero};
        else
            return {rows, space_.hidden, nullptr, nullptr};
    }

    // The first of this member's panels; nullptr where there is no map.
    const char* first_panel(const Linear* map) const {
        return map ? panel_of<Kind>(*map, member_.first(map->outputs / PANEL)) : nullptr;
    }

    // `next` is the map after this one.
    template <class Then>
    void map(const Rows<Kind>& rows, int first, int last, const Linear& map, const Linear* next,
             float* out, long stride, Then then) {
        const int panels = map.outputs / PANEL;
        linear<Kind>(rows, first, last, map, member_.first(panels), member_.last(panels), out, stride,
                     then, first_panel(next));
        member_.meet();
    }

    void layer(const Layer& layer, const Linear* next) {
        const auto same = [](Floats value) { return value; };
        const int tokens = batch_.tokens;
        map(inputs(space_.x), 0, tokens, layer.qkv, &layer.output, space_.qkv, space_.fused, same);
        attend();
        map(inputs(space_.context), 0, tokens, layer.output, &layer.up, space_.y, space_.hidden, same);
        add_and_norm(layer.attention_norm);
        for (int row = 0; row < tokens; row += WIDE_ROWS)
            feed_forward(layer, row, std::min(row + WIDE_ROWS, tokens),
                         row + WIDE_ROWS < tokens ? &layer.up : next);
        add_and_norm(layer.feed_forward_norm);
    }

    void attend() {
        const int dim = net_.hidden / net_.heads;
        const int tasks = batch_.sequences * net_.heads;
        int task = 0, token = 0;
        for (int sequence = 0; sequence < batch_.sequences; ++sequence) {
            const int length = batch_.lengths[sequence];
            for (int head = 0; head < net_.heads; ++head, ++task) {
                if (task < member_.first(tasks) || task >= member_.last(tasks)) continue;
                const float* q = space_.qkv + (long)token * space_.fused + head * dim;
                const float *k = q + net_.hidden, *v = k + net_.hidden;
                float* out = space_.context + (long)token * space_.hidden + head * dim;
                if constexpr (EXACT<Kind>)
                    attention(q, k, v, space_.fused, length, dim, out, space_.hidden, (float*)scratch_);
                else
                    IntegerAttention(length, dim, scratch_).run(q, k, v, space_.fused, out, space_.hidden);
            }
            token += length;
        }
        member_.meet();
        if constexpr (Workspace<Kind>::quantised) {
            for (int i = first(); i < last(); ++i) narrow(space_.context + (long)i * space_.hidden, i);
            member_.meet();
        }
    }

    void add_and_norm(const Norm& norm) {
        for (int token = first(); token < last(); ++token) {
            add_norm(x(token), y(token), net_.hidden, norm);
            narrow(x(token), token);
        }
        member_.meet();
    }

    void feed_forward(const Layer& layer, int first, int last, const Linear* next) {
        const int count = last - first;
        Rows<Kind> in = inputs(space_.x);
        in.values += (long)first * in.stride;
        if (in.scale) in.scale += first;
        if (in.zero) in.zero += first;
        const auto widen = [&](auto activation) {
            map(in, 0, count, layer.up, &layer.down, space_.up, space_.wide, activation);
        };
        if (net_.activation == RELU)
            widen([](Floats value) { return larger(value, all(0.0f)); });
        else if (net_.activation == GELU_TANH)
            widen([](Floats value) { return gelu_tanh(value); });
        else if constexpr (std::is_same<Kind, Int8>::value || std::is_same<Kind, Bfloat16>::value)
            widen([](Floats value) { return rough_gelu(value); });
        else
            widen([](Floats value) { return gelu(value); });
        // x is read no more until the norm, so the scales of its rows make room for the wide ones'.
        Rows<Kind> wide;
        if constexpr (Workspace<Kind>::quantised) {
            for (int i = member_.first(count); i < member_.last(count); ++i)
                quantise(Kind(), space_.up + (long)i * space_.wide, net_.intermediate,
                         space_.narrow_wide, space_.narrow_up + (long)i * space_.narrow_wide,
                         space_.scale + first + i, space_.zero + first + i);
            member_.meet();
            wide = {space_.narrow_up, space_.narrow_wide, space_.scale + first, space_.zero + first};
        } else {
            wide = {space_.up, space_.wide, nullptr, nullptr};
        }
        map(wide, 0, count, layer.down, next, y(first), space_.hidden,
            [](Floats value) { return value; });
    }

    void write() {
        int start = 0;
        for (int sequence = 0; sequence < batch_.sequences; ++sequence) {
            const int stop = start + batch_.lengths[sequence];
            const bool mine = sequence >= member_.first(batch_.sequences) &&
                              sequence < member_.last(batch_.sequences);
            if (mine && batch_.pooled) {
                float* mean = batch_.out + (long)sequence * net_.hidden;
                const int from = start + (batch_.skips ? batch_.skips[sequence] : 0);
                for (int i = 0; i < net_.hidden; ++i) mean[i] = 0;
                for (int token = from; token < stop; ++token)
                    for (int i = 0; i < net_.hidden; ++i) mean[i] += x(token)[i];
                for (int i = 0; i < net_.hidden; ++i) mean[i] /= (float)(stop - from);
            } else if (mine) {
                for (int token = start; token < stop; ++token)
                    std::memcpy(batch_.out + (long)token * net_.hidden, x(token), 4 * net_.hidden);
            }
            start = stop;
        }
    }
};

inline thread_local Scratch workspace_memory, attention_memory;

template <class Kind>
char* attention_space(const Network& network, const Batch& batch) {
    const int longest = *std::max_element(batch.lengths, batch.lengths + batch.sequences);
    const int dim = network.hidden / network.heads;
    return attention_memory.at_least(EXACT<Kind> ? 4 * attention_scratch(longest, dim)
                                                 : IntegerAttention::bytes(longest, dim));
}

inline std::vector<Batch> batches_of(const Batch& whole, int hidden, int budget) {
    std::vector<Batch> batches;
    Batch next = whole;
    next.sequences = next.tokens = 0;
    for (int sequence = 0; sequence < whole.sequences; ++sequence) {
        const int length = whole.lengths[sequence];
        if (next.sequences && next.tokens + length > budget) {
            batches.push_back(next);
            const int tokens = next.tokens, sequences = next.sequences;
            next.ids += tokens;
            if (next.types) next.types += tokens;
            next.lengths += sequences;
            if (next.skips) next.skips += sequences;
            next.out += (long)hidden * (whole.pooled ? sequences : tokens);
            next.sequences = next.tokens = 0;
        }
        next.sequences += 1;
        next.tokens += length;
    }
    batches.push_back(next);
    return batches;
}

// False where memory is short; nothing may be thrown out of a parallel region.
template <class Kind>
bool encode(const Network& network, const Batch& whole, int budget, int threads) {
    const std::vector<Batch> batches = batches_of(whole, network.hidden, budget);
    const int count = batches.size();
    if (threads == 1 || count >= 2 * threads)
        return !in_parallel(count, threads, [&](int i) {
            Barrier alone(1);
            const Workspace<Kind> space(workspace_memory, network, batches[i].tokens);
            char* scratch = attention_space<Kind>(network, batches[i]);
            Encoder<Kind>(network, batches[i], space, {0, 1, &alone}, scratch).run();
        });
    std::atomic<bool> enough{true};
    for (const Batch& batch : batches) {
        Barrier barrier(threads);
        const Workspace<Kind> space(workspace_memory, network, batch.tokens);
#pragma omp parallel for schedule(static, 1) num_threads(threads)
        for (int rank = 0; rank < threads; ++rank) {
            char* scratch = nullptr;
            try {
                scratch = attention_space<Kind>(network, batch);
            } catch (const std::bad_alloc&) {
                enough = false;
            }
            barrier.wait();  // until each has its scratch, or all know that one has none
            if (enough) Encoder<Kind>(network, batch, space, {rank, threads, &barrier}, scratch).run();
        }
    }
    return enough;
}

}  // namespace minibert
