// Memory for a while: a stack of blocks, so that whoever asks next gets the one that is still in
// the cache. There are never more blocks than tasks ran at once.
#include "kernels.h"

#include <atomic>
#include <cstdlib>

namespace poyo {

namespace {
constexpr size_t line = 64;
std::atomic_flag busy = ATOMIC_FLAG_INIT;
struct Lock {
    Lock() {
        while (busy.test_and_set(std::memory_order_acquire)) {
        }
    }
    ~Lock() { busy.clear(std::memory_order_release); }
};
} // namespace

struct Scratch::Block {
    Block *below;
    size_t floats;
    float *data() { return reinterpret_cast<float *>(reinterpret_cast<char *>(this) + line); }
};

Scratch::Block *Scratch::spare = nullptr;

Scratch::Scratch(size_t floats) : block(nullptr), next(nullptr) {
    static_assert(sizeof(Block) <= line, "data begins on the second line");
    constexpr size_t most = size_t(1) << 40;
    {
        Lock lock;
        block = spare;
        if (block) spare = block->below;
    }
    if (block && block->floats < floats) {
        std::free(block);
        block = nullptr;
    }
    if (!block && floats < most) {
        size_t bytes = line + (floats * sizeof(float) + line - 1) / line * line;
        block = static_cast<Block *>(std::aligned_alloc(line, bytes));
        if (block) block->floats = floats;
    }
    if (block) next = block->data();
}

Scratch::~Scratch() {
    if (!block) return;
    Lock lock;
    block->below = spare;
    spare = block;
}

} // namespace poyo
