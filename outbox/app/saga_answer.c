/* ferry_saga_answer: the starter's half. What changes nothing falls through to the end. */
#include "outbox/app/saga.h"

/* The data that later commands carry is what the step handed on. */
static enum ferry_err take_data(struct ferry_db *db, struct saga *s,
                                const struct ferry_record *record)
{
    if (record->payload_bytes > FERRY_SAGA_DATA_MAX_BYTES) {
        return err_set(&db->error, FERRY_ERR_TOO_LARGE,
                       "the answer of step %d has %zu bytes, a saga's data at most %u", s->step,
                       record->payload_bytes, FERRY_SAGA_DATA_MAX_BYTES);
    }
    s->plan.payload = bytes_of(record->payload, record->payload_bytes);
    return FERRY_OK;
}

static void reason_of_refusal(struct saga *s, const struct saga_note *note, const char *what)
{
    char words[SAGA_REASON_BYTES];
    saga_text_copy(note->reason, words, sizeof(words));
    saga_set_reason(s, "step %d (%s) %s: %s", note->step, s->plan.steps[note->step].topic, what,
                    words);
}

static enum ferry_err on_timer(struct ferry_db *db, struct saga *s,
                               const struct ferry_record *record)
{
    if (s->state == FERRY_SAGA_COMPENSATING) {
        return saga_again(db, s, record);
    }
    const struct saga_step *step = &s->plan.steps[s->step];
    saga_set_reason(s, "step %d (%s) did not answer within %lld ms", s->step, step->topic,
                    (long long)step->deadline_ms);
    return saga_undo_from(db, s, s->step, record);
}

static enum ferry_err on_done(struct ferry_db *db, struct saga *s,
                              const struct ferry_record *record)
{
    enum ferry_err err = take_data(db, s, record);
    return err == FERRY_OK ? saga_forward(db, s, record) : err;
}

static enum ferry_err on_undone(struct ferry_db *db, struct saga *s,
                                const struct ferry_record *record)
{
    enum ferry_err err = take_data(db, s, record);
    return err == FERRY_OK ? saga_undo_from(db, s, s->step - 1, record) : err;
}

static enum ferry_err orchestrate(struct ferry_db *db, struct saga *s, const struct saga_note *note,
                                  const struct ferry_record *record, bool *changed)
{
    bool running = s->state == FERRY_SAGA_RUNNING;
    bool compensating = s->state == FERRY_SAGA_COMPENSATING;
    *changed = true;
    if (note->op == SAGA_TIMER && (running || compensating) && note->version == s->version) {
        return on_timer(db, s, record);
    }
    if (note->op == SAGA_DONE && running && note->step == s->step) {
        return on_done(db, s, record);
    }
    if (note->op == SAGA_REFUSED && running && note->step == s->step) {
        reason_of_refusal(s, note, "was refused");
        return saga_undo_from(db, s, s->step - 1, record);
    }
    if (note->op == SAGA_UNDONE && (compensating || s->state == FERRY_SAGA_STUCK) &&
        note->step == s->step) {
        return on_undone(db, s, record);
    }
    if (note->op == SAGA_UNDO_REFUSED && compensating && note->step == s->step &&
        note->attempt >= s->plan.attempt) {
        reason_of_refusal(s, note, "refused its compensation");
        return saga_rest(db, s, FERRY_SAGA_STUCK);
    }
    *changed = false;
    return FERRY_OK;
}

/* The deadline of a choreographed saga. The undo runs back from the last step, and whichever of it
 * and the do comes first to a step's barrier decides there. */
static enum ferry_err on_deadline(struct ferry_db *db, struct saga *s,
                                  const struct ferry_record *record, bool *changed)
{
    *changed = true;
    saga_set_reason(s, "it had not ended by its deadline");
    return saga_undo_from(db, s, (int32_t)s->plan.count - 1, record);
}

/* The end of a choreographed saga. A done that an abort has overtaken is undone behind it. */
static enum ferry_err learn_end(struct ferry_db *db, struct saga *s, const struct saga_note *note,
                                const struct ferry_record *record, bool *changed)
{
    bool open = s->state == FERRY_SAGA_RUNNING || s->state == FERRY_SAGA_COMPENSATING;
    bool taken =
        note->op == SAGA_END &&
        ((note->outcome == FERRY_SAGA_DONE && s->state == FERRY_SAGA_RUNNING) ||
         (note->outcome == FERRY_SAGA_COMPENSATED && (open || s->state == FERRY_SAGA_STUCK)) ||
         (note->outcome == FERRY_SAGA_STUCK && open && note->attempt >= s->plan.attempt));
    if (note->op == SAGA_TIMER && s->state == FERRY_SAGA_RUNNING && note->version == s->version) {
        return on_deadline(db, s, record, changed);
    }
    if (!taken) {
        return FERRY_OK;
    }
    enum ferry_err err = take_data(db, s, record);
    if (err != FERRY_OK) {
        return err;
    }
    if (note->outcome != FERRY_SAGA_DONE) {
        saga_text_copy(note->reason, s->reason, sizeof(s->reason));
    }
    s->step = note->step;
    *changed = true;
    return saga_rest(db, s, note->outcome);
}

enum ferry_err ferry_saga_answer(struct ferry_db *db, const struct ferry_saga_def *def,
                                 const struct ferry_record *record, enum ferry_saga_state *state)
{
    struct saga_note note;
    struct saga s;
    bool found = false;
    bool changed = false;
    if (state != NULL) {
        *state = 0;
    }
    enum ferry_err err = saga_check_transaction(db);
    if (err != FERRY_OK || !saga_note_read(record, &note) ||
        (def != NULL && strcmp(def->type, note.type) != 0)) {
        return err;
    }
    err = saga_load(db, &note.saga, &s, &found);
    if (err != FERRY_OK || !found) {
        return err;
    }
    if ((uint32_t)note.step < s.plan.count) {
        err = s.plan.kind == FERRY_SAGA_ORCHESTRATED ? orchestrate(db, &s, &note, record, &changed)
                                                     : learn_end(db, &s, &note, record, &changed);
    }
    if (err == FERRY_OK && changed && state != NULL) {
        *state = s.state;
    }
    saga_fini(&s);
    return err;
}
