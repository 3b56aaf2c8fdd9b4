// Instructions for whole matrices (AMX): eight tiles of 16 rows of 64 bytes, and their products.
//
// Where MINIBERT_EMULATE_TILES is defined, which only tests do, plain C++ computes what Intel's
// Software Developer's Manual says of each instruction, on any processor.
#pragma once

#if !defined(MINIBERT_EMULATE_TILES) && defined(__linux__) && defined(__AMX_TILE__) && \
    defined(__AMX_INT8__) && defined(__AMX_BF16__)
#define MINIBERT_AMX
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <cstdint>
#include <cstring>

namespace minibert::tiles {

constexpr int ROWS = 16, BYTES = 64;  // of a tile
constexpr int SUMS = 6;               // tiles for sums; one more has inputs, and one weights

// What LDTILECFG reads: all tiles as large as they can be.  Where a matrix has fewer rows the others
// are computed for nothing, which is quicker than another configuration.
struct alignas(64) Configuration {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes[16] = {BYTES, BYTES, BYTES, BYTES, BYTES, BYTES, BYTES, BYTES};
    uint8_t rows[16] = {ROWS, ROWS, ROWS, ROWS, ROWS, ROWS, ROWS, ROWS};
};
inline constexpr Configuration CONFIGURATION;

#if defined(MINIBERT_EMULATE_TILES)

constexpr bool COMPILED = true;
constexpr const char* NAME = "emulated AMX";

struct Registers {
    bool configured = false;  // or every instruction is an illegal one
    alignas(64) char sums[SUMS][ROWS][BYTES] = {}, inputs[ROWS][BYTES] = {}, weights[ROWS][BYTES] = {};
};
inline thread_local Registers registers;

template <class Number>
Number (&as(char (&tile)[ROWS][BYTES]))[ROWS][BYTES / sizeof(Number)] {
    if (!registers.configured) __builtin_trap();
    return *(Number(*)[ROWS][BYTES / sizeof(Number)])tile;
}

inline bool permitted() { return true; }

inline void configure() {
    const Configuration& asked = CONFIGURATION;
    for (int tile = 0; tile < 16; ++tile)
        if (asked.rows[tile] != (tile < 8 ? ROWS : 0) || asked.bytes[tile] != (tile < 8 ? BYTES : 0))
            __builtin_trap();
    registers = {asked.palette == 1};
}
inline void release() { registers = {}; }

inline void load(char (&tile)[ROWS][BYTES], const void* from, long stride) {
    for (int row = 0; row < ROWS; ++row)
        std::memcpy(as<char>(tile)[row], (const char*)from + row * stride, BYTES);
}
inline void load_inputs(const void* from, long stride) { load(registers.inputs, from, stride); }
inline void load_weights(const void* from, long stride) { load(registers.weights, from, stride); }

template <int sum>
void store(void* to, long stride) {
    for (int row = 0; row < ROWS; ++row)
        std::memcpy((char*)to + row * stride, as<char>(registers.sums[sum])[row], BYTES);
}
template <int sum>
void zero() {
    std::memset(as<char>(registers.sums[sum]), 0, ROWS * BYTES);
}

// TDPBUSD.
template <int sum>
void multiply_bytes() {
    auto& sums = as<int32_t>(registers.sums[sum]);
    const auto& x = as<uint8_t>(registers.inputs);
    const auto& w = as<int8_t>(registers.weights);
    for (int row = 0; row < ROWS; ++row)
        for (int i = 0; i < BYTES; ++i)
            for (int column = 0; column < BYTES / 4; ++column)
                sums[row][column] += x[row][i] * w[i / 4][4 * column + i % 4];
}

// Numbers below the smallest that has its full precision are zeros, as inputs and as results.
inline float flushed(float x) { return __builtin_fabsf(x) < 1.17549435e-38f ? 0 * x : x; }
inline float from_bfloat16(uint16_t number) {
    const uint32_t bits = (uint32_t)number << 16;
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return flushed(x);
}

// TDPBF16PS: even and odd inputs are summed up apart, and what both come to is added to the tile.
// Each addition rounds to the nearest, halves to even; a product of two bfloat16 numbers is exact.
template <int sum>
void multiply_bfloat16() {
    auto& sums = as<float>(registers.sums[sum]);
    const auto& x = as<uint16_t>(registers.inputs);
    const auto& w = as<uint16_t>(registers.weights);
    for (int row = 0; row < ROWS; ++row) {
        float parts[2][BYTES / 4] = {};
        for (int i = 0; i < BYTES / 2; ++i)
            for (int column = 0; column < BYTES / 4; ++column) {
                const float weight = from_bfloat16(w[i / 2][2 * column + i % 2]);
                float& part = parts[i % 2][column];
                part = flushed(part + from_bfloat16(x[row][i]) * weight);
            }
        for (int column = 0; column < BYTES / 4; ++column) {
            const float both = flushed(parts[0][column] + parts[1][column]);
            sums[row][column] = flushed(flushed(sums[row][column]) + both);
        }
    }
}

#elif defined(MINIBERT_AMX)

constexpr bool COMPILED = true;
constexpr const char* NAME = "AMX";

// Linux lends the tiles to a process that asks for them.
inline bool permitted() {
    constexpr int ARCH_REQ_XCOMP_PERM = 0x1023, XTILEDATA = 18;
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0;
}

inline void configure() { _tile_loadconfig(&CONFIGURATION); }
inline void release() { _tile_release(); }

inline void load_inputs(const void* from, long stride) { _tile_loadd(6, from, stride); }
inline void load_weights(const void* from, long stride) { _tile_loadd(7, from, stride); }

// GCC pastes the number of a tile into the instruction as it stands in the source.
#define MINIBERT_WITH_NUMBER(INSTRUCTION)        \
    static_assert(SUMS == 6);                    \
    if constexpr (sum == 0) INSTRUCTION(0);      \
    else if constexpr (sum == 1) INSTRUCTION(1); \
    else if constexpr (sum == 2) INSTRUCTION(2); \
    else if constexpr (sum == 3) INSTRUCTION(3); \
    else if constexpr (sum == 4) INSTRUCTION(4); \
    else INSTRUCTION(5)

template <int sum>
inline void store(void* to, long stride) {
#define MINIBERT_STORE(number) _tile_stored(number, to, stride)
    MINIBERT_WITH_NUMBER(MINIBERT_STORE);
}
template <int sum>
inline void zero() {
    MINIBERT_WITH_NUMBER(_tile_zero);
}
template <int sum>
inline void multiply_bytes() {
#define MINIBERT_MULTIPLY_BYTES(number) _tile_dpbusd(number, 6, 7)
    MINIBERT_WITH_NUMBER(MINIBERT_MULTIPLY_BYTES);
}
template <int sum>
inline void multiply_bfloat16() {
#define MINIBERT_MULTIPLY_BFLOAT16(number) _tile_dpbf16ps(number, 6, 7)
    MINIBERT_WITH_NUMBER(MINIBERT_MULTIPLY_BFLOAT16);
}

#else

constexpr bool COMPILED = false;
constexpr const char* NAME = "";

inline bool permitted() { return false; }
inline void configure() {}
inline void release() {}

// What follows is called nowhere.
void load_inputs(const void* from, long stride);
void load_weights(const void* from, long stride);
template <int sum>
void store(void* to, long stride);
template <int sum>
void zero();
template <int sum>
void multiply_bytes();
template <int sum>
void multiply_bfloat16();

#endif

// Whether this process may use tiles, asked once.  Static, for the linker makes one answer of those of
// all libraries in a process, and tests load several.
static inline bool usable() {
    static const bool permission = permitted();
    return permission;
}

// Makes the tiles ready for this thread as long as it lives: a thread that has none of them in use is
// switched sooner.
class InUse {
   public:
    explicit InUse(bool wanted) : used_(wanted && usable()) {
        if (used_) configure();
    }
    ~InUse() {
        if (used_) release();
    }
    InUse(const InUse&) = delete;

   private:
    const bool used_;
};

}  // namespace minibert::tiles
