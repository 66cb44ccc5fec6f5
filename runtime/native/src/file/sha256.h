/* SHA-256 (FIPS 180-4) of pieces of memory. */
#ifndef PE_SHA256_H
#define PE_SHA256_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint32_t state[8];
    uint64_t n_bytes;
    uint8_t block[64];
} pe_sha256;

void pe_sha256_init(pe_sha256 *sha);
void pe_sha256_add(pe_sha256 *sha, const void *data, size_t n);
/* The digest as 64 hexadecimal digits and a zero. */
void pe_sha256_end(pe_sha256 *sha, char hexadecimal[65]);

#endif
