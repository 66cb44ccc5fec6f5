/* Protobuf's wire format, field by field; nothing is copied. See poyo_edge/files/wire.py. */
#ifndef PE_WIRE_H
#define PE_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    const uint8_t *at;
    size_t n;
} pe_bytes;

/* No bytes, at a place that exists: nothing may be copied from NULL, not even nothing. */
#define PE_NONE {(const uint8_t *)"", 0}

typedef struct {
    uint64_t number;
    bool is_integer;
    uint64_t integer;
    pe_bytes bytes; /* without their length */
} pe_field;

typedef enum { PE_END, PE_FIELD, PE_DAMAGED } pe_read;

/* The next field of a message, which rest is moved behind. */
pe_read pe_next_field(pe_bytes *rest, pe_field *field);
/* A number; false if it has no end. */
bool pe_next_integer(pe_bytes *rest, uint64_t *value);
/* Whether bytes are text in UTF-8. */
bool pe_is_text(pe_bytes bytes);
bool pe_is(pe_bytes bytes, const char *text);

#endif
