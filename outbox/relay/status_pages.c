#include "outbox/relay/status_pages.h"

#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "outbox/relay/json_text.h"
#include "outbox/relay/relay_metrics.h"

#define HTTP_OK          200
#define HTTP_NOT_FOUND   404
#define HTTP_UNAVAILABLE 503

static bool state_ready(const struct relay_status *relay, const char **why)
{
    *why = relay_state_name(relay->state);
    switch (relay->state) {
    case RELAY_ACTIVE:
    case RELAY_STANDBY:
    case RELAY_PAUSED: /* A person wants it so. */
        *why = relay->database_failed ? "the database does not answer" : *why;
        return !relay->database_failed;
    default:
        return false;
    }
}

bool status_ready(const struct serve_view *view, const char **why)
{
    const char *unused = NULL;
    why = why == NULL ? &unused : why;
    switch (view->status.phase) {
    case SERVED_CONNECTING:
        *why = "connecting";
        return false;
    case SERVED_RELAYING:
        return state_ready(&view->status.relay, why);
    case SERVED_HALTED:
        *why = "halted";
        return false;
    case SERVED_STOPPED:
        break;
    }
    *why = "stopped";
    return false;
}

/* ---- Pages. */

struct looked {
    const struct serve_view *views;
    size_t count;
    int64_t now_us, stuck_us;
};

static void begin_object(struct buf *body, bool first, const struct serve_view *view)
{
    buf_printf(body, "%s{\"database\":", first ? "" : ",");
    json_text(body, view->shown);
    buf_printf(body, ",\"lane\":%" PRIu32, view->lane);
}

static int live_page(const struct looked *l, struct buf *body)
{
    bool stuck = false;
    buf_printf(body, "{\"stuck\":[");
    for (size_t i = 0; i < l->count; i++) {
        int64_t silent_us = l->now_us - l->views[i].beat_us;
        if (l->views[i].status.phase != SERVED_STOPPED && silent_us > l->stuck_us) {
            begin_object(body, !stuck, &l->views[i]);
            buf_printf(body, ",\"seconds\":%" PRId64 "}", silent_us / 1000000);
            stuck = true;
        }
    }
    buf_printf(body, "],\"live\":%s}\n", stuck ? "false" : "true");
    return stuck ? HTTP_UNAVAILABLE : HTTP_OK;
}

static int ready_page(const struct looked *l, struct buf *body)
{
    bool ready = l->count > 0;
    buf_printf(body, "{\"outboxes\":[");
    for (size_t i = 0; i < l->count; i++) {
        const char *why = NULL;
        bool one = status_ready(&l->views[i], &why);
        if (one && l->now_us - l->views[i].beat_us > l->stuck_us) {
            one = false;
            why = "stuck";
        }
        begin_object(body, i == 0, &l->views[i]);
        buf_printf(body, ",\"ready\":%s,\"state\":", one ? "true" : "false");
        json_text(body, why);
        buf_printf(body, ",\"error\":");
        if (l->views[i].status.error.text[0] == '\0') {
            buf_printf(body, "null}");
        } else {
            json_text(body, l->views[i].status.error.text);
            buf_append_u8(body, '}');
        }
        ready = ready && one;
    }
    buf_printf(body, "],\"ready\":%s}\n", ready ? "true" : "false");
    return ready ? HTTP_OK : HTTP_UNAVAILABLE;
}

int status_page(void *arg, const char *path, struct buf *body, const char **content_type)
{
    struct status_pages *pages = arg;
    size_t count = serve_count(pages->serve);
    struct serve_view *views = mem_zalloc(count == 0 ? 1 : count, sizeof(*views));
    int code = HTTP_NOT_FOUND;
    *content_type = "application/json";
    if (views == NULL) {
        return HTTP_UNAVAILABLE;
    }
    for (size_t i = 0; i < count; i++) {
        serve_view(pages->serve, i, &views[i]);
    }
    struct looked looked = {views, count, clock_monotonic_us(), pages->stuck_us};
    if (strcmp(path, "/metrics") == 0) {
        *content_type = "text/plain; version=0.0.4; charset=utf-8";
        relay_metrics_write(body, views, count);
        size_t databases = 0;
        const struct figures_view *figures =
            figures_lock(pages->figures, looked.now_us, &databases);
        figures_metrics_write(body, figures, databases);
        figures_unlock(pages->figures);
        code = HTTP_OK;
    } else if (strcmp(path, "/livez") == 0) {
        code = live_page(&looked, body);
    } else if (strcmp(path, "/readyz") == 0) {
        code = ready_page(&looked, body);
    } else {
        buf_printf(body, "{\"error\":\"no such page: /metrics, /livez, /readyz\"}\n");
    }
    mem_free(views);
    return buf_ok(body) ? code : HTTP_UNAVAILABLE;
}
