#include "latency.h"

#include <math.h>

#define LOWEST_NS 1000
#define BINS_PER_DECADE 200

void pe_latency_add(pe_latency *latency, int64_t ns) {
    double of_lowest = (double)(ns > LOWEST_NS ? ns : LOWEST_NS) / LOWEST_NS;
    int place = (int)(log10(of_lowest) * BINS_PER_DECADE);
    latency->counts[place < PE_LATENCY_BINS ? place : PE_LATENCY_BINS - 1]++;
    latency->total++;
    if (ns > latency->max_ns) latency->max_ns = ns;
}

double pe_latency_percentile_ms(const pe_latency *latency, double percent) {
    if (!latency->total) return 0;
    double wanted = ceil((double)latency->total * percent / 100);
    int64_t so_far = 0;
    int place = 0;
    for (; place < PE_LATENCY_BINS; place++) {
        so_far += latency->counts[place];
        if ((double)so_far >= wanted) break;
    }
    double edge_ms = LOWEST_NS * pow(10.0, (place + 1) / (double)BINS_PER_DECADE) / 1e6;
    double max_ms = (double)latency->max_ns / 1e6;
    return edge_ms < max_ms ? edge_ms : max_ms;
}
