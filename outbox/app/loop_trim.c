#include "outbox/app/loop_trim.h"

#include "outbox/app/db.h"

enum ferry_err loop_trim(struct ferry_db *db, const struct ferry_consume_options *options, bool ids,
                         int64_t now_ms, int64_t *trimmed_at_ms)
{
    bool sagas = options->saga_keep_ms != 0;
    if ((!ids && !sagas) || now_ms - *trimmed_at_ms < LOOP_TRIM_MS) {
        return FERRY_OK;
    }
    *trimmed_at_ms = now_ms;
    size_t removed = 0;
    enum ferry_err err = db->ops->begin(db->driver, &db->error);
    if (err == FERRY_OK && ids) {
        err = ferry_inbox_claim_trim(db, options->group, options->horizon_ms, &removed);
    }
    if (err == FERRY_OK && sagas) {
        err = ferry_saga_trim(db, options->saga_keep_ms, &removed);
    }
    if (err == FERRY_OK) {
        err = db->ops->commit(db->driver, &db->error);
    }
    if (err != FERRY_OK) {
        db->ops->rollback(db->driver);
    }
    return err;
}
