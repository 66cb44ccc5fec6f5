/* Looks at an ONNX file before ONNX Runtime does, and refuses what our graphs never hold: the rules
 * of poyo_edge/artifact/onnx_guard.py, and that it has the inputs and the output of a frozen one.
 */
#ifndef PE_GUARD_H
#define PE_GUARD_H

#include "wire.h"

#define PE_MOST_BYTES (INT64_C(1) << 30)

typedef struct {
    bool has_unit, has_time; /* inputs */
    uint32_t dim_out;        /* of the output; 0: it has no such output */
    bool own_operators;      /* whether it has some of our own */
} pe_interface;

/* NULL, or what is wrong with it: "expected ..., got ...". */
const char *pe_guard(pe_bytes file, pe_interface *found);

#endif
