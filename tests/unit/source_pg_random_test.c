/* The PostgreSQL source under writers that commit late, roll back and hold locks, and relays that
 * die at any point: what the targets hold is compared with what was committed. */
#include "source_pg_fixture.h"

#include <pthread.h>
#include <stdatomic.h>

#define WRITERS 6
#define KEYS    8
#define STEPS   700

struct writer {
    struct database_link link;
    bool open;
    int locks; /* Keys it holds, as bits. */
};

static uint64_t seed_of(void)
{
    const char *given = getenv("FERRY_SEED");
    return given != NULL ? strtoull(given, NULL, 10) : (uint64_t)clock_monotonic_us();
}

/* Puts a row of a key whose lock nobody else holds: the lock first, then the number. */
static void writer_put(struct writer *writers, int at, struct prng *p)
{
    struct writer *w = &writers[at];
    int key = (int)prng_below(p, KEYS);
    for (int i = 0; i < WRITERS; i++) {
        if (i != at && (writers[i].locks & (1 << key)) != 0) {
            return; /* It would wait for ever: this is one thread. */
        }
    }
    char sql[64];
    char name[16];
    snprintf(name, sizeof(name), "key-%d", key);
    if (!w->open) {
        database_exec(&w->link, "BEGIN");
        w->open = true;
    }
    w->locks |= 1 << key;
    bool nested = prng_below(p, 4) == 0;
    if (nested) {
        database_exec(&w->link, "SAVEPOINT s");
    }
    snprintf(sql, sizeof(sql), "SELECT pg_advisory_xact_lock(%d)", key);
    database_exec(&w->link, sql);
    for (uint64_t n = 1 + prng_below(p, 4); n > 0; n--) {
        put(&w->link, name, "payload");
    }
    if (nested && prng_below(p, 2) == 0) {
        database_exec(&w->link,
                      "ROLLBACK TO s"); /* `locks` keeps others away from its key all the same. */
    }
}

static void writer_end(struct writer *w, struct prng *p)
{
    if (w->open) {
        database_exec(&w->link, prng_below(p, 5) == 0 ? "ROLLBACK" : "COMMIT");
        w->open = false;
        w->locks = 0;
    }
}

/* Rows of one key are in their target's log by rising number: whoever waited for the lock took its
 * number later. */
static void check_order(struct relay_twin *t, struct database *db)
{
    int64_t last[KEYS] = {0};
    for (int i = 0; i < TARGETS; i++) {
        for (size_t at = 0; at < t->targets[i].count; at++) {
            char sql[128];
            snprintf(sql, sizeof(sql),
                     "SELECT right(convert_from(mkey, 'UTF8'), 1) FROM ledger WHERE seq = %lld",
                     (long long)t->targets[i].log[at]);
            int64_t key = atoll(database_text(&db->a, sql));
            if (t->targets[i].log[at] <= last[key]) {
                fail_msg("key %lld: row %lld came after row %lld", (long long)key,
                         (long long)t->targets[i].log[at], (long long)last[key]);
            }
            last[key] = t->targets[i].log[at];
        }
    }
}

static void run(uint64_t seed)
{
    struct database db = {0};
    struct relay_twin twin = {.page_rows = 3};
    struct writer writers[WRITERS] = {0};
    struct prng p;
    prng_init(&p, seed);
    printf("seed %llu\n", (unsigned long long)seed);
    fixture_open(&db);
    twin.chaos = &p;
    twin_open(&twin, db.url);
    for (int i = 0; i < WRITERS; i++) {
        database_connect(&db, &writers[i].link);
    }
    for (int step = 0; step < STEPS; step++) {
        bool more = false;
        int at = (int)prng_below(&p, WRITERS);
        switch (prng_below(&p, 12)) {
        case 0:
        case 1:
        case 2:
            writer_put(writers, at, &p);
            break;
        case 3:
        case 4:
            writer_end(&writers[at], &p);
            break;
        case 5:
            twin_checkpoint(&twin);
            break;
        case 6:
            if (prng_below(&p, 3) == 0) {
                twin_kill(&twin);
                twin.page_rows = 1 + prng_below(&p, 9);
                twin_open(&twin, db.url);
            }
            break;
        default:
            (void)twin_step(&twin, &more);
            break;
        }
    }
    for (int i = 0; i < WRITERS; i++) {
        writer_end(&writers[i], &p);
    }
    twin_drain(&twin);
    twin_check_all(&twin, &db);
    check_order(&twin, &db);
    for (int i = 0; i < WRITERS; i++) {
        database_disconnect(&writers[i].link);
    }
    twin_kill(&twin);
    twin_free(&twin);
    database_close(&db);
}

static void nothing_is_lost_or_twice_whatever_dies(void **state)
{
    (void)state;
    if (!database_available(DATABASE_POSTGRESQL)) {
        skip();
    }
    uint64_t seed = seed_of();
    const char *rounds = getenv("FERRY_ROUNDS");
    for (int round = 0; round < (rounds == NULL ? 3 : atoi(rounds)); round++) {
        run(seed + (uint64_t)round);
    }
}

/* ---- Truly at once: threads that wait for each other's rows, nest, prepare and roll back, while
 * leaves of the ring fill up and are emptied. */

#define SECONDS 4

struct parallel {
    struct database *db;
    atomic_bool stop;
    uint64_t seed;
    pthread_t thread;
    int number;
    uint64_t commits, prepared, failures;
};

/* The lock of the key's row first, as an application's UPDATE takes it; then the number. */
static bool parallel_put(struct database_link *link, struct prng *p)
{
    char sql[512];
    int key = (int)prng_below(p, KEYS);
    bool nested = prng_below(p, 3) == 0;
    int rows = 1 + (int)prng_below(p, 3);
    snprintf(sql, sizeof(sql),
             "%sUPDATE account SET n = n + 1 WHERE k = %d; WITH p AS (INSERT INTO ferry.outbox "
             "(topic, mkey, payload) SELECT 't', 'key-%d', 'x' FROM generate_series(1, %d) "
             "RETURNING seq, mkey) INSERT INTO ledger SELECT seq, mkey FROM p%s",
             nested ? "SAVEPOINT s; " : "", key, key, rows,
             !nested                 ? ""
             : prng_below(p, 2) == 0 ? "; ROLLBACK TO s"
                                     : "; RELEASE s");
    return database_try(link, sql);
}

static bool parallel_end(struct parallel *w, struct database_link *link, struct prng *p)
{
    char sql[96];
    if (prng_below(p, 4) == 0) {
        usleep((useconds_t)prng_below(p, 30000));
    }
    switch (prng_below(p, 8)) {
    case 0:
        return !database_try(link, "ROLLBACK");
    case 1:
        snprintf(sql, sizeof(sql), "PREPARE TRANSACTION 'w%d'", w->number);
        if (!database_try(link, sql)) {
            return false;
        }
        usleep((useconds_t)prng_below(p, 20000));
        snprintf(sql, sizeof(sql), "%s PREPARED 'w%d'",
                 prng_below(p, 3) == 0 ? "ROLLBACK" : "COMMIT", w->number);
        w->prepared++;
        return database_try(link, sql);
    default:
        return database_try(link, "COMMIT");
    }
}

static void *parallel_run(void *arg)
{
    struct parallel *w = arg;
    struct database_link link = {0};
    struct prng p;
    prng_init(&p, w->seed);
    database_connect(w->db, &link);
    (void)database_try(&link, "SET client_min_messages = error");
    if (w->number % 2 == 0) {
        (void)database_try(&link, "SET synchronous_commit = off");
    }
    while (!atomic_load(&w->stop)) {
        bool ok = database_try(&link, "BEGIN");
        for (uint64_t n = 1 + prng_below(&p, 3); ok && n > 0; n--) {
            ok = parallel_put(&link, &p); /* False: a deadlock. */
        }
        if (ok && parallel_end(w, &link, &p)) {
            w->commits++;
        } else {
            w->failures++;
            (void)database_try(&link, "ROLLBACK");
        }
    }
    database_disconnect(&link);
    return NULL;
}

/* The next leaf, whoever takes numbers meanwhile. */
static void next_leaf(struct database *db)
{
    database_text(&db->a, "SELECT setval('ferry.outbox_seq', ((last_value >> 20) + 1) << 20) "
                          "FROM ferry.outbox_seq");
}

static void parallel_tidy(struct relay_twin *t, int64_t *looks)
{
    struct err_text e = {{0}};
    size_t removed = 0;
    bool again = false;
    struct source_progress progress = {.settled = twin_low(t),
                                       .checkpointed = twin_low(t),
                                       .now_us = clock_monotonic_us() + ++*looks * 300000};
    twin_checkpoint(t);
    enum ferry_err err = t->source.ops->tidy(t->source.driver, &progress, &removed, &again, &e);
    if (err != FERRY_OK && err != FERRY_ERR_DB_RETRY) {
        fail_msg("tidy: %s", e.text);
    }
}

static uint64_t truncates(struct relay_twin *t)
{
    struct err_text e;
    struct source_figures figures = {0};
    (void)t->source.ops->figures(t->source.driver, 0, &figures, &e);
    return figures.truncates;
}

static void parallel_relay(struct relay_twin *twin, struct database *db, struct prng *p)
{
    int64_t until_us = clock_monotonic_us() + (int64_t)SECONDS * 1000000;
    int64_t looks = 0;
    uint64_t emptied = 0;
    bool more = false;
    while (clock_monotonic_us() < until_us) {
        uint64_t what = prng_below(p, 200);
        if (what == 0) {
            emptied += truncates(twin);
            twin_kill(twin);
            twin->page_rows = 1 + prng_below(p, 40);
            twin->page_bytes = 1 + prng_below(p, 60);
            twin_open(twin, db->url);
        } else if (what < 3) {
            next_leaf(db);
        } else if (what < 20) {
            parallel_tidy(twin, &looks);
        } else {
            (void)twin_step(twin, &more);
        }
    }
    printf("%llu leaves emptied\n", (unsigned long long)(emptied + truncates(twin)));
}

static void parallel_round(uint64_t seed)
{
    struct database db = {0};
    struct relay_twin twin = {.page_rows = 20, .page_bytes = 40};
    static struct parallel writers[WRITERS];
    struct prng p;
    prng_init(&p, seed);
    printf("seed %llu\n", (unsigned long long)seed);
    fixture_open(&db);
    database_exec(&db.a, "CREATE TABLE account AS SELECT k, 0 AS n FROM generate_series(0, 7) k; "
                         "ALTER TABLE account ADD PRIMARY KEY (k)");
    twin.chaos = &p;
    twin_open(&twin, db.url);
    for (int i = 0; i < WRITERS; i++) {
        writers[i] = (struct parallel){.db = &db, .seed = prng_next(&p), .number = i};
        assert_int_equal(pthread_create(&writers[i].thread, NULL, parallel_run, &writers[i]), 0);
    }
    parallel_relay(&twin, &db, &p);
    uint64_t commits = 0;
    uint64_t prepared = 0;
    uint64_t failures = 0;
    for (int i = 0; i < WRITERS; i++) {
        atomic_store(&writers[i].stop, true);
        pthread_join(writers[i].thread, NULL);
        commits += writers[i].commits;
        prepared += writers[i].prepared;
        failures += writers[i].failures;
    }
    twin.page_rows = 4096;
    twin_drain(&twin);
    printf("%llu commits, %llu prepared, %llu not; %zu rows\n", (unsigned long long)commits,
           (unsigned long long)prepared, (unsigned long long)failures, twin_total(&twin));
    database_exec(&db.a, "CREATE INDEX ON ledger (seq)");
    twin_check_all(&twin, &db);
    check_order(&twin, &db);
    twin_kill(&twin);
    twin_free(&twin);
    database_close(&db);
}

static void nothing_is_lost_or_twice_with_writers_at_once(void **state)
{
    (void)state;
    if (!database_available(DATABASE_POSTGRESQL)) {
        skip();
    }
    struct database db = {0};
    database_open(&db, DATABASE_POSTGRESQL);
    database_exec(&db.a, "ALTER SYSTEM SET max_prepared_transactions = 20");
    database_exec(&db.a, "ALTER SYSTEM SET deadlock_timeout = '20ms'");
    database_server_crash(DATABASE_POSTGRESQL);
    database_server_start(DATABASE_POSTGRESQL);
    database_reconnect(&db, &db.a);
    database_close(&db);
    uint64_t seed = seed_of();
    const char *rounds = getenv("FERRY_ROUNDS");
    for (int round = 0; round < (rounds == NULL ? 1 : atoi(rounds)); round++) {
        parallel_round(seed + (uint64_t)round);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_lost_or_twice_whatever_dies),
        cmocka_unit_test(nothing_is_lost_or_twice_with_writers_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
