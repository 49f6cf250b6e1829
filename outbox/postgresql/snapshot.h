/* snapshot: which transactions of PostgreSQL a reader saw as finished (pg_current_snapshot()).
 *
 * Immutable and shared by counting, because many marks hold the same one. Does no I/O.
 *
 * Invariants: (1) the transactions listed are rising, each below xmax; (2) a transaction is visible
 * when it is below xmax and not listed; visible means finished: of those that were rolled back no
 * row is ever seen; (3) snapshots of one database that were taken one after the other cover each
 * other in that order, and a snapshot that saw the rows of a lock's second holder saw those of its
 * first.
 *
 * Bytes (varint: LEB128):  xmax, number of transactions listed, then each one's distance: the first
 * from xmax downwards, the others from the one before, less one. As a step from a base: xmax less
 * the base's xmax (zigzag), one bit for each transaction that the base lists (1: listed here too),
 * then the ones that only this one lists, coded as above. */
#ifndef FERRY_OUTBOX_POSTGRESQL_SNAPSHOT_H
#define FERRY_OUTBOX_POSTGRESQL_SNAPSHOT_H

#include "base/buf.h"
#include "base/err.h"

/* More transactions open at once than this, or bytes of them, and a relay waits: two snapshots have
 * to fit into one cursor of the broker. */
#define SNAPSHOT_XIPS_MAX  2048u
#define SNAPSHOT_BYTES_MAX 1860u

struct snapshot {
    uint32_t holders;
    uint32_t count;
    uint64_t xmax;
    uint64_t xips[]; /* Below xmax and not finished; rising. */
};

/* Of "xmin:xmax:x,x,…". CORRUPT: it is none. TOO_LARGE: too many. The caller holds it once. */
MUST_CHECK enum ferry_err snapshot_parse(struct bytes text, struct snapshot **s);
/* In which nothing is visible. NULL: out of memory. */
MUST_CHECK struct snapshot *snapshot_empty(void);
struct snapshot *snapshot_hold(struct snapshot *s); /* NULL is passed on, in both. */
void snapshot_release(struct snapshot **s);
/* Releases what *to is and holds `from` there. */
void snapshot_set(struct snapshot **to, struct snapshot *from);

bool snapshot_sees(const struct snapshot *s, uint64_t xid);
/* Everything that `b` sees, `a` sees too. */
bool snapshot_covers(const struct snapshot *a, const struct snapshot *b);
bool snapshot_equal(const struct snapshot *a, const struct snapshot *b);

size_t snapshot_bytes(const struct snapshot *s); /* As snapshot_encode writes it. */
void snapshot_encode(const struct snapshot *s, struct buf *out);
void snapshot_encode_step(const struct snapshot *base, const struct snapshot *s, struct buf *out);
/* From the front of *in, which moves on. Errors: CORRUPT, NO_MEMORY. */
MUST_CHECK enum ferry_err snapshot_decode(struct bytes *in, struct snapshot **s);
MUST_CHECK enum ferry_err snapshot_decode_step(const struct snapshot *base, struct bytes *in,
                                               struct snapshot **s);

/* "{x,x,…}": transactions that `lower` lists and `upper` sees: whose rows come late. */
void snapshot_late_text(const struct snapshot *lower, const struct snapshot *upper,
                        struct buf *out);
void snapshot_listed_text(const struct snapshot *s, struct buf *out); /* All that it lists. */
void snapshot_text(const struct snapshot *s, struct buf *out);        /* "xmin:xmax:x,x,…" */

#endif
