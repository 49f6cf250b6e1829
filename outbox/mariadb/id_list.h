/* id_list: a rising list of row ids in few bytes.
 *
 * Each group is one varint of (distance from the id before it) * 2, plus 1 when a run follows: a
 * second varint of how many ids more follow one after another, less 1. The first distance is from
 * 0. Single ids that lie less than 64 apart take one byte, a run of any length two and more. Pure.
 * A decoder takes nothing that an encoder would not write the same. */
#ifndef FERRY_OUTBOX_ID_LIST_H
#define FERRY_OUTBOX_ID_LIST_H

#include "base/bytes.h"
#include "base/err.h"

/* Bytes that the list takes. */
size_t id_list_bytes(const uint64_t *ids, size_t count);
/* `out` has room for id_list_bytes(). */
void id_list_encode(const uint64_t *ids, size_t count, uint8_t *out);
/* Into `ids`, which has room for `max`. Errors: CORRUPT. */
MUST_CHECK enum ferry_err id_list_decode(struct bytes list, uint64_t *ids, size_t max,
                                         size_t *count);

#endif
