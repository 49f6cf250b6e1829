/* crash: kills ferryd, the relay and two consumers with kill -9 at random moments while messages
 * flow, and compares what clients were told with what is there, byte for byte.
 *
 *   crash MESSAGES KILLS [SEED]
 *
 * Two streams. `sent`: produced through the library, each message with its report. `outbox`: put
 * into a SQLite database, every tenth rolled back, published by the relay; the ledger of what
 * committed is kept here. A consumer process reads each. Messages are released in step with the
 * kills, so that there is always traffic to hit. Deterministic in what is sent and who is killed;
 * the seed is printed. On failure the folder with databases and logs stays, and its name is told.
 */
#include <poll.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/must.h"
#include "base/prng.h"
#include "ferry_outbox.h"
#include "system/crash/check.h"
#include "system/crash/child.h"
#include "system/crash/message.h"
#include "system/crash/reader.h"

#define PATH_BYTES       1024
#define READY_TIMEOUT_MS 20000
#define DRAIN_TIMEOUT_MS 90000
#define ALIVE_MIN_MS     40 /* Between a restart and the next kill… */
#define ALIVE_SPREAD_MS  500
#define DEAD_SPREAD_MS   120 /* …and between a kill and the restart. */
#define OUTBOX_SHARE     4   /* One message in so many goes by the outbox. */
#define OUTBOX_BATCH     10  /* Rows a transaction. */
#define ROLL_BACK_EVERY  10  /* Transactions. */
#define PARTITIONS       4

/* In the run's folder. */
#define DATA          "data"
#define SHOP          "shop.db"
#define SIGHTS_SENT   "sights-sent"
#define SIGHTS_OUTBOX "sights-outbox"

enum { CHILD_BROKER, CHILD_RELAY, CHILD_READER_SENT, CHILD_READER_OUTBOX, CHILDREN };

struct crash {
    char folder[PATH_BYTES]; /* The current one; the files below are in it. */
    char self[PATH_BYTES], ferryd[PATH_BYTES], relay[PATH_BYTES]; /* Programs. */
    char endpoint[64];
    struct child children[CHILDREN];
    struct prng prng;
    struct ferry_client *client;
    sqlite3 *sqlite;
    struct ferry_db *db;
    struct traffic sent, outbox;
    int64_t sent_next, outbox_next; /* Messages not yet sent. */
    int64_t told;                   /* Reports. */
};

static _Noreturn void give_up(const struct crash *c, const char *what, enum ferry_err err)
{
    fprintf(stderr, "crash: %s: %s; see %s\n", what, ferry_err_name(err), c->folder);
    exit(EXIT_FAILURE); /* The children die with their parent. */
}

static void must_be_ok(const struct crash *c, enum ferry_err err, const char *what)
{
    if (err != FERRY_OK) {
        give_up(c, what, err);
    }
}

/* ---- Processes ----------------------------------------------------------------------------------
 */

static void describe_child(struct crash *c, int which, const char *name, const char *const *args)
{
    struct child *child = &c->children[which];
    child->name = name;
    (void)snprintf(child->log, sizeof(child->log), "%s.log", name);
    for (int i = 0; args[i] != NULL; i++) {
        must(i + 1 < CHILD_ARGS_MAX);
        child->args[i] = args[i];
    }
}

static void describe_clients(struct crash *c)
{
    const char *relay[] = {c->relay,
                           "--db",
                           "sqlite:" SHOP,
                           "--server",
                           c->endpoint,
                           "--set",
                           "relay.lease_ms=1s",
                           "--set",
                           "relay.retry_max_ms=200",
                           "--set",
                           "relay.call_timeout_ms=500",
                           NULL};
    const char *sent[] = {c->self, "reader", c->endpoint, c->sent.topic, SIGHTS_SENT, NULL};
    const char *outbox[] = {c->self, "reader", c->endpoint, c->outbox.topic, SIGHTS_OUTBOX, NULL};
    describe_child(c, CHILD_RELAY, "relay", relay);
    describe_child(c, CHILD_READER_SENT, "reader-sent", sent);
    describe_child(c, CHILD_READER_OUTBOX, "reader-outbox", outbox);
}

/* The endpoint in the broker's first ready line; false when there is none yet. */
static bool read_endpoint(struct crash *c)
{
    char line[PATH_BYTES * 2] = "";
    FILE *log = fopen(c->children[CHILD_BROKER].log, "re");
    bool ready = log != NULL && fgets(line, sizeof(line), log) != NULL &&
                 sscanf(line, "ferryd: ready: %63[^ ,]", c->endpoint) == 1;
    if (log != NULL) {
        (void)fclose(log);
    }
    return ready;
}

/* Starts on a free port, which it keeps through all its lives. */
static void start_broker(struct crash *c)
{
    const char *args[] = {c->ferryd, "--data", DATA, "--listen", c->endpoint, NULL};
    int64_t until_us = clock_monotonic_us() + READY_TIMEOUT_MS * 1000LL;
    (void)snprintf(c->endpoint, sizeof(c->endpoint), "tcp://127.0.0.1:*");
    describe_child(c, CHILD_BROKER, "ferryd", args);
    child_start(&c->children[CHILD_BROKER]);
    while (!read_endpoint(c)) {
        if (clock_monotonic_us() > until_us || child_has_died(&c->children[CHILD_BROKER])) {
            give_up(c, "ferryd does not start", FERRY_ERR_UNREACHABLE);
        }
        (void)poll(NULL, 0, 5);
    }
}

static void look_after_children(struct crash *c)
{
    for (int i = 0; i < CHILDREN; i++) {
        if (child_has_died(&c->children[i])) {
            fprintf(stderr, "crash: %s ended by itself\n", c->children[i].name);
            give_up(c, c->children[i].log, FERRY_ERR_CLOSED);
        }
    }
}

/* ---- Traffic ------------------------------------------------------------------------------------
 */

static void take_report(const struct ferry_report *report, void *arg)
{
    struct crash *c = arg;
    struct fate *fate = report->opaque;
    must(fate->kind == FATE_NONE); /* An outcome is told once. */
    c->told++;
    fate->kind = report->outcome == FERRY_STORED       ? FATE_STORED
                 : report->outcome == FERRY_NOT_STORED ? FATE_NOT_STORED
                                                       : FATE_UNKNOWN;
    fate->partition = report->partition;
    fate->offset = report->offset;
}

/* False when the queue is full: later. */
static bool send_next(struct crash *c)
{
    struct made_message made;
    message_make(c->sent.seed, c->sent_next, &made);
    struct ferry_message message = {.topic = c->sent.topic,
                                    .partition = FERRY_PARTITION_ANY,
                                    .key = made.key,
                                    .key_bytes = made.key_bytes,
                                    .payload = made.payload,
                                    .payload_bytes = made.payload_bytes,
                                    .opaque = &c->sent.fates[c->sent_next]};
    enum ferry_err err = ferry_send(c->client, &message);
    if (err == FERRY_ERR_QUEUE_FULL) {
        return false;
    }
    must_be_ok(c, err, "send");
    c->sent_next++;
    return true;
}

static void run_sql(const struct crash *c, const char *sql)
{
    if (sqlite3_exec(c->sqlite, sql, NULL, NULL, NULL) != SQLITE_OK) {
        fprintf(stderr, "crash: %s: %s\n", sql, sqlite3_errmsg(c->sqlite));
        give_up(c, "shop", FERRY_ERR_DB);
    }
}

/* One transaction of OUTBOX_BATCH rows; every ROLL_BACK_EVERY-th is rolled back. */
static void put_next(struct crash *c, int64_t allowed)
{
    bool rolled_back = (c->outbox_next / OUTBOX_BATCH) % ROLL_BACK_EVERY == ROLL_BACK_EVERY - 1;
    run_sql(c, "BEGIN IMMEDIATE");
    for (int i = 0; i < OUTBOX_BATCH && c->outbox_next < allowed; i++, c->outbox_next++) {
        struct made_message made;
        message_make(c->outbox.seed, c->outbox_next, &made);
        struct ferry_message message = {.topic = c->outbox.topic,
                                        .key = made.key,
                                        .key_bytes = made.key_bytes,
                                        .payload = made.payload,
                                        .payload_bytes = made.payload_bytes};
        must_be_ok(c, ferry_outbox_put(c->db, &message, NULL), "outbox put");
        c->outbox.fates[c->outbox_next] = (struct fate){
            .kind = rolled_back ? FATE_NOT_STORED : FATE_STORED, .partition = -1, .offset = -1};
    }
    run_sql(c, rolled_back ? "ROLLBACK" : "COMMIT");
    ferry_outbox_committed(c->db);
}

/* Lets messages flow until the time has come; never more than so many of each stream. */
static void flow(struct crash *c, int64_t until_us, int64_t sent_allowed, int64_t outbox_allowed)
{
    while (clock_monotonic_us() < until_us) {
        for (int i = 0; i < 100 && c->sent_next < sent_allowed && send_next(c); i++) {
        }
        if (c->outbox_next < outbox_allowed) {
            put_next(c, outbox_allowed);
        }
        (void)ferry_poll(c->client, 2);
        look_after_children(c);
    }
}

static void kill_one(struct crash *c, int64_t sent_allowed, int64_t outbox_allowed)
{
    int64_t alive_us = (ALIVE_MIN_MS + (int64_t)prng_below(&c->prng, ALIVE_SPREAD_MS)) * 1000;
    int64_t dead_us = (int64_t)prng_below(&c->prng, DEAD_SPREAD_MS) * 1000;
    struct child *victim = &c->children[prng_below(&c->prng, CHILDREN)];
    flow(c, clock_monotonic_us() + alive_us, sent_allowed, outbox_allowed);
    child_kill(victim);
    flow(c, clock_monotonic_us() + dead_us, sent_allowed, outbox_allowed);
    child_start(victim);
}

/* ---- The end ------------------------------------------------------------------------------------
 */

static int64_t records_in(struct crash *c, const char *topic)
{
    struct ferry_topic_info *info = NULL;
    int64_t count = 0;
    must_be_ok(c, ferry_topic_info(c->client, topic, READY_TIMEOUT_MS, &info), topic);
    for (size_t i = 0; i < info->partition_count; i++) {
        count += info->partitions[i].end_offset;
    }
    ferry_topic_info_free(&info);
    return count;
}

/* Records that a reader has committed. */
static int64_t records_read(struct crash *c, const char *topic)
{
    struct ferry_subscription_info *info = NULL;
    int64_t count = 0;
    enum ferry_err err =
        ferry_subscription_info(c->client, topic, "reader", READY_TIMEOUT_MS, &info);
    if (err != FERRY_OK) {
        return -1;
    }
    for (size_t i = 0; i < info->partition_count; i++) {
        count += info->partitions[i].position;
    }
    ferry_subscription_info_free(&info);
    return count;
}

static bool is_drained(struct crash *c)
{
    int64_t committed = 0;
    for (int64_t n = 0; n < c->outbox.count; n++) {
        committed += c->outbox.fates[n].kind == FATE_STORED;
    }
    return c->told == c->sent.count && records_in(c, c->outbox.topic) >= committed &&
           records_read(c, c->sent.topic) >= records_in(c, c->sent.topic) &&
           records_read(c, c->outbox.topic) >= records_in(c, c->outbox.topic);
}

/* Everything runs: whatever is on its way must arrive. What does not is found by the check. */
static void drain(struct crash *c)
{
    int64_t until_us = clock_monotonic_us() + DRAIN_TIMEOUT_MS * 1000LL;
    while (c->sent_next < c->sent.count || c->outbox_next < c->outbox.count || !is_drained(c)) {
        if (clock_monotonic_us() > until_us) {
            fprintf(stderr, "crash: not all arrived within %d s\n", DRAIN_TIMEOUT_MS / 1000);
            return;
        }
        flow(c, clock_monotonic_us() + 50000, c->sent.count, c->outbox.count);
    }
}

static int64_t unknown_count(const struct traffic *t)
{
    int64_t count = 0;
    for (int64_t n = 0; n < t->count; n++) {
        count += t->fates[n].kind == FATE_UNKNOWN;
    }
    return count;
}

static int verdict(struct crash *c)
{
    int64_t sent = check_traffic(c->client, &c->sent, SIGHTS_SENT);
    int64_t outbox = check_traffic(c->client, &c->outbox, SIGHTS_OUTBOX);
    for (int i = 0; i < CHILDREN; i++) {
        printf("crash: %s killed %d times\n", c->children[i].name, c->children[i].kills);
    }
    printf("crash: %lld sent (%lld unknown) and %lld put: %lld and %lld findings\n",
           (long long)c->sent.count, (long long)unknown_count(&c->sent), (long long)c->outbox.count,
           (long long)sent, (long long)outbox);
    return sent == 0 && outbox == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* ---- The run ------------------------------------------------------------------------------------
 */

static void open_client(struct crash *c)
{
    struct ferry_conf *conf = NULL;
    must_be_ok(c, ferry_conf_new(&conf), "conf");
    must_be_ok(c, ferry_conf_set(conf, "servers", c->endpoint, NULL, 0), "servers");
    must_be_ok(c, ferry_conf_set(conf, "retry.backoff_max_ms", "100", NULL, 0), "backoff");
    ferry_conf_on_report(conf, take_report, c);
    must_be_ok(c, ferry_open(&c->client, &conf, NULL, 0), "open");
    struct ferry_topic_spec spec = {.partitions = PARTITIONS};
    spec.name = c->sent.topic;
    must_be_ok(c, ferry_topic_create(c->client, &spec, READY_TIMEOUT_MS), spec.name);
    spec.name = c->outbox.topic;
    must_be_ok(c, ferry_topic_create(c->client, &spec, READY_TIMEOUT_MS), spec.name);
}

static void open_shop(struct crash *c)
{
    must(sqlite3_open(SHOP, &c->sqlite) == SQLITE_OK);
    must_be_ok(c, ferry_db_sqlite(&c->db, c->sqlite), "shop");
    must_be_ok(c, ferry_migrate(c->db), "shop");
    /* The machine does not lose its power here, and the business is not what is measured. */
    run_sql(c, "PRAGMA synchronous = NORMAL; PRAGMA busy_timeout = 10000");
}

static void init(struct crash *c, int64_t messages, uint64_t seed)
{
    const char *bin = getenv("FERRY_BIN");
    const char *tmp = getenv("TMPDIR");
    must(bin != NULL);
    (void)snprintf(c->folder, sizeof(c->folder), "%s/ferry-crash-XXXXXX",
                   tmp != NULL ? tmp : "/tmp");
    must(mkdtemp(c->folder) != NULL);
    must(readlink("/proc/self/exe", c->self, sizeof(c->self) - 1) > 0);
    (void)snprintf(c->ferryd, sizeof(c->ferryd), "%s/ferryd", bin);
    (void)snprintf(c->relay, sizeof(c->relay), "%s/ferry-outbox", bin);
    must(chdir(c->folder) == 0);
    prng_init(&c->prng, seed);
    c->outbox = (struct traffic){.topic = "outbox", .seed = seed, .count = messages / OUTBOX_SHARE};
    c->sent =
        (struct traffic){.topic = "sent", .seed = seed + 1, .count = messages - c->outbox.count};
    c->outbox.fates = calloc((size_t)c->outbox.count, sizeof(*c->outbox.fates));
    c->sent.fates = calloc((size_t)c->sent.count, sizeof(*c->sent.fates));
    must(c->outbox.fates != NULL && c->sent.fates != NULL);
}

static void fini(struct crash *c, bool good)
{
    char command[PATH_BYTES + 16];
    for (int i = CHILDREN - 1; i > CHILD_RELAY; i--) {
        child_kill(&c->children[i]); /* Readers read for ever. */
    }
    child_stop(&c->children[CHILD_RELAY]);
    ferry_db_free(&c->db);
    sqlite3_close(c->sqlite);
    ferry_close(&c->client, 1000);
    child_stop(&c->children[CHILD_BROKER]);
    free(c->outbox.fates);
    free(c->sent.fates);
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", c->folder);
    if (!good || system(command) != 0) {
        printf("crash: see %s\n", c->folder);
    }
}

static int run(struct crash *c, int64_t kills)
{
    start_broker(c);
    describe_clients(c);
    open_client(c);
    open_shop(c);
    for (int i = CHILD_RELAY; i < CHILDREN; i++) {
        child_start(&c->children[i]);
    }
    for (int64_t k = 1; k <= kills; k++) {
        kill_one(c, c->sent.count * k / kills, c->outbox.count * k / kills);
    }
    drain(c);
    return verdict(c);
}

int main(int argc, char **argv)
{
    if (argc == 5 && strcmp(argv[1], "reader") == 0) {
        return reader_run(argv[2], argv[3], argv[4]);
    }
    if (argc < 3) {
        fputs("usage: crash MESSAGES KILLS [SEED]\n", stderr);
        return 2;
    }
    static struct crash c; /* Too large for a stack that is checked. */
    uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 10) : (uint64_t)clock_wall_ms();
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    printf("crash: seed %llu\n", (unsigned long long)seed);
    init(&c, strtoll(argv[1], NULL, 10), seed);
    int code = run(&c, strtoll(argv[2], NULL, 10));
    fini(&c, code == EXIT_SUCCESS);
    return code;
}
