#define _GNU_SOURCE
#include "frozen.h"

#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "../../poyoedge.h"
#include "json.h"
#include "sha256.h"

#define SCHEMA "poyo-edge/frozen/1"
#define DIGITS 64
#define MOST_ENTRIES 64

enum {
    SCHEMA_,
    SESSION_ID,
    UNIT_IDS,
    CORE_HASH,
    WINDOW_S,
    UNIT,
    BEHAVIOR,
    MAX_SPIKES,
    ACTIVITY,
    SHA256,
    N_KEYS
};
static const char *const KEYS[N_KEYS] = {
    "poyo_edge.schema",   "poyo_edge.session_id", "poyo_edge.unit_ids", "poyo_edge.core_hash",
    "poyo_edge.window_s", "poyo_edge.unit",       "poyo_edge.behavior", "poyo_edge.max_spikes",
    "poyo_edge.activity", "poyo_edge.sha256"};

typedef struct {
    bool there[N_KEYS];
    pe_bytes values[N_KEYS];
} pe_metadata;

static int refuse(const char *path, char *why, size_t why_size, const char *problem) {
    if (why_size) snprintf(why, why_size, "%s: %s", path, problem);
    return POYOEDGE_FILE;
}
#define REFUSE(problem) refuse(path, why, why_size, problem)

/* The metadata, or what is wrong with it. */
static const char *read_metadata(pe_bytes file, pe_metadata *found) {
    static const char damaged[] =
        "expected an ONNX model, got one that is damaged or something else";
    pe_bytes keys[MOST_ENTRIES];
    size_t n_keys = 0;
    pe_field field, part;
    pe_read read;
    memset(found, 0, sizeof *found);
    while ((read = pe_next_field(&file, &field)) == PE_FIELD) {
        if (field.number != 14 || field.is_integer) continue;
        pe_bytes parts[3] = {PE_NONE, PE_NONE, PE_NONE}, rest = field.bytes;
        while ((read = pe_next_field(&rest, &part)) == PE_FIELD) {
            if (part.number != 1 && part.number != 2) continue;
            if (part.is_integer || !pe_is_text(part.bytes) ||
                (part.bytes.n && memchr(part.bytes.at, 0, part.bytes.n)))
                return damaged;
            parts[part.number] = part.bytes;
        }
        if (read == PE_DAMAGED) return damaged;
        if (n_keys == MOST_ENTRIES) return "expected at most 64 entries of metadata, got more";
        for (size_t i = 0; i < n_keys; i++)
            if (keys[i].n == parts[1].n &&
                (!keys[i].n || !memcmp(keys[i].at, parts[1].at, keys[i].n)))
                return "expected keys of metadata that differ, got one twice";
        keys[n_keys++] = parts[1];
        for (int i = 0; i < N_KEYS; i++) {
            if (!pe_is(parts[1], KEYS[i])) continue;
            found->there[i] = true;
            found->values[i] = parts[2];
        }
    }
    return read == PE_DAMAGED ? damaged : NULL;
}

/* Whether the digest at the end is that of the file with these digits zeroed. */
static const char *check_digest(pe_bytes file, pe_bytes said) {
    char found[DIGITS + 1], zeros[DIGITS];
    if (said.n != DIGITS || file.n < DIGITS ||
        memcmp(file.at + file.n - DIGITS, said.at, DIGITS) != 0)
        return "poyo_edge.sha256: expected 64 hexadecimal digits at the file's end, got none; "
               "freeze the session again with poyo-edge freeze";
    pe_sha256 sha;
    memset(zeros, '0', DIGITS);
    pe_sha256_init(&sha);
    pe_sha256_add(&sha, file.at, file.n - DIGITS);
    pe_sha256_add(&sha, zeros, DIGITS);
    pe_sha256_end(&sha, found);
    if (memcmp(found, said.at, DIGITS) != 0)
        return "poyo_edge.sha256: expected the digest that the file states, got another: the file "
               "is damaged; copy it again, or freeze the session again";
    return NULL;
}

static void copy_text(char *to, size_t size, pe_bytes text) {
    size_t n = text.n < size ? text.n : size - 1;
    while (n < text.n && n && (text.at[n] & 0xc0) == 0x80)
        n--; /* no half characters */
    memcpy(to, text.at, n);
    to[n] = 0;
}

static bool read_units(pe_frozen *frozen, pe_bytes text) {
    pe_json json = {.at = (const char *)text.at, .end = (const char *)text.at + text.n};
    size_t room = 1;
    for (size_t i = 0; i < text.n; i++)
        room += text.at[i] == ',';
    if (room > 4u * PE_MOST_UNITS || !pe_units_init(&frozen->units, room)) return false;
    frozen->names = malloc(text.n + 1);
    char *at = frozen->names;
    if (!at || !pe_json_take(&json, '[')) return false;
    do {
        size_t length;
        if (!pe_json_string(&json, at, &length)) return false;
        if (pe_units_add(&frozen->units, (pe_name){at, length}) < 0) return false;
        at += length;
    } while (pe_json_take(&json, ','));
    return pe_json_take(&json, ']') && pe_json_done(&json) && frozen->units.n <= PE_MOST_UNITS;
}

float pe_float32_sum(const float *values, size_t n) {
    /* numpy's pairwise_sum: rounding as there, so that limits on rates fall alike. */
    if (n < 8) {
        float sum = 0;
        for (size_t i = 0; i < n; i++)
            sum += values[i];
        return sum;
    }
    if (n > 128) {
        size_t half = n / 2;
        half -= half % 8;
        return pe_float32_sum(values, half) + pe_float32_sum(values + half, n - half);
    }
    float r[8];
    memcpy(r, values, sizeof r);
    size_t i = 8;
    for (; i < n - n % 8; i += 8)
        for (size_t j = 0; j < 8; j++)
            r[j] += values[i + j];
    float sum = ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]));
    for (; i < n; i++)
        sum += values[i];
    return sum;
}

/* A list of finite numbers into at most room places. */
static bool read_floats(pe_json *json, float *values, size_t room, size_t *n) {
    double value;
    *n = 0;
    if (!pe_json_take(json, '[')) return false;
    if (pe_json_take(json, ']')) return true;
    do {
        if (!pe_json_number(json, &value) || !isfinite((float)value) || *n == room) return false;
        values[(*n)++] = (float)value;
    } while (pe_json_take(json, ','));
    return pe_json_take(json, ']');
}

static bool read_activity(pe_frozen *frozen, pe_bytes text, locale_t plain) {
    pe_json json = {(const char *)text.at, (const char *)text.at + text.n, plain, false};
    frozen->stated_hz = INFINITY;
    if (pe_json_null(&json)) return pe_json_done(&json);
    static const char *const names[] = {"rate_hz", "rate_sd_hz", "output_low", "output_high"};
    size_t n_units = frozen->units.n, room = n_units > frozen->dim_out ? n_units : frozen->dim_out;
    float *values = malloc(room * sizeof *values);
    char *name = malloc(text.n + 1);
    unsigned seen = 0;
    bool fine = values && name && pe_json_take(&json, '{');
    while (fine) {
        size_t length, n, which = 0;
        fine = pe_json_string(&json, name, &length) && pe_json_take(&json, ':') &&
               read_floats(&json, values, room, &n);
        if (!fine) break;
        while (which < 4 && (strlen(names[which]) != length || memcmp(names[which], name, length)))
            which++;
        fine = which < 4 && !(seen & 1u << which) && n == (which < 2 ? n_units : frozen->dim_out);
        if (fine && which == 0) frozen->stated_hz = (double)pe_float32_sum(values, n);
        seen |= 1u << which;
        if (!pe_json_take(&json, ',')) break;
    }
    fine = fine && seen == 15 && pe_json_take(&json, '}') && pe_json_done(&json);
    free(values);
    free(name);
    return fine;
}

static const char *read_header(pe_frozen *frozen, const pe_metadata *metadata, locale_t plain) {
    const pe_bytes *values = metadata->values;
    double max_spikes;
    for (int i = 0; i < N_KEYS; i++)
        if (!metadata->there[i])
            return "metadata: expected all fields of a frozen session, got fewer";
    copy_text(frozen->session_id, sizeof frozen->session_id, values[SESSION_ID]);
    copy_text(frozen->unit, sizeof frozen->unit, values[UNIT]);
    copy_text(frozen->core_hash, sizeof frozen->core_hash, values[CORE_HASH]);
    if (!pe_number(values[WINDOW_S], plain, &frozen->window_s) || !(frozen->window_s > 0) ||
        !isfinite(frozen->window_s))
        return "poyo_edge.window_s: expected seconds > 0, got something else";
    if (!pe_number(values[MAX_SPIKES], plain, &max_spikes) || !(max_spikes >= 1) ||
        max_spikes > INT32_MAX || max_spikes != floor(max_spikes))
        return "poyo_edge.max_spikes: expected an integer >= 1, got something else";
    frozen->max_spikes = (uint32_t)max_spikes;
    if (!read_units(frozen, values[UNIT_IDS]))
        return "poyo_edge.unit_ids: expected names that differ, without zeros, got something else";
    if (!read_activity(frozen, values[ACTIVITY], plain))
        return "poyo_edge.activity: expected a finite rate for each unit, got something else";
    return NULL;
}

int pe_frozen_read(pe_frozen *frozen, const char *path, uint8_t *data, size_t size, char *why,
                   size_t why_size) {
    *frozen = (pe_frozen){.data = data, .size = size};
    pe_bytes file = {data, size};
    pe_metadata metadata;
    pe_interface found;
    const char *problem = read_metadata(file, &metadata);
    if (problem) return REFUSE(problem);
    if (!metadata.there[SCHEMA_])
        return REFUSE("poyo_edge.schema: expected '" SCHEMA "', got an ONNX file without it; "
                      "freeze the session with poyo-edge freeze");
    if (!pe_is(metadata.values[SCHEMA_], SCHEMA))
        return REFUSE("poyo_edge.schema: expected '" SCHEMA "', got another; freeze the session "
                      "again with poyo-edge freeze of this version");
    problem = check_digest(file, metadata.values[SHA256]);
    if (problem) return REFUSE(problem);
    problem = pe_guard(file, &found);
    if (problem) return REFUSE(problem);
    if (!found.has_unit || !found.has_time || !found.dim_out)
        return REFUSE("expected inputs spike_unit, spike_time and the output value, got others");
    frozen->dim_out = found.dim_out;
    frozen->own_operators = found.own_operators;
    locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (!plain) return POYOEDGE_MEMORY;
    problem = read_header(frozen, &metadata, plain);
    freelocale(plain);
    return problem ? REFUSE(problem) : POYOEDGE_OK;
}

int pe_frozen_open(pe_frozen *frozen, const char *path, char *why, size_t why_size) {
    struct stat about;
    *frozen = (pe_frozen){0};
    if (stat(path, &about) != 0) return REFUSE(strerror(errno));
    if (!S_ISREG(about.st_mode)) return REFUSE("expected a file, got something else");
    if (about.st_size > PE_MOST_BYTES) return REFUSE("expected at most 2^30 bytes, got more");
    FILE *file = fopen(path, "rb");
    if (!file) return REFUSE(strerror(errno));
    size_t size = (size_t)about.st_size;
    uint8_t *data = malloc(size + 1);
    size_t n = data ? fread(data, 1, size + 1, file) : 0; /* one more tells a file that grows */
    fclose(file);
    if (!data) return POYOEDGE_MEMORY;
    if (n == size) return pe_frozen_read(frozen, path, data, size, why, why_size);
    free(data);
    return REFUSE("expected a file that stays as it is, got one that changed while it was read");
}

void pe_frozen_drop_data(pe_frozen *frozen) {
    free(frozen->data);
    frozen->data = NULL;
}

void pe_frozen_free(pe_frozen *frozen) {
    free(frozen->data);
    free(frozen->names);
    pe_units_free(&frozen->units);
    *frozen = (pe_frozen){0};
}
