/* ferry_saga_start, and what a saga has come to. */
#include "base/clock.h"
#include "outbox/app/saga.h"
#include "wire/command.h"

static bool name_ok(const char *name)
{
    return name != NULL && name_is_valid(bytes_of_string(name));
}

static enum ferry_err check_step(struct ferry_db *db, const struct ferry_saga_step *step, size_t i)
{
    if (!name_ok(step->topic)) {
        return err_set(&db->error, FERRY_ERR_BAD_NAME, "the topic of step %zu, \"%.60s\": %s", i,
                       step->topic == NULL ? "" : step->topic, ferry_err_text(FERRY_ERR_BAD_NAME));
    }
    if (step->deadline_ms < 0 || step->deadline_ms > SAGA_DEADLINE_MAX_MS) {
        return err_set(&db->error, FERRY_ERR_INVALID_ARGUMENT,
                       "the deadline of step %zu must be 0 to 364 days", i);
    }
    return FERRY_OK;
}

static enum ferry_err check_def(struct ferry_db *db, const struct ferry_saga_def *def)
{
    if (!name_ok(def->type) || !name_ok(def->reply_topic)) {
        return err_set(&db->error, FERRY_ERR_BAD_NAME, "the saga's type or reply topic: %s",
                       ferry_err_text(FERRY_ERR_BAD_NAME));
    }
    if (def->kind != FERRY_SAGA_ORCHESTRATED && def->kind != FERRY_SAGA_CHOREOGRAPHED) {
        return err_set(&db->error, FERRY_ERR_INVALID_ARGUMENT, "there is no such kind of saga");
    }
    bool orchestrated = def->kind == FERRY_SAGA_ORCHESTRATED;
    if (def->deadline_ms < 0 || def->deadline_ms > (orchestrated ? 0 : SAGA_DEADLINE_MAX_MS)) {
        return err_set(&db->error, FERRY_ERR_INVALID_ARGUMENT,
                       "the deadline of a whole saga is for choreographed ones, 0 to 364 days");
    }
    if (def->steps == NULL || def->count == 0 || def->count > FERRY_SAGA_STEPS_MAX) {
        return err_set(&db->error, FERRY_ERR_INVALID_ARGUMENT, "a saga has 1 to %d steps, not %zu",
                       FERRY_SAGA_STEPS_MAX, def->count);
    }
    enum ferry_err err = FERRY_OK;
    for (size_t i = 0; i < def->count && err == FERRY_OK; i++) {
        err = check_step(db, &def->steps[i], i);
    }
    return err;
}

static enum ferry_err check_sizes(struct ferry_db *db, const void *key, size_t key_bytes,
                                  const void *data, size_t data_bytes)
{
    if ((key == NULL && key_bytes != 0) || (data == NULL && data_bytes != 0)) {
        return err_set(&db->error, FERRY_ERR_INVALID_ARGUMENT,
                       "key or data is NULL but has a "
                       "size");
    }
    if (key_bytes > FERRY_SAGA_KEY_MAX_BYTES) {
        return err_set(&db->error, FERRY_ERR_TOO_LARGE, "a saga's key has at most %u bytes",
                       FERRY_SAGA_KEY_MAX_BYTES);
    }
    if (data_bytes > FERRY_SAGA_DATA_MAX_BYTES) {
        return err_set(
            &db->error, FERRY_ERR_TOO_LARGE,
            "a saga's data has at most %u bytes: it travels with every command, so put a "
            "reference there",
            FERRY_SAGA_DATA_MAX_BYTES);
    }
    return FERRY_OK;
}

static void copy_def(const struct ferry_saga_def *def, struct saga *s)
{
    s->plan.kind = def->kind;
    s->plan.count = (uint32_t)def->count;
    saga_text_copy(bytes_of_string(def->type), s->type, sizeof(s->type));
    saga_text_copy(bytes_of_string(def->reply_topic), s->plan.reply_topic, SAGA_NAME_BYTES);
    for (size_t i = 0; i < def->count; i++) {
        struct saga_step *step = &s->plan.steps[i];
        saga_text_copy(bytes_of_string(def->steps[i].topic), step->topic, SAGA_NAME_BYTES);
        step->deadline_ms = def->steps[i].deadline_ms;
        step->no_undo = def->steps[i].no_undo;
    }
}

enum ferry_err ferry_saga_start(struct ferry_db *db, const struct ferry_saga_def *def,
                                const void *key, size_t key_bytes, const void *data,
                                size_t data_bytes, struct ferry_id *id)
{
    enum ferry_err err = saga_check_transaction(db);
    if (err == FERRY_OK) {
        err = check_def(db, def);
    }
    if (err == FERRY_OK) {
        err = check_sizes(db, key, key_bytes, data, data_bytes);
    }
    if (err != FERRY_OK) {
        return err;
    }
    char id_text[ID_TEXT_BYTES];
    struct saga s = {.id = id_gen_uuid7(&db->ids, clock_wall_ms())};
    id_format(&s.id, id_text);
    copy_def(def, &s);
    s.plan.key = key_bytes > 0 ? bytes_of(key, key_bytes) : bytes_of_string(id_text);
    s.plan.payload = bytes_of(data, data_bytes);
    s.deadline_ms = def->deadline_ms == 0 ? 0 : clock_wall_ms() + def->deadline_ms;
    err = saga_begin(db, &s);
    if (err == FERRY_OK && id != NULL) {
        *id = s.id;
    }
    return err;
}

enum ferry_err ferry_saga_state_of(struct ferry_db *db, const struct ferry_id *id,
                                   enum ferry_saga_state *state, int *step)
{
    struct db_saga row = {.type = NULL};
    bool found = false;
    db->error.text[0] = '\0';
    enum ferry_err err = db->ops->saga_get(db->driver, id, &found, &row, &db->error);
    if (err == FERRY_OK && !found) {
        return err_set(&db->error, FERRY_ERR_UNKNOWN_MESSAGE,
                       "this database has started no saga of that id");
    }
    if (err == FERRY_OK) {
        *state = (enum ferry_saga_state)row.state;
        if (step != NULL) {
            *step = row.step;
        }
    }
    return err;
}
