#include "outbox/app/bench_put.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"

#define KEY_BYTES   32
#define RETRIES_MAX 100 /* Of one transaction, one after another. */

static enum ferry_err put_rows(struct ferry_db *db, const struct bench_put_spec *spec,
                               const void *payload, int64_t from, int64_t to)
{
    enum ferry_err err = db->ops->begin(db->driver, &db->error);
    for (int64_t i = from; err == FERRY_OK && i < to; i++) {
        char key[KEY_BYTES];
        int key_bytes = snprintf(key, sizeof(key), "key-%lld",
                                 (long long)(spec->keys > 0 ? i % spec->keys : 0));
        struct ferry_message message = {
            .topic = spec->topic,
            .partition = FERRY_PARTITION_ANY,
            .key = spec->keys > 0 ? key : NULL,
            .key_bytes = spec->keys > 0 ? (size_t)key_bytes : 0,
            .payload = payload,
            .payload_bytes = spec->bytes,
        };
        err = ferry_outbox_put(db, &message, NULL);
    }
    if (err == FERRY_OK) {
        err = db->ops->commit(db->driver, &db->error);
    }
    if (err != FERRY_OK) {
        db->ops->rollback(db->driver);
    }
    return err;
}

static enum ferry_err put_all(struct ferry_db *db, const struct bench_put_spec *spec,
                              const void *payload)
{
    enum ferry_err err = FERRY_OK;
    int retries = 0;
    for (int64_t at = 0; err == FERRY_OK && at < spec->count;) {
        int64_t to = spec->count - at < spec->per_commit ? spec->count : at + spec->per_commit;
        err = put_rows(db, spec, payload, at, to);
        if (err == FERRY_OK) {
            ferry_outbox_committed(db);
            at = to;
            retries = 0;
        } else if (err == FERRY_ERR_DB_RETRY && ++retries <= RETRIES_MAX) {
            err = FERRY_OK;
        }
    }
    return err;
}

enum ferry_err bench_put(struct ferry_db *db, const struct bench_put_spec *spec, int64_t *us,
                         struct err_text *e)
{
    must(spec->per_commit > 0);
    void *payload = mem_alloc(spec->bytes > 0 ? spec->bytes : 1);
    if (payload == NULL) {
        return err_set(e, FERRY_ERR_NO_MEMORY, "a payload of %zu bytes", spec->bytes);
    }
    memset(payload, 'x', spec->bytes);
    int64_t begun_us = clock_monotonic_us();
    enum ferry_err err = put_all(db, spec, payload);
    *us = clock_monotonic_us() - begun_us;
    mem_free(payload);
    return err != FERRY_OK ? err_set(e, err, "%s", ferry_db_detail(db)) : FERRY_OK;
}
