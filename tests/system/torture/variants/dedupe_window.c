/* Broken on purpose: a consumer that remembers for one second which messages it has done, as tables
 * of message ids with a window do, and whose position at the broker is some seconds behind.
 *
 * Linked into the bank with --wrap of the functions below; the ids are kept in Ferry's own table of
 * them, under the second instead of the day. */
#include <time.h>

#include "outbox/app/db.h"

#define WINDOW_S        1
#define COMMIT_EVERY_S  3
#define GROUP           "window"
#define FORGET_ROWS_MAX 1000

enum ferry_err __wrap_ferry_inbox_enter(struct ferry_db *db, const char *group,
                                        const struct ferry_id *topic_id, int32_t partition,
                                        int64_t first, int64_t next, enum ferry_verdict *verdict,
                                        size_t *skip, int64_t *expected);
enum ferry_err __wrap_ferry_inbox_leave(struct ferry_db *db, const char *group,
                                        const struct ferry_id *topic_id, int32_t partition,
                                        int64_t next);
enum ferry_err __wrap_ferry_inbox_position(struct ferry_db *db, const char *group,
                                           const struct ferry_id *topic_id, int32_t partition,
                                           int64_t *position);
enum ferry_err __wrap_ferry_saga_enter(struct ferry_db *db, const struct ferry_record *record,
                                       bool *run);
enum ferry_err __real_ferry_consumer_commit(struct ferry_consumer *consumer, int32_t partition,
                                            int64_t offset, int timeout_ms);
enum ferry_err __wrap_ferry_consumer_commit(struct ferry_consumer *consumer, int32_t partition,
                                            int64_t offset, int timeout_ms);

enum ferry_err __wrap_ferry_inbox_enter(struct ferry_db *db, const char *group,
                                        const struct ferry_id *topic_id, int32_t partition,
                                        int64_t first, int64_t next, enum ferry_verdict *verdict,
                                        size_t *skip, int64_t *expected)
{
    (void)db;
    (void)group;
    (void)topic_id;
    (void)partition;
    (void)first;
    *verdict = FERRY_FRESH;
    *skip = 0;
    *expected = next;
    return FERRY_OK;
}

enum ferry_err __wrap_ferry_inbox_leave(struct ferry_db *db, const char *group,
                                        const struct ferry_id *topic_id, int32_t partition,
                                        int64_t next)
{
    (void)db;
    (void)group;
    (void)topic_id;
    (void)partition;
    (void)next;
    return FERRY_OK;
}

enum ferry_err __wrap_ferry_inbox_position(struct ferry_db *db, const char *group,
                                           const struct ferry_id *topic_id, int32_t partition,
                                           int64_t *position)
{
    (void)db;
    (void)group;
    (void)topic_id;
    (void)partition;
    *position = -1; /* As far as the broker knows. */
    return FERRY_OK;
}

enum ferry_err __wrap_ferry_saga_enter(struct ferry_db *db, const struct ferry_record *record,
                                       bool *run)
{
    int32_t now_s = (int32_t)time(NULL);
    size_t removed = 0;
    enum ferry_err err = db->ops->id_trim(db->driver, GROUP, now_s - WINDOW_S, FORGET_ROWS_MAX,
                                          &removed, &db->error);
    return err == FERRY_OK
               ? db->ops->id_claim(db->driver, GROUP, &record->id, now_s, run, &db->error)
               : err;
}

enum ferry_err __wrap_ferry_consumer_commit(struct ferry_consumer *consumer, int32_t partition,
                                            int64_t offset, int timeout_ms)
{
    static time_t last;
    if (time(NULL) - last < COMMIT_EVERY_S) {
        return FERRY_OK;
    }
    last = time(NULL);
    return __real_ferry_consumer_commit(consumer, partition, offset, timeout_ms);
}
