/* A frozen session's file: read, checked, and what it says about itself. */
#ifndef PE_FROZEN_H
#define PE_FROZEN_H

#include "../stream/units.h"
#include "guard.h"

#define PE_MOST_UNITS (1u << 20)

typedef struct {
    uint8_t *data; /* the whole file */
    size_t size;
    char session_id[256], unit[64], core_hash[65];
    double window_s;
    uint32_t max_spikes, dim_out;
    bool own_operators;
    double stated_hz; /* spikes per second of all units during calibration; INFINITY: not known */
    pe_units units;
    char *names; /* that units points into */
} pe_frozen;

/* Read and check a file; POYOEDGE_OK, or a code with a sentence in why. */
int pe_frozen_open(pe_frozen *frozen, const char *path, char *why, size_t why_size);
/* The same of bytes in memory, which become the frozen one's (malloc). */
int pe_frozen_read(pe_frozen *frozen, const char *path, uint8_t *data, size_t size, char *why,
                   size_t why_size);
/* The model's bytes alone; they are not needed once ONNX Runtime has the model. */
void pe_frozen_drop_data(pe_frozen *frozen);
void pe_frozen_free(pe_frozen *frozen);
/* A sum as numpy's float32 sum has it. */
float pe_float32_sum(const float *values, size_t n);

#endif
