/* What is over is forgotten: the rows of ended sagas, and the barrier of old ones.
 *
 * How old a saga is, its id says, a UUIDv7. The barrier's rows stand in the order of their sagas'
 * ids, so the oldest are the first. A barrier without its rows would let a late do run again, and
 * would call a late undo empty; so the day up to which they are forgotten is kept, in the barrier
 * itself (the row of no saga), and a command of an older saga is not run. Whoever has inserted a
 * row of an old saga holds that day still until it commits; so the rows that were there before the
 * trim and the day are judged as one. Sagas too young for any trim do not look at it. */
#include <inttypes.h>

#include "base/clock.h"
#include "outbox/app/saga.h"

#define DAY_MS           (INT64_C(24) * 60 * 60 * 1000)
#define TRIM_DAY_ZERO    18262 /* 2020-01-01. A database's smallint counts from there to 2109. */
#define CLOCKS_DIFFER_MS DAY_MS

static int64_t begun_ms(const struct ferry_id *saga)
{
    int64_t ms = 0;
    for (size_t i = 0; i < 6; i++) {
        ms = ms << 8 | saga->bytes[i];
    }
    return ms;
}

static struct ferry_id first_of_day(int64_t day)
{
    struct ferry_id id = {{0}};
    int64_t ms = day * DAY_MS;
    for (size_t i = 0; i < 6; i++) {
        id.bytes[i] = (uint8_t)(ms >> (40 - 8 * i));
    }
    return id;
}

/* The row of no saga is there from now on, and this transaction waits for others that make it. */
static enum ferry_err make_day(struct ferry_db *db)
{
    const struct ferry_id none = {{0}};
    bool fresh = false;
    return db->ops->barrier_add(db->driver, &none, 0, 0, 0, &fresh, &db->error);
}

enum ferry_err saga_check_age(struct ferry_db *db, const struct ferry_id *saga)
{
    const struct ferry_id none = {{0}};
    int64_t begun = begun_ms(saga);
    bool found = false;
    int32_t day = 0;
    if (begun >= clock_wall_ms() - FERRY_SAGA_KEEP_MIN_MS + CLOCKS_DIFFER_MS) {
        return FERRY_OK;
    }
    enum ferry_err err = make_day(db);
    if (err == FERRY_OK) {
        err = db->ops->barrier_why(db->driver, &none, 0, 0, &found, &day, &db->error);
    }
    if (err != FERRY_OK || day == 0 || begun >= (day + TRIM_DAY_ZERO) * DAY_MS) {
        return err;
    }
    return err_set(&db->error, FERRY_ERR_UNKNOWN_MESSAGE,
                   "the saga began %" PRId64 " days ago, and what sagas of that time did here is "
                   "forgotten (ferry_saga_trim): its command is not run, since it may have been",
                   (clock_wall_ms() - begun) / DAY_MS);
}

enum ferry_err ferry_saga_trim(struct ferry_db *db, int64_t keep_ms, size_t *removed)
{
    *removed = 0;
    enum ferry_err err = saga_check_transaction(db);
    int64_t kept_ms = keep_ms == 0 ? FERRY_SAGA_KEEP_MS : keep_ms;
    int64_t before_ms = clock_wall_ms() - kept_ms;
    if (err == FERRY_OK && (kept_ms < FERRY_SAGA_KEEP_MIN_MS || before_ms < 0)) {
        err = err_set(&db->error, FERRY_ERR_INVALID_ARGUMENT,
                      "sagas are kept for at least 8 days, and not from before 1970");
    }
    int64_t day = before_ms / DAY_MS;
    if (err != FERRY_OK || day <= TRIM_DAY_ZERO) {
        return err;
    }
    err = make_day(db);
    if (err != FERRY_OK) {
        return err;
    }
    const struct db_saga_trim trim = {.day = (int32_t)(day - TRIM_DAY_ZERO),
                                      .begun_before = first_of_day(day),
                                      .ended_before_ms = before_ms,
                                      .rows_max = FERRY_SAGA_TRIM_ROWS_MAX};
    return db->ops->saga_trim(db->driver, &trim, removed, &db->error);
}

_Static_assert(FERRY_SAGA_KEEP_MIN_MS == 8 * DAY_MS, "the text above says it in words");
