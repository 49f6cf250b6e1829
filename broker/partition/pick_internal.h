/* The index's struct, for its own files: pick.c (building, changes, choosing), pick_fresh.c (what
 * was never handed out, by priority), pick_keyed.c (the same by key), pick_lease.c (leases,
 * members, hand-outs on their way). */
#ifndef FERRY_PARTITION_PICK_INTERNAL_H
#define FERRY_PARTITION_PICK_INTERNAL_H

#include "base/heap.h"
#include "base/list.h"
#include "base/map.h"
#include "partition/pick.h"

#define PICK_LEVELS (BATCH_PRIORITY_MAX + 1)

/* Came back, and waits for its time or for somebody to ask. */
struct pick_wait {
    struct heap_node due; /* By monotonic us. */
    struct list node;     /* In `ready`, or its key's `blocked`. */
    int64_t first;
    uint32_t count;
    int64_t due_ms; /* As in the delivery: else it is another's. */
    uint64_t key_hash;
};

/* Fresh messages of one entry and one priority. */
struct fresh_range {
    int64_t first;
    uint32_t count;
    uint32_t bytes_each;
    int64_t append_time_ms;
};
/* A queue of them, by offset. */
struct fresh_level {
    struct fresh_range *items;
    size_t head, count, capacity;
};

/* Keyed: one fresh message. */
struct pick_one {
    struct heap_node ready; /* By offset. */
    struct list node;       /* In its key's `behind`, or parking. */
    int64_t offset;
    uint64_t key_hash; /* 0: no key. */
    uint32_t bytes;
};
struct pick_key {
    uint64_t hash;
    struct list behind;  /* struct pick_one, by offset. */
    struct list blocked; /* struct pick_wait: due, but another of the key is out. */
    bool ready;          /* One of it is in ready_ones. */
    bool in_flight;
};

/* To whom something is on its way. */
struct pick_member {
    uint32_t in_flight; /* Messages. */
    uint32_t flights;
    uint32_t name_bytes;
    char name[NAME_MAX_BYTES];
};
struct pick_lease {
    struct heap_node end; /* By monotonic us. */
    uint64_t number;
    bool ending; /* An entry that ends it is on its way. */
};

/* A part of a hand-out on its way, with what is needed to take it back. */
struct pick_taken {
    int64_t first;
    uint32_t count;
    uint32_t bytes_each;
    uint64_t key_hash;
    bool waited; /* Else it was fresh. */
    uint32_t level;
    int64_t append_time_ms, due_ms;
};
struct pick_flight {
    struct list node;
    uint64_t lease;
    struct pick_member *member;
    uint32_t messages;
    size_t count;
    struct pick_taken taken[];
};

struct pick {
    struct delivery *delivery;
    bool keyed;
    bool touched, freed;
    bool rebuild; /* Nothing here is to be believed but what is on its way. */
    uint64_t wake;
    bool told_full; /* A member was told that it has no room. */

    struct heap waiting; /* struct pick_wait */
    struct list ready;   /* ... whose time has come, oldest first. */
    size_t ready_count;

    int64_t scanned; /* Fresh messages before it are in the index, or were. */
    bool scan_more;
    struct fresh_level levels[PICK_LEVELS];
    uint64_t ahead; /* Messages in them. */

    struct heap ready_ones; /* struct pick_one */
    struct map keys;        /* struct pick_key */
    size_t ones;            /* All there are. */
    struct list parking;    /* To be proposed, by offset. */
    struct list parked;     /* Proposed. */
    size_t parking_count;

    uint64_t next_lease;
    struct list flights; /* By lease. */
    struct heap leases_by_end;
    struct map leases;
    struct map members;

    struct buf taken; /* struct pick_taken, of the choice that is being made. */
};

/* What one choice may still take. */
struct pick_room {
    uint32_t messages;
    uint64_t bytes;
    uint32_t count; /* Taken. */
};
/* How many more of so many bytes each may be taken: the first comes whatever its size. */
uint32_t pick_room_for(const struct pick_room *room, uint32_t bytes_each, uint32_t count);
enum ferry_err pick_take(struct pick *k, struct pick_room *room, const struct pick_taken *taken);

/* ---- pick_fresh.c ---- */
void fresh_init(struct pick *k);
void fresh_fini(struct pick *k);
enum ferry_err fresh_scan(struct pick *k, const struct pick_log *log);
enum ferry_err fresh_take(struct pick *k, const struct pick_clock *now, struct pick_room *room);
enum ferry_err fresh_give_back(struct pick *k, const struct pick_taken *t);
/* The fresh part of the entry that comes next in the scan; *count 0: none. */
enum ferry_err fresh_piece(const struct pick *k, const struct pick_log *log,
                           struct pick_piece *piece, int64_t *first, uint32_t *count);

/* ---- pick_keyed.c ---- */
void keyed_init(struct pick *k);
void keyed_fini(struct pick *k);
enum ferry_err keyed_scan(struct pick *k, const struct pick_log *log, uint32_t wanted);
enum ferry_err keyed_take(struct pick *k, struct pick_room *room);
enum ferry_err keyed_give_back(struct pick *k, const struct pick_taken *t);
/* Whether a message of the key that came back may go now; else it is put aside. */
enum ferry_err keyed_admit(struct pick *k, struct pick_wait *w, bool *may);
/* It is on its way, or no longer. */
enum ferry_err keyed_flies(struct pick *k, uint64_t key_hash);
enum ferry_err keyed_landed(struct pick *k, uint64_t key_hash);
void keyed_returned(struct pick *k, uint64_t key_hash); /* ... and is given back next. */
/* Something of the key has changed: the next of it may be free now. */
enum ferry_err keyed_changed(struct pick *k, uint64_t key_hash);
void keyed_check(const struct pick *k);

/* ---- pick_lease.c ---- */
void pick_lease_init(struct pick *k);
void pick_lease_clear(struct pick *k);
void pick_lease_fini(struct pick *k);
enum ferry_err pick_lease_begin(struct pick *k, uint64_t number, int64_t now_us);
void pick_lease_end(struct pick *k, uint64_t number);
enum ferry_err member_get(struct pick *k, struct bytes name, struct pick_member **m);
struct pick_member *member_find(const struct pick *k, struct bytes name);
void member_let_go(struct pick *k, struct pick_member *m); /* Frees it when nothing is left. */
uint32_t member_room(const struct pick *k, const struct pick_member *m);
enum ferry_err flight_begin(struct pick *k, struct pick_member *m, uint32_t messages);
/* Hand-outs that were applied are no longer on their way. */
enum ferry_err flights_land(struct pick *k);
void flight_end(struct pick *k, struct pick_flight *f);

#endif
