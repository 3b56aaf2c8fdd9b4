// Tile instructions for a processor that has none: preloaded, it takes the signal that each of them
// raises, and does what the emulation of tiles.h does.  So a test runs what the compiler made of the
// intrinsics: the numbers of tiles, addresses and strides, and their order.

#define MINIBERT_EMULATE_TILES
#include "../kernels/cpu/parts.h"
#include "../kernels/cpu/tiles.h"

#include <dlfcn.h>
#include <signal.h>
#include <ucontext.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>

namespace tiles = minibert::tiles;

namespace {

void require(bool condition, const char* what) {
    if (condition) return;
    std::fprintf(stderr, "not an instruction of tiles.h: %s\n", what);
    std::_Exit(1);
}

struct Memory {
    char* address;
    long stride;
};

// What the bytes behind the opcode point to, as ModRM, SIB and displacement; moves `code` behind them.
Memory memory(const uint8_t*& code, const greg_t* general, bool high_index, bool high_base) {
    static const int NAMES[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
    const int mode = *code >> 6, low = *code & 7;
    ++code;
    int base = low, index = 4, scale = 0;
    if (low == 4) {
        base = *code & 7, index = (*code >> 3 & 7) | high_index << 3, scale = *code >> 6;
        ++code;
    }
    const bool wide = mode == 2 || (mode == 0 && base == 5);
    int32_t offset = mode == 1 ? *(const int8_t*)code : 0;
    if (wide) std::memcpy(&offset, code, 4);
    code += wide ? 4 : mode;
    require(mode || base != 5 || low == 5, "an address without a base");
    const bool of_code = mode == 0 && base == 5;
    const long from = of_code ? (long)code : general[NAMES[base | high_base << 3]];
    return {(char*)from + offset, index == 4 ? 0 : general[NAMES[index]] << scale};
}

template <class Task>
void with_sum(int number, const Task& task) {
    require(number < tiles::SUMS, "a sum in a tile of factors");
    minibert::for_each<tiles::SUMS>([&](auto sum) {
        if (sum == number) task(sum);
    });
}

void execute(int, siginfo_t*, void* context) {
    greg_t* general = ((ucontext_t*)context)->uc_mcontext.gregs;
    const uint8_t* code = (const uint8_t*)general[REG_RIP];
    // Three bytes of VEX: bits of registers, inverted, and the map 0F38; then W, a source, the prefix.
    require(code[0] == 0xC4 && (code[1] & 31) == 2 && (code[2] & 0x84) == 0, "no VEX.128.0F38.W0");
    const bool high_index = !(code[1] & 64), high_base = !(code[1] & 32);
    const int source = ~code[2] >> 3 & 15, opcode = (code[2] & 3) << 8 | code[3];
    code += 4;
    const int tile = *code >> 3 & 7, other = *code & 7;
    const bool in_memory = *code >> 6 != 3;
    Memory at{};
    if (in_memory)
        at = memory(code, general, high_index, high_base);
    else
        ++code;
    if (opcode == 0x049 && in_memory) {
        require(!std::memcmp(at.address, &tiles::CONFIGURATION, 64), "another configuration");
        tiles::configure();
    } else if (opcode == 0x049) {
        tiles::release();
    } else if (opcode == 0x349) {
        with_sum(tile, [](auto sum) { tiles::zero<sum>(); });
    } else if (opcode == 0x34B) {
        require(tile >= 6, "a load of a sum");
        (tile == 6 ? tiles::load_inputs : tiles::load_weights)(at.address, at.stride);
    } else if (opcode == 0x24B) {
        with_sum(tile, [&](auto sum) { tiles::store<sum>(at.address, at.stride); });
    } else {
        require(other == 6 && source == 7, "factors in other tiles");
        require(opcode == 0x15E || opcode == 0x25C, "another product");
        with_sum(tile, [&](auto sum) {
            opcode == 0x15E ? tiles::multiply_bytes<sum>() : tiles::multiply_bfloat16<sum>();
        });
    }
    general[REG_RIP] = (greg_t)code;
}

}  // namespace

extern "C" {

// Permission for tiles is given.
long syscall(long number, ...) {
    long arguments[6];
    va_list list;
    va_start(list, number);
    for (long& argument : arguments) argument = va_arg(list, long);
    va_end(list);
    constexpr int ARCH_PRCTL = 158;
    if (number == ARCH_PRCTL && arguments[0] == 0x1023 && arguments[1] == 18) return 0;
    static const auto system = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    return system(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4],
                  arguments[5]);
}

void trap_tiles() {
    struct sigaction action {};
    action.sa_sigaction = execute;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGILL, &action, nullptr);
}
}
