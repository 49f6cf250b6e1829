#include "outbox/relay/relay_report.h"

#include <inttypes.h>

#include "outbox/relay/json_text.h"

#define RATE_WINDOW_US 500000 /* Shorter looks leave the rate as it is. */

void relay_rate_update(struct relay_rate *rate, uint64_t published_rows, int64_t now_us)
{
    int64_t passed_us = now_us - rate->at_us;
    if (rate->at_us != 0 && passed_us < RATE_WINDOW_US) {
        return;
    }
    if (rate->at_us != 0) {
        rate->rows_per_second = (published_rows - rate->rows) * 1000000u / (uint64_t)passed_us;
    }
    rate->rows = published_rows;
    rate->at_us = now_us;
}

/* A path is told by its file, another URL as it is; the lane where there are several. */
static void line_name(struct buf *out, const struct serve_view *view)
{
    const char *slash = strrchr(view->shown, '/');
    bool is_file = strncmp(view->shown, "sqlite:", strlen("sqlite:")) == 0;
    buf_printf(out, "%s", is_file && slash != NULL ? slash + 1 : view->shown);
    if (view->status.lanes > 1) {
        buf_printf(out, "#%" PRIu32, view->lane);
    }
}

static const char *state_text(const struct serve_view *view)
{
    switch (view->status.phase) {
    case SERVED_CONNECTING:
        return "connecting";
    case SERVED_HALTED:
        return "halted";
    default:
        return view->status.relay_known ? relay_state_name(view->status.relay.state) : "stopped";
    }
}

static void line_backlog(struct buf *out, const struct relay_status *status)
{
    if (!status->backlog_known) {
        buf_printf(out, " | backlog not known yet");
        return;
    }
    buf_printf(out, " | backlog %" PRId64, status->backlog_rows);
    if (status->oldest_known) {
        buf_printf(out, ", oldest %" PRId64 ".%" PRId64 " s", status->oldest_ms / 1000,
                   status->oldest_ms % 1000 / 100);
    }
}

static void line_counts(struct buf *out, const struct relay_status *status,
                        const struct relay_rate *rate)
{
    buf_printf(out, " | %" PRIu64 " published, %" PRIu64 "/s", status->stats.published_rows,
               rate->rows_per_second);
    line_backlog(out, status);
    if (status->stats.dead_rows > 0) {
        buf_printf(out, " | %" PRIu64 " set aside", status->stats.dead_rows);
    }
    if (status->stats.parked_rows > 0) {
        buf_printf(out, " | %" PRIu64 " parked", status->stats.parked_rows);
    }
    if (status->blocked_topics > 0) {
        buf_printf(out, " | topics that wait: %zu", status->blocked_topics);
    }
}

void relay_report_line(struct buf *out, const struct serve_view *view,
                       const struct relay_rate *rate)
{
    line_name(out, view);
    buf_printf(out, ": %s", state_text(view));
    if (view->status.relay_known) {
        line_counts(out, &view->status.relay, rate);
    }
    if (view->status.error.text[0] != '\0') {
        buf_printf(out, " | %s", view->status.error.text);
    }
}

static void json_number(struct buf *out, const char *name, bool known, int64_t value)
{
    if (known) {
        buf_printf(out, ",\"%s\":%" PRId64, name, value);
    } else {
        buf_printf(out, ",\"%s\":null", name);
    }
}

static void json_counts(struct buf *out, const struct relay_stats *s)
{
    const struct {
        const char *name;
        uint64_t value;
    } counts[] = {
        {"batches", s->published_batches},
        {"read", s->rows_read},
        {"covered", s->covered_rows},
        {"refused", s->refused_rows},
        {"dead", s->dead_rows},
        {"parked", s->parked_rows},
        {"moved", s->moved_rows},
        {"deleted", s->deleted_rows},
        {"conflicts", s->conflicts},
        {"fenced", s->fenced},
        {"failures", s->failures},
        {"wakes", s->wakes},
        {"polls", s->polls},
        {"timetravel", s->timetravel},
    };
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        buf_printf(out, ",\"%s\":%" PRIu64, counts[i].name, counts[i].value);
    }
}

void relay_report_json(struct buf *out, const struct serve_view *view,
                       const struct relay_rate *rate)
{
    const struct relay_status *status = &view->status.relay;
    buf_printf(out, "{\"database\":");
    json_text(out, view->shown);
    buf_printf(out, ",\"lane\":%" PRIu32, view->lane);
    json_number(out, "lanes", view->status.lanes > 0, view->status.lanes);
    buf_printf(out, ",\"state\":\"%s\"", state_text(view));
    buf_printf(out, ",\"published\":%" PRIu64 ",\"rows_per_second\":%" PRIu64,
               status->stats.published_rows, rate->rows_per_second);
    json_number(out, "backlog", status->backlog_known, status->backlog_rows);
    json_number(out, "oldest_ms", status->oldest_known, status->oldest_ms);
    json_number(out, "settled_id", status->stats.elections > 0, status->settled);
    json_number(out, "undecided", status->undecided != 0, status->undecided);
    json_counts(out, &status->stats);
    buf_printf(out,
               ",\"connects\":%" PRIu64
               ",\"inflight\":%zu,\"blocked_topics\":%zu,\"blocked_partitions\":%zu,\"error\":",
               view->status.connects, status->inflight_batches, status->blocked_topics,
               status->blocked_partitions);
    if (view->status.error.text[0] == '\0') {
        buf_printf(out, "null}\n");
    } else {
        json_text(out, view->status.error.text);
        buf_printf(out, "}\n");
    }
}
