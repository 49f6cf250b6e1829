/* chains: what clients were told of the versions of keys, which must be as if each publish and
 * each read had happened at one moment between its call and its answer (INV-R16).
 *
 * A key's version is how many messages were published with an expectation of it. So: of each
 * version at most one publish that expected it is stored; a read tells no less than what was known
 * before it was asked for, and no more than what could have been published; a conflict tells
 * another version than the expected one; and at the end the log has exactly so many messages of the
 * key, each with the expectation that follows the one before. */
#ifndef FERRY_SIM_CHAINS_H
#define FERRY_SIM_CHAINS_H

#include "sim/history.h"

#define KEYS_MAX         16
#define KEY_VERSIONS_MAX 2000

/* One publish of one message, from its call on. */
struct publishing {
    uint64_t message;
    uint32_t key;
    uint64_t expected;
    uint64_t known; /* When it was called. */
};

struct key_chains {
    struct history *history;
    struct publishing *all;
    size_t count, capacity;
    uint64_t known[KEYS_MAX]; /* The greatest version that somebody was told of. */
    uint64_t most[KEYS_MAX];  /* The greatest that there can be. */
    uint64_t winners[KEYS_MAX][KEY_VERSIONS_MAX]; /* Message by the version it expected; 0: none. */
    uint64_t stored, conflicts, unknown, reads;
};

void chains_init(struct key_chains *v, struct history *h);
void chains_fini(struct key_chains *v);
struct publishing chains_publishing(struct key_chains *v, uint64_t message, uint32_t key,
                                    uint64_t expected);
/* `version`: what a conflict tells. */
void chains_published(struct key_chains *v, const struct publishing *p, enum ferry_err err,
                      uint64_t version);
uint64_t chains_reading(const struct key_chains *v, uint32_t key); /* What is known by now. */
void chains_read(struct key_chains *v, uint32_t key, uint64_t known, uint64_t version);
/* At the end: the version that the broker tells now, and all logs read out. */
void chains_check_end(struct key_chains *v, uint32_t key, uint64_t version);

#endif
