/* Enough of JSON to read the lists in a frozen file's metadata. */
#ifndef PE_JSON_H
#define PE_JSON_H

#include <locale.h>

#include "wire.h"

typedef struct {
    const char *at, *end;
    locale_t plain; /* numbers are written with a point, whatever the program's locale says */
    bool wrong;
} pe_json;

/* Skip blanks, and this character if it comes next. */
bool pe_json_take(pe_json *json, char c);
/* A string, written to where (as long as the JSON at most), with its length. */
bool pe_json_string(pe_json *json, char *where, size_t *length);
bool pe_json_number(pe_json *json, double *value);
bool pe_json_null(pe_json *json);
/* Nothing is left. */
bool pe_json_done(pe_json *json);
/* The number that a whole text says, in C's notation; false if it is none. */
bool pe_number(pe_bytes text, locale_t plain, double *value);

#endif
