/* bench_put: many rows into an outbox, as an application would put them, and how long it took. For
 * `ferry outbox bench`; the drivers open the connection. */
#ifndef FERRY_OUTBOX_APP_BENCH_PUT_H
#define FERRY_OUTBOX_APP_BENCH_PUT_H

#include "base/err.h"
#include "outbox/app/db.h"

struct bench_put_spec {
    const char *topic;
    int64_t count;
    size_t bytes;       /* Of each payload. */
    int64_t per_commit; /* Rows a transaction. */
    int64_t keys;       /* How many different ones; 0: none. */
};

/* Begins and commits itself, and wakes the relay after each commit. DB_RETRY is tried again. *us:
 * from the first BEGIN to the last COMMIT. Errors: those of ferry_outbox_put, NO_MEMORY. */
MUST_CHECK enum ferry_err bench_put(struct ferry_db *db, const struct bench_put_spec *spec,
                                    int64_t *us, struct err_text *e);

#endif
