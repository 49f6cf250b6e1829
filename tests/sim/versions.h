/* versions: what clients were told of the versions of keys, which must be as if each publish and
 * each read had happened at one moment between its call and its answer (INV-R16).
 *
 * A key's version is how many messages were published with an expectation of it. So: of each
 * version at most one publish that expected it is stored; a read tells no less than what was known
 * before it was asked for, and no more than what could have been published; a conflict tells
 * another version than the expected one; and at the end the log has exactly so many messages of the
 * key, each with the expectation that follows the one before. */
#ifndef FERRY_SIM_VERSIONS_H
#define FERRY_SIM_VERSIONS_H

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

struct key_versions {
    struct history *history;
    struct publishing *all;
    size_t count, capacity;
    uint64_t known[KEYS_MAX]; /* The greatest version that somebody was told of. */
    uint64_t most[KEYS_MAX];  /* The greatest that there can be. */
    uint64_t winners[KEYS_MAX][KEY_VERSIONS_MAX]; /* Message by the version it expected; 0: none. */
    uint64_t stored, conflicts, unknown, reads;
};

void versions_init(struct key_versions *v, struct history *h);
void versions_fini(struct key_versions *v);
struct publishing versions_publishing(struct key_versions *v, uint64_t message, uint32_t key,
                                      uint64_t expected);
/* `version`: what a conflict tells. */
void versions_published(struct key_versions *v, const struct publishing *p, enum ferry_err err,
                        uint64_t version);
uint64_t versions_reading(const struct key_versions *v, uint32_t key); /* What is known by now. */
void versions_read(struct key_versions *v, uint32_t key, uint64_t known, uint64_t version);
/* At the end: the version that the broker tells now, and all logs read out. */
void versions_check_end(struct key_versions *v, uint32_t key, uint64_t version);

#endif
