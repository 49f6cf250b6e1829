/* members_entry: the log entry by which a group of members changes. Pure.
 *
 * It carries decisions: who is out, who is in, who shall have what, what is given now. A leader has
 * one of a subscription under way at a time, so what one says fits the state it is applied to.
 *
 *   CONTROL_MEMBERS [kind, subscription, epoch, partitions, [out…], [in…], [targets…], [gives…]]
 *     out      [name, cause, reason]
 *     in       [name, instance, zone, client, session_ms]: new; of a name that is there: a newer
 *              instance takes its place
 *     targets  for each partition who shall have it: 1 + the place among the members after all of
 *              that, sorted by name; 0: nobody. None: as it is
 *     gives    partitions that the one who shall have it has from now on */
#ifndef FERRY_PARTITION_MEMBERS_ENTRY_H
#define FERRY_PARTITION_MEMBERS_ENTRY_H

#include "base/buf.h"
#include "wire/command.h"

/* Of one entry; more come with the next. */
#define MEMBERS_ENTRY_OUT_MAX 256u
#define MEMBERS_ENTRY_IN_MAX  64u
#define MEMBERS_ENTRY_BYTES   (256u << 10)

enum member_cause { MEMBER_LEFT = 1, MEMBER_EXPIRED = 2 };
struct member_out {
    struct bytes name;
    uint32_t cause; /* enum member_cause */
    struct bytes reason;
};
struct member_in {
    struct bytes name, zone, client;
    struct ferry_id instance;
    uint32_t session_ms;
};
struct members_entry {
    uint64_t subscription;
    uint64_t epoch;
    uint32_t partitions;
    uint32_t out_count, in_count, target_count, give_count;
    struct member_out out[MEMBERS_ENTRY_OUT_MAX];
    struct member_in in[MEMBERS_ENTRY_IN_MAX];
    uint32_t targets[PARTITIONS_MAX];
    uint32_t gives[PARTITIONS_MAX];
};
void members_entry_encode(struct buf *b, const struct members_entry *e);
/* Texts point into the payload. Errors: CORRUPT. */
MUST_CHECK enum ferry_err members_entry_decode(struct bytes payload, struct members_entry *e);

#endif
