/* parcel: a record batch on its way out, with what the messages in it are owed: one report each.
 *
 * States: open (in a stream, application threads add to it) → closed → sent (numbered: its bytes
 * never change again) → ended (has an outcome) → told → back in the pool. A staged parcel holds
 * messages of a topic whose partitions are not known yet; they move to other parcels later.
 *
 * Invariants: (1) opaques[i] belongs to record i; (2) `untold` counts the records whose report is
 * still owed through ferry_poll or a waiter; (3) a record whose opaque is parcel_told() is owed
 * nothing by this parcel: a waiter has it, or it has moved. */
#ifndef FERRY_CLIENT_PARCEL_H
#define FERRY_CLIENT_PARCEL_H

#include "client/client.h"
#include "client/due.h"
#include "wire/batch.h"

struct partition;

/* Somebody inside ferry_send_sync. On its stack. */
struct waiter {
    struct list node;
    uint32_t index; /* Of the record. */
    bool done;
    pthread_cond_t changed;
    struct ferry_report report;
};

enum parcel_state {
    PARCEL_FILLING, /* Open, closed or staged: not numbered. */
    PARCEL_WAITING, /* Numbered; to be sent, or sent again. */
    PARCEL_OUT      /* Numbered, on the wire. */
};

struct parcel {
    struct list node;
    struct due due; /* When it has an outcome. */
    struct ferry_client *client;
    struct topic *topic;
    struct partition *partition; /* NULL while staged. */
    struct batch_writer writer;
    void **opaques;
    size_t opaque_capacity;
    int32_t *hints; /* Staged only: the partition asked for. */
    size_t hint_capacity;
    struct list waiters; /* In order of index. */
    uint32_t untold;
    size_t cost_bytes; /* Its part of queued_bytes. */
    int64_t opened_us;
    int64_t deadline_us;
    /* Io. */
    enum parcel_state state;
    uint64_t ordinal;   /* Place among the parcels of its stream, for ever. */
    struct bytes bytes; /* The finished batch; in the writer. */
    uint64_t first_sequence;
    bool doubtful; /* Some try may have been stored though its answer is not known. */
    unsigned attempts;
    enum ferry_err last_err;
    struct request request;
    /* The outcome. */
    enum ferry_outcome outcome;
    enum ferry_err err;
    int64_t base_offset;
    bool duplicate;
    struct buf duplicates; /* PRODUCE_DUPLICATE_BYTES each, ascending: checked. */
    struct buf dues;       /* Of a delayed one, PRODUCE_DUE_BYTES each: when each record is due. */
};

/* With the lock: one from the pool, or a new one; NULL: no memory. */
struct parcel *parcel_take(struct ferry_client *c, struct topic *topic, struct partition *partition,
                           int64_t now_us);
void parcel_give_back(struct parcel *p); /* With the lock. */
void parcel_free(struct parcel *p);
void parcel_pool_free(struct ferry_client *c);

/* What a record counts for in queue.bytes. */
size_t parcel_record_cost(const struct batch_record *r);
bool parcel_is_delayed(const struct parcel *p); /* Its records have due times. */
/* With the lock: true when the record may go into it. */
bool parcel_has_room(const struct parcel *p, const struct batch_record *r);
/* With the lock: adds the record. `w` may be NULL. Errors: NO_MEMORY, TOO_LARGE. */
MUST_CHECK enum ferry_err parcel_add(struct parcel *p, const struct batch_record *r, void *opaque,
                                     int32_t hint, struct waiter *w);
void *parcel_told(void);

/* The io thread: ends it. Tells the waiters, and queues the rest for ferry_poll. The parcel is no
 * longer the caller's. */
void parcel_end(struct parcel *p, enum ferry_outcome outcome, enum ferry_err err);
/* With the lock: what the report of record i says (but opaque); `kept` counts records before i that
 * were not duplicates, `duplicate` the duplicates; both start at 0 and are moved on. */
void parcel_report(const struct parcel *p, uint32_t i, uint32_t *kept, uint32_t *duplicate,
                   struct ferry_report *report);

#endif
