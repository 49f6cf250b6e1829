#include "outbox/relay/relay_report.h"

#include <inttypes.h>

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

static const char *file_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash == NULL ? path : slash + 1;
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

void relay_report_line(struct buf *out, const char *name, const struct relay_status *status,
                       const struct relay_rate *rate)
{
    buf_printf(out, "%s: %s | %" PRIu64 " published, %" PRIu64 "/s", file_of(name),
               relay_state_name(status->state), status->stats.published_rows,
               rate->rows_per_second);
    line_backlog(out, status);
    if (status->stats.dead_rows > 0) {
        buf_printf(out, " | %" PRIu64 " set aside", status->stats.dead_rows);
    }
    if (status->blocked_topics > 0) {
        buf_printf(out, " | unknown topics: %zu", status->blocked_topics);
    }
    if (status->error.text[0] != '\0') {
        buf_printf(out, " | %s", status->error.text);
    }
}

static void json_text(struct buf *out, const char *text)
{
    buf_append_u8(out, '"');
    for (const char *at = text; *at != '\0'; at++) {
        unsigned char c = (unsigned char)*at;
        if (c == '"' || c == '\\') {
            buf_append_u8(out, '\\');
            buf_append_u8(out, c);
        } else if (c < 0x20) {
            buf_printf(out, "\\u%04x", c);
        } else {
            buf_append_u8(out, c);
        }
    }
    buf_append_u8(out, '"');
}

static void json_number(struct buf *out, const char *name, bool known, int64_t value)
{
    if (known) {
        buf_printf(out, ",\"%s\":%" PRId64, name, value);
    } else {
        buf_printf(out, ",\"%s\":null", name);
    }
}

void relay_report_json(struct buf *out, const char *name, const struct relay_status *status,
                       const struct relay_rate *rate)
{
    const struct relay_stats *s = &status->stats;
    buf_printf(out, "{\"database\":");
    json_text(out, name);
    buf_printf(out, ",\"state\":\"%s\"", relay_state_name(status->state));
    buf_printf(out, ",\"published\":%" PRIu64 ",\"rows_per_second\":%" PRIu64, s->published_rows,
               rate->rows_per_second);
    json_number(out, "backlog", status->backlog_known, status->backlog_rows);
    json_number(out, "oldest_ms", status->oldest_known, status->oldest_ms);
    json_number(out, "settled_id", s->elections > 0, status->settled);
    buf_printf(out,
               ",\"batches\":%" PRIu64 ",\"covered\":%" PRIu64 ",\"dead\":%" PRIu64
               ",\"deleted\":%" PRIu64 ",\"conflicts\":%" PRIu64 ",\"fenced\":%" PRIu64
               ",\"failures\":%" PRIu64 ",\"wakes\":%" PRIu64 ",\"polls\":%" PRIu64,
               s->published_batches, s->covered_rows, s->dead_rows, s->deleted_rows, s->conflicts,
               s->fenced, s->failures, s->wakes, s->polls);
    buf_printf(out,
               ",\"inflight\":%zu,\"blocked_topics\":%zu,\"blocked_partitions\":%zu,\"error\":",
               status->inflight_batches, status->blocked_topics, status->blocked_partitions);
    if (status->error.text[0] == '\0') {
        buf_printf(out, "null}\n");
    } else {
        json_text(out, status->error.text);
        buf_printf(out, "}\n");
    }
}
