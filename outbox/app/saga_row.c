/* A saga's row, its transitions, and what each of them puts. See saga.h for the table. */
#include <stdarg.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/mem.h"
#include "outbox/app/saga.h"

enum ferry_err saga_check_transaction(struct ferry_db *db)
{
    db->error.text[0] = '\0';
    if (!db->ops->in_transaction(db->driver)) {
        return err_set(&db->error, FERRY_ERR_NO_TRANSACTION, "%s",
                       ferry_err_text(FERRY_ERR_NO_TRANSACTION));
    }
    return FERRY_OK;
}

void saga_set_reason(struct saga *s, const char *format, ...)
{
    char text[2 * SAGA_REASON_BYTES];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    saga_text_copy(bytes_of_string(text), s->reason, sizeof(s->reason));
}

/* ---- Load and store -------------------------------------------------------------------------- */

/* The driver's row lives until its next call, so everything of it is copied. */
static enum ferry_err copy_row(struct ferry_db *db, const struct db_saga *row, struct saga *s)
{
    if (row->state < FERRY_SAGA_RUNNING || row->state > FERRY_SAGA_ABORTED || row->step < 0) {
        return err_set(&db->error, FERRY_ERR_CORRUPT, "the saga's row has state %d and step %d",
                       row->state, row->step);
    }
    s->id = row->id;
    s->state = (enum ferry_saga_state)row->state;
    s->step = row->step;
    s->version = row->version;
    s->deadline_ms = row->deadline_ms;
    saga_text_copy(bytes_of_string(row->type == NULL ? "" : row->type), s->type, sizeof(s->type));
    saga_text_copy(bytes_of_string(row->reason == NULL ? "" : row->reason), s->reason,
                   sizeof(s->reason));
    size_t size = row->data.size;
    s->memory = mem_dup(row->data.data, size);
    if (s->memory == NULL) {
        return size == 0 ? err_set(&db->error, FERRY_ERR_CORRUPT, "the saga's row has no data")
                         : FERRY_ERR_NO_MEMORY;
    }
    enum ferry_err err = saga_plan_decode(bytes_of(s->memory, size), &s->plan, &db->error);
    if (err == FERRY_OK && (uint32_t)s->step >= s->plan.count) {
        err = err_set(&db->error, FERRY_ERR_CORRUPT, "the saga is at step %d of %u", s->step,
                      s->plan.count);
    }
    return err;
}

enum ferry_err saga_load(struct ferry_db *db, const struct ferry_id *id, struct saga *s,
                         bool *found)
{
    struct db_saga row = {.type = NULL};
    *s = (struct saga){.memory = NULL};
    enum ferry_err err = db->ops->saga_get(db->driver, id, found, &row, &db->error);
    if (err != FERRY_OK || !*found) {
        return err;
    }
    row.id = *id;
    err = copy_row(db, &row, s);
    if (err != FERRY_OK) {
        saga_fini(s);
    }
    return err;
}

void saga_fini(struct saga *s)
{
    mem_free(s->memory);
    s->memory = NULL;
}

typedef enum ferry_err store_fn(void *driver, const struct db_saga *saga, struct err_text *e);

static enum ferry_err store(struct ferry_db *db, const struct saga *s, store_fn *fn)
{
    struct buf data;
    buf_init(&data, SAGA_ROW_DATA_MAX_BYTES);
    enum ferry_err err = saga_plan_encode(&s->plan, &data);
    if (err == FERRY_OK) {
        const struct db_saga row = {
            .id = s->id,
            .type = s->type,
            .state = (int32_t)s->state,
            .step = s->step,
            .version = s->version,
            .deadline_ms = s->deadline_ms,
            .reason = s->reason,
            .data = buf_bytes(&data),
        };
        err = fn(db->driver, &row, &db->error);
    }
    buf_fini(&data);
    return err;
}

/* ---- What a state puts ----------------------------------------------------------------------- */

static enum ferry_err put_command(struct ferry_db *db, const struct saga *s, enum saga_op op,
                                  const struct ferry_record *cause)
{
    struct buf slip;
    buf_init(&slip, FERRY_SAGA_STEPS_MAX * (SAGA_NAME_BYTES + 1));
    if (s->plan.kind == FERRY_SAGA_CHOREOGRAPHED) {
        saga_slip_write(&s->plan, &slip);
    }
    enum ferry_err err = buf_ok(&slip) ? FERRY_OK : FERRY_ERR_NO_MEMORY;
    if (err == FERRY_OK) {
        err = saga_put(db, &(struct saga_out){
                               .topic = s->plan.steps[s->step].topic,
                               .key = s->plan.key,
                               .payload = s->plan.payload,
                               .saga = &s->id,
                               .type = s->type,
                               .op = op,
                               .step = s->step,
                               .attempt = s->plan.attempt,
                               .reason = op == SAGA_UNDO ? s->reason : NULL,
                               .reply_to = s->plan.reply_topic,
                               .slip = buf_bytes(&slip),
                               .cause = cause,
                           });
    }
    buf_fini(&slip);
    return err;
}

static enum ferry_err put_timer(struct ferry_db *db, const struct saga *s,
                                const struct ferry_record *cause)
{
    return saga_put(db, &(struct saga_out){
                            .topic = s->plan.reply_topic,
                            .key = s->plan.key,
                            .saga = &s->id,
                            .type = s->type,
                            .op = SAGA_TIMER,
                            .step = s->step,
                            .version = s->version,
                            .due_ms = s->deadline_ms,
                            .cause = cause,
                        });
}

/* When the command that is put now should have been answered; 0: never asked for. */
static int64_t deadline_of(const struct saga *s)
{
    int64_t wait_ms = s->plan.steps[s->step].deadline_ms;
    if (s->plan.kind == FERRY_SAGA_CHOREOGRAPHED) {
        return s->state == FERRY_SAGA_RUNNING ? s->deadline_ms : 0; /* Of the whole. */
    }
    if (s->state == FERRY_SAGA_COMPENSATING) {
        wait_ms = wait_ms == 0 ? FERRY_SAGA_UNDO_AGAIN_MS : wait_ms;
        for (int64_t i = 0; i < s->plan.attempt && wait_ms < FERRY_SAGA_UNDO_AGAIN_MAX_MS; i++) {
            wait_ms *= 2;
        }
        wait_ms = wait_ms < FERRY_SAGA_UNDO_AGAIN_MAX_MS ? wait_ms : FERRY_SAGA_UNDO_AGAIN_MAX_MS;
    }
    return wait_ms == 0 ? 0 : clock_wall_ms() + wait_ms;
}

/* The row is stored first: whoever was faster is noticed before anything is put. The version that
 * the timer names is the one that the row has then. */
static enum ferry_err store_and_command(struct ferry_db *db, struct saga *s, store_fn *fn,
                                        const struct ferry_record *cause)
{
    must(s->state == FERRY_SAGA_RUNNING || s->state == FERRY_SAGA_COMPENSATING);
    s->deadline_ms = deadline_of(s);
    enum ferry_err err = store(db, s, fn);
    if (err == FERRY_OK) {
        s->version += fn == db->ops->saga_update;
        err = put_command(db, s, s->state == FERRY_SAGA_RUNNING ? SAGA_DO : SAGA_UNDO, cause);
    }
    if (err == FERRY_OK && s->deadline_ms != 0) {
        err = put_timer(db, s, cause);
    }
    return err;
}

/* ---- Transitions ----------------------------------------------------------------------------- */

enum ferry_err saga_begin(struct ferry_db *db, struct saga *s)
{
    s->state = FERRY_SAGA_RUNNING;
    return store_and_command(db, s, db->ops->saga_insert, NULL);
}

enum ferry_err saga_rest(struct ferry_db *db, struct saga *s, enum ferry_saga_state state)
{
    s->state = state;
    s->deadline_ms = 0;
    return store(db, s, db->ops->saga_update);
}

enum ferry_err saga_forward(struct ferry_db *db, struct saga *s, const struct ferry_record *cause)
{
    must(s->state == FERRY_SAGA_RUNNING);
    if ((uint32_t)s->step + 1 == s->plan.count) {
        return saga_rest(db, s, FERRY_SAGA_DONE);
    }
    s->step++;
    s->plan.attempt = 0;
    return store_and_command(db, s, db->ops->saga_update, cause);
}

enum ferry_err saga_undo_from(struct ferry_db *db, struct saga *s, int32_t step,
                              const struct ferry_record *cause)
{
    int32_t undoable = saga_plan_undoable(&s->plan, step);
    if (undoable < 0) {
        return saga_rest(db, s, FERRY_SAGA_COMPENSATED);
    }
    s->state = FERRY_SAGA_COMPENSATING;
    s->step = undoable;
    s->plan.attempt = 0;
    return store_and_command(db, s, db->ops->saga_update, cause);
}

enum ferry_err saga_again(struct ferry_db *db, struct saga *s, const struct ferry_record *cause)
{
    if (s->state == FERRY_SAGA_STUCK) {
        s->state = FERRY_SAGA_COMPENSATING;
    }
    if (s->plan.attempt < SAGA_ATTEMPTS_MAX) {
        s->plan.attempt++;
    }
    return store_and_command(db, s, db->ops->saga_update, cause);
}
