/* A stable sort by time that allocates nothing. */
#ifndef PE_SORT_H
#define PE_SORT_H

#include "ring.h"

/* Sort the first n of spikes, none of them NaN; spare is as long. The two may be exchanged. */
void pe_sort(const pe_clock *clock, pe_spikes *spikes, pe_spikes *spare, size_t n);

#endif
