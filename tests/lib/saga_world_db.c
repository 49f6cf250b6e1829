/* The databases of saga_world: db_ops in memory. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "saga_world_db.h"

static bool fails(struct world_database *d)
{
    return d->fail_at > 0 && --d->fail_at == 0;
}

static void op_close(void *driver)
{
    (void)driver;
}

static bool op_in_transaction(void *driver)
{
    const struct world_database *d = driver;
    return d->open;
}

static bool says_timer(const struct world_message *m)
{
    const struct ferry_record record = {.headers = m->headers, .headers_bytes = m->headers_bytes};
    struct saga_note note;
    must(saga_note_read(&record, &note));
    return note.op == SAGA_TIMER;
}

static enum ferry_err op_put(void *driver, const struct db_row *row, struct err_text *e)
{
    struct world_database *d = driver;
    struct world_tables *t = &d->tables;
    (void)e;
    if (fails(d)) {
        return FERRY_ERR_DB_RETRY;
    }
    must(t->outbox_count < sizeof(t->outbox) / sizeof(t->outbox[0]));
    struct world_message *m = &t->outbox[t->outbox_count++];
    must(row->topic.size < sizeof(m->topic) && row->headers.size <= sizeof(m->headers) &&
         row->payload.size <= sizeof(m->payload) && row->key.size < sizeof(m->key));
    m->topic[row->topic.size] = m->key[row->key.size] = '\0';
    memcpy(m->topic, row->topic.data, row->topic.size);
    memcpy(m->key, row->key.data, row->key.size);
    memcpy(m->headers, row->headers.data, row->headers.size);
    m->headers_bytes = row->headers.size;
    if (row->payload.size > 0) {
        memcpy(m->payload, row->payload.data, row->payload.size);
    }
    m->payload_bytes = row->payload.size;
    m->id = row->id;
    m->timer = says_timer(m);
    return FERRY_OK;
}

static struct world_barrier *find_barrier(struct world_tables *t, const struct ferry_id *saga,
                                          int32_t step, int32_t op)
{
    for (size_t i = 0; i < t->barrier_count; i++) {
        struct world_barrier *b = &t->barrier[i];
        if (id_equal(&b->saga, saga) && b->step == step && b->op == op) {
            return b;
        }
    }
    return NULL;
}

static enum ferry_err op_barrier_add(void *driver, const struct ferry_id *saga, int32_t step,
                                     int32_t op, int32_t why, bool *fresh, struct err_text *e)
{
    struct world_database *d = driver;
    struct world_tables *t = &d->tables;
    (void)e;
    if (fails(d)) {
        return FERRY_ERR_DB_RETRY;
    }
    *fresh = find_barrier(t, saga, step, op) == NULL;
    if (*fresh) {
        must(t->barrier_count < WORLD_ROWS_MAX);
        t->barrier[t->barrier_count++] = (struct world_barrier){*saga, step, op, why};
    }
    *fresh = *fresh || d->world->barrier_broken;
    return FERRY_OK;
}

static enum ferry_err op_barrier_why(void *driver, const struct ferry_id *saga, int32_t step,
                                     int32_t op, bool *found, int32_t *why, struct err_text *e)
{
    struct world_database *d = driver;
    (void)e;
    if (fails(d)) {
        return FERRY_ERR_DB_RETRY;
    }
    const struct world_barrier *b = find_barrier(&d->tables, saga, step, op);
    *found = b != NULL;
    *why = b == NULL ? 0 : b->why;
    return FERRY_OK;
}

static struct world_saga_row *find_saga(struct world_tables *t, const struct ferry_id *id)
{
    for (size_t i = 0; i < t->saga_count; i++) {
        if (id_equal(&t->sagas[i].row.id, id)) {
            return &t->sagas[i];
        }
    }
    return NULL;
}

static void fill_saga(struct world_saga_row *r, const struct db_saga *saga)
{
    r->row = *saga;
    must(saga->data.size <= sizeof(r->data));
    memcpy(r->data, saga->data.data, saga->data.size);
    (void)snprintf(r->reason, sizeof(r->reason), "%s", saga->reason);
}

static enum ferry_err op_saga_insert(void *driver, const struct db_saga *saga, struct err_text *e)
{
    struct world_database *d = driver;
    (void)e;
    if (fails(d)) {
        return FERRY_ERR_DB_RETRY;
    }
    must(d->tables.saga_count < WORLD_SAGAS_MAX);
    struct world_saga_row *r = &d->tables.sagas[d->tables.saga_count++];
    fill_saga(r, saga);
    (void)snprintf(r->type, sizeof(r->type), "%s", saga->type);
    return FERRY_OK;
}

static enum ferry_err op_saga_get(void *driver, const struct ferry_id *id, bool *found,
                                  struct db_saga *saga, struct err_text *e)
{
    struct world_database *d = driver;
    (void)e;
    if (fails(d)) {
        return FERRY_ERR_DB_RETRY;
    }
    const struct world_saga_row *r = find_saga(&d->tables, id);
    *found = r != NULL;
    if (r != NULL) {
        *saga = r->row;
        saga->type = r->type;
        saga->reason = r->reason;
        saga->data = bytes_of(r->data, r->row.data.size);
    }
    return FERRY_OK;
}

static enum ferry_err op_saga_update(void *driver, const struct db_saga *saga, struct err_text *e)
{
    struct world_database *d = driver;
    (void)e;
    struct world_saga_row *r = find_saga(&d->tables, &saga->id);
    if (fails(d) || r == NULL || r->row.version != saga->version) {
        return FERRY_ERR_DB_RETRY;
    }
    fill_saga(r, saga);
    r->row.version++;
    return FERRY_OK;
}

static enum ferry_err op_begin(void *driver, struct err_text *e)
{
    struct world_database *d = driver;
    (void)e;
    must(!d->open);
    d->open = true;
    d->tables.outbox_count = 0;
    d->barrier_before = d->tables.barrier_count;
    d->effects_before = d->tables.effect_count;
    d->saga_count_before = d->tables.saga_count;
    memcpy(d->sagas_before, d->tables.sagas, sizeof(d->sagas_before));
    return FERRY_OK;
}

/* What was put becomes a message. */
static enum ferry_err op_commit(void *driver, struct err_text *e)
{
    struct world_database *d = driver;
    struct world *w = d->world;
    (void)e;
    must(d->open);
    d->open = false;
    for (size_t i = 0; i < d->tables.outbox_count; i++) {
        must(w->message_count < WORLD_MESSAGES_MAX);
        w->messages[w->message_count++] = d->tables.outbox[i];
    }
    return FERRY_OK;
}

static void op_rollback(void *driver)
{
    struct world_database *d = driver;
    if (!d->open) {
        return;
    }
    d->open = false;
    d->tables.barrier_count = d->barrier_before;
    d->tables.effect_count = d->effects_before;
    d->tables.saga_count = d->saga_count_before;
    memcpy(d->tables.sagas, d->sagas_before, sizeof(d->sagas_before));
}

static const struct db_ops memory_ops = {
    .close = op_close,
    .in_transaction = op_in_transaction,
    .put = op_put,
    .barrier_add = op_barrier_add,
    .barrier_why = op_barrier_why,
    .saga_insert = op_saga_insert,
    .saga_get = op_saga_get,
    .saga_update = op_saga_update,
    .begin = op_begin,
    .commit = op_commit,
    .rollback = op_rollback,
};

void world_databases_open(struct world *w)
{
    for (size_t i = 0; i < WORLD_DATABASES_MAX; i++) {
        w->databases[i].world = w;
        must(db_new(&w->databases[i].db, &memory_ops, &w->databases[i]) == FERRY_OK);
    }
}

void world_databases_reset(struct world *w)
{
    for (size_t i = 0; i < WORLD_DATABASES_MAX; i++) {
        struct world_database *d = &w->databases[i];
        d->tables.barrier_count = d->tables.effect_count = d->tables.saga_count = 0;
        d->open = false;
        d->fail_at = 0;
    }
}
