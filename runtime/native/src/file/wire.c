#include "wire.h"

#include <string.h>

bool pe_next_integer(pe_bytes *rest, uint64_t *value) {
    *value = 0;
    for (size_t i = 0; i < 10 && i < rest->n; i++) {
        *value |= (uint64_t)(rest->at[i] & 0x7f) << (7 * i);
        if (rest->at[i] < 0x80) {
            rest->at += i + 1;
            rest->n -= i + 1;
            return true;
        }
    }
    return false;
}

pe_read pe_next_field(pe_bytes *rest, pe_field *field) {
    uint64_t tag, length;
    if (!rest->n) return PE_END;
    if (!pe_next_integer(rest, &tag)) return PE_DAMAGED;
    *field = (pe_field){.number = tag >> 3};
    switch (tag & 7) {
    case 0:
        field->is_integer = true;
        return pe_next_integer(rest, &field->integer) ? PE_FIELD : PE_DAMAGED;
    case 1: length = 8; break;
    case 2:
        if (!pe_next_integer(rest, &length)) return PE_DAMAGED;
        break;
    case 5: length = 4; break;
    default: return PE_DAMAGED;
    }
    if (field->number == 0 || length > rest->n) return PE_DAMAGED;
    field->bytes = (pe_bytes){rest->at, (size_t)length};
    rest->at += length;
    rest->n -= (size_t)length;
    return PE_FIELD;
}

bool pe_is(pe_bytes bytes, const char *text) {
    return bytes.n == strlen(text) && (!bytes.n || memcmp(bytes.at, text, bytes.n) == 0);
}

bool pe_is_text(pe_bytes bytes) {
    for (size_t i = 0; i < bytes.n;) {
        uint8_t first = bytes.at[i++];
        if (first < 0x80) continue;
        int more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
        if (first < 0xc2 || first > 0xf4 || bytes.n - i < (size_t)more) return false;
        uint8_t second = bytes.at[i];
        if ((first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) ||
            (first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f))
            return false;
        for (; more; more--)
            if ((bytes.at[i++] & 0xc0) != 0x80) return false;
    }
    return true;
}
