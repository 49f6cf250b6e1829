/* NOTIFY: a connection that listens, for applications that cannot send the datagram.
 *
 * Whether it works is tried when the connection is made, because behind a pooler that hands out
 * connections by transaction LISTEN is accepted and nothing ever arrives: another connection
 * announces a word of our own, which has to be here within a second. The relay polls in any case;
 * this only lets it look sooner. */
#include <stdio.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "outbox/postgresql/source_postgresql.h"

#define STEP_US 100000  /* What one step may wait for the database. */
#define TRY_US  1000000 /* Our own word has to be here by then. */

enum ferry_err source_pg_notify_init(struct source_pg *d, struct err_text *e)
{
    struct pg_notify *n = &d->notify;
    pg_link_init(&n->link, &d->target, source_pg_statements, "listener");
    n->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    return n->epoll_fd >= 0 ? FERRY_OK : err_set(e, FERRY_ERR_IO, "epoll: too many files are open");
}

void source_pg_notify_fini(struct source_pg *d)
{
    pg_link_fini(&d->notify.link);
    if (d->notify.epoll_fd >= 0) {
        (void)close(d->notify.epoll_fd);
        d->notify.epoll_fd = -1;
    }
}

void source_pg_notify_watch(const struct source_pg *d, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (d->notify.epoll_fd >= 0 && fd >= 0) {
        (void)epoll_ctl(d->notify.epoll_fd, EPOLL_CTL_ADD, fd, &event);
    }
}

static void tell(struct source_pg *d, enum pg_notify_said what, const char *words)
{
    if (d->notify.said != what) {
        d->notify.said = what;
        log_line(what == PG_NOTIFY_SAID_WORKS ? LOG_INFO : LOG_WARN, "relay", "%s: %s",
                 d->url.shown, words);
    }
}

/* ---- Coming up. */

static enum ferry_err listen_to_channel(struct source_pg *d, struct err_text *e)
{
    char sql[96];
    snprintf(sql, sizeof(sql), "LISTEN \"%s_outbox\"", d->url.schema);
    return pg_link_run(&d->notify.link, sql, e);
}

/* Announces our own word, and looks whether anybody else would announce rows. */
static enum ferry_err try_it(struct source_pg *d, bool *trigger, struct err_text *e)
{
    struct pg_notify *n = &d->notify;
    char channel[64];
    snprintf(channel, sizeof(channel), "%s_outbox", d->url.schema);
    snprintf(n->word, sizeof(n->word), "try-%ld-%lld", (long)getpid(),
             (long long)clock_monotonic_us());
    const char *values[] = {channel, n->word};
    PGresult *result = NULL;
    enum ferry_err err = source_pg_side(d, e);
    if (err == FERRY_OK) {
        err = pg_link_ask(&d->side, PG_NOTIFY, values, 2, &result, e);
    }
    if (err == FERRY_OK) {
        *trigger = pg_int(result, 0, 0) != 0;
        n->tried_us = clock_monotonic_us();
    }
    PQclear(result);
    return err;
}

static void come_up(struct source_pg *d)
{
    struct pg_notify *n = &d->notify;
    struct err_text e = {{0}};
    bool trigger = true;
    n->state = PG_NOTIFY_DOWN;
    enum ferry_err err = pg_link_up(&n->link, clock_monotonic_us() + STEP_US, &e);
    if (err == FERRY_OK) {
        err = listen_to_channel(d, &e);
    }
    if (err == FERRY_OK) {
        err = try_it(d, &trigger, &e);
    }
    if (err != FERRY_OK) {
        return; /* Another time; whether the database answers is told elsewhere. */
    }
    n->state = PG_NOTIFY_TRYING;
    source_pg_notify_watch(d, PQsocket(n->link.conn));
    if (!trigger && !n->said_trigger) {
        n->said_trigger = true;
        log_line(LOG_WARN, "relay",
                 "%s: relay.notify is on and %s.outbox has no trigger that announces rows: unless "
                 "applications do, the relay polls (CREATE TRIGGER outbox_notify AFTER INSERT ON "
                 "%s.outbox FOR EACH STATEMENT EXECUTE FUNCTION %s.notify())",
                 d->url.shown, d->url.schema, d->url.schema, d->url.schema);
    }
}

/* ---- What arrives. */

static void arrived(struct source_pg *d, const char *payload)
{
    struct pg_notify *n = &d->notify;
    if (strcmp(payload, n->word) != 0) {
        n->fresh = true;
        return;
    }
    n->state = PG_NOTIFY_WORKS;
    tell(d, PG_NOTIFY_SAID_WORKS, "listening to NOTIFY");
}

static void take(struct source_pg *d)
{
    struct pg_notify *n = &d->notify;
    struct err_text ignored;
    PGnotify *one = NULL;
    if (pg_link_hear(&n->link, &ignored) != FERRY_OK) {
        n->state = PG_NOTIFY_DOWN; /* Its socket is out of the epoll set since it was closed. */
        return;
    }
    while ((one = PQnotifies(n->link.conn)) != NULL) {
        arrived(d, one->extra);
        PQfreemem(one);
    }
}

void source_pg_notify_drain(struct source_pg *d)
{
    if (d->notify.epoll_fd < 0 || d->notify.state == PG_NOTIFY_DOWN) {
        return;
    }
    take(d);
    d->counters.notifies += d->notify.fresh; /* As many as the relay was woken by it. */
    d->notify.fresh = false;
}

void source_pg_notify_step(struct source_pg *d)
{
    struct pg_notify *n = &d->notify;
    if (n->epoll_fd < 0) {
        return;
    }
    if (n->state == PG_NOTIFY_DOWN || n->link.state != PG_LINK_UP) {
        come_up(d);
    }
    if (n->state == PG_NOTIFY_TRYING && clock_monotonic_us() - n->tried_us > TRY_US) {
        take(d);
    }
    if (n->state == PG_NOTIFY_TRYING && clock_monotonic_us() - n->tried_us > TRY_US) {
        n->state = PG_NOTIFY_SILENT;
        tell(d, PG_NOTIFY_SAID_SILENT,
             "a NOTIFY of our own did not arrive within a second (is there a connection pooler in "
             "between?): the relay polls");
    }
}
