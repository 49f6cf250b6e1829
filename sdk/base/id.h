/* id: 128-bit identities: UUIDv7 (RFC 9562) and snowflake ids widened to 16 bytes.
 *
 * Both are ordered in time within one generator, and never step back when the clock does: the
 * generator keeps the greatest time it has used and counts on from there.
 * A generator belongs to one thread at a time; the caller locks. */
#ifndef FERRY_BASE_ID_H
#define FERRY_BASE_ID_H

#include "base/err.h"
#include "base/prng.h"

/* Invariant: ids of one generator are strictly increasing as byte strings. */
struct id_gen {
    struct prng prng;
    int64_t last_ms;    /* Greatest time used. */
    uint32_t counter;   /* Ids given out in last_ms. */
    uint32_t worker_id; /* Snowflake only: 0..1023. */
    /* Of id_random, from the system: nobody who saw all before can tell the next. Not seeded ones.
     */
    bool is_secret;
    uint32_t secret_left;
    uint8_t secret[256];
};

#define ID_TEXT_BYTES  37 /* 36 characters and the NUL. */
#define ID_WORKERS_MAX 1024

/* Seeds from the operating system's random source. */
MUST_CHECK enum ferry_err id_gen_init(struct id_gen *g, uint32_t worker_id);
/* From a seed, for runs that must be the same again; 64 bits of it, so for nothing else. */
void id_gen_init_seeded(struct id_gen *g, uint64_t seed);
struct ferry_id id_gen_uuid7(struct id_gen *g, int64_t now_ms);
/* 41 bits of milliseconds since 2020-01-01, 10 bits of worker, 12 of sequence, in the last 8 bytes
 * (big-endian); the first 8 bytes are zero. */
struct ferry_id id_gen_snowflake(struct id_gen *g, int64_t now_ms);
/* 128 bits. Of a generator of id_gen_init they cannot be guessed, whatever others of it are known:
 * they may be tokens. */
struct ferry_id id_random(struct id_gen *g);

void id_format(const struct ferry_id *id, char text[ID_TEXT_BYTES]);
MUST_CHECK bool id_parse(const char *text, struct ferry_id *id);
bool id_is_zero(const struct ferry_id *id);
bool id_equal(const struct ferry_id *a, const struct ferry_id *b);

#endif
