/* What a person decides about a saga. */
#include "outbox/app/saga.h"

static enum ferry_err load(struct ferry_db *db, const struct ferry_id *id, struct saga *s)
{
    bool found = false;
    enum ferry_err err = saga_check_transaction(db);
    if (err == FERRY_OK) {
        err = saga_load(db, id, s, &found);
    }
    if (err == FERRY_OK && !found) {
        err = err_set(&db->error, FERRY_ERR_UNKNOWN_MESSAGE,
                      "this database has started no saga of that id: ask the one that did");
    }
    return err;
}

static enum ferry_err not_allowed(struct ferry_db *db, const struct saga *s, const char *what)
{
    return err_set(&db->error, FERRY_ERR_INVALID_ARGUMENT, "the saga is %s: %s",
                   ferry_saga_state_name(s->state), what);
}

static bool is_over(const struct saga *s)
{
    return s->state == FERRY_SAGA_DONE || s->state == FERRY_SAGA_COMPENSATED ||
           s->state == FERRY_SAGA_ABORTED;
}

static enum ferry_err retry(struct ferry_db *db, struct saga *s)
{
    if (is_over(s)) {
        return not_allowed(db, s, "there is nothing to put again");
    }
    if (s->state == FERRY_SAGA_RUNNING && s->plan.kind == FERRY_SAGA_CHOREOGRAPHED) {
        return not_allowed(
            db, s,
            "its command is with one of the services; see what waits there (`ferry "
            "inbox dead`, `ferry outbox status`), or abort the saga, which compensates "
            "it");
    }
    return saga_again(db, s, NULL);
}

/* The undo runs back from the last step, to meet the do that is under way. */
static enum ferry_err compensate(struct ferry_db *db, struct saga *s, const char *reason)
{
    int32_t step = s->plan.kind == FERRY_SAGA_CHOREOGRAPHED ? (int32_t)s->plan.count - 1 : s->step;
    saga_set_reason(s, "aborted by an operator: %s", reason);
    return saga_undo_from(db, s, step, NULL);
}

static enum ferry_err give_up(struct ferry_db *db, struct saga *s, const char *reason)
{
    char before[SAGA_REASON_BYTES];
    memcpy(before, s->reason, sizeof(before));
    saga_set_reason(s, "given up by an operator at step %d: %.*s; before: %s", s->step,
                    (int)(SAGA_REASON_BYTES / 2), reason, before);
    return saga_rest(db, s, FERRY_SAGA_ABORTED);
}

static enum ferry_err abort_saga(struct ferry_db *db, struct saga *s, const char *reason)
{
    switch (s->state) {
    case FERRY_SAGA_RUNNING:
        return compensate(db, s, reason);
    case FERRY_SAGA_COMPENSATING:
        return s->plan.attempt >= SAGA_GIVE_UP_ATTEMPTS
                   ? give_up(db, s, reason)
                   : not_allowed(db, s,
                                 "it comes to its end by itself; it can be given up once its "
                                 "compensation was put again 3 times without an answer");
    case FERRY_SAGA_STUCK:
        return give_up(db, s, reason);
    case FERRY_SAGA_DONE:
    case FERRY_SAGA_COMPENSATED:
    case FERRY_SAGA_ABORTED:
        break;
    }
    return not_allowed(db, s, "there is nothing to abort");
}

_Static_assert(SAGA_GIVE_UP_ATTEMPTS == 3, "the text above says it in words");

static enum ferry_err told(struct ferry_db *db, enum ferry_err err, struct err_text *e)
{
    return err == FERRY_OK ? err : err_set(e, err, "%s", db->error.text);
}

enum ferry_err saga_operator_retry(struct ferry_db *db, const struct ferry_id *id,
                                   struct err_text *e)
{
    struct saga s = {.memory = NULL};
    enum ferry_err err = load(db, id, &s);
    if (err == FERRY_OK) {
        err = retry(db, &s);
    }
    saga_fini(&s);
    return told(db, err, e);
}

enum ferry_err saga_operator_abort(struct ferry_db *db, const struct ferry_id *id,
                                   const char *reason, struct err_text *e)
{
    struct saga s = {.memory = NULL};
    enum ferry_err err = load(db, id, &s);
    if (err == FERRY_OK && (reason == NULL || reason[0] == '\0')) {
        err = err_set(&db->error, FERRY_ERR_INVALID_ARGUMENT,
                      "an abort needs a reason: it is what the next person will ask for");
    }
    if (err == FERRY_OK) {
        err = abort_saga(db, &s, reason);
    }
    saga_fini(&s);
    return told(db, err, e);
}
