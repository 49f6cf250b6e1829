/* saga: chains of local transactions in several databases that end in all of their effects or in
 * all of their compensations. The parts that ferry_outbox.h does not show.
 *
 * Written against db.h; never begins, commits or rolls back, reads no clock but the wall's for due
 * times, and keeps nothing between calls: what a saga is, is its row and its barrier's rows.
 *
 * Invariants.
 *  (1) A saga's row changes by compare-and-set of its version, and what follows from the change (a
 *      command, a timer) is put in the same transaction. So each change is commanded once.
 *  (2) A step's effect commits with the barrier's row (saga, step, DO) that it inserted, a
 *      compensation with (saga, step, UNDO). The unique key decides who runs; rows are only
 * inserted. (3) An undo inserts DO's row first. If it could, there is no effect and never will be:
 * it answers undone (empty compensation), and a do that comes later finds the row and does not run
 *      (hanging). If it could not, the effect is there, or REFUSED says that there is none.
 *  (4) An answer commits with what it answers, so it is in the outbox or nothing happened: a
 * command that is delivered again is not answered again. Only an undo that was put again (its
 * attempt is above 0) is: nobody but a person can have lost its answer, and it tells nothing but
 * that. (5) While a saga compensates, only the undo of its current step counts. A late done or
 * refused of that step has no effect: its undo was sent, and (3) makes the undo right in either
 * case. (6) A timer holds the row's version and acts only on that one: once the saga has moved, or
 * was commanded again, the timer is void. A row that waits has exactly one timer that is not. (7)
 * Nothing depends on order. The key keeps a saga's messages to one topic in order, which spares
 *      empty compensations; a queue, more partitions or a requeue may invert them.
 *
 * The starter's row (orchestrated). k is the row's step; "undo from j": the highest step <= j that
 * has a compensation becomes the step; where there is none the saga is COMPENSATED.
 *
 *   state         record                        becomes        puts
 *   -             start                         RUNNING 0      do 0, timer
 *   RUNNING k     done k, not the last          RUNNING k+1    do k+1, timer
 *   RUNNING k     done k, the last              DONE
 *   RUNNING k     refused k                     COMPENSATING   undo from k-1, timer
 *   RUNNING k     timer, operator's abort       COMPENSATING   undo from k: k may be done or not
 *   RUNNING k     operator's retry              RUNNING k      do k again, timer
 *   COMPENSATING  undone k                      COMPENSATING   undo from k-1, timer
 *   COMPENSATING  timer, operator's retry       COMPENSATING   undo k again, timer (twice as late)
 *   COMPENSATING  undo-refused k, this attempt  STUCK
 *   COMPENSATING  operator's abort              ABORTED        from SAGA_GIVE_UP_ATTEMPTS on
 *   STUCK         undone k (of an older try)    COMPENSATING   undo from k-1, timer
 *   STUCK         operator's retry              COMPENSATING   undo k again, timer
 *   STUCK         operator's abort              ABORTED
 *   any other pair                              no change
 *
 * Choreographed: the slip travels with the messages, a participant needs only its barrier. The row
 * has no place in the slip while the saga runs, and one timer: if the whole has a deadline.
 *
 *   at step k     do k done                     do k+1; after the last: end (done)
 *                 do k refused, undo k done     undo of the next lower step that has a
 * compensation; where there is none: end (compensated) undo k refused                end (stuck)
 *   the row       end (done)                    RUNNING -> DONE
 *                 end (compensated)             RUNNING, COMPENSATING, STUCK -> COMPENSATED
 *                 end (stuck), k                RUNNING, COMPENSATING -> STUCK k
 *                 operator's abort, timer       RUNNING -> COMPENSATING: undo of the last step that
 * has a compensation. The undo runs towards the do that is under way, bars each step that it meets
 * first, and compensates from where they cross. Each undo goes on once, so there is one end however
 * many undos start. operator's retry              STUCK, COMPENSATING: undo k again. RUNNING:
 * refused, since the row does not know who has the command.
 *
 * The barrier's rows (saga, step, op, why); op is enum barrier_op, why is enum barrier_why or, of
 * refused undos, the attempt that was refused. A refused undo may be run again by a later attempt:
 * it then inserts a row of the next round, (UNDO of round r) = 2, 5, 7, 9, …; (refused in round r)
 * = 4, 6, 8, … A round is over when its refusal is there. The row of no saga (all 0) has in `why`
 * the day before which rows are forgotten; see saga_trim.c.
 *
 * Messages: headers (ferry_outbox.h), numbers as decimal text; the payload is the saga's data; the
 * key the saga's key. Commands go to the step's topic with FERRY_HEADER_REPLY_TO; answers, timers
 * (with due_ms) and ends to the reply topic. A done's payload becomes the saga's data.
 *
 * saga.data, msgpack: [format 1, kind, reply topic, key, attempt, [[topic, deadline_ms, no_undo],
 * …], payload]. To change it: append elements, which older programs skip; raise the format only if
 * an older program must not touch the saga. */
#ifndef FERRY_OUTBOX_APP_SAGA_H
#define FERRY_OUTBOX_APP_SAGA_H

#include "base/buf.h"
#include "base/err.h"
#include "outbox/app/db.h"

#define SAGA_NAME_BYTES         201u /* Of a topic or a type, with the NUL. */
#define SAGA_REASON_BYTES       (FERRY_SAGA_REASON_MAX_BYTES + 1u)
#define SAGA_GIVE_UP_ATTEMPTS   3     /* An undo that was put again so often may be given up. */
#define SAGA_ATTEMPTS_MAX       30000 /* From there on the number stays. */
#define SAGA_DEADLINE_MAX_MS    (364 * INT64_C(86400000))
#define SAGA_ROUNDS_MAX         1000 /* Of refused undos of one step. */
#define SAGA_DATA_FORMAT        1u
#define SAGA_ROW_DATA_MAX_BYTES (FERRY_SAGA_DATA_MAX_BYTES + (16u << 10))

enum barrier_op { BARRIER_DO = 1, BARRIER_UNDO = 2, BARRIER_REFUSED = 3 };
enum barrier_why {
    BARRIER_BY_DO = 1,   /* The command itself inserted the row. */
    BARRIER_BY_UNDO = 2, /* An undo did, to keep the do from running. */
};

enum saga_op {
    SAGA_DO,
    SAGA_UNDO,
    SAGA_DONE,
    SAGA_UNDONE,
    SAGA_REFUSED,
    SAGA_UNDO_REFUSED,
    SAGA_TIMER,
    SAGA_END,
    SAGA_OP_COUNT
};

/* ---- The row --------------------------------------------------------------------------------- */

struct saga_step {
    char topic[SAGA_NAME_BYTES];
    int64_t deadline_ms;
    bool no_undo;
};

/* What a saga was started with, and what it carries: the row's `data`. */
struct saga_plan {
    enum ferry_saga_kind kind;
    char reply_topic[SAGA_NAME_BYTES];
    int64_t attempt; /* Of the command that is out: 0 the first. */
    uint32_t count;
    struct saga_step steps[FERRY_SAGA_STEPS_MAX];
    struct bytes key, payload; /* Borrowed. */
};

/* Errors: TOO_LARGE, NO_MEMORY (buf). */
MUST_CHECK enum ferry_err saga_plan_encode(const struct saga_plan *plan, struct buf *data);
/* Also for those who show a row to people. Key and payload point into `data`. Errors: CORRUPT,
 * NEWER_FORMAT. */
MUST_CHECK enum ferry_err saga_plan_decode(struct bytes data, struct saga_plan *plan,
                                           struct err_text *e);

/* A row in memory. */
struct saga {
    struct ferry_id id;
    char type[SAGA_NAME_BYTES];
    enum ferry_saga_state state;
    int32_t step;
    int64_t version;
    int64_t deadline_ms;
    char reason[SAGA_REASON_BYTES];
    struct saga_plan plan;
    uint8_t *memory; /* Owned: the row's data, which the plan points into. */
};

/* Reads the row; *found false: none. With FERRY_OK and *found, fini is due. */
MUST_CHECK enum ferry_err saga_load(struct ferry_db *db, const struct ferry_id *id, struct saga *s,
                                    bool *found);
void saga_fini(struct saga *s);
/* The transitions of the table above. Each changes the row and puts what follows; `cause` (may be
 * NULL) is the record that it follows from. */
MUST_CHECK enum ferry_err saga_begin(struct ferry_db *db, struct saga *s);
MUST_CHECK enum ferry_err saga_forward(struct ferry_db *db, struct saga *s,
                                       const struct ferry_record *cause);
MUST_CHECK enum ferry_err saga_undo_from(struct ferry_db *db, struct saga *s, int32_t step,
                                         const struct ferry_record *cause);
MUST_CHECK enum ferry_err saga_again(struct ferry_db *db, struct saga *s,
                                     const struct ferry_record *cause);
MUST_CHECK enum ferry_err saga_rest(struct ferry_db *db, struct saga *s,
                                    enum ferry_saga_state state);
/* Why it compensates, in words; valid UTF-8 without control characters, cut where it is too long.
 */
void saga_set_reason(struct saga *s, const char *format, ...) PRINTF(2, 3);

/* ---- Messages -------------------------------------------------------------------------------- */

/* What a record's headers say. Bytes point into the record. */
struct saga_note {
    struct ferry_id saga;
    char type[SAGA_NAME_BYTES];
    enum saga_op op;
    int32_t step;
    int64_t attempt, version;
    enum ferry_saga_state outcome; /* Of an end; else 0. */
    struct bytes reason;
    char reply_to[SAGA_NAME_BYTES]; /* Empty: none. */
    bool choreographed;             /* It has a slip, which is valid. */
    struct bytes slip;
};

/* False when the record is no saga's, or says something that no saga says. */
bool saga_note_read(const struct ferry_record *record, struct saga_note *note);

/* A message of a saga, to be put. Zeroed: left out. */
struct saga_out {
    const char *topic;
    struct bytes key, payload;
    const struct ferry_id *saga;
    const char *type;
    enum saga_op op;
    int32_t step;
    int64_t attempt, version, due_ms;
    enum ferry_saga_state outcome;
    const char *reason; /* NULL or empty: none. */
    const char *reply_to;
    struct bytes slip;
    const struct ferry_record *cause;
};
MUST_CHECK enum ferry_err saga_put(struct ferry_db *db, const struct saga_out *out);

/* The slip: `count` topics; an entry's place and whether it has a compensation. */
void saga_slip_write(const struct saga_plan *plan, struct buf *slip);
uint32_t saga_slip_count(struct bytes slip); /* 0: malformed. */
bool saga_slip_at(struct bytes slip, uint32_t step, char topic[SAGA_NAME_BYTES], bool *no_undo);

/* The highest step at or below `step` that has a compensation; -1: none. */
int32_t saga_plan_undoable(const struct saga_plan *plan, int32_t step);

/* Bytes of anybody's to a text that every database takes. */
void saga_text_copy(struct bytes from, char *to, size_t to_bytes);

/* After a row of the saga was inserted into the barrier: whether rows of it may have been there
 * before. Errors: UNKNOWN_MESSAGE (they may). */
MUST_CHECK enum ferry_err saga_check_age(struct ferry_db *db, const struct ferry_id *saga);

/* The checks that all functions begin with: clears the detail. Errors: NO_TRANSACTION. */
MUST_CHECK enum ferry_err saga_check_transaction(struct ferry_db *db);

/* ---- What a person decides ------------------------------------------------------------------- */

/* Both in the caller's open transaction, which the caller commits and then wakes the relay. `e` has
 * the detail. Errors: UNKNOWN_MESSAGE (no such saga), INVALID_ARGUMENT (its state does not allow
 * it: the detail says what does), NEWER_FORMAT, those of the database.
 *
 * Retry puts the command again that is not answered: of a STUCK saga the refused undo (it
 * compensates again), of a COMPENSATING one its undo without waiting for the timer, of a RUNNING
 * orchestrated one its do, with a new deadline. A step that was done already is not done again. */
MUST_CHECK enum ferry_err saga_operator_retry(struct ferry_db *db, const struct ferry_id *id,
                                              struct err_text *e);
/* Abort does what a person expects of it: a RUNNING saga is compensated, as if its step had timed
 * out; a STUCK one, or one whose undo was put again SAGA_GIVE_UP_ATTEMPTS times without an answer,
 * is given up: ABORTED, with the reason; what was not compensated by then stays as it is. */
MUST_CHECK enum ferry_err saga_operator_abort(struct ferry_db *db, const struct ferry_id *id,
                                              const char *reason, struct err_text *e);

#endif
