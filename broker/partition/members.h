/* members: the group of members of one subscription, and what happened to the subscription. In the
 * partition 0 of a topic, whose leader coordinates.
 *
 * The replicated part is the fold of entries (members_entry.h), the same bytes in rows everywhere:
 * members, epoch, and for each partition who shall have it (target), who was given it last and may
 * still have it (holder), and the epoch it was given with. The volatile part is a leader's own:
 * when a member was heard of, what it reports as held, what it was last told.
 *
 * How a partition passes from A to B, of mode stream:
 *
 *    target A, holder A    A is told of it ("assigned") and reads it
 *    target B, holder A    A is not told of it any more; it stops, commits, reports without it
 *    target B, holder B    by an entry once A has let go or is out: B is told, with a new epoch
 *
 * A has let go when it reports without a partition, in a heartbeat after an answer that did not
 * name it: before that, an answer that names it may be on its way to it.
 *
 * Invariants (members_check):
 *  (1) Members are sorted by name, and there are at most MEMBERS_MAX.
 *  (2) Targets and holders are members.
 *  (3) A partition's epoch is not above the group's, and rises whenever its holder changes, or that
 *      one's instance.
 *  (4) The epoch starts with the subscription's number, which is the index of an entry, and rises
 *      by 1 with entries: so it goes on rising when a subscription is deleted and made anew.
 *  (5) Event numbers are dense, and the last EVENTS_MAX are kept.
 *
 * Rows, msgpack arrays:
 *   TABLE_MEMBERS {subscription}        [epoch, partitions, first event, next event, [target,
 *                                       holder, epoch]…]; places among the members + 1, 0: nobody
 *   TABLE_MEMBERS {subscription, name}  [instance, zone, client, session_ms, joined_ms, [fenced
 *                                       instance…]]
 *   TABLE_EVENTS {subscription, number} [time_ms, kind, who, why, epoch]; large: may be newer than
 *                                       the rest in a snapshot
 *
 * Pure but for its rows: no clock, no decisions (partition_members.c has them). */
#ifndef FERRY_PARTITION_MEMBERS_H
#define FERRY_PARTITION_MEMBERS_H

#include "partition/members_entry.h"
#include "store/store.h"

#define EVENTS_MAX            1000u
#define MEMBER_SESSION_MIN_MS 1000u
#define MEMBER_SESSION_MAX_MS (10u * 60u * 1000u)
/* Earlier instances of a name that are known as such. */
#define MEMBER_FENCED_KEPT 8u

/* Numbers on disk. X(NAME, number, text) */
#define MEMBER_EVENT_MAP(X)                                                                        \
    X(CREATED, 1, "created")                                                                       \
    X(ALTERED, 2, "altered")                                                                       \
    X(PAUSED, 3, "paused")                                                                         \
    X(RESUMED, 4, "resumed")                                                                       \
    X(RESET, 5, "reset")                                                                           \
    X(JOINED, 6, "joined")                                                                         \
    X(LEFT, 7, "left")                                                                             \
    X(EXPIRED, 8, "expired")                                                                       \
    X(FENCED, 9, "fenced")                                                                         \
    X(ASSIGNED, 10, "assigned")                                                                    \
    X(MOVED, 11, "moved")
enum member_event_kind {
#define MEMBER_EVENT_ENUM(name, number, text) MEMBER_EVENT_##name = number,
    MEMBER_EVENT_MAP(MEMBER_EVENT_ENUM)
#undef MEMBER_EVENT_ENUM
};

struct partition_set {
    uint64_t words[PARTITIONS_MAX / 64];
};
static inline bool partition_set_has(const struct partition_set *s, uint32_t partition)
{
    return (s->words[partition / 64] >> (partition % 64) & 1) != 0;
}
static inline void partition_set_put(struct partition_set *s, uint32_t partition, bool in)
{
    uint64_t bit = UINT64_C(1) << (partition % 64);
    s->words[partition / 64] =
        in ? s->words[partition / 64] | bit : s->words[partition / 64] & ~bit;
}

struct member {
    uint32_t name_bytes, zone_bytes, client_bytes;
    char name[NAME_MAX_BYTES];
    char zone[ZONE_MAX_BYTES];
    char client[NAME_MAX_BYTES];
    struct ferry_id instance;
    uint32_t session_ms;
    int64_t joined_ms;
    uint32_t fenced_count;
    struct ferry_id fenced[MEMBER_FENCED_KEPT]; /* The latest, oldest first. */
    bool dirty;
    bool taken_over; /* By the entry that is being applied. */

    /* Leader only. */
    int64_t heard_us;              /* MEMBER_NOT_HEARD: not in this office. */
    struct partition_set held;     /* As it reports. */
    struct partition_set told;     /* Its last answer named it; or may have. */
    struct partition_set released; /* Let go, as described above. */
    uint32_t held_count;
    bool leaving; /* With the next entry. */
    uint32_t reason_bytes;
    char reason[REASON_MAX_BYTES];
};
#define MEMBER_NOT_HEARD INT64_MIN

struct member_share {
    struct member *target, *holder; /* NULL: nobody. */
    uint64_t epoch;
};

struct member_event;

struct members {
    uint64_t number; /* The subscription's. */
    uint64_t epoch;
    struct member **items;
    size_t count, capacity;
    struct member_share *shares;
    size_t share_capacity;
    uint32_t partitions;
    struct member_event **events; /* A ring: number n is at n % EVENTS_MAX. */
    uint64_t first_event, next_event;
    uint64_t disk_first, disk_next; /* Those that have rows. */
    bool dirty;
    struct buf removed; /* Names whose rows go: u8 length, bytes. */

    /* Leader only. */
    bool in_flight; /* An entry is under way. */
    struct buf payload;
    struct member **joining; /* Not in an entry that is applied. */
    size_t joining_count, joining_capacity;
    uint32_t partitions_seen; /* The greatest that was reported. */
    struct buf zones;         /* Of the partitions' leaders, as last reported. */
    struct members *retired;  /* The next of those that wait to be freed (tables.h). */
};

struct members *members_new(uint64_t number); /* NULL: no memory. */
void members_free(struct members **m);
struct member *members_find(const struct members *m, struct bytes name);
static inline struct bytes member_name(const struct member *member)
{
    return bytes_of(member->name, member->name_bytes);
}
/* One that is not in the group yet. NULL: no memory. */
struct member *member_new(const struct member_in *in);
bool member_was_fenced(const struct member *member, const struct ferry_id *instance);

/* Takes an entry in. Errors: NO_MEMORY. */
MUST_CHECK enum ferry_err members_apply(struct members *m, const struct members_entry *e,
                                        int64_t time_ms);
/* Whoever has a partition has it anew, with a new epoch: it must look where to go on. */
void members_give_anew(struct members *m);
/* Texts longer than their bounds are cut. Errors: NO_MEMORY. */
MUST_CHECK enum ferry_err members_note(struct members *m, enum member_event_kind kind,
                                       int64_t time_ms, struct bytes who, struct bytes why);
/* Texts live until the next change. */
void members_events(const struct members *m, uint64_t after, struct event_list_reply *reply);

/* The office was won or lost: nobody has been heard of, everybody may have been told anything. */
void members_forget_volatile(struct members *m);
void members_drop_joining(struct members *m, size_t at);

uint32_t members_dirty_rows(const struct members *m);
/* ---- members_rows.c */
MUST_CHECK enum ferry_err members_flush(struct members *m, struct store *store, uint64_t group);
/* In a view. *m stays NULL when there are no rows. Errors: CORRUPT, NO_MEMORY. */
MUST_CHECK enum ferry_err members_load(uint64_t number, struct store *store, uint64_t group,
                                       struct members **m);

/* For members_rows.c. */
struct member_event {
    uint64_t number;
    int64_t time_ms;
    enum member_event_kind kind;
    uint64_t epoch;
    uint32_t who_bytes, why_bytes;
    char text[]; /* Who, why. */
};
MUST_CHECK enum ferry_err members_put_event(struct members *m, const struct member_event *like,
                                            struct bytes who, struct bytes why);
MUST_CHECK enum ferry_err members_insert(struct members *m, struct member *member);
MUST_CHECK enum ferry_err members_grow_shares(struct members *m, uint32_t partitions);
struct member_event *members_event(const struct members *m, uint64_t number);

void members_check(const struct members *m);

#endif
