// Spikes from an acquisition callback, values on a timer: what implant-side software needs.
// c++ -std=c++17 rig.cpp $(pkg-config --cflags --libs poyoedge) -lpthread -o rig
// ./rig today.onnx [libonnxruntime.so]
#include <atomic>
#include <chrono>
#include <cstdio>
#include <random>
#include <thread>
#include <vector>

#include <poyoedge.h>

using Clock = std::chrono::steady_clock;
static double now() {
    return std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
}

// The driver calls it with each packet; here a thread below stands in for one.
static void on_spikes(poyoedge_decoder *decoder, const std::vector<double> &seconds,
                      const std::vector<int32_t> &units) {
    poyoedge_push(decoder, seconds.data(), units.data(), seconds.size());
}

int main(int argc, char **argv) {
    poyoedge_options options = POYOEDGE_OPTIONS;
    options.session = argc > 1 ? argv[1] : nullptr;
    options.onnxruntime = argc > 2 ? argv[2] : nullptr;
    poyoedge_decoder *decoder = nullptr;
    char why[512];
    if (int code = poyoedge_open(&options, &decoder, why, sizeof why))
        return std::fprintf(stderr, "%s\n", why), code;
    poyoedge_state state = {};
    state.size = sizeof state;
    poyoedge_stats(decoder, &state);
    std::vector<double> value(state.dim_out);
    std::atomic<bool> stop{false};

    std::thread acquisition([&] {
        std::mt19937 random(0);
        for (; !stop; std::this_thread::sleep_for(std::chrono::milliseconds(1))) {
            std::vector<double> seconds(random() % 2, now());
            std::vector<int32_t> units(seconds.size());
            for (auto &unit : units)
                unit = int32_t(random() % state.n_units);
            on_spikes(decoder, seconds, units);
        }
    });

    auto next = Clock::now();
    for (int i = 0; i < 100; i++) { // two seconds at 50 Hz
        std::this_thread::sleep_until(next += std::chrono::milliseconds(20));
        poyoedge_result result = {};
        result.size = sizeof result;
        if (poyoedge_decode(decoder, now(), 0, value.data(), value.size(), &result) != POYOEDGE_OK)
            break;
        bool usable = result.status == POYOEDGE_VALID || result.status == POYOEDGE_HELD;
        if (usable && i % 10 == 0)
            std::printf("%8.3f %8.3f %s\n", value[0], value[1], state.unit); // move by it
    }
    stop = true;
    acquisition.join();
    poyoedge_stats(decoder, &state);
    std::printf("%llu valid of %llu, p99 %.2f ms\n",
                (unsigned long long)state.statuses[POYOEDGE_VALID],
                (unsigned long long)state.n_decodes, state.p99_ms);
    poyoedge_close(&decoder);
}
