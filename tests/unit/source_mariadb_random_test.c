/* MariaDB's source under concurrent writers, with a model of what each target has: every committed
 * message is in its target's log once, each key's in the order of its transactions, whatever is
 * restarted, lost or late. */
#include <stdio.h>

#if FERRY_HAVE_MARIADB

#include <pthread.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "base/prng.h"
#include "unit/maria_fixture.h"

#define KEYS        6
#define TARGETS     3
#define WRITERS     6
#define MESSAGES    60000
#define FLIGHTS_MAX 4
#define BATCH_MAX   64
#define RUN_US      (6 * 1000 * 1000)

/* ---- Applications. */

struct ledger {
    const struct maria_fixture *f;
    atomic_int stop;
    atomic_int lost_connections_are_fine;
    atomic_long committed, messages, retries, insert_us_max, serial;
    pthread_mutex_t lock;
    char (*names)[24]; /* Of committed messages without a key. */
    size_t name_count;
    atomic_long versions[KEYS]; /* Committed of each key, at least. */
};

struct writer {
    struct ledger *ledger;
    struct prng p;
};

static bool run_sql(MYSQL *connection, const char *sql)
{
    if (mysql_query(connection, sql) != 0) {
        return false;
    }
    MYSQL_RES *result = mysql_store_result(connection);
    mysql_free_result(result);
    return true;
}

static int64_t select_number(MYSQL *connection, const char *sql)
{
    int64_t number = -1;
    if (mysql_query(connection, sql) == 0) {
        MYSQL_RES *result = mysql_store_result(connection);
        MYSQL_ROW row = result == NULL ? NULL : mysql_fetch_row(result);
        number = row == NULL || row[0] == NULL ? -1 : strtoll(row[0], NULL, 10);
        mysql_free_result(result);
    }
    return number;
}

static void pause_sometimes(struct prng *p)
{
    if (prng_below(p, 4) == 0) {
        usleep((useconds_t)prng_below(p, prng_below(p, 20) == 0 ? 60000 : 3000));
    }
}

static bool insert(struct writer *w, MYSQL *connection, const char *key, const char *payload)
{
    char sql[256];
    snprintf(sql, sizeof(sql),
             "INSERT INTO ferry_outbox (topic, mkey, payload) VALUES ('t', %s, '%s')", key,
             payload);
    int64_t before_us = clock_monotonic_us();
    bool done = run_sql(connection, sql);
    int64_t took_us = clock_monotonic_us() - before_us;
    if (took_us > w->ledger->insert_us_max) {
        w->ledger->insert_us_max = took_us;
    }
    return done;
}

static void remember(struct writer *w, const char *name, long key, int64_t version)
{
    struct ledger *l = w->ledger;
    pthread_mutex_lock(&l->lock);
    if (name[0] != '\0') {
        assert_true(l->name_count < MESSAGES);
        snprintf(l->names[l->name_count++], sizeof(l->names[0]), "%s", name);
    }
    if (key >= 0 && version > l->versions[key]) {
        l->versions[key] = version;
    }
    pthread_mutex_unlock(&l->lock);
}

/* Perhaps a message without a key, which takes its id before the lock; then the key's row, then its
 * message with the version. */
static bool transaction(struct writer *w, MYSQL *connection)
{
    char name[24] = "";
    char sql[128];
    char text[32];
    long key = (long)prng_below(&w->p, KEYS);
    bool good = run_sql(connection, "BEGIN");
    if (good && prng_below(&w->p, 3) == 0) {
        snprintf(name, sizeof(name), "free-%ld", ++w->ledger->serial);
        good = insert(w, connection, "NULL", name);
        pause_sometimes(&w->p);
    }
    snprintf(sql, sizeof(sql), "UPDATE account SET version = version + 1 WHERE k = %ld", key);
    good = good && run_sql(connection, sql);
    snprintf(sql, sizeof(sql), "SELECT version FROM account WHERE k = %ld", key);
    int64_t version = good ? select_number(connection, sql) : -1;
    snprintf(text, sizeof(text), "%lld", (long long)version);
    snprintf(sql, sizeof(sql), "'key-%ld'", key);
    good = good && version > 0 && insert(w, connection, sql, text);
    pause_sometimes(&w->p);
    if (!good || prng_below(&w->p, 6) == 0) {
        run_sql(connection, "ROLLBACK");
        return good;
    }
    if (run_sql(connection, "COMMIT")) {
        w->ledger->committed++;
        remember(w, name, key, version);
        return true;
    }
    return false;
}

static void *write_all(void *arg)
{
    struct writer *w = arg;
    MYSQL *connection = NULL;
    mysql_thread_init();
    while (!w->ledger->stop) {
        if (connection == NULL) {
            connection = maria_try_connect(w->ledger->f->server, w->ledger->f->database);
            if (connection == NULL) {
                usleep(20000);
                continue;
            }
        }
        if (!transaction(w, connection)) {
            w->ledger->retries++;
            if (mysql_errno(connection) >= 2000) {
                mysql_close(connection);
                connection = NULL;
            }
        }
    }
    if (connection != NULL) {
        mysql_close(connection);
    }
    mysql_thread_end();
    return NULL;
}

/* ---- A broker and a relay, as simple as they can be. */

struct message {
    int64_t number;
    char key[24];
    char payload[24];
};

struct flight {
    struct message rows[BATCH_MAX];
    int64_t positions[BATCH_MAX];
    size_t count;
    struct source_blob blob;
    bool applied;
};

struct target {
    struct message *log;
    size_t log_count;
    struct source_blob blob;
    struct source_mark *mark;
    struct flight flights[FLIGHTS_MAX];
    size_t flight_count;
    bool blocked; /* Waits for a rewind. */
};

struct world {
    struct maria_fixture *f;
    struct prng p;
    struct target targets[TARGETS];
    struct source_blob checkpoint;
    struct source_page page;
    int64_t low; /* Low mark. */
    int64_t last;
    int64_t blocked_from;
    bool more;
    size_t restarts, conflicts, retries, encoded_less, blob_bytes_max;
};

static void apply(struct target *t, struct flight *flight)
{
    if (!flight->applied) {
        memcpy(t->log + t->log_count, flight->rows, flight->count * sizeof(flight->rows[0]));
        t->log_count += flight->count;
        t->blob = flight->blob;
        flight->applied = true;
        assert_true(t->log_count < MESSAGES);
    }
}

static void low_mark(struct world *w)
{
    int64_t low = w->last;
    for (int i = 0; i < TARGETS; i++) {
        for (size_t k = 0; k < w->targets[i].flight_count; k++) {
            int64_t first = w->targets[i].flights[k].positions[0] - 1;
            low = first < low ? first : low;
        }
    }
    if (w->blocked_from > 0 && w->blocked_from - 1 < low) {
        low = w->blocked_from - 1;
    }
    w->low = low > w->low ? low : w->low;
}

static void acknowledge(struct world *w, struct target *t)
{
    if (t->flight_count == 0) {
        return;
    }
    apply(t, &t->flights[0]);
    w->f->source.ops->mark_acked(w->f->source.driver, t->mark, t->flights[0].count);
    t->flight_count--;
    memmove(&t->flights[0], &t->flights[1], t->flight_count * sizeof(t->flights[0]));
    low_mark(w);
}

static void block(struct world *w, struct target *t, int64_t position)
{
    t->blocked = true;
    if (w->blocked_from == 0 || position < w->blocked_from) {
        w->blocked_from = position;
    }
}

/* True when the batch is on its way. */
static bool send_batch(struct world *w, struct target *t, const struct source_row **rows,
                       size_t count, bool last)
{
    struct flight *flight = &t->flights[t->flight_count];
    if (t->blocked) {
        return false;
    }
    if (t->flight_count == FLIGHTS_MAX) {
        acknowledge(w, t);
        flight = &t->flights[t->flight_count];
    }
    size_t fits = w->f->source.ops->mark_encode(w->f->source.driver, t->mark, rows, count, last,
                                                &flight->blob);
    if (fits < count) {
        w->encoded_less++;
        if (fits == 0 || !send_batch(w, t, rows, fits, false)) {
            block(w, t, rows[0]->position);
        } else {
            block(w, t, rows[fits]->position);
        }
        return false;
    }
    w->blob_bytes_max =
        flight->blob.size > w->blob_bytes_max ? flight->blob.size : w->blob_bytes_max;
    assert_int_equal(w->f->source.ops->mark_add(w->f->source.driver, t->mark, rows, count, last),
                     FERRY_OK);
    flight->count = count;
    flight->applied = false;
    for (size_t i = 0; i < count; i++) {
        struct message *m = &flight->rows[i];
        m->number = rows[i]->number;
        flight->positions[i] = rows[i]->position;
        snprintf(m->key, sizeof(m->key), "%.*s", (int)rows[i]->message.key_bytes,
                 rows[i]->message.key == NULL ? "" : (const char *)rows[i]->message.key);
        snprintf(m->payload, sizeof(m->payload), "%.*s", (int)rows[i]->message.payload_bytes,
                 (const char *)rows[i]->message.payload);
    }
    t->flight_count++;
    if (prng_below(&w->p, 2) == 0) {
        for (size_t i = 0; i < t->flight_count; i++) {
            apply(t, &t->flights[i]);
        }
    }
    return true;
}

static size_t target_of(const struct source_row *row)
{
    return row->message.key == NULL ? (size_t)row->number % TARGETS
                                    : (size_t)((const char *)row->message.key)[4] % TARGETS;
}

static void publish_page(struct world *w)
{
    for (size_t i = 0; i < TARGETS; i++) {
        const struct source_row *rows[BATCH_MAX];
        size_t count = 0;
        for (size_t k = 0; k < w->page.count; k++) {
            const struct source_row *row = &w->page.rows[k];
            struct target *t = &w->targets[i];
            if (target_of(row) != i) {
                continue;
            }
            if (t->blocked) {
                block(w, t, row->position);
            } else if (w->f->source.ops->wants(w->f->source.driver, t->mark, row)) {
                rows[count++] = row;
                if (count == BATCH_MAX && (send_batch(w, t, rows, count, false), true)) {
                    count = 0;
                }
            }
        }
        if (count > 0) {
            send_batch(w, &w->targets[i], rows, count, true);
        }
    }
}

static void open_mark(struct world *w, struct target *t)
{
    struct err_text e = {{0}};
    bool same = false;
    bool again = false;
    enum ferry_err err = FERRY_ERR_DB_RETRY;
    for (int i = 0; i < 600 && err == FERRY_ERR_DB_RETRY; i++) {
        err = w->f->source.ops->mark_open(w->f->source.driver, bytes_of(t->blob.data, t->blob.size),
                                          &t->mark, &same, &again, &e);
        if (err == FERRY_ERR_DB_RETRY) {
            w->retries++;
            usleep(50000);
        }
    }
    if (err != FERRY_OK || !same) {
        fail_msg("mark_open: %s", e.text);
    }
}

/* Some of what was on its way arrived, in order; nobody is told which. */
static void lose_flights(struct world *w, struct target *t)
{
    size_t arrive = (size_t)prng_below(&w->p, t->flight_count + 1);
    for (size_t i = 0; i < arrive; i++) {
        apply(t, &t->flights[i]);
    }
    t->flight_count = 0;
}

static void rewind_now(struct world *w)
{
    w->f->source.ops->rewind(w->f->source.driver, w->low);
    w->blocked_from = 0;
    for (size_t i = 0; i < TARGETS; i++) {
        w->targets[i].blocked = false;
    }
    w->more = true;
}

static void conflict(struct world *w)
{
    struct target *t = &w->targets[prng_below(&w->p, TARGETS)];
    if (t->flight_count > 0) {
        block(w, t, t->flights[0].positions[0]);
    }
    lose_flights(w, t);
    w->f->source.ops->mark_close(w->f->source.driver, t->mark);
    open_mark(w, t);
    rewind_now(w);
    w->conflicts++;
}

static void begin(struct world *w)
{
    struct err_text e = {{0}};
    bool same = false;
    int64_t settled = 0;
    enum ferry_err err = FERRY_ERR_DB_RETRY;
    for (int i = 0; i < 600 && err == FERRY_ERR_DB_RETRY; i++) {
        err = w->f->source.ops->begin(w->f->source.driver,
                                      bytes_of(w->checkpoint.data, w->checkpoint.size), &settled,
                                      &same, &e);
        usleep(err == FERRY_OK ? 0 : 50000);
    }
    if (err != FERRY_OK || !same) {
        fail_msg("begin: %s", e.text);
    }
    w->low = settled;
    w->last = settled;
    w->blocked_from = 0;
    w->more = true;
    for (size_t i = 0; i < TARGETS; i++) {
        w->targets[i].blocked = false;
        open_mark(w, &w->targets[i]);
    }
}

static void restart(struct world *w, bool new_process)
{
    for (size_t i = 0; i < TARGETS; i++) {
        lose_flights(w, &w->targets[i]);
        w->f->source.ops->mark_close(w->f->source.driver, w->targets[i].mark);
    }
    if (new_process) {
        source_close(&w->f->source);
        maria_open_source(w->f);
    }
    begin(w);
    w->restarts++;
}

static void tidy(struct world *w, bool all)
{
    struct err_text e = {{0}};
    size_t removed = 0;
    bool again = false;
    struct source_progress progress = {.settled = w->low, .stopping = all, .quiet = all};
    enum ferry_err err = source_tidy(&w->f->source, &progress, &removed, &again, &e);
    if (err == FERRY_ERR_DB_RETRY) {
        w->retries++;
    } else if (err != FERRY_OK) {
        fail_msg("tidy: %s", e.text);
    }
}

static void look(struct world *w)
{
    struct err_text e = {{0}};
    bool yes = false;
    enum ferry_err err = FERRY_OK;
    if (!w->more) {
        err = w->f->source.ops->changed(w->f->source.driver, &yes, &e);
    }
    if (err == FERRY_OK && (w->more || yes)) {
        size_t rows_max = 1 + (size_t)prng_below(&w->p, 300);
        err =
            w->f->source.ops->read(w->f->source.driver, rows_max, 1 << 20, &w->page, &w->more, &e);
        if (err == FERRY_OK && w->page.count > 0) {
            w->last = w->page.rows[w->page.count - 1].position;
            publish_page(w);
            low_mark(w);
        }
    }
    if (err == FERRY_ERR_DB_RETRY) {
        w->retries++;
        usleep(2000);
    } else if (err != FERRY_OK) {
        fail_msg("%s", e.text);
    }
}

static void step(struct world *w)
{
    look(w);
    for (size_t i = 0; i < TARGETS; i++) {
        if (prng_below(&w->p, 2) == 0) {
            acknowledge(w, &w->targets[i]);
        }
    }
    tidy(w, false);
    if (w->blocked_from > 0 && prng_below(&w->p, 10) == 0) {
        rewind_now(w);
    }
    if (prng_below(&w->p, 20) == 0) {
        w->f->source.ops->checkpoint(w->f->source.driver, w->low, &w->checkpoint);
    }
    if (prng_below(&w->p, 150) == 0) {
        conflict(w);
    }
    if (prng_below(&w->p, 400) == 0) {
        restart(w, prng_below(&w->p, 2) == 0);
    }
    handout_check(&w->f->s->handout);
}

/* Until nothing is left. */
static void drain(struct world *w)
{
    int64_t end_us = clock_monotonic_us() + 60 * 1000000;
    int quiet = 0;
    while (quiet < 3) {
        look(w);
        if (w->blocked_from > 0) {
            rewind_now(w);
        }
        for (size_t i = 0; i < TARGETS; i++) {
            while (w->targets[i].flight_count > 0) {
                acknowledge(w, &w->targets[i]);
            }
        }
        low_mark(w);
        tidy(w, true);
        int64_t left = maria_number(w->f, "SELECT COUNT(*) FROM ferry_outbox");
        quiet = left == 0 && !w->more && w->blocked_from == 0 ? quiet + 1 : 0;
        if (clock_monotonic_us() >= end_us) {
            fail_msg("%lld rows are left", (long long)left);
        }
    }
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void check_logs(struct world *w, struct ledger *l)
{
    char(*names)[24] = calloc(MESSAGES, sizeof(*names));
    size_t name_count = 0;
    int64_t versions[KEYS] = {0};
    for (size_t i = 0; i < TARGETS; i++) {
        for (size_t k = 0; k < w->targets[i].log_count; k++) {
            const struct message *m = &w->targets[i].log[k];
            if (m->key[0] == '\0') {
                snprintf(names[name_count++], sizeof(*names), "%s", m->payload);
                continue;
            }
            int key = m->key[4] - '0';
            if (strtoll(m->payload, NULL, 10) != versions[key] + 1) {
                fail_msg("key %d: version %s came after %lld", key, m->payload,
                         (long long)versions[key]);
            }
            versions[key]++;
        }
    }
    for (int key = 0; key < KEYS; key++) {
        char sql[96];
        snprintf(sql, sizeof(sql), "SELECT version FROM account WHERE k = %d", key);
        assert_int_equal(versions[key], maria_number(w->f, sql));
        assert_true(versions[key] >= l->versions[key]);
    }
    qsort(names, name_count, sizeof(*names), compare_names);
    qsort(l->names, l->name_count, sizeof(*l->names), compare_names);
    size_t at = 0;
    for (size_t i = 0; i < name_count; i++) {
        assert_true(i == 0 || strcmp(names[i], names[i - 1]) != 0);
        if (at < l->name_count && strcmp(names[i], l->names[at]) == 0) {
            at++;
        } else {
            assert_true(l->lost_connections_are_fine); /* Committed, and the answer was lost. */
        }
    }
    assert_int_equal(at, l->name_count);
    free(names);
}

static void world_init(struct world *w, struct maria_fixture *f, uint64_t seed)
{
    memset(w, 0, sizeof(*w));
    w->f = f;
    prng_init(&w->p, seed);
    source_page_init(&w->page);
    for (size_t i = 0; i < TARGETS; i++) {
        w->targets[i].log = calloc(MESSAGES, sizeof(struct message));
        assert_non_null(w->targets[i].log);
    }
    begin(w);
}

static void world_fini(struct world *w)
{
    for (size_t i = 0; i < TARGETS; i++) {
        w->f->source.ops->mark_close(w->f->source.driver, w->targets[i].mark);
        free(w->targets[i].log);
    }
    source_page_fini(&w->page);
}

static void run(struct maria_fixture *f, uint64_t seed, void (*disturb)(struct world *, int64_t))
{
    struct world *w = malloc(sizeof(*w));
    struct ledger ledger = {.f = f, .lock = PTHREAD_MUTEX_INITIALIZER};
    struct writer writers[WRITERS];
    pthread_t threads[WRITERS];
    assert_non_null(w);
    ledger.lost_connections_are_fine = disturb != NULL;
    ledger.names = calloc(MESSAGES, sizeof(*ledger.names));
    maria_exec(f, "CREATE TABLE account (k INT PRIMARY KEY, version BIGINT NOT NULL)");
    for (int i = 0; i < KEYS; i++) {
        maria_exec(f, "INSERT INTO account VALUES (%d, 0)", i);
    }
    world_init(w, f, seed);
    for (size_t i = 0; i < WRITERS; i++) {
        writers[i].ledger = &ledger;
        prng_init(&writers[i].p, seed * 100 + i);
        assert_int_equal(pthread_create(&threads[i], NULL, write_all, &writers[i]), 0);
    }
    int64_t start_us = clock_monotonic_us();
    while (clock_monotonic_us() < start_us + RUN_US) {
        step(w);
        if (disturb != NULL) {
            disturb(w, clock_monotonic_us() - start_us);
        }
    }
    ledger.stop = 1;
    for (size_t i = 0; i < WRITERS; i++) {
        pthread_join(threads[i], NULL);
    }
    drain(w);
    check_logs(w, &ledger);
    fprintf(stderr,
            "%ld transactions, %ld failed, slowest insert %ld us; restarts %zu, conflicts %zu, "
            "retries %zu, encoded less %zu, greatest mark %zu bytes, full comparison %lld us\n",
            (long)ledger.committed, (long)ledger.retries, (long)ledger.insert_us_max, w->restarts,
            w->conflicts, w->retries, w->encoded_less, w->blob_bytes_max, (long long)f->s->full_us);
    if (disturb == NULL) {
        assert_int_equal(ledger.retries, 0); /* Nothing of ours made an application wait or fail. */
    }
    world_fini(w);
    free(w);
    free(ledger.names);
}

/* Late commits, rollbacks, conflicts and restarts: nothing is lost, twice, or out of a key's order.
 */
static void everything_is_published_once_and_in_order(void **state)
{
    run(*state, 1, NULL);
}

static void kill_the_server(struct world *w, int64_t passed_us)
{
    static int64_t killed_us; /* Of this test alone. */
    if (passed_us - killed_us > 1500000 && passed_us < RUN_US - 1000000) {
        killed_us = passed_us;
        maria_stop(w->f->server, SIGKILL);
        maria_start(w->f->server);
        mysql_close(w->f->connection);
        w->f->connection = maria_connect(w->f);
    }
}

/* The same while mariadbd is killed and recovers: what was published was on disk. */
static void a_killed_server_takes_nothing_back(void **state)
{
    run(*state, 2, kill_the_server);
}

int main(void)
{
    if (!maria_installed()) {
        fprintf(stderr, "SKIPPED: mariadbd is not installed\n");
        return 0;
    }
    const struct CMUnitTest tests[] = {
        MARIA_TEST(everything_is_published_once_and_in_order),
        MARIA_TEST(a_killed_server_takes_nothing_back),
    };
    return cmocka_run_group_tests(tests, maria_group_setup, maria_group_teardown);
}

#else

int main(void)
{
    fprintf(stderr, "SKIPPED: built without libmariadb\n");
    return 0;
}

#endif
