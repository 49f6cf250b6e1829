/* cursor: the relay's place in a source, as it is kept in the broker's partitions and checkpoints.
 *
 * Layout, little-endian: 0 u8 version (1), 1 u8 kind (1: a row number), 2 u64 position, 10 16 bytes
 * message id of the row at that position (zero: not known). Another kind of source adds another
 * kind. Pure. */
#ifndef FERRY_OUTBOX_SQLITE_CURSOR_H
#define FERRY_OUTBOX_SQLITE_CURSOR_H

#include "base/bytes.h"
#include "base/err.h"

#define CURSOR_BYTES 26u

/* Position 0 is before the first row. */
struct source_cursor {
    int64_t position;
    struct ferry_id id;
};

void cursor_encode(const struct source_cursor *cursor, uint8_t out[CURSOR_BYTES]);
/* Errors: NEWER_FORMAT (a version or kind of a later relay), CORRUPT. With a detail. */
MUST_CHECK enum ferry_err cursor_decode(struct bytes blob, struct source_cursor *cursor,
                                        struct err_text *e);

#endif
