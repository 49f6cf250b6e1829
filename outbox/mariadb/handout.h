/* handout: the rows of the table that were handed out, or are known to be in the log, and are not
 * yet known to be deleted.
 *
 * MariaDB shows no order of commits, so there is no cursor to read from: what is in the table and
 * not in here is to be handed out. Pure: no database, no clock. All memory is taken by init.
 * Invariants: (1) a row is in `order` exactly when it has a position, and `order` rises; (2) a row
 * is in `due` exactly when it is DUE; (3) `all` sums exactly the rows that are not DELETED and not
 * gone, `recent` those of them with ids above `low`; (4) no id is above `top`.
 * States: HANDED → DUE (it is in the log, or settled otherwise: delete it) → DELETING (a
 * transaction with it is on its way) → DELETED (kept while its position is not settled, so that
 * whoever still has the row in hand is told that it is done) → forgotten; DELETING → DUE when that
 * failed. */
#ifndef FERRY_OUTBOX_HANDOUT_H
#define FERRY_OUTBOX_HANDOUT_H

#include "base/err.h"
#include "base/list.h"
#include "base/map.h"

enum handout_state { HANDOUT_HANDED, HANDOUT_DUE, HANDOUT_DELETING, HANDOUT_DELETED };

struct handout_row {
    struct list order, due;
    uint64_t id;
    int64_t position; /* 0: never handed out here; a mark's blob told of it. */
    struct ferry_id msg_id;
    enum handout_state state;
    bool gone;     /* A sweep did not find it in the table. */
    uint32_t seen; /* Number of the last sweep that found it. */
};

/* What the table's rows should come to: how many, and all their ids by exclusive or. */
struct handout_sum {
    int64_t count;
    uint64_t ids;
};

struct handout {
    struct handout_row *rows;
    size_t rows_max;
    struct list free; /* By `order`. */
    struct list order, due;
    struct map by_id;
    size_t due_count;
    struct handout_sum all, recent;
    uint64_t low, top;
    int64_t settled;
    uint64_t newest_settled; /* Greatest id of a settled row. */
    struct ferry_id newest_settled_id;
    uint32_t sweep;
};

MUST_CHECK enum ferry_err handout_init(struct handout *h, size_t rows_max);
void handout_fini(struct handout *h); /* Accepts zeroed memory. */
/* Forgets all rows but those that are to be deleted; `everything`: those too. */
void handout_clear(struct handout *h, bool everything);

static inline size_t handout_room(const struct handout *h)
{
    return h->rows_max - h->by_id.count;
}

const struct handout_row *handout_find(const struct handout *h, uint64_t id);
/* A row of the table is handed out. There is room, and it is not in here. */
void handout_add(struct handout *h, uint64_t id, int64_t position, const struct ferry_id *msg_id);
/* The row is in the log. False: no room (it was not in here); then it is found again later. */
bool handout_publish(struct handout *h, uint64_t id);
/* Rows with greater positions that are still HANDED are forgotten. Returns the least id of them; 0:
 * none. */
uint64_t handout_rewind(struct handout *h, int64_t after);
/* Of the rows that should be in the table: how many are HANDED and have ids up to `through`, how
 * many have greater ids and are not HANDED, and the least id that is HANDED (0: none). */
struct handout_count {
    int64_t handed, done_beyond;
    uint64_t oldest;
};
struct handout_count handout_count(const struct handout *h, uint64_t through);
/* Every row up to the position is settled. */
void handout_settle(struct handout *h, int64_t position);

/* Takes the oldest DUE rows for a deletion: their ids, sorted. */
size_t handout_take(struct handout *h, uint64_t *ids, size_t max);
/* What became of it. Ids that are not in here are passed over. */
void handout_deleted(struct handout *h, const uint64_t *ids, size_t count);
void handout_not_deleted(struct handout *h, const uint64_t *ids, size_t count);
/* The row was deleted by another way (set aside). */
void handout_removed(struct handout *h, uint64_t id);

/* The sum of what should be in the table from `low` (if `recent`) up to `through`. */
struct handout_sum handout_expected(const struct handout *h, bool recent, uint64_t through);
void handout_sum_add(struct handout_sum *sum, uint64_t id);
/* `recent` begins above this id from now on. */
void handout_set_low(struct handout *h, uint64_t low);

/* A sweep tells every id of the table in (after, through], then ends. */
void handout_sweep_begin(struct handout *h);
bool handout_sweep_id(struct handout *h, uint64_t id); /* False: not handed out. */
void handout_sweep_end(struct handout *h, uint64_t after, uint64_t through);

void handout_check(const struct handout *h);

#endif
