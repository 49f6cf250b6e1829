/* figures: inbox and saga figures of every served database, asked for every relay.figures_ms.
 *
 * One thread of its own asks one database after the other, by a connection that it opens for it: it
 * holds up no relay, and a database that does not answer delays the figures of the others, which
 * are then not known. What it asks is bounded (admin_figures.h).
 *
 * start, stop and end: one thread; lock and unlock: any. */
#ifndef FERRY_OUTBOX_RELAY_FIGURES_H
#define FERRY_OUTBOX_RELAY_FIGURES_H

#include "outbox/relay/admin.h"
#include "outbox/relay/relay_urls.h"

struct figures;

struct figures_view {
    const char *shown; /* The URL for people. */
    bool known;        /* The last answer is not too old. */
    int64_t asked_at_us;
    struct outbox_figures figures;
};

/* Borrows `urls` until figures_end. Errors: NO_MEMORY, IO (no thread). */
MUST_CHECK enum ferry_err figures_start(struct figures **f, const struct relay_urls *urls,
                                        int64_t every_ms);
/* What is known, one of each database, until figures_unlock. `f` NULL: none. `now_us`: monotonic.
 */
const struct figures_view *figures_lock(struct figures *f, int64_t now_us, size_t *count);
void figures_unlock(struct figures *f);
/* Accepts NULL. Waits until the time (monotonic). False: a database holds the thread, and the
 * process has to exit without freeing anything. */
MUST_CHECK bool figures_end(struct figures **f, int64_t until_us);

#endif
