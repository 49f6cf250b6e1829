/* control_relay: the outbox relay that most teams write, in C, in front of a sink that counts. It
 * separates the design from the language: what Ferry's relay is compared with, beside products.
 *
 *   control_relay CONNINFO setup            makes control.outbox
 *   control_relay CONNINFO fill ROWS BYTES
 *   control_relay CONNINFO drain ROWS BATCH  until the sink has ROWS; prints JSON
 *   control_relay CONNINFO latency COUNT BATCH POLL_MS
 *
 * One transaction a batch: claim the oldest unsent rows by FOR UPDATE SKIP LOCKED, hand them to the
 * sink, UPDATE … SET sent. Statements are prepared and results binary. */
#include <inttypes.h>
#include <libpq-fe.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "base/clock.h"

#define LATENCIES_MAX 100000

static const char setup_sql[] =
    "DROP SCHEMA IF EXISTS control CASCADE; CREATE SCHEMA control;"
    "CREATE TABLE control.outbox (id bigserial PRIMARY KEY, topic text NOT NULL, mkey bytea,"
    " msg_id uuid NOT NULL DEFAULT gen_random_uuid(), headers jsonb, payload bytea NOT NULL,"
    " created_at timestamptz NOT NULL DEFAULT now(), sent_at timestamptz);"
    "CREATE INDEX ON control.outbox (id) WHERE sent_at IS NULL;";

static const char fill_sql[] =
    "INSERT INTO control.outbox (topic, mkey, payload) SELECT 'bench',"
    " convert_to('key-' || n % 1000, 'UTF8'), convert_to(repeat('x', $2::int), 'UTF8')"
    " FROM generate_series(1, $1::int) n";

static const char claim_sql[] =
    "SELECT id, topic, mkey, msg_id, headers, payload FROM control.outbox WHERE sent_at IS NULL"
    " ORDER BY id LIMIT $1::bigint FOR UPDATE SKIP LOCKED";

static const char sent_sql[] =
    "UPDATE control.outbox SET sent_at = clock_timestamp() WHERE id = ANY($1::bigint[])";

static PGresult *checked(PGconn *c, PGresult *r)
{
    ExecStatusType status = PQresultStatus(r);
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) {
        fprintf(stderr, "control_relay: %s", PQerrorMessage(c));
        exit(1);
    }
    return r;
}

static void run(PGconn *c, const char *sql)
{
    PQclear(checked(c, PQexec(c, sql)));
}

static PGconn *connect_to(const char *conninfo)
{
    PGconn *c = PQconnectdb(conninfo);
    if (PQstatus(c) != CONNECTION_OK) {
        fprintf(stderr, "control_relay: %s", PQerrorMessage(c));
        exit(1);
    }
    return c;
}

/* ---- The relay. */

struct relay {
    PGconn *c;
    char batch[16];
    char *ids; /* An array literal. */
    size_t ids_capacity;
    uint64_t bytes; /* What the sink was given. */
};

static void relay_open(struct relay *r, const char *conninfo, const char *batch)
{
    *r = (struct relay){.c = connect_to(conninfo)};
    snprintf(r->batch, sizeof(r->batch), "%s", batch);
    r->ids_capacity = (size_t)atol(batch) * 21 + 3;
    r->ids = malloc(r->ids_capacity);
    PQclear(checked(r->c, PQprepare(r->c, "claim", claim_sql, 0, NULL)));
    PQclear(checked(r->c, PQprepare(r->c, "sent", sent_sql, 0, NULL)));
}

static void relay_close(struct relay *r)
{
    PQfinish(r->c);
    free(r->ids);
}

static uint64_t id_of(const PGresult *rows, int row)
{
    const unsigned char *p = (const unsigned char *)PQgetvalue(rows, row, 0);
    uint64_t id = 0;
    for (int i = 0; i < 8; i++) {
        id = id << 8 | p[i];
    }
    return id;
}

/* The sink: looks at what it was given, so that nobody can say it was not handed over. */
static void sink(struct relay *r, const PGresult *rows, int row)
{
    r->bytes += (uint64_t)PQgetlength(rows, row, 5);
}

static int relay_batch(struct relay *r)
{
    const char *values[1] = {r->batch};
    run(r->c, "BEGIN");
    PGresult *rows = checked(r->c, PQexecPrepared(r->c, "claim", 1, values, NULL, NULL, 1));
    int count = PQntuples(rows);
    size_t at = 0;
    for (int row = 0; row < count; row++) {
        sink(r, rows, row);
        at += (size_t)snprintf(r->ids + at, r->ids_capacity - at, "%c%" PRIu64,
                               row == 0 ? '{' : ',', id_of(rows, row));
    }
    PQclear(rows);
    if (count > 0) {
        snprintf(r->ids + at, r->ids_capacity - at, "}");
        values[0] = r->ids;
        PQclear(checked(r->c, PQexecPrepared(r->c, "sent", 1, values, NULL, NULL, 1)));
    }
    run(r->c, "COMMIT");
    return count;
}

/* ---- Commands. */

static void setup(const char *conninfo)
{
    PGconn *c = connect_to(conninfo);
    run(c, "SET client_min_messages = warning");
    run(c, setup_sql);
    PQfinish(c);
}

static void fill(const char *conninfo, const char *rows, const char *bytes)
{
    const char *values[2] = {rows, bytes};
    PGconn *c = connect_to(conninfo);
    PQclear(checked(c, PQexecParams(c, fill_sql, 2, NULL, values, NULL, NULL, 0)));
    run(c, "VACUUM ANALYZE control.outbox");
    PQfinish(c);
}

static double cpu_us(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static void drain(const char *conninfo, int64_t rows, const char *batch)
{
    struct relay r;
    relay_open(&r, conninfo, batch);
    int64_t done = 0;
    int64_t began_us = clock_monotonic_us();
    double cpu_began_us = cpu_us();
    while (done < rows) {
        done += relay_batch(&r);
    }
    double seconds = (double)(clock_monotonic_us() - began_us) / 1e6;
    printf("{\"peer\":\"control\",\"rows\":%" PRId64 ",\"seconds\":%.3f,\"rows_per_second\":%.0f,"
           "\"cpu_us_per_row\":%.2f,\"bytes\":%" PRIu64 "}\n",
           done, seconds, (double)done / seconds, (cpu_us() - cpu_began_us) / (double)done,
           r.bytes);
    relay_close(&r);
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

/* One process: the application's commit, then the relay polls as it would beside it. The next poll
 * is due at a time that does not depend on the commit. */
static void latency(const char *conninfo, int64_t count, const char *batch, int64_t poll_ms)
{
    static int64_t took[LATENCIES_MAX];
    struct relay r;
    const char *values[2] = {"1", "200"};
    PGconn *app = connect_to(conninfo);
    relay_open(&r, conninfo, batch);
    for (int64_t n = 0; n < count; n++) {
        int64_t poll_at_us = clock_monotonic_us() + n * 7919 % (poll_ms * 1000 + 1);
        PQclear(checked(app, PQexecParams(app, fill_sql, 2, NULL, values, NULL, NULL, 0)));
        int64_t began_us = clock_monotonic_us();
        int64_t wait_us = poll_at_us - began_us;
        if (wait_us > 0) {
            nanosleep(&(struct timespec){wait_us / 1000000, wait_us % 1000000 * 1000}, NULL);
        }
        while (relay_batch(&r) == 0) {
        }
        took[n] = clock_monotonic_us() - began_us;
    }
    qsort(took, (size_t)count, sizeof(took[0]), by_value);
    printf("{\"peer\":\"control\",\"latency_us\":{\"p50\":%" PRId64 ",\"p99\":%" PRId64 "}}\n",
           took[(count - 1) / 2], took[(count - 1) * 99 / 100]);
    PQfinish(app);
    relay_close(&r);
}

int main(int argc, char **argv)
{
    const char *command = argc > 2 ? argv[2] : "";
    if (argc == 3 && strcmp(command, "setup") == 0) {
        setup(argv[1]);
    } else if (argc == 5 && strcmp(command, "fill") == 0) {
        fill(argv[1], argv[3], argv[4]);
    } else if (argc == 5 && strcmp(command, "drain") == 0 && atol(argv[4]) > 0) {
        drain(argv[1], atol(argv[3]), argv[4]);
    } else if (argc == 6 && strcmp(command, "latency") == 0 && atol(argv[3]) <= LATENCIES_MAX) {
        latency(argv[1], atol(argv[3]), argv[4], atol(argv[5]));
    } else {
        fputs("usage: control_relay CONNINFO setup | fill ROWS BYTES | drain ROWS BATCH |\n"
              "       latency COUNT BATCH POLL_MS\n",
              stderr);
        return 2;
    }
    return 0;
}
