/* Names, each once, for looking up without allocating. */
#ifndef PE_UNITS_H
#define PE_UNITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    const char *text; /* not terminated */
    size_t length;
} pe_name;

typedef struct {
    size_t n, room, n_slots;
    pe_name *names;
    uint64_t *hashes;
    uint32_t *slots; /* place + 1, or 0 */
} pe_units;

/* Room for so many names. They are not copied. */
bool pe_units_init(pe_units *units, size_t room);
void pe_units_free(pe_units *units);
/* The place of a name, or -1. */
int64_t pe_units_find(const pe_units *units, pe_name name);
/* The place of the name that another table has at a place, or -1. */
int64_t pe_units_find_same(const pe_units *units, const pe_units *other, size_t place);
/* Add a name and give its place; -1 if it is there already. */
int64_t pe_units_add(pe_units *units, pe_name name);
/* The same names in the same order. */
bool pe_units_equal(const pe_units *a, const pe_units *b);

#endif
