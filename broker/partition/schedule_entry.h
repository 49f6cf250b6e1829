/* schedule_entry: what control entries about delayed and recurring messages say.
 *
 * Pure. [CONTROL_SCHEDULE_CANCEL or _RELEASE, count, keys]: keys as bin, each two varints of
 * wire/varint.h: zigzag of due time and of number, less those of the key before (0, 0 at first).
 * [CONTROL_RECURRING_SET, name, spec, zone, next, record]: record is a batch of one; empty:
 * removed. [CONTROL_RECURRING_FIRE, name, next]: the batch beside it is what came. */
#ifndef FERRY_PARTITION_SCHEDULE_ENTRY_H
#define FERRY_PARTITION_SCHEDULE_ENTRY_H

#include "base/buf.h"
#include "partition/control.h"

#define SCHEDULE_KEYS_MAX          8192u /* Of one entry. */
#define SCHEDULE_KEYS_MAX_BYTES    (SCHEDULE_KEYS_MAX * 20u)
#define RECURRING_RECORD_MAX_BYTES (64u << 10) /* They are kept in memory. */

struct schedule_key {
    int64_t due_ms;
    uint64_t number;
};
/* By due time, then number: the order of the table. */
int schedule_key_compare(const struct schedule_key *a, const struct schedule_key *b);

/* Keys on their way into an entry. Zero it, then init. */
struct schedule_keys {
    struct buf bytes;
    uint32_t count;
    struct schedule_key last;
};
void schedule_keys_init(struct schedule_keys *k);
void schedule_keys_fini(struct schedule_keys *k);
void schedule_keys_add(struct schedule_keys *k, const struct schedule_key *key);
void schedule_keys_encode(struct buf *b, enum control_kind kind, const struct schedule_keys *k);

/* And out of one. Errors: CORRUPT. */
struct schedule_key_reader {
    struct bytes rest;
    uint32_t left;
    struct schedule_key last;
};
MUST_CHECK enum ferry_err schedule_keys_decode(struct bytes payload, struct schedule_key_reader *r);
/* False at the end; *err is CORRUPT when what is left is no key. */
bool schedule_keys_next(struct schedule_key_reader *r, struct schedule_key *key,
                        enum ferry_err *err);

/* Of both kinds. Texts and record point into the payload. */
struct recurring_entry {
    enum control_kind kind;
    struct bytes name, spec, zone;
    int64_t next_ms;
    struct bytes record;
};
void recurring_entry_encode(struct buf *b, const struct recurring_entry *e);
/* Errors: CORRUPT. */
MUST_CHECK enum ferry_err recurring_entry_decode(struct bytes payload, struct recurring_entry *e);

#endif
