#define _GNU_SOURCE /* strtod_l */
#include "json.h"

#include <stdlib.h>
#include <string.h>

static void skip(pe_json *json) {
    while (json->at < json->end && strchr(" \t\r\n", *json->at) && *json->at)
        json->at++;
}

bool pe_json_take(pe_json *json, char c) {
    skip(json);
    if (json->at == json->end || *json->at != c) return false;
    json->at++;
    return true;
}

bool pe_json_done(pe_json *json) {
    skip(json);
    return !json->wrong && json->at == json->end;
}

bool pe_json_null(pe_json *json) {
    skip(json);
    if (json->end - json->at < 4 || memcmp(json->at, "null", 4) != 0) return false;
    json->at += 4;
    return true;
}

static bool hexadecimal(pe_json *json, uint32_t *code) {
    *code = 0;
    if (json->end - json->at < 4) return false;
    for (int i = 0; i < 4; i++) {
        const char *digits = "0123456789abcdef";
        char c = *json->at++;
        if (c >= 'A' && c <= 'F') c = (char)(c - 'A' + 'a');
        const char *found = c ? strchr(digits, c) : NULL;
        if (!found) return false;
        *code = *code << 4 | (uint32_t)(found - digits);
    }
    return true;
}

/* What follows \u, in UTF-8; a zero or half a pair is refused. */
static bool escaped(pe_json *json, char *where, size_t *n) {
    uint32_t code, low;
    if (!hexadecimal(json, &code) || code == 0 || (code >= 0xdc00 && code < 0xe000)) return false;
    if (code >= 0xd800 && code < 0xdc00) {
        if (json->end - json->at < 2 || json->at[0] != '\\' || json->at[1] != 'u') return false;
        json->at += 2;
        if (!hexadecimal(json, &low) || low < 0xdc00 || low >= 0xe000) return false;
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    int more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    static const uint8_t begin[] = {0, 0xc0, 0xe0, 0xf0};
    where[(*n)++] = (char)(begin[more] | code >> (6 * more));
    while (more--)
        where[(*n)++] = (char)(0x80 | (code >> (6 * more) & 0x3f));
    return true;
}

bool pe_json_string(pe_json *json, char *where, size_t *length) {
    static const char short_escapes[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    size_t n = 0;
    if (!pe_json_take(json, '"')) return false;
    while (json->at < json->end) {
        char c = *json->at++;
        if (c == '"') {
            *length = n;
            return true;
        }
        if ((unsigned char)c < 0x20) return false;
        if (c != '\\') {
            where[n++] = c;
            continue;
        }
        if (json->at == json->end) return false;
        c = *json->at++;
        const char *found = c ? strchr(short_escapes, c) : NULL;
        if (found)
            where[n++] = meant[found - short_escapes];
        else if (c != 'u' || !escaped(json, where, &n))
            return false;
    }
    return false;
}

bool pe_number(pe_bytes text, locale_t plain, double *value) {
    char copy[64];
    if (!text.n || text.n >= sizeof copy) return false;
    memcpy(copy, text.at, text.n);
    copy[text.n] = 0;
    if (strspn(copy, "+-.0123456789eE") != text.n) return false;
    char *end;
    *value = strtod_l(copy, &end, plain);
    return end == copy + text.n;
}

static const char *digits(const char *at, const char *end) {
    while (at < end && *at >= '0' && *at <= '9')
        at++;
    return at;
}

/* RFC 8259, section 6: strtod takes more, such as 01, .5 and 5. */
static bool is_number(const char *at, const char *end) {
    if (at < end && *at == '-') at++;
    const char *whole = at;
    at = digits(at, end);
    if (at == whole || (*whole == '0' && at - whole > 1)) return false;
    if (at < end && *at == '.') {
        const char *fraction = ++at;
        at = digits(at, end);
        if (at == fraction) return false;
    }
    if (at < end && (*at == 'e' || *at == 'E')) {
        at++;
        if (at < end && (*at == '+' || *at == '-')) at++;
        const char *power = at;
        at = digits(at, end);
        if (at == power) return false;
    }
    return at == end;
}

bool pe_json_number(pe_json *json, double *value) {
    skip(json);
    const char *from = json->at;
    while (json->at < json->end && *json->at && strchr("+-.0123456789eE", *json->at))
        json->at++;
    if (!is_number(from, json->at)) return false;
    return pe_number((pe_bytes){(const uint8_t *)from, (size_t)(json->at - from)}, json->plain,
                     value);
}
