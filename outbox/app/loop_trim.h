/* loop_trim: what the loops forget now and then, in a transaction of its own. */
#ifndef FERRY_OUTBOX_APP_LOOP_TRIM_H
#define FERRY_OUTBOX_APP_LOOP_TRIM_H

#include "base/err.h"
#include "ferry_outbox.h"

#define LOOP_TRIM_MS 60000

/* With `ids`, ids beyond the horizon; with options->saga_keep_ms, sagas. No effect when there is
 * nothing to do or the last time was less than LOOP_TRIM_MS ago. No transaction is open, nor is one
 * afterwards. Errors: those of the two. */
MUST_CHECK enum ferry_err loop_trim(struct ferry_db *db,
                                    const struct ferry_consume_options *options, bool ids,
                                    int64_t now_ms, int64_t *trimmed_at_ms);

#endif
