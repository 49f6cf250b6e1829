/* Another server took over: whether the cursors go on there (timeline.h says when and why). */
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "outbox/postgresql/source_postgresql.h"
#include "outbox/postgresql/timeline.h"

#define HISTORY_MAX_BYTES (1u << 20)

static unsigned high(uint64_t lsn)
{
    return (unsigned)(lsn >> 32);
}

static unsigned low(uint64_t lsn)
{
    return (unsigned)(lsn & UINT32_MAX);
}

/* One way of asking; *text is the caller's. NULL with OK: the server refuses that way. */
static enum ferry_err ask_history(struct pg_link *link, const char *sql, char **text,
                                  struct err_text *e)
{
    PGresult *result = NULL;
    enum ferry_err err = pg_link_ask_text(link, sql, &result, e);
    *text = NULL;
    if (err == FERRY_OK && PQntuples(result) == 1 && !PQgetisnull(result, 0, 0)) {
        *text = mem_strdup(PQgetvalue(result, 0, 0));
        err = *text == NULL ? err_set(e, FERRY_ERR_NO_MEMORY, "out of memory") : FERRY_OK;
    }
    PQclear(result);
    return err == FERRY_ERR_DB || err == FERRY_ERR_DB_SCHEMA ? FERRY_OK : err;
}

/* The history of the server's timeline, kept. *text NULL: this role may not read it. */
static enum ferry_err history_of(struct source_pg *d, struct pg_link *link, uint32_t timeline,
                                 const char **text, struct err_text *e)
{
    struct buf sql;
    *text = d->history_timeline == timeline ? d->history : NULL;
    if (*text != NULL) {
        return FERRY_OK;
    }
    buf_init(&sql, 512);
    buf_printf(&sql, "SELECT pg_catalog.pg_read_file('pg_wal/%08X.history')", timeline);
    buf_append_u8(&sql, 0);
    size_t second = sql.size;
    buf_printf(&sql, "SELECT %s.timeline_history(%u)", d->url.schema, timeline);
    buf_append_u8(&sql, 0);
    char *read = NULL;
    enum ferry_err err = buf_ok(&sql) ? ask_history(link, (const char *)sql.data, &read, e)
                                      : err_set(e, FERRY_ERR_NO_MEMORY, "out of memory");
    if (err == FERRY_OK && read == NULL) {
        err = ask_history(link, (const char *)sql.data + second, &read, e);
    }
    buf_fini(&sql);
    if (err == FERRY_OK && read != NULL) {
        mem_free(d->history);
        d->history = read;
        d->history_timeline = timeline;
    }
    *text = read;
    return err;
}

/* False, with the words. */
static bool judge(const struct source_pg *d, const char *history, uint32_t timeline, uint64_t place,
                  uint32_t now, uint64_t *left, struct err_text *e)
{
    const char *name = d->url.shown;
    if (history == NULL) {
        err_set(e, FERRY_OK,
                "%s: a standby took over, or it was restored (timeline %u, was %u), and this role "
                "may not read whether it had everything: GRANT EXECUTE ON FUNCTION "
                "pg_catalog.pg_read_file(text) TO it, and it goes on within a minute; or" PG_REMEDY,
                name, now, timeline);
    } else if (!timeline_left_at(history, timeline, left)) {
        err_set(e, FERRY_OK,
                "%s is on timeline %u, which does not come from timeline %u, where rows were "
                "published: it is an old primary, or was restored" PG_REMEDY,
                name, now, timeline);
    } else if (*left < place) {
        err_set(e, FERRY_OK,
                "%s: the standby that took over lacked the end of the log: timeline %u has it up "
                "to %X/%X, rows were published up to %X/%X, so %llu bytes of it are lost, and "
                "messages may be out whose rows are gone" PG_REMEDY
                " (it publishes what no log has)",
                name, now, high(*left), low(*left), high(place), low(place),
                (unsigned long long)(place - *left));
    } else {
        return true;
    }
    return false;
}

enum ferry_err source_pg_follows(struct source_pg *d, struct pg_link *link, uint32_t timeline,
                                 uint64_t place, const struct pg_identity *now, bool *same,
                                 uint64_t *left, struct err_text *e)
{
    const char *history = NULL;
    enum ferry_err err = FERRY_OK;
    *same = true;
    *left = UINT64_MAX;
    if (timeline == now->timeline) {
        return FERRY_OK;
    }
    if (timeline < now->timeline) {
        err = history_of(d, link, now->timeline, &history, e);
    } else {
        history = ""; /* Nothing comes from a later one. */
    }
    if (err == FERRY_OK) {
        *same = judge(d, history, timeline, place, now->timeline, left, e);
    }
    return err;
}

void source_pg_adopt(struct source_pg *d, const struct pg_link *link, uint32_t timeline,
                     uint64_t left)
{
    log_line(LOG_INFO, "relay",
             "%s: a standby took over (timeline %u, was %u) and had the log up to %X/%X; all that "
             "was published is there: going on",
             d->url.shown, timeline, d->identity.timeline, high(left), low(left));
    d->identity.timeline = timeline;
    /* Behind the branch the old server's places mean nothing. */
    d->flushed = d->flushed < left ? d->flushed : left;
    /* What was not on disk may be gone, and the other connections may lead to the old server. */
    source_pg_forget(d);
    snapshot_release(&d->idle);
    if (link != &d->reader) {
        pg_link_drop(&d->reader);
    }
    if (link != &d->side) {
        pg_link_drop(&d->side);
    }
}
