/* Opening, and whether the database is still the one it was. */
#include <stdio.h>

#include "base/clock.h"
#include "base/mem.h"
#include "outbox/app/wake.h"
#include "outbox/postgresql/source_postgresql.h"
#include "outbox/relay/relay_place.h"

#define STANDBY_PAUSE_US 200000

/* ---- Identity. */

static enum ferry_err read_identity(const struct source_pg *d, const PGresult *r,
                                    struct pg_identity *now, struct err_text *e)
{
    struct bytes id = pg_value(r, 0, 6);
    if (PQntuples(r) != 1 || id.size != sizeof(now->source.bytes)) {
        return err_set(e, FERRY_ERR_DB_SCHEMA,
                       "%s: its Ferry tables are not complete: run `ferry outbox init`",
                       d->url.shown);
    }
    *now = (struct pg_identity){.in_recovery = pg_int(r, 0, 0) != 0,
                                .system = (uint64_t)pg_int(r, 0, 1),
                                .insert_lsn = (uint64_t)pg_int(r, 0, 2),
                                .xmax = (uint64_t)pg_int(r, 0, 3),
                                .timeline = (uint32_t)pg_int(r, 0, 4),
                                .database = (uint32_t)pg_int(r, 0, 5),
                                .lanes = (uint32_t)pg_int(r, 0, 7),
                                .version = pg_int(r, 0, 8)};
    memcpy(now->source.bytes, id.data, sizeof(now->source.bytes));
    return FERRY_OK;
}

static enum ferry_err check_version(const struct source_pg *d, int64_t version, struct err_text *e)
{
    if (version > SCHEMA_POSTGRESQL_VERSION) {
        return err_set(e, FERRY_ERR_NEWER_FORMAT,
                       "%s: its Ferry tables have version %lld, this program knows %d: start a "
                       "newer Ferry",
                       d->url.shown, (long long)version, SCHEMA_POSTGRESQL_VERSION);
    }
    if (version < SCHEMA_POSTGRESQL_VERSION) {
        return err_set(e, FERRY_ERR_DB_SCHEMA,
                       "%s: its Ferry tables are old: run `ferry outbox init`", d->url.shown);
    }
    return FERRY_OK;
}

enum ferry_err source_pg_identify(struct source_pg *d, struct pg_link *link,
                                  struct pg_identity *identity, struct err_text *e)
{
    PGresult *result = NULL;
    *identity = (struct pg_identity){0};
    enum ferry_err err = pg_link_ask(link, PG_IDENTITY, NULL, 0, &result, e);
    if (err == FERRY_OK) {
        err = read_identity(d, result, identity, e);
    }
    PQclear(result);
    if (err == FERRY_OK && identity->in_recovery) {
        err_set(e, FERRY_OK,
                "%s: this is a standby; the relay waits until it is the primary, or another host "
                "of the URL is",
                d->url.shown);
        return pg_link_leave(link, STANDBY_PAUSE_US, e);
    }
    return err == FERRY_OK ? check_version(d, identity->version, e) : err;
}

/* All but the timeline. */
static bool is_same(struct source_pg *d, const struct pg_identity *now, struct err_text *e)
{
    const struct pg_identity *then = &d->identity;
    const char *name = d->url.shown;
    uint64_t xmax = d->ticks.upper != NULL ? d->ticks.upper->xmax : d->ticks.lower->xmax;
    uint64_t place = now->timeline == then->timeline ? d->flushed : d->covered;
    if (memcmp(&now->source, &then->source, sizeof(now->source)) != 0) {
        err_set(e, FERRY_OK, "%s has a new source id (rebased): the relay has to open it again",
                name);
    } else if (now->system != then->system) {
        err_set(e, FERRY_OK,
                "%s is another database cluster (system identifier %llu, was %llu)" PG_REMEDY, name,
                (unsigned long long)now->system, (unsigned long long)then->system);
    } else if (now->insert_lsn < place || now->xmax < xmax) {
        err_set(e, FERRY_OK,
                "%s was set back in time: its log ends at %llX/%llX and its next transaction is "
                "%llu, %llX/%llX and %llu were there already" PG_REMEDY,
                name, (unsigned long long)(now->insert_lsn >> 32),
                (unsigned long long)(now->insert_lsn & UINT32_MAX), (unsigned long long)now->xmax,
                (unsigned long long)(place >> 32), (unsigned long long)(place & UINT32_MAX),
                (unsigned long long)xmax);
    } else {
        return true;
    }
    return false;
}

enum ferry_err source_pg_recognize(struct source_pg *d, struct pg_link *link,
                                   const struct pg_identity *now, bool *same, struct err_text *e)
{
    uint64_t left = 0;
    *same = true;
    if (now->system == d->identity.system &&
        memcmp(&now->source, &d->identity.source, sizeof(now->source)) == 0) {
        enum ferry_err err =
            source_pg_follows(d, link, d->identity.timeline, d->covered, now, same, &left, e);
        if (err != FERRY_OK) {
            return err;
        }
    }
    *same = *same && is_same(d, now, e);
    if (!*same) {
        d->set_back = true;
        d->set_back_words = *e;
    } else if (now->timeline != d->identity.timeline) {
        source_pg_adopt(d, link, now->timeline, left);
    }
    return FERRY_OK;
}

/* The row that was published under that number, if it is still there. */
static enum ferry_err last_row_is_same(struct source_pg *d, const struct cover_place *place,
                                       bool *same, struct err_text *e)
{
    char lane[24];
    char seq[24];
    snprintf(lane, sizeof(lane), "%u", d->options.lane);
    snprintf(seq, sizeof(seq), "%lld", (long long)place->last_seq);
    const char *values[] = {lane, seq};
    PGresult *result = NULL;
    enum ferry_err err = source_pg_side(d, e);
    if (err == FERRY_OK) {
        err = pg_link_ask(&d->side, PG_MSG_ID, values, 2, &result, e);
    }
    if (err == FERRY_OK && PQntuples(result) > 0) {
        struct bytes id = pg_value(result, 0, 0);
        *same = bytes_equal(id, bytes_of(place->last_id.bytes, sizeof(place->last_id.bytes)));
        if (!*same) {
            err_set(e, FERRY_OK,
                    "%s was set back in time: row %lld is another message than the one published "
                    "under that number" PG_REMEDY,
                    d->url.shown, (long long)place->last_seq);
        }
    }
    PQclear(result);
    return err;
}

enum ferry_err source_pg_place_is_here(struct source_pg *d, const struct cover_place *place,
                                       const struct cover *cover, bool *same, struct err_text *e)
{
    struct pg_identity now;
    const char *name = d->url.shown;
    const struct snapshot *newest = cover->upper != NULL ? cover->upper : cover->base;
    *same = false;
    enum ferry_err err = source_pg_side(d, e);
    if (err == FERRY_OK) {
        err = source_pg_identify(d, &d->side, &now, e);
    }
    if (d->set_back) { /* Of before, or a new connection showed it. */
        *e = d->set_back_words;
        return FERRY_OK;
    }
    bool known = false;
    if (err == FERRY_OK) {
        err = source_pg_recognize(d, &d->side, &now, &known, e);
    }
    if (err != FERRY_OK || !known) {
        return err;
    }
    if (place->system != now.system || place->database != now.database) {
        err_set(e, FERRY_OK,
                "%s is another database than the one its cursors were taken from (dumped and "
                "restored, or upgraded?)" PG_REMEDY,
                name);
        return FERRY_OK;
    }
    uint64_t left = 0;
    err = source_pg_follows(d, &d->side, place->timeline, place->lsn, &now, &known, &left, e);
    if (err != FERRY_OK || !known) {
        return err;
    }
    if (place->lsn > now.insert_lsn || newest->xmax > now.xmax) {
        err_set(e, FERRY_OK,
                "%s was set back in time: its log ends at %llX/%llX, %llX/%llX was there when "
                "rows were published" PG_REMEDY,
                name, (unsigned long long)(now.insert_lsn >> 32),
                (unsigned long long)(now.insert_lsn & UINT32_MAX),
                (unsigned long long)(place->lsn >> 32),
                (unsigned long long)(place->lsn & UINT32_MAX));
    } else {
        *same = true;
    }
    if (*same && place->has_last) {
        err = last_row_is_same(d, place, same, e);
    }
    if (err == FERRY_OK && *same && place->lsn > d->covered) {
        d->covered = place->lsn;
    }
    return err;
}

/* ---- Settings. */

static enum ferry_err judge_settings(const struct source_pg *d, const PGresult *r,
                                     struct err_text *e)
{
    bool fsync = bytes_equal(pg_value(r, 0, 0), bytes_of_string("on"));
    bool full_pages = bytes_equal(pg_value(r, 0, 1), bytes_of_string("on"));
    if (PQntuples(r) != 1 || pg_int(r, 0, 2) != 1 || pg_int(r, 0, 3) != 1) {
        return err_set(e, FERRY_ERR_DB,
                       "%s: the sequence %s.outbox_seq must have CACHE 1 and INCREMENT 1, else "
                       "messages of a key change places: ALTER SEQUENCE %s.outbox_seq CACHE 1 "
                       "INCREMENT 1",
                       d->url.shown, d->url.schema, d->url.schema);
    }
    if (d->options.strict && (!fsync || !full_pages)) {
        return err_set(e, FERRY_ERR_DB,
                       "%s: %s is off: a crash loses rows that were published: switch it on, or "
                       "set source.strict=no",
                       d->url.shown, fsync ? "full_page_writes" : "fsync");
    }
    return FERRY_OK;
}

enum ferry_err source_pg_check_settings(struct source_pg *d, struct err_text *e)
{
    PGresult *result = NULL;
    enum ferry_err err = pg_link_ask(&d->side, PG_SETTINGS, NULL, 0, &result, e);
    if (err == FERRY_OK) {
        err = judge_settings(d, result, e);
    }
    PQclear(result);
    return err;
}

/* ---- Opening. */

/* Waits for as long as connecting may take: nothing runs yet that would miss the caller. */
static enum ferry_err first_connection(struct source_pg *d, struct err_text *e)
{
    int64_t until_us = clock_monotonic_us() + d->target.connect_timeout_ms * 1000;
    enum ferry_err err = pg_link_up(&d->side, until_us, e);
    if (err == FERRY_ERR_DB_RETRY && d->side.turns > 0) { /* Another host may be there. */
        until_us = clock_monotonic_us() + d->target.connect_timeout_ms * 1000;
        err = pg_link_up(&d->side, until_us, e);
    }
    if (err == FERRY_ERR_DB_RETRY) {
        err = err_set(e, FERRY_ERR_IO, "%s",
                      d->side.why.text[0] != '\0' ? d->side.why.text : "no answer in time");
    }
    return err;
}

static enum ferry_err check_lane(const struct source_pg *d, struct err_text *e)
{
    if (d->options.lane < d->identity.lanes) {
        return FERRY_OK;
    }
    return err_set(e, FERRY_ERR_INVALID_ARGUMENT, "%s has %u lanes: there is no lane %u",
                   d->url.shown, d->identity.lanes, d->options.lane);
}

/* Rows of a lane that is no more would wait for ever. Published ones count as well: which they are
 * only their lane's checkpoint tells. */
static enum ferry_err check_lanes_used(struct source_pg *d, struct err_text *e)
{
    char lanes[24];
    const char *values[] = {lanes};
    PGresult *result = NULL;
    snprintf(lanes, sizeof(lanes), "%u", d->identity.lanes);
    enum ferry_err err = pg_link_ask(&d->side, PG_LANES_USED, values, 1, &result, e);
    if (err == FERRY_OK && !PQgetisnull(result, 0, 0)) {
        unsigned lane = (unsigned)pg_int(result, 0, 0);
        err = err_set(e, FERRY_ERR_DB,
                      "%s: it has %u lanes now, but rows of lane %u: set lanes in %s.meta to %u "
                      "again, let them be published (`ferry outbox status`: pending 0), delete the "
                      "rows of lanes from %u on, and lower it then",
                      d->url.shown, d->identity.lanes, lane, d->url.schema, lane + 1,
                      d->identity.lanes);
    }
    PQclear(result);
    return err;
}

static enum ferry_err open_all(struct source_pg *d, struct err_text *e)
{
    enum ferry_err err = first_connection(d, e);
    if (err == FERRY_OK) {
        err = source_pg_identify(d, &d->side, &d->identity, e);
        d->side_checked_connects = d->side.connects;
    }
    if (err == FERRY_OK) {
        err = check_lane(d, e);
    }
    if (err == FERRY_OK) {
        err = check_lanes_used(d, e);
    }
    if (err == FERRY_OK) {
        err = source_pg_check_settings(d, e);
    }
    return err == FERRY_OK ? ticks_init(&d->ticks) : err;
}

/* One relay of this machine listens; who comes second polls, and looks again once a second. */
void source_pg_listen(struct source_pg *d)
{
    char system[24];
    char database[16];
    struct err_text ignored;
    if (d->wake_fd >= 0) {
        return;
    }
    snprintf(system, sizeof(system), "%llu", (unsigned long long)d->identity.system);
    snprintf(database, sizeof(database), "%u", d->identity.database);
    db_postgresql_place(d->wake_name, system, database);
    if (d->options.lane == 0 && wake_listen(d->wake_name, &d->wake_fd, &ignored) != FERRY_OK) {
        d->wake_fd = -1;
    }
    source_pg_notify_watch(d, d->wake_fd);
}

enum ferry_err source_pg_open(struct source *source, const char *url,
                              const struct source_options *options, struct err_text *e)
{
    struct source_pg *d = mem_zalloc(1, sizeof(*d));
    if (d == NULL) {
        return err_set(e, FERRY_ERR_NO_MEMORY, "out of memory");
    }
    d->wake_fd = -1;
    d->notify.epoll_fd = -1;
    d->place_fd = -1;
    d->options = *options;
    enum ferry_err err = pg_url_parse(url, &d->url, e);
    if (err == FERRY_OK) {
        d->target = (struct pg_target){.conninfo = d->url.conninfo,
                                       .shown = d->url.shown,
                                       .schema = d->url.schema,
                                       .connect_timeout_ms = options->connect_timeout_ms,
                                       .statement_timeout_ms = options->statement_timeout_ms};
        pg_link_init(&d->reader, &d->target, source_pg_statements, "reader");
        pg_link_init(&d->side, &d->target, source_pg_statements, "side");
        err = open_all(d, e);
    }
    if (err == FERRY_OK && options->notify) {
        err = source_pg_notify_init(d, e);
    }
    if (err != FERRY_OK) {
        source_pg_ops.close(d);
        return err;
    }
    source_pg_listen(d);
    d->place_fd = relay_place_take(d->wake_name, options->lane);
    *source = (struct source){.ops = &source_pg_ops, .driver = d};
    return FERRY_OK;
}
