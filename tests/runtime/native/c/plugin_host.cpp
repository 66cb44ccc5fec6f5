// Plays a second of spikes through the example plugin: plugin_host SESSION LIBRARY UNIT
#include <cstdio>

#include "../../../../examples/native/open_ephys_plugin.cpp"

int main(int, char **words) {
    PoyoEdgeProcessor plugin;
    if (plugin.open("absent.onnx", words[2], 30000)) return 1;
    if (plugin.said.empty() || !plugin.open(words[1], words[2], 30000)) return 1;
    AudioBuffer<float> buffer;
    const std::string unit = words[3];
    const size_t slash = unit.rfind('/');
    for (int block = 0; block < 100; block++) {
        auto spike = std::make_shared<Spike>();
        spike->channel.name.text = unit.substr(0, slash);
        spike->sorted = static_cast<uint16_t>(std::stoi(unit.substr(slash + 1)));
        spike->sample = plugin.first + 30;
        plugin.coming.push_back(spike);
        plugin.process(buffer);
        plugin.first += 600;
    }
    for (const auto &message : plugin.said)
        std::printf("%s\n", message.c_str());
}
