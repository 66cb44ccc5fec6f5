// A processor for the Open Ephys GUI: sorted spikes in, decoded values out as broadcast messages.
//
// A skeleton: build it in the GUI's plugin template, with libpoyoedge beside it. Spikes come to
// handleSpike in the GUI's audio thread, which also calls process for each buffer; both only touch
// the decoder. Unit names are "ELECTRODE/SORTED_ID", as `poyo-edge run --from oe:` has them.
#include <string>
#include <vector>

#include <ProcessorHeaders.h>
#include <poyoedge.h>

class PoyoEdgeProcessor : public GenericProcessor {
  public:
    PoyoEdgeProcessor() : GenericProcessor("POYO decoder") {}
    ~PoyoEdgeProcessor() override { poyoedge_close(&decoder); }

    // From the editor: a file of `poyo-edge freeze`, and ONNX Runtime's library.
    bool open(const std::string &session, const std::string &onnxruntime, float sampleRate) {
        char why[512];
        poyoedge_options options = POYOEDGE_OPTIONS;
        options.session = session.c_str();
        options.onnxruntime = onnxruntime.empty() ? nullptr : onnxruntime.c_str();
        options.tick_rate_hz = sampleRate;
        poyoedge_close(&decoder);
        if (poyoedge_open(&options, &decoder, why, sizeof why) != POYOEDGE_OK) {
            broadcastMessage(why);
            return false;
        }
        poyoedge_state state = {};
        state.size = sizeof state;
        poyoedge_stats(decoder, &state);
        value.assign(state.dim_out, 0.0);
        return true;
    }

    void handleSpike(SpikePtr spike) override {
        if (!decoder) return;
        const std::string name = spike->getChannelInfo()->getName().toStdString() + "/" +
                                 std::to_string(spike->getSortedId());
        const char *names[] = {name.c_str()};
        int32_t row;
        const int64_t tick = spike->getSampleNumber();
        poyoedge_rows(decoder, names, 1, &row);
        poyoedge_push_ticks(decoder, &tick, &row, 1);
    }

    void process(AudioBuffer<float> &) override {
        checkForEvents(true); // calls handleSpike
        if (!decoder) return;
        const int64_t end = getFirstSampleNumberForBlock(0) + getNumSamplesInBlock(0);
        if (end < next) return;
        next = end + period;
        poyoedge_result result = {};
        result.size = sizeof result;
        if (poyoedge_decode_ticks(decoder, end, 0, value.data(), value.size(), &result) !=
            POYOEDGE_OK)
            return;
        std::string message = "POYO " + std::to_string(result.status);
        for (double one : value)
            message += " " + std::to_string(one);
        broadcastMessage(message);
    }

  private:
    poyoedge_decoder *decoder = nullptr;
    std::vector<double> value;
    int64_t next = 0, period = 600; // samples: 20 ms at 30 kHz
};
