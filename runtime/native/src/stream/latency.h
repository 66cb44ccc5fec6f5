/* Latencies of millions of decodes in a few kilobytes: bins 1.2 % wide, from 1 us to 10 s. */
#ifndef PE_LATENCY_H
#define PE_LATENCY_H

#include <stdint.h>

#define PE_LATENCY_BINS 1400

typedef struct {
    int64_t counts[PE_LATENCY_BINS], total, max_ns;
} pe_latency;

void pe_latency_add(pe_latency *latency, int64_t ns);
/* The latency that percent of all stay below; 0 without any. */
double pe_latency_percentile_ms(const pe_latency *latency, double percent);

#endif
