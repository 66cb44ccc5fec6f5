#include "units.h"

#include <stdlib.h>
#include <string.h>

static uint64_t hash_of(pe_name name) { /* FNV-1a */
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < name.length; i++)
        hash = (hash ^ (unsigned char)name.text[i]) * UINT64_C(0x100000001b3);
    return hash;
}

bool pe_units_init(pe_units *units, size_t room) {
    size_t n_slots = 8;
    while (n_slots < 2 * room)
        n_slots *= 2;
    *units = (pe_units){.room = room, .n_slots = n_slots};
    units->names = calloc(room ? room : 1, sizeof *units->names);
    units->hashes = calloc(room ? room : 1, sizeof *units->hashes);
    units->slots = calloc(n_slots, sizeof *units->slots);
    return units->names && units->hashes && units->slots;
}

void pe_units_free(pe_units *units) {
    free(units->names);
    free(units->hashes);
    free(units->slots);
    *units = (pe_units){0};
}

/* The slot of a name, or the empty one where it would stand. */
static size_t slot_of(const pe_units *units, pe_name name, uint64_t hash) {
    size_t slot = hash & (units->n_slots - 1);
    for (; units->slots[slot]; slot = (slot + 1) & (units->n_slots - 1)) {
        size_t place = units->slots[slot] - 1;
        const pe_name *found = &units->names[place];
        if (units->hashes[place] == hash && found->length == name.length &&
            (!name.length || memcmp(found->text, name.text, name.length) == 0))
            break;
    }
    return slot;
}

int64_t pe_units_find(const pe_units *units, pe_name name) {
    return (int64_t)units->slots[slot_of(units, name, hash_of(name))] - 1;
}

int64_t pe_units_find_same(const pe_units *units, const pe_units *other, size_t place) {
    size_t slot = slot_of(units, other->names[place], other->hashes[place]);
    return (int64_t)units->slots[slot] - 1;
}

int64_t pe_units_add(pe_units *units, pe_name name) {
    uint64_t hash = hash_of(name);
    size_t slot = slot_of(units, name, hash);
    if (units->slots[slot] || units->n == units->room) return -1;
    units->names[units->n] = name;
    units->hashes[units->n] = hash;
    units->slots[slot] = (uint32_t)++units->n;
    return (int64_t)units->n - 1;
}

bool pe_units_equal(const pe_units *a, const pe_units *b) {
    if (a->n != b->n) return false;
    for (size_t i = 0; i < a->n; i++) {
        if (a->hashes[i] != b->hashes[i] || a->names[i].length != b->names[i].length ||
            (a->names[i].length &&
             memcmp(a->names[i].text, b->names[i].text, a->names[i].length) != 0))
            return false;
    }
    return true;
}
