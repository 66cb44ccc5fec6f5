#include "sort.h"

#include <string.h>

#define RUN 16

static void insert(const pe_clock *c, pe_spikes all, size_t from, size_t to) {
    for (size_t i = from + 1; i < to; i++) {
        pe_time time = all.times[i];
        int32_t row = all.rows[i];
        size_t at = i;
        for (; at > from && pe_earlier(c, time, all.times[at - 1]); at--) {
            all.times[at] = all.times[at - 1];
            all.rows[at] = all.rows[at - 1];
        }
        all.times[at] = time;
        all.rows[at] = row;
    }
}

static void merge(const pe_clock *c, pe_spikes in, pe_spikes out, size_t from, size_t middle,
                  size_t to) {
    size_t a = from, b = middle;
    for (size_t at = from; at < to; at++) {
        bool first = a < middle && (b == to || !pe_earlier(c, in.times[b], in.times[a]));
        size_t taken = first ? a++ : b++;
        out.times[at] = in.times[taken];
        out.rows[at] = in.rows[taken];
    }
}

void pe_sort(const pe_clock *c, pe_spikes *spikes, pe_spikes *spare, size_t n) {
    for (size_t from = 0; from < n; from += RUN)
        insert(c, *spikes, from, from + RUN < n ? from + RUN : n);
    for (size_t run = RUN; run < n; run *= 2) {
        for (size_t from = 0; from < n; from += 2 * run) {
            size_t middle = from + run < n ? from + run : n;
            size_t to = from + 2 * run < n ? from + 2 * run : n;
            merge(c, *spikes, *spare, from, middle, to);
        }
        pe_spikes sorted = *spare;
        *spare = *spikes;
        *spikes = sorted;
    }
}
