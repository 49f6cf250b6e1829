/* A relay inside an application, on real databases, against a real broker in the same process: what
 * is committed is received; one of two is active; what is wrong is told. A relay that is to be
 * killed is this program once more. */
#include <dirent.h>
#include <ftw.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "databases_fixture.h"
#include "ferry_broker.h"

#define TOPIC       "sales"
#define PATIENCE_MS 20000
#define STEP_MS     20
#define ROWS        60
#define TAKEOVER_MS 1500
#define HANDOVER_MS 800 /* Below the lease, which is a second. */

struct world {
    struct database d;
    char folder[64]; /* The broker's. */
    char servers[160];
    char detail[512];
    struct ferry_broker *broker;
    struct ferry_client *client;
    struct ferry_consumer *consumer;
    long received;
};

/* ---- The broker, and its reader. */

static void broker_up(struct world *w)
{
    char data[128], listen[200];
    (void)snprintf(data, sizeof(data), "node.data=%s", w->folder);
    (void)snprintf(listen, sizeof(listen), "listen.endpoint=%s",
                   w->servers[0] == '\0' ? "tcp://127.0.0.1:*" : w->servers);
    const char *options[] = {data, listen, "topic.auto_create=false"};
    assert_int_equal(ferry_broker_start(&w->broker, options, 3, w->detail, sizeof(w->detail)),
                     FERRY_OK);
    (void)snprintf(w->servers, sizeof(w->servers), "%s", ferry_broker_endpoint(w->broker));
}

static void reader_up(struct world *w)
{
    struct ferry_conf *conf = NULL;
    assert_int_equal(ferry_conf_new(&conf), FERRY_OK);
    assert_int_equal(ferry_conf_set(conf, "servers", w->servers, NULL, 0), FERRY_OK);
    assert_int_equal(ferry_open(&w->client, &conf, w->detail, sizeof(w->detail)), FERRY_OK);
    struct ferry_topic_spec spec = {.name = TOPIC, .partitions = 1};
    assert_int_equal(ferry_topic_create(w->client, &spec, 5000), FERRY_OK);
    assert_int_equal(
        ferry_consumer_open(&w->consumer, w->client, TOPIC, NULL, FERRY_FROM_START, 5000),
        FERRY_OK);
}

static bool take_one_batch(struct world *w, int timeout_ms)
{
    struct ferry_batch *batch = NULL;
    if (ferry_consumer_fetch(w->consumer, timeout_ms, &batch) != FERRY_OK) {
        return false;
    }
    w->received += (long)ferry_batch_count(batch);
    ferry_batch_free(&batch);
    return true;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

static int world_setup(void **state, enum database_kind kind)
{
    struct world *w = calloc(1, sizeof(*w));
    assert_non_null(w);
    *state = w;
    if (database_available(kind)) {
        (void)snprintf(w->folder, sizeof(w->folder), "/tmp/ferry_embedded_XXXXXX");
        assert_non_null(mkdtemp(w->folder));
        database_open_migrated(&w->d, kind);
        broker_up(w);
        reader_up(w);
    }
    return 0;
}

static int world_teardown(void **state)
{
    struct world *w = *state;
    ferry_consumer_close(&w->consumer);
    ferry_close(&w->client, 1000);
    ferry_broker_stop(&w->broker);
    if (w->folder[0] != '\0') {
        (void)nftw(w->folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    }
    database_close(&w->d);
    free(w);
    return 0;
}

static int with_sqlite(void **state)
{
    return world_setup(state, DATABASE_SQLITE);
}

static int with_postgresql(void **state)
{
    return world_setup(state, DATABASE_POSTGRESQL);
}

static int with_mariadb(void **state)
{
    return world_setup(state, DATABASE_MARIADB);
}

static struct world *world_of(void **state)
{
    struct world *w = *state;
    if (w->d.name[0] == '\0') {
        skip();
    }
    return w;
}

#define TEST_ON(test, kind)                                                                        \
    {                                                                                              \
#test " with " #kind, test, with_##kind, world_teardown, NULL                              \
    }

/* ---- Relays. */

static enum ferry_err open_relay(struct world *w, struct ferry_relay **relay, const char *more)
{
    char db[300], servers[200];
    (void)snprintf(db, sizeof(db), "relay.db=%s", w->d.url);
    (void)snprintf(servers, sizeof(servers), "relay.servers=%s", w->servers);
    const char *options[] = {db, servers, "relay.retry_max_ms=200ms", more};
    return ferry_relay_open(relay, options, more == NULL ? 3 : 4, w->detail, sizeof(w->detail));
}

struct thread {
    struct ferry_relay *relay;
    atomic_bool stop;
    atomic_int err;
    pthread_t id;
};

static void *run_relay(void *arg)
{
    struct thread *t = arg;
    while (!atomic_load(&t->stop)) {
        enum ferry_err err = ferry_relay_step(t->relay, STEP_MS);
        if (err != FERRY_OK) {
            atomic_store(&t->err, (int)err);
        }
    }
    return NULL;
}

static void thread_start(struct world *w, struct thread *t, const char *more)
{
    atomic_init(&t->stop, false);
    atomic_init(&t->err, 0);
    assert_int_equal(open_relay(w, &t->relay, more), FERRY_OK);
    assert_int_equal(pthread_create(&t->id, NULL, run_relay, t), 0);
}

static void thread_stop(struct thread *t)
{
    atomic_store(&t->stop, true);
    ferry_relay_wake(t->relay);
    pthread_join(t->id, NULL);
    assert_int_equal(atomic_load(&t->err), 0);
}

static enum ferry_relay_state state_of(struct thread *t)
{
    struct ferry_relay_status status;
    ferry_relay_status(t->relay, &status);
    return status.state;
}

static void until_state(struct thread *t, enum ferry_relay_state state)
{
    int64_t until_us = clock_monotonic_us() + PATIENCE_MS * 1000LL;
    while (state_of(t) != state) {
        assert_true(clock_monotonic_us() < until_us);
        (void)usleep(1000);
    }
}

static void until_received(struct world *w, long count)
{
    int64_t until_us = clock_monotonic_us() + PATIENCE_MS * 1000LL;
    while (w->received < count) {
        assert_true(clock_monotonic_us() < until_us);
        (void)take_one_batch(w, 100);
    }
}

static void put_row(struct world *w)
{
    struct ferry_message message = {.topic = TOPIC, .payload = "x", .payload_bytes = 1};
    database_exec(&w->d.a, w->d.kind == DATABASE_SQLITE ? "BEGIN IMMEDIATE" : "BEGIN");
    assert_int_equal(ferry_outbox_put(w->d.a.db, &message, NULL), FERRY_OK);
    database_exec(&w->d.a, "COMMIT");
    ferry_outbox_committed(w->d.a.db);
}

static int threads_now(void)
{
    DIR *tasks = opendir("/proc/self/task");
    int count = -2; /* . and .. */
    assert_non_null(tasks);
    while (readdir(tasks) != NULL) {
        count++;
    }
    closedir(tasks);
    return count;
}

static int compare(const void *a, const void *b)
{
    int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;
    return left < right ? -1 : left > right;
}

/* ---- Tests. */

/* Put by one thread, stepped by another, received; close is the end of all its threads. */
static void what_is_committed_is_received(void **state)
{
    struct world *w = world_of(state);
    struct thread t;
    struct ferry_relay_status status;
    int64_t took_us[ROWS];
    int threads = threads_now();
    thread_start(w, &t, NULL);
    until_state(&t, FERRY_RELAY_ACTIVE);
    for (long i = 0; i < ROWS; i++) {
        put_row(w);
        int64_t from_us = clock_monotonic_us();
        until_received(w, i + 1);
        took_us[i] = clock_monotonic_us() - from_us;
    }
    qsort(took_us, ROWS, sizeof(took_us[0]), compare);
    print_message("%s: commit to received: p50 %lld us, max %lld us\n",
                  database_kind_name(w->d.kind), (long long)took_us[ROWS / 2],
                  (long long)took_us[ROWS - 1]);
    thread_stop(&t);
    ferry_relay_status(t.relay, &status);
    assert_int_equal(status.lanes, 1);
    assert_int_equal(status.elections, 1);
    assert_int_equal(ferry_relay_close(&t.relay, PATIENCE_MS), FERRY_OK);
    assert_null(t.relay);
    assert_int_equal(threads_now(), threads);
}

/* What was committed just before close is published by it, though nobody stepped. */
static void close_publishes_what_waits(void **state)
{
    struct world *w = world_of(state);
    struct ferry_relay *relay = NULL;
    assert_int_equal(open_relay(w, &relay, NULL), FERRY_OK);
    for (int i = 0; i < ROWS; i++) {
        put_row(w);
    }
    assert_int_equal(ferry_relay_close(&relay, PATIENCE_MS), FERRY_OK);
    until_received(w, ROWS);
    assert_int_equal(w->received, ROWS);
    assert_int_equal(ferry_relay_close(&relay, 0), FERRY_OK); /* NULL by now. */
}

/* Rows whose topic does not exist are no success, whatever patience; the others are out. */
static void close_tells_of_a_topic_that_is_missing(void **state)
{
    struct world *w = world_of(state);
    struct ferry_relay *relay = NULL;
    struct ferry_relay_status status = {.state = FERRY_RELAY_CONNECTING};
    struct ferry_message message = {.topic = "nowhere", .payload = "x", .payload_bytes = 1};
    database_exec(&w->d.a, "BEGIN IMMEDIATE");
    assert_int_equal(ferry_outbox_put(w->d.a.db, &message, NULL), FERRY_OK);
    database_exec(&w->d.a, "COMMIT");
    put_row(w);
    assert_int_equal(open_relay(w, &relay, NULL), FERRY_OK);
    int64_t until_us = clock_monotonic_us() + PATIENCE_MS * 1000LL;
    while (status.blocked_topics == 0 && clock_monotonic_us() < until_us) {
        assert_int_equal(ferry_relay_step(relay, STEP_MS), FERRY_OK);
        ferry_relay_status(relay, &status);
        assert_false(status.caught_up);
    }
    assert_int_equal(status.blocked_topics, 1);
    assert_int_equal(ferry_relay_close(&relay, PATIENCE_MS), FERRY_ERR_UNKNOWN_TOPIC);
    until_received(w, 1);
}

/* A wake makes the descriptor readable, long before the next poll. */
static void a_commit_makes_the_descriptor_readable(void **state)
{
    struct world *w = world_of(state);
    struct ferry_relay *relay = NULL;
    struct ferry_relay_status status = {.state = FERRY_RELAY_CONNECTING};
    assert_int_equal(open_relay(w, &relay, "relay.poll_max_ms=60s"), FERRY_OK);
    int fd = ferry_relay_fd(relay);
    int64_t until_us = clock_monotonic_us() + PATIENCE_MS * 1000LL;
    while (!status.caught_up && clock_monotonic_us() < until_us) {
        assert_int_equal(ferry_relay_step(relay, STEP_MS), FERRY_OK);
        ferry_relay_status(relay, &status);
    }
    assert_true(status.caught_up);
    assert_true(status.pending_known);
    assert_int_equal(status.pending_rows, 0);
    assert_int_equal(status.oldest_ms, 0);
    for (int i = 0; i < 200; i++) { /* By now the pause between two polls is long. */
        assert_int_equal(ferry_relay_step(relay, 5), FERRY_OK);
    }
    put_row(w);
    until_us = clock_monotonic_us() + 2000 * 1000LL;
    while (w->received < 1 && clock_monotonic_us() < until_us) {
        struct pollfd fds = {.fd = fd, .events = POLLIN};
        assert_true(poll(&fds, 1, 2000) == 1);
        assert_int_equal(ferry_relay_step(relay, 0), FERRY_OK);
        (void)take_one_batch(w, 0);
    }
    assert_int_equal(w->received, 1);
    assert_int_equal(ferry_relay_fd(relay), fd);
    assert_int_equal(ferry_relay_close(&relay, PATIENCE_MS), FERRY_OK);
}

/* Of two, one is active; when it closes, the other is. */
static void a_standby_takes_over_at_close(void **state)
{
    struct world *w = world_of(state);
    struct thread one, two;
    struct ferry_relay_status status;
    thread_start(w, &one, NULL);
    until_state(&one, FERRY_RELAY_ACTIVE);
    thread_start(w, &two, NULL);
    until_state(&two, FERRY_RELAY_STANDBY);
    ferry_relay_status(two.relay, &status);
    assert_false(status.pending_known);
    assert_int_equal(status.pending_rows, -1);
    assert_int_equal(status.oldest_ms, -1);
    put_row(w);
    until_received(w, 1);
    assert_int_equal(state_of(&two), FERRY_RELAY_STANDBY);
    thread_stop(&one);
    assert_int_equal(ferry_relay_close(&one.relay, PATIENCE_MS), FERRY_OK);
    int64_t from_us = clock_monotonic_us();
    put_row(w);
    until_received(w, 2);
    int64_t took_us = clock_monotonic_us() - from_us;
    print_message("%s: close to received from the standby: %lld us\n",
                  database_kind_name(w->d.kind), (long long)took_us);
    assert_true(took_us < HANDOVER_MS * 1000LL);
    thread_stop(&two);
    assert_int_equal(ferry_relay_close(&two.relay, PATIENCE_MS), FERRY_OK);
    assert_int_equal(w->received, 2);
}

/* The process of the active one is killed: the standby publishes within 1.5 s, nothing twice. */
static void a_standby_takes_over_at_a_kill(void **state)
{
    struct world *w = world_of(state);
    struct thread two;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        execl("/proc/self/exe", "embedded_relay_test", "relay", w->d.url, w->servers, NULL);
        _exit(127);
    }
    put_row(w);
    until_received(w, 1);
    thread_start(w, &two, NULL);
    until_state(&two, FERRY_RELAY_STANDBY);
    assert_int_equal(kill(child, SIGKILL), 0);
    int64_t from_us = clock_monotonic_us();
    assert_int_equal(waitpid(child, NULL, 0), child);
    put_row(w);
    until_received(w, 2);
    int64_t took_us = clock_monotonic_us() - from_us;
    print_message("%s: kill -9 to received from the standby: %lld us\n",
                  database_kind_name(w->d.kind), (long long)took_us);
    assert_true(took_us < TAKEOVER_MS * 1000LL);
    thread_stop(&two);
    assert_int_equal(ferry_relay_close(&two.relay, PATIENCE_MS), FERRY_OK);
    assert_int_equal(w->received, 2);
}

/* No broker: an outage in the status, rows wait, close gives up in time; then all goes on. */
static void a_broker_that_is_gone_comes_back(void **state)
{
    struct world *w = world_of(state);
    struct thread t;
    struct ferry_relay_status status;
    thread_start(w, &t, NULL);
    put_row(w);
    until_received(w, 1);
    ferry_consumer_close(&w->consumer);
    ferry_close(&w->client, 1000);
    ferry_broker_stop(&w->broker);
    put_row(w);
    until_state(&t, FERRY_RELAY_OUTAGE);
    ferry_relay_status(t.relay, &status);
    assert_true(strlen(status.error) > 0);
    assert_false(status.caught_up);
    thread_stop(&t);
    assert_int_equal(ferry_relay_close(&t.relay, 300), FERRY_ERR_TIMEOUT);
    thread_start(w, &t, NULL);
    broker_up(w);
    until_state(&t, FERRY_RELAY_ACTIVE);
    w->received = 0;
    struct ferry_conf *conf = NULL;
    assert_int_equal(ferry_conf_new(&conf), FERRY_OK);
    assert_int_equal(ferry_conf_set(conf, "servers", w->servers, NULL, 0), FERRY_OK);
    assert_int_equal(ferry_open(&w->client, &conf, NULL, 0), FERRY_OK);
    assert_int_equal(
        ferry_consumer_open(&w->consumer, w->client, TOPIC, NULL, FERRY_FROM_START, 5000),
        FERRY_OK);
    until_received(w, 2);
    thread_stop(&t);
    assert_int_equal(ferry_relay_close(&t.relay, PATIENCE_MS), FERRY_OK);
    assert_int_equal(w->received, 2);
}

/* A database that was set back in time halts the relay, and its status says so. */
static void a_halt_reaches_the_status(void **state)
{
    struct world *w = world_of(state);
    struct thread t;
    struct ferry_relay *relay = NULL;
    struct ferry_relay_status status;
    assert_int_equal(open_relay(w, &relay, NULL), FERRY_OK);
    put_row(w);
    put_row(w);
    assert_int_equal(ferry_relay_close(&relay, PATIENCE_MS), FERRY_OK);
    database_exec(&w->d.a, "DELETE FROM ferry_outbox");
    database_exec(&w->d.a, "UPDATE sqlite_sequence SET seq = 0 WHERE name = 'ferry_outbox'");
    thread_start(w, &t, NULL);
    until_state(&t, FERRY_RELAY_HALTED);
    ferry_relay_status(t.relay, &status);
    assert_non_null(strstr(status.error, "set back"));
    assert_false(status.pending_known);
    assert_false(status.caught_up);
    thread_stop(&t);
    assert_int_equal(ferry_relay_close(&t.relay, PATIENCE_MS), FERRY_OK);
}

/* Tables that are not there yet are waited for, and told. */
static void tables_may_come_later(void **state)
{
    struct world *w = world_of(state);
    struct thread t;
    struct ferry_relay_status status;
    database_close(&w->d);
    database_open(&w->d, DATABASE_SQLITE);
    database_exec(&w->d.a, "CREATE TABLE sale (id INTEGER)");
    thread_start(w, &t, NULL);
    int64_t until_us = clock_monotonic_us() + PATIENCE_MS * 1000LL;
    do {
        assert_true(clock_monotonic_us() < until_us);
        ferry_relay_status(t.relay, &status);
    } while (status.err == FERRY_OK);
    assert_int_equal(status.state, FERRY_RELAY_CONNECTING);
    assert_int_equal(status.err, FERRY_ERR_DB_SCHEMA);
    assert_int_equal(status.pending_rows, -1);
    assert_int_equal(ferry_migrate(w->d.a.db), FERRY_OK);
    put_row(w);
    until_received(w, 1);
    thread_stop(&t);
    assert_int_equal(ferry_relay_close(&t.relay, PATIENCE_MS), FERRY_OK);
}

static void refuse(const char *const *options, size_t count, enum ferry_err expected,
                   const char *word)
{
    char detail[512] = "";
    struct ferry_relay *relay = NULL;
    assert_int_equal(ferry_relay_open(&relay, options, count, detail, sizeof(detail)), expected);
    assert_null(relay);
    assert_non_null(strstr(detail, word));
}

#define DB "relay.db=sqlite:/nowhere/shop.db"
#define REFUSE(expected, word, ...)                                                                \
    refuse((const char *const[]){__VA_ARGS__},                                                     \
           sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *), expected, word)

/* Each has its name, and a detail that names the option. */
static void wrong_options_are_told(void **state)
{
    struct ferry_relay *relay = NULL;
    (void)state;
    REFUSE(FERRY_ERR_UNKNOWN_OPTION, "relay.window", DB, "relay.windw=3");
    REFUSE(FERRY_ERR_UNKNOWN_OPTION, "relay.KEY=VALUE", DB, "verbose");
    REFUSE(FERRY_ERR_BAD_OPTION_VALUE, "relay.window", DB, "relay.window=many");
    REFUSE(FERRY_ERR_BAD_OPTION_VALUE, "poll_min_ms", DB, "relay.poll_min_ms=1s");
    REFUSE(FERRY_ERR_BAD_OPTION_VALUE, "relay.lanes", DB, "relay.lanes=first");
    REFUSE(FERRY_ERR_BAD_OPTION_VALUE, "relay.http", DB, "relay.http=127.0.0.1:7480");
    REFUSE(FERRY_ERR_BAD_OPTION_VALUE, "poison_command", DB, "relay.poison=callback");
    REFUSE(FERRY_ERR_BAD_OPTION_VALUE, "one database", "relay.lanes=all");
    REFUSE(FERRY_ERR_BAD_OPTION_VALUE, "one database", "relay.db=sqlite:a.db,sqlite:b.db");
    REFUSE(FERRY_ERR_BAD_OPTION_VALUE, "oracle", "relay.db=oracle://scott:tiger@here/shop");
    const char *right[] = {DB};
    assert_int_equal(ferry_relay_open(&relay, right, 1, NULL, 0), FERRY_OK);
    assert_int_equal(ferry_relay_step(relay, -1), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(ferry_relay_step(relay, 0), FERRY_OK);
    assert_int_equal(ferry_relay_close(&relay, 0), FERRY_ERR_TIMEOUT);
    assert_string_equal(ferry_relay_state_name(FERRY_RELAY_HALTED), "halted");
    assert_string_equal(ferry_relay_state_name((enum ferry_relay_state)99), "unknown");
}

/* The process that is killed. */
static int be_a_relay(const char *url, const char *servers)
{
    char db[300], to[200];
    struct ferry_relay *relay = NULL;
    (void)snprintf(db, sizeof(db), "relay.db=%s", url);
    (void)snprintf(to, sizeof(to), "relay.servers=%s", servers);
    const char *options[] = {db, to};
    if (ferry_relay_open(&relay, options, 2, NULL, 0) != FERRY_OK) {
        return EXIT_FAILURE;
    }
    (void)alarm(PATIENCE_MS / 1000); /* If nobody kills it. */
    while (ferry_relay_step(relay, STEP_MS) == FERRY_OK) {
    }
    return EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "relay") == 0) {
        return be_a_relay(argv[2], argv[3]);
    }
    setenv("FERRY_TEST_FSYNC", "1", 1); /* A relay refuses a database that can lose rows. */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_options_are_told),
        TEST_ON(what_is_committed_is_received, sqlite),
        TEST_ON(what_is_committed_is_received, postgresql),
        TEST_ON(what_is_committed_is_received, mariadb),
        TEST_ON(close_publishes_what_waits, sqlite),
        TEST_ON(close_publishes_what_waits, postgresql),
        TEST_ON(close_tells_of_a_topic_that_is_missing, sqlite),
        TEST_ON(a_commit_makes_the_descriptor_readable, sqlite),
        TEST_ON(a_commit_makes_the_descriptor_readable, postgresql),
        TEST_ON(a_standby_takes_over_at_close, sqlite),
        TEST_ON(a_standby_takes_over_at_close, postgresql),
        TEST_ON(a_standby_takes_over_at_a_kill, sqlite),
        TEST_ON(a_standby_takes_over_at_a_kill, postgresql),
        TEST_ON(a_broker_that_is_gone_comes_back, sqlite),
        TEST_ON(a_halt_reaches_the_status, sqlite),
        TEST_ON(tables_may_come_later, sqlite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
