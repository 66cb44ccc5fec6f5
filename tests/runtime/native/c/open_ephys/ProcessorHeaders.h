// As much of the Open Ephys GUI's plugin interface (0.6) as the example uses; it does nothing.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

template <typename Sample> class AudioBuffer {};

struct String {
    std::string text;
    std::string toStdString() const { return text; }
};

struct SpikeChannel {
    String name;
    String getName() const { return name; }
};

struct Spike {
    SpikeChannel channel;
    int64_t sample = 0;
    uint16_t sorted = 0;
    const SpikeChannel *getChannelInfo() const { return &channel; }
    int64_t getSampleNumber() const { return sample; }
    uint16_t getSortedId() const { return sorted; }
};
using SpikePtr = std::shared_ptr<Spike>;

class GenericProcessor {
  public:
    explicit GenericProcessor(const std::string &name) : name_(name) {}
    virtual ~GenericProcessor() = default;
    virtual void process(AudioBuffer<float> &buffer) = 0;
    virtual void handleSpike(SpikePtr) {}
    // For the test: what came, and what was said.
    std::vector<SpikePtr> coming;
    std::vector<std::string> said;
    int64_t first = 0;

  protected:
    void checkForEvents(bool) {
        for (auto &spike : coming)
            handleSpike(spike);
        coming.clear();
    }
    int64_t getFirstSampleNumberForBlock(int) const { return first; }
    uint32_t getNumSamplesInBlock(int) const { return 600; }
    void broadcastMessage(const std::string &message) { said.push_back(message); }

  private:
    std::string name_;
};
