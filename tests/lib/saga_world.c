#include "saga_world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "saga_world_db.h"

#define REPLIES    "replies"
#define ROUNDS_MAX 5000

struct world *saga_world_new(void)
{
    struct world *w = calloc(1, sizeof(*w));
    must(w != NULL);
    world_databases_open(w);
    return w;
}

void saga_world_free(struct world *w)
{
    for (size_t i = 0; i < WORLD_DATABASES_MAX; i++) {
        ferry_db_free(&w->databases[i].db);
    }
    free(w);
}

void saga_world_reset(struct world *w)
{
    world_databases_reset(w);
    w->message_count = w->saga_count = 0;
    w->wrong[0] = '\0';
    memset(w->sagas, 0, sizeof(w->sagas));
    w->budget = (struct world_budget){.repeats = 0};
    w->database_count = WORLD_DATABASES_MAX;
    w->barrier_broken = false;
    w->all = w->settling = false;
}

static bool take(struct world *w, int *budget, uint64_t one_in)
{
    if (*budget == 0 || w->choose(w->arg, w->all ? 2 : one_in) != 1) {
        return false;
    }
    (*budget)--;
    return true;
}

static void complain(struct world *w, const struct world_saga *s, const char *what, int step)
{
    if (w->wrong[0] == '\0') {
        (void)snprintf(w->wrong, sizeof(w->wrong), "saga %td, step %d: %s", s - w->sagas, step,
                       what);
    }
}

static struct world_saga *find(struct world *w, const struct ferry_id *id)
{
    for (size_t i = 0; i < w->saga_count; i++) {
        if (id_equal(&w->sagas[i].id, id)) {
            return &w->sagas[i];
        }
    }
    return NULL;
}

static enum ferry_saga_state state_of(struct world *w, const struct world_saga *s)
{
    enum ferry_saga_state state = 0;
    int step = 0;
    must(ferry_saga_state_of(w->databases[0].db, &s->id, &state, &step) == FERRY_OK);
    return state;
}

static bool is_over(enum ferry_saga_state state)
{
    return state == FERRY_SAGA_DONE || state == FERRY_SAGA_COMPENSATED ||
           state == FERRY_SAGA_ABORTED;
}

void saga_world_start(struct world *w, const struct world_plan *plan)
{
    static const char *const topics[WORLD_STEPS_MAX] = {"s0", "s1", "s2", "s3", "s4", "s5"};
    struct ferry_saga_step steps[WORLD_STEPS_MAX];
    struct world_database *d = &w->databases[0];
    struct world_saga *s = &w->sagas[w->saga_count++];
    s->plan = *plan;
    for (size_t i = 0; i < plan->steps; i++) {
        steps[i] = (struct ferry_saga_step){topics[i], plan->deadline_ms[i], plan->no_undo[i]};
    }
    const struct ferry_saga_def def = {.type = "test",
                                       .kind = plan->kind,
                                       .steps = steps,
                                       .count = plan->steps,
                                       .reply_topic = REPLIES,
                                       .deadline_ms = plan->whole_ms};
    must(d->db->ops->begin(d, NULL) == FERRY_OK);
    must(ferry_saga_start(d->db, &def, NULL, 0, "d", 1, &s->id) == FERRY_OK);
    must(d->db->ops->commit(d, NULL) == FERRY_OK);
}

/* ---- Effects, and what must always hold ------------------------------------------------------ */

static void check_do(struct world *w, struct world_saga *s, int step)
{
    if (s->done[step] > 0) {
        complain(w, s, "is done twice", step);
    }
    if (s->undone[step] > 0) {
        complain(w, s, "is done after it was undone", step);
    }
    for (int i = 0; i < step && !s->plan.no_undo[step]; i++) {
        if (s->done[i] != 1 || s->undone[i] != 0) {
            complain(w, s, "is done, but one before it is not", step);
        }
    }
}

static void check_undo(struct world *w, struct world_saga *s, int step)
{
    if (s->done[step] != 1) {
        complain(w, s, "is undone and was never done", step);
    }
    if (s->undone[step] != 0) {
        complain(w, s, "is undone twice", step);
    }
    for (size_t i = (size_t)step + 1; i < s->plan.steps; i++) {
        if (!s->plan.no_undo[i] && s->done[i] != s->undone[i]) {
            complain(w, s, "is undone before one after it", step);
        }
    }
}

/* Each do hands on its number: the data says which were done before. */
static void check_data(struct world *w, struct world_saga *s, const struct ferry_record *record,
                       int step)
{
    if (record->payload_bytes != (size_t)step + 1 ||
        memcmp(record->payload, "d012345", record->payload_bytes) != 0) {
        complain(w, s, "got other data than the steps before it handed on", step);
    }
}

static enum ferry_err act(struct world *w, struct world_database *d, struct world_saga *s,
                          const struct ferry_record *record, const struct ferry_saga_command *c,
                          int *refused_undo)
{
    char data[WORLD_DATA_MAX];
    if (!c->undo && s->plan.refuse[c->step]) {
        return ferry_saga_refuse(d->db, record, "no");
    }
    if (c->undo && s->plan.undo_refusals[c->step] > 0) {
        *refused_undo = 1;
        return ferry_saga_refuse(d->db, record, "not today");
    }
    must(d->tables.effect_count < WORLD_ROWS_MAX);
    d->tables.effects[d->tables.effect_count++] = (struct world_effect){c->saga, c->step, c->undo};
    if (c->undo) {
        return ferry_saga_done(d->db, record, NULL, 0);
    }
    check_data(w, s, record, c->step);
    memcpy(data, record->payload, record->payload_bytes);
    data[record->payload_bytes] = (char)('0' + c->step);
    return ferry_saga_done(d->db, record, data, record->payload_bytes + 1);
}

/* The committed effects of the transaction, in their order. */
static void note_effects(struct world *w, struct world_database *d)
{
    for (size_t i = d->effects_before; i < d->tables.effect_count; i++) {
        const struct world_effect *f = &d->tables.effects[i];
        struct world_saga *s = find(w, &f->saga);
        if (f->undo) {
            check_undo(w, s, f->step);
            s->undone[f->step]++;
        } else {
            check_do(w, s, f->step);
            s->done[f->step]++;
        }
    }
}

static enum ferry_err participate(struct world *w, struct world_database *d,
                                  const struct ferry_record *record)
{
    struct ferry_saga_command command;
    bool run = false;
    int refused = 0;
    must(ferry_saga_command_of(record, &command));
    struct world_saga *s = find(w, &command.saga);
    must(s != NULL);
    enum ferry_err err = ferry_saga_enter(d->db, record, &run);
    if (err == FERRY_OK && run) {
        err = act(w, d, s, record, &command, &refused);
    }
    if (err == FERRY_OK && d->fail_at == 0) {
        s->plan.undo_refusals[command.step] -= refused;
    }
    return err;
}

static enum ferry_err answer(struct world *w, struct world_database *d,
                             const struct ferry_record *record)
{
    struct ferry_id id;
    enum ferry_saga_state state = 0;
    must(ferry_saga_of(record, &id));
    enum ferry_err err = ferry_saga_answer(d->db, NULL, record, &state);
    if (err == FERRY_OK && d->fail_at == 0 && is_over(state)) {
        find(w, &id)->ends++;
    }
    return err;
}

/* ---- Deliveries ------------------------------------------------------------------------------ */

static struct ferry_record record_of(const struct world_message *m)
{
    return (struct ferry_record){.topic = m->topic,
                                 .key = m->key,
                                 .key_bytes = strlen(m->key),
                                 .payload = m->payload,
                                 .payload_bytes = m->payload_bytes,
                                 .headers = m->headers,
                                 .headers_bytes = m->headers_bytes,
                                 .id = m->id};
}

static bool is_timer(const struct world_message *m)
{
    return m->timer;
}

/* Whether it may be delivered now: nothing of its key and topic is before it, where order counts. A
 * delayed message keeps no order with others. */
static bool is_first(const struct world *w, size_t at)
{
    for (size_t i = 0; i < at && w->budget.in_order && !is_timer(&w->messages[at]); i++) {
        if (strcmp(w->messages[i].topic, w->messages[at].topic) == 0 &&
            strcmp(w->messages[i].key, w->messages[at].key) == 0 && !is_timer(&w->messages[i])) {
            return false;
        }
    }
    return true;
}

static void remove_message(struct world *w, size_t at)
{
    memmove(&w->messages[at], &w->messages[at + 1],
            (w->message_count - at - 1) * sizeof(w->messages[0]));
    w->message_count--;
}

/* One delivery in one transaction, which fails sometimes and is then tried again later. */
static void deliver(struct world *w, size_t at)
{
    struct world_message m = w->messages[at];
    const struct ferry_record record = record_of(&m);
    bool reply = strcmp(m.topic, REPLIES) == 0;
    size_t place = reply ? 0 : 1 + (size_t)(m.topic[1] - '0') % (w->database_count - 1);
    struct world_database *d = &w->databases[place];
    if (!is_timer(&m) && take(w, &w->budget.losses, 12)) {
        remove_message(w, at);
        return;
    }
    d->fail_at = take(w, &w->budget.failures, 4) ? 1 + (int)w->choose(w->arg, 6) : 0;
    bool failing = d->fail_at > 0;
    must(d->db->ops->begin(d, NULL) == FERRY_OK);
    enum ferry_err err = reply ? answer(w, d, &record) : participate(w, d, &record);
    d->fail_at = 0;
    if (err != FERRY_OK || failing) { /* It fails at its COMMIT at the latest. */
        must(err == FERRY_OK || err == FERRY_ERR_DB_RETRY);
        d->db->ops->rollback(d);
        return;
    }
    if (!take(w, &w->budget.repeats, 3)) {
        remove_message(w, at);
    }
    must(d->db->ops->commit(d, NULL) == FERRY_OK);
    note_effects(w, d);
}

/* A person, who may also be wrong about what is needed. */
static void decide(struct world *w, bool retry)
{
    struct world_database *d = &w->databases[0];
    struct err_text e;
    const struct world_saga *s =
        &w->sagas[w->saga_count == 1 ? 0 : w->choose(w->arg, w->saga_count)];
    must(d->db->ops->begin(d, NULL) == FERRY_OK);
    enum ferry_err err = retry ? saga_operator_retry(d->db, &s->id, &e)
                               : saga_operator_abort(d->db, &s->id, "enough", &e);
    must(err == FERRY_OK || err == FERRY_ERR_INVALID_ARGUMENT);
    if (err == FERRY_OK) {
        must(d->db->ops->commit(d, NULL) == FERRY_OK);
    } else {
        d->db->ops->rollback(d);
    }
}

/* A random message that may be delivered; message_count: none. */
static size_t pick(struct world *w, bool timers, bool others)
{
    size_t places[WORLD_MESSAGES_MAX];
    size_t count = 0;
    for (size_t i = 0; i < w->message_count; i++) {
        bool timer = is_timer(&w->messages[i]);
        if ((timer ? timers : others) && is_first(w, i)) {
            places[count++] = i;
        }
    }
    if (count == 0) {
        return w->message_count;
    }
    /* Once faults are over, and every run is tried, one order stands for the rest. */
    return places[count == 1 || (w->all && w->settling) ? 0 : w->choose(w->arg, count)];
}

static bool step_with_faults(struct world *w)
{
    if (take(w, &w->budget.retries, 10)) {
        decide(w, true);
    }
    if (take(w, &w->budget.aborts, 10)) {
        decide(w, false);
    }
    size_t at = pick(w, w->budget.timers > 0, true);
    if (at == w->message_count) {
        return false;
    }
    w->budget.timers -= is_timer(&w->messages[at]);
    deliver(w, at);
    return true;
}

static bool retry_stuck(struct world *w)
{
    bool some = false;
    for (size_t i = 0; i < w->saga_count; i++) {
        struct world_database *d = &w->databases[0];
        struct err_text e;
        if (state_of(w, &w->sagas[i]) == FERRY_SAGA_STUCK) {
            must(d->db->ops->begin(d, NULL) == FERRY_OK);
            must(saga_operator_retry(d->db, &w->sagas[i].id, &e) == FERRY_OK);
            must(d->db->ops->commit(d, NULL) == FERRY_OK);
            some = true;
        }
    }
    return some;
}

static void check_end(struct world *w, const struct world_saga *s)
{
    enum ferry_saga_state state = state_of(w, s);
    if (!is_over(state)) {
        complain(w, s, "the saga never ends", -1);
    }
    if (state != FERRY_SAGA_ABORTED && s->ends > 1) {
        complain(w, s, "its end was told more than once", -1);
    }
    for (size_t i = 0; i < s->plan.steps; i++) {
        int net = s->done[i] - s->undone[i];
        if (state == FERRY_SAGA_DONE && (s->done[i] != 1 || s->undone[i] != 0)) {
            complain(w, s, "has no effect, or was undone, and the saga is done", (int)i);
        }
        if (state == FERRY_SAGA_COMPENSATED && net != 0 && !s->plan.no_undo[i]) {
            complain(w, s, "has an effect, and the saga is compensated", (int)i);
        }
        if (s->plan.no_undo[i] && s->undone[i] != 0) {
            complain(w, s, "has no compensation, and was undone", (int)i);
        }
    }
}

/* Without faults everything comes to its end; timers come when nothing else is on its way. */
static void settle(struct world *w)
{
    w->budget = (struct world_budget){.in_order = w->budget.in_order};
    w->settling = true;
    for (int round = 0; round < ROUNDS_MAX && w->wrong[0] == '\0'; round++) {
        size_t at = pick(w, false, true);
        if (at == w->message_count) {
            at = pick(w, true, false);
        }
        if (at < w->message_count) {
            deliver(w, at);
        } else if (!retry_stuck(w)) {
            break;
        }
    }
    for (size_t i = 0; i < w->saga_count; i++) {
        check_end(w, &w->sagas[i]);
    }
}

bool saga_world_run(struct world *w)
{
    int rounds = 0;
    while (w->wrong[0] == '\0' && rounds++ < ROUNDS_MAX && step_with_faults(w)) {
    }
    settle(w);
    return w->wrong[0] == '\0';
}
