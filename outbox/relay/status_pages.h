/* status_pages: what the status port answers: /metrics for Prometheus, /livez (the loops turn) and
 * /readyz (every outbox is active or standing by, and its database answers) for whoever restarts or
 * routes. Looks at copies only (serve_view), so it holds up no outbox. Any thread. */
#ifndef FERRY_OUTBOX_RELAY_STATUS_PAGES_H
#define FERRY_OUTBOX_RELAY_STATUS_PAGES_H

#include "base/buf.h"
#include "outbox/relay/figures.h"
#include "outbox/relay/serve.h"

/* SERVE_MAX lanes with some 24 KiB of metrics each, and SERVE_TALLY_TOPICS_MAX topics with 10. */
#define STATUS_PAGE_MAX_BYTES (32u << 20)

struct status_pages {
    struct serve *serve;
    struct figures *figures; /* Or NULL. */
    int64_t stuck_us;        /* relay.http_stuck_ms. */
};

/* Writes the page into `body`; returns the HTTP status. `arg`: a struct status_pages. */
int status_page(void *arg, const char *path, struct buf *body, const char **content_type);

/* Whether an outbox is served as it should be. *why (may be NULL): in a few words, if not. */
bool status_ready(const struct serve_view *view, const char **why);

#endif
