/* The participant's half: the barrier, and the answers of a step. */
#include "outbox/app/saga.h"

/* UNDO and its refusal in a round; see saga.h. */
static int32_t undo_op(int round)
{
    return round == 0 ? BARRIER_UNDO : 2 * round + 3;
}

static int32_t refused_op(int round)
{
    return 2 * round + 4;
}

static enum ferry_err read_command(struct ferry_db *db, const struct ferry_record *record,
                                   struct saga_note *note)
{
    enum ferry_err err = saga_check_transaction(db);
    if (err != FERRY_OK) {
        return err;
    }
    if (!saga_note_read(record, note) || (note->op != SAGA_DO && note->op != SAGA_UNDO)) {
        return err_set(&db->error, FERRY_ERR_INVALID_ARGUMENT,
                       "the record is no saga's command: ask ferry_saga_command_of() first");
    }
    if (note->reply_to[0] == '\0') {
        return err_set(&db->error, FERRY_ERR_INVALID_ARGUMENT,
                       "the saga's command does not say where its answer goes: it has no header %s",
                       FERRY_HEADER_REPLY_TO);
    }
    return FERRY_OK;
}

/* ---- Answers --------------------------------------------------------------------------------- */

static struct saga_out out_of(const struct saga_note *note, const struct ferry_record *record)
{
    return (struct saga_out){
        .topic = note->reply_to,
        .key = bytes_of(record->key, record->key_bytes),
        .payload = bytes_of(record->payload, record->payload_bytes),
        .saga = &note->saga,
        .type = note->type,
        .step = note->step,
        .attempt = note->attempt,
        .cause = record,
    };
}

/* On along the slip: to `step` with the op, which is in bounds. */
static enum ferry_err put_next(struct ferry_db *db, const struct saga_note *note,
                               struct saga_out out, enum saga_op op, int32_t step)
{
    char topic[SAGA_NAME_BYTES];
    bool no_undo;
    bool there = saga_slip_at(note->slip, (uint32_t)step, topic, &no_undo);
    must(there); /* saga_note_read has counted. */
    out.topic = topic;
    out.op = op;
    out.step = step;
    out.slip = note->slip;
    out.reply_to = note->reply_to;
    return saga_put(db, &out);
}

static enum ferry_err put_end(struct ferry_db *db, struct saga_out out,
                              enum ferry_saga_state outcome)
{
    out.op = SAGA_END;
    out.outcome = outcome;
    return saga_put(db, &out);
}

/* The steps below this one are compensated. */
static enum ferry_err pass_back(struct ferry_db *db, const struct saga_note *note,
                                struct saga_out out)
{
    char topic[SAGA_NAME_BYTES];
    for (int32_t step = note->step - 1; step >= 0; step--) {
        bool no_undo = true;
        if (saga_slip_at(note->slip, (uint32_t)step, topic, &no_undo) && !no_undo) {
            return put_next(db, note, out, SAGA_UNDO, step);
        }
    }
    return put_end(db, out, FERRY_SAGA_COMPENSATED);
}

static enum ferry_err answer_done(struct ferry_db *db, const struct saga_note *note,
                                  struct saga_out out)
{
    if (!note->choreographed) {
        out.op = note->op == SAGA_DO ? SAGA_DONE : SAGA_UNDONE;
        return saga_put(db, &out);
    }
    char reason[SAGA_REASON_BYTES]; /* Of the refusal that the undo comes from. */
    saga_text_copy(note->reason, reason, sizeof(reason));
    if (note->op == SAGA_UNDO) {
        out.reason = reason;
        return pass_back(db, note, out);
    }
    return (uint32_t)note->step + 1 < saga_slip_count(note->slip)
               ? put_next(db, note, out, SAGA_DO, note->step + 1)
               : put_end(db, out, FERRY_SAGA_DONE);
}

static enum ferry_err answer_refused(struct ferry_db *db, const struct saga_note *note,
                                     struct saga_out out, const char *why)
{
    char words[SAGA_REASON_BYTES];
    char reason[SAGA_REASON_BYTES];
    char topic[SAGA_NAME_BYTES] = "";
    bool no_undo;
    bool undo = note->op == SAGA_UNDO;
    saga_text_copy(bytes_of_string(why == NULL ? "" : why), words, sizeof(words));
    out.reason = words;
    if (!note->choreographed) {
        out.op = undo ? SAGA_UNDO_REFUSED : SAGA_REFUSED;
        return saga_put(db, &out);
    }
    struct saga told = {.step = 0};
    (void)saga_slip_at(note->slip, (uint32_t)note->step, topic, &no_undo);
    saga_set_reason(&told, "step %d (%s) %s: %s", note->step, topic,
                    undo ? "refused its compensation" : "was refused", words);
    memcpy(reason, told.reason, sizeof(reason));
    out.reason = reason;
    return undo ? put_end(db, out, FERRY_SAGA_STUCK) : pass_back(db, note, out);
}

/* ---- The barrier ----------------------------------------------------------------------------- */

static enum ferry_err add_row(struct ferry_db *db, const struct saga_note *note, int32_t op,
                              int32_t why, bool *fresh)
{
    enum ferry_err err =
        db->ops->barrier_add(db->driver, &note->saga, note->step, op, why, fresh, &db->error);
    if (err == FERRY_OK && *fresh) {
        err = saga_check_age(db, &note->saga);
        *fresh = err == FERRY_OK;
    }
    return err;
}

static enum ferry_err find_row(struct ferry_db *db, const struct saga_note *note, int32_t op,
                               bool *found, int32_t *why)
{
    *found = false;
    *why = 0;
    return db->ops->barrier_why(db->driver, &note->saga, note->step, op, found, why, &db->error);
}

enum claim { CLAIM_RUN, CLAIM_REPEAT, CLAIM_REPEAT_REFUSED };

/* The first round that is not over is ours if its row is not there yet. */
static enum ferry_err claim_undo(struct ferry_db *db, const struct saga_note *note,
                                 enum claim *claim)
{
    for (int round = 0; round < SAGA_ROUNDS_MAX; round++) {
        bool fresh = false;
        bool refused = false;
        int32_t attempt = 0;
        enum ferry_err err = add_row(db, note, undo_op(round), BARRIER_BY_UNDO, &fresh);
        if (err == FERRY_OK && !fresh) {
            err = find_row(db, note, refused_op(round), &refused, &attempt);
        }
        if (err != FERRY_OK) {
            return err;
        }
        if (fresh || !refused) {
            *claim = fresh ? CLAIM_RUN : CLAIM_REPEAT;
            return FERRY_OK;
        }
        if (note->attempt <= attempt) {
            *claim = CLAIM_REPEAT_REFUSED; /* It, or a later one, was answered so. */
            return FERRY_OK;
        }
    }
    return err_set(&db->error, FERRY_ERR_LIMIT_REACHED,
                   "the compensation of the saga's step %d was refused %d times", note->step,
                   SAGA_ROUNDS_MAX);
}

/* An undo that was put again says that its answer may not have arrived. */
static enum ferry_err enter_undo(struct ferry_db *db, const struct saga_note *note,
                                 const struct ferry_record *record, bool *run)
{
    struct saga_out out = out_of(note, record);
    bool no_do = false;
    bool refused = false;
    int32_t why = 0;
    enum claim claim = CLAIM_REPEAT;
    enum ferry_err err = add_row(db, note, BARRIER_DO, BARRIER_BY_UNDO, &no_do);
    if (err == FERRY_OK) {
        err = claim_undo(db, note, &claim);
    }
    if (err == FERRY_OK && claim == CLAIM_RUN && !no_do) {
        err = find_row(db, note, BARRIER_REFUSED, &refused, &why);
    }
    if (err != FERRY_OK || claim == CLAIM_REPEAT_REFUSED) {
        return err;
    }
    *run = claim == CLAIM_RUN && !no_do && !refused;
    bool answer = claim == CLAIM_RUN ? !*run : note->attempt > 0;
    return answer ? answer_done(db, note, out) : FERRY_OK;
}

enum ferry_err ferry_saga_enter(struct ferry_db *db, const struct ferry_record *record, bool *run)
{
    struct saga_note note;
    *run = false;
    enum ferry_err err = read_command(db, record, &note);
    if (err != FERRY_OK) {
        return err;
    }
    return note.op == SAGA_DO ? add_row(db, &note, BARRIER_DO, BARRIER_BY_DO, run)
                              : enter_undo(db, &note, record, run);
}

enum ferry_err ferry_saga_done(struct ferry_db *db, const struct ferry_record *record,
                               const void *data, size_t data_bytes)
{
    struct saga_note note;
    enum ferry_err err = read_command(db, record, &note);
    if (err != FERRY_OK) {
        return err;
    }
    if (data_bytes > FERRY_SAGA_DATA_MAX_BYTES) {
        return err_set(&db->error, FERRY_ERR_TOO_LARGE,
                       "a saga's data has at most %u bytes: put a reference there",
                       FERRY_SAGA_DATA_MAX_BYTES);
    }
    struct saga_out out = out_of(&note, record);
    if (data != NULL) {
        out.payload = bytes_of(data, data_bytes);
    }
    return answer_done(db, &note, out);
}

/* Ends the round that is running: the greatest that has begun. */
static enum ferry_err end_round(struct ferry_db *db, const struct saga_note *note)
{
    for (int round = 0; round < SAGA_ROUNDS_MAX; round++) {
        bool found = false;
        int32_t why = 0;
        enum ferry_err err = find_row(db, note, undo_op(round + 1), &found, &why);
        if (err != FERRY_OK) {
            return err;
        }
        if (!found) {
            bool fresh = false;
            return add_row(db, note, refused_op(round), (int32_t)note->attempt, &fresh);
        }
    }
    return FERRY_OK; /* The last one is never over. */
}

enum ferry_err ferry_saga_refuse(struct ferry_db *db, const struct ferry_record *record,
                                 const char *why)
{
    struct saga_note note;
    bool fresh = false;
    enum ferry_err err = read_command(db, record, &note);
    if (err == FERRY_OK && note.op == SAGA_DO) {
        err = add_row(db, &note, BARRIER_REFUSED, BARRIER_BY_DO, &fresh);
    } else if (err == FERRY_OK) {
        err = end_round(db, &note);
    }
    if (err != FERRY_OK) {
        return err;
    }
    struct saga_out out = out_of(&note, record);
    return answer_refused(db, &note, out, why);
}
