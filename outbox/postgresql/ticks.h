/* ticks: in which order the rows of an outbox are handed out, and what each target has of them.
 *
 * A tick is what the snapshot `upper` sees and the snapshot `lower` does not; its rows are handed
 * out by rising number, a page at a time, and the next tick begins where it ended. Rows of a
 * transaction that was open for long come with the tick in which it is seen to have finished; an
 * open one holds nobody back. Does no I/O.
 *
 * Invariants: (1) positions rise by one for each row handed out and are never used again, so a row
 * that is handed out anew has a new one. (2) The upper snapshot of a tick stays until the tick was
 * read to its end, over rewinds too: so a mark never needs more than its base and one upper. (3) A
 * mark that lives through the end of a tick has all of the tick (the core opens a target anew
 * whose rows it dropped), so it enters the next tick at rest. (4) A mark that is opened with
 * another upper than that of the tick being read, and of which not all is settled, is first
 * brought to rest by an *extra tick* of its own: (base, upper] behind its seq_hi. Extra ticks are
 * read before anything else, their rows are wanted by that mark only, and no checkpoint tells of
 * them. (5) What ticks_settled names is settled: rows it covers are not handed out again.
 *
 * States of the tick: none (upper NULL: a snapshot is needed) -> ticks_open -> being read ->
 * ticks_page(ended) -> ended (its rows may still be on their way) -> ticks_next -> none. A rewind
 * leads from ended back to being read. */
#ifndef FERRY_OUTBOX_POSTGRESQL_TICKS_H
#define FERRY_OUTBOX_POSTGRESQL_TICKS_H

#include "outbox/postgresql/cover.h"

#define TICKS_ENDS_MAX  64u  /* Ends of ticks that are not settled; more are thinned out. */
#define TICKS_PAGES_MAX 128u /* The same of pages in the tick being read. */

struct source_mark {
    struct cover cover; /* With the rows that are on their way. */
    bool extra;         /* Waits for its extra tick, or is in it. */
    struct source_mark *next, *before;
};

/* A row, to tell a database that was set back in time. */
struct tick_last {
    bool known;
    int64_t seq;
    struct ferry_id id;
};

/* Where reading was when `position` had been handed out. */
struct tick_end {
    int64_t position;
    struct snapshot *seen; /* All of it; held. */
    struct tick_last last;
};

struct tick_page {
    int64_t position;
    int64_t seq; /* The tick up to this number. */
    struct tick_last last;
};

struct ticks {
    int64_t position; /* The last given. */

    /* The tick. */
    struct snapshot *lower, *upper; /* Held. */
    int64_t seq_at;                 /* Read up to here. */
    bool ended;
    int64_t pass_start; /* The position before the first row of this pass over the tick. */
    int64_t pass_seq;   /* seq_at then. */
    struct tick_last last;

    /* What was settled when it was last told: the front of `ends`. */
    int64_t settled;
    struct tick_end ends[TICKS_ENDS_MAX]; /* At least one: the base. */
    size_t end_count;
    struct tick_page pages[TICKS_PAGES_MAX]; /* Of this pass. */
    size_t page_count;

    struct source_mark *marks;
    struct source_mark *extra; /* Whose extra tick is being read. */
    int64_t extra_seq;
    bool page_is_extra; /* Of the page that was handed out last. */
    bool page_is_last;  /* And it ended its tick. */
};

/* What is to be read now. */
struct ticks_job {
    struct snapshot *lower, *upper; /* Borrowed. Upper NULL: take a snapshot, then ticks_open. */
    int64_t seq_at;
    bool extra;
};

/* Errors: NO_MEMORY. */
MUST_CHECK enum ferry_err ticks_init(struct ticks *t);
void ticks_fini(struct ticks *t); /* All marks are closed. Accepts zeroed memory. */
/* Begins anew where `from` says everybody is. No marks are open. */
void ticks_begin(struct ticks *t, const struct cover *from);
/* The page before was sent, or dropped by a rewind. May be asked again when nothing was read. */
void ticks_next(struct ticks *t, struct ticks_job *job);
/* What ticks_next will say if nothing happens until then. A tick is being read. */
void ticks_peek(const struct ticks *t, struct ticks_job *job);
void ticks_open(struct ticks *t, struct snapshot *upper);
/* Nothing of what `seen` sees is left to hand out; no tick is open. */
void ticks_skip(struct ticks *t, struct snapshot *seen);
/* A page with these rows was made for the job; `seq` is how far it reaches. `ended`: it is the
 * last of its tick. Positions of the rows are from the return value + 1 on. */
int64_t ticks_page(struct ticks *t, size_t rows, int64_t seq, const struct tick_last *last,
                   bool ended);
void ticks_rewind(struct ticks *t, int64_t after);
/* What everybody has when all up to `settled` is settled; lives until the next call of any. */
void ticks_settled(struct ticks *t, int64_t settled, struct cover *cover, struct tick_last *last);

/* All of this is settled when everything up to the position is. Lives as above. */
const struct snapshot *ticks_seen_at(const struct ticks *t, int64_t position);

/* Takes the cover on success. *again: it needs an extra tick. Errors: NO_MEMORY. */
MUST_CHECK enum ferry_err ticks_mark_open(struct ticks *t, struct cover *cover,
                                          struct source_mark **mark, bool *again);
void ticks_mark_close(struct ticks *t, struct source_mark *mark);
bool ticks_wants(const struct ticks *t, const struct source_mark *mark, uint64_t xid, int64_t seq);
/* What the mark has once rows of the page up to `seq` are its own; borrowed snapshots in *cover.
 * False: it has to wait for its extra tick. */
bool ticks_mark_after(const struct ticks *t, const struct source_mark *mark, int64_t seq, bool last,
                      struct cover *cover);
/* They are its own from now on. Result as above. */
MUST_CHECK bool ticks_mark_add(const struct ticks *t, struct source_mark *mark, int64_t seq,
                               bool last);
void ticks_check(const struct ticks *t);

#endif
