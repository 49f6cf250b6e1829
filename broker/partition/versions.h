/* versions: the version of each key that was ever published on condition.
 *
 * Rows (rows.h): 16-byte hash of the key -> u64 version, little-endian. Versions in entries are
 * absolute. A key is known by XXH3-128 of it; one longer than NAME_MAX_BYTES × 4 by the hash of its
 * hash, so that a client can name it by the hash alone (KEY_VERSION).
 * [CONTROL_PUBLISH, versions]: as bin, VERSION_BYTES each: hash, u64 version. */
#ifndef FERRY_PARTITION_VERSIONS_H
#define FERRY_PARTITION_VERSIONS_H

#include "base/list.h"
#include "partition/control.h"
#include "partition/rows.h"
#include "wire/command.h"

#define VERSION_KEY_BYTES 16u
#define VERSION_BYTES     24u

struct version_key {
    uint8_t bytes[VERSION_KEY_BYTES];
};

struct versions {
    struct rows rows;
    /* Leader only. */
    struct map proposed; /* struct proposed_version, by key. */
    struct list queue;   /* ... in order of index. */
    struct list spare;   /* ... reserved, not noted. */
};

void versions_init(struct versions *t, uint8_t table);
void versions_fini(struct versions *t);
struct version_key version_key_of(struct bytes key);
bool versions_is_full(const struct versions *t); /* With what is proposed. */
/* The applied one; 0: none. Needs a read view. */
MUST_CHECK enum ferry_err versions_get(struct versions *t, struct store *store, uint64_t group,
                                       const struct version_key *key, uint64_t *version);
/* The one it will have when all that is proposed is applied. */
MUST_CHECK enum ferry_err versions_expect(struct versions *t, struct store *store, uint64_t group,
                                          const struct version_key *key, uint64_t *version);
/* One for the key is proposed and not applied: what it makes of the version may never be. */
bool versions_is_moving(const struct versions *t, const struct version_key *key);
/* Makes room, so that noting this key cannot fail; after the last note what was not used is given
 * back by versions_unreserve. Errors: NO_MEMORY. */
MUST_CHECK enum ferry_err versions_reserve(struct versions *t, const struct version_key *key);
void versions_unreserve(struct versions *t);
void versions_note(struct versions *t, const struct version_key *key, uint64_t version,
                   uint64_t index);
/* A control payload of a publish. Errors: CORRUPT, NO_MEMORY. */
MUST_CHECK enum ferry_err versions_apply(struct versions *t, uint64_t index, struct bytes control);
void versions_forget(struct versions *t);
void versions_encode(struct buf *b, struct bytes versions);

#endif
