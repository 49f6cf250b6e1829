/* cover: a set of rows of the outbox, as a target's mark or the checkpoint names it, and its bytes.
 *
 * A row is in it when its transaction is visible in `base`, or visible in `upper` and its number is
 * at most `seq_hi`. A cover without an upper snapshot is *at rest*. Pure.
 *
 * With it goes where and when it was made (struct cover_place), so that a database which was set
 * back in time is noticed: what is kept there was on that database's disk.
 *
 * Bytes, little-endian: 0 u8 format 1; 1 u8 flags (1: upper, 2: last row); 2 u16 0; 4 u32 timeline;
 * 8 u64 system identifier; 16 u64 place in the write-ahead log; 24 i64 seq of the last row; 32 its
 * message id; 48 i64 seq_hi; 56 u32 oid of the database; 60 the base, then the upper as a step from
 * it (snapshot.h). To change them: a new format number, and both are read for one release. */
#ifndef FERRY_OUTBOX_POSTGRESQL_COVER_H
#define FERRY_OUTBOX_POSTGRESQL_COVER_H

#include "outbox/postgresql/snapshot.h"
#include "outbox/relay/source.h"

#define COVER_SEQ_NONE INT64_MIN /* Before every number. */

struct cover {
    struct snapshot *base;  /* Held; never NULL in use. */
    struct snapshot *upper; /* Held; NULL at rest. */
    int64_t seq_hi;         /* With an upper. */
};

struct cover_place {
    uint64_t system;
    uint64_t lsn; /* Was flushed. */
    uint32_t timeline;
    uint32_t database; /* Its oid: a dump that is restored beside it has another. */
    bool has_last;
    int64_t last_seq; /* The last row that it covers, as far as is known. */
    struct ferry_id last_id;
};

void cover_fini(struct cover *c); /* Accepts zeroed memory. */
void cover_set(struct cover *c, struct snapshot *base, struct snapshot *upper, int64_t seq_hi);
bool cover_has(const struct cover *c, uint64_t xid, int64_t seq);
/* Adds what is settled for everybody, as far as a cover can say it. */
void cover_raise(struct cover *c, const struct cover *settled);

void cover_encode(const struct cover *c, const struct cover_place *place, struct source_blob *blob);
/* Errors: NEWER_FORMAT, CORRUPT, NO_MEMORY; then *c is as it was. */
MUST_CHECK enum ferry_err cover_decode(struct bytes blob, struct cover *c,
                                       struct cover_place *place, struct err_text *e);

#endif
