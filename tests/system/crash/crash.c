/* crash: kills brokers, relays and consumers with kill -9 at random moments while messages flow,
 * and compares what clients were told with what is there, byte for byte.
 *
 *   crash [--brokers N] MESSAGES KILLS [SEED]
 *
 * Without --brokers: one ferryd, one relay, two readers, each killed as often. With it: a cluster
 * of N brokers, where one of them is killed at a time, whatever it leads, and now and then all at
 * once; two relays for the same database, of which one stands by and must publish what is committed
 * while the other is dead; the readers; and a consumer with an inbox, whose effects are compared as
 * well.
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
#include "system/crash/effects.h"
#include "system/crash/fleet.h"
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
/* In a cluster. */
#define ALL_EVERY       8    /* Kills: then all brokers at once. */
#define RECOVER_MS      300  /* At least between two faults. */
#define AWAY_SPREAD_MS  1500 /* How long a broker is gone: more than an election needs, or less. */
#define TAKE_OVER_MS    30000
#define LEADERS_WAIT_MS 1000

/* In the run's folder. */
#define SHOP          "shop.db"
#define SIGHTS_SENT   "sights-sent"
#define SIGHTS_OUTBOX "sights-outbox"
#define LEDGER        "ledger.db"

#define CHILDREN_MAX (FLEET_MAX + 5)

struct crash {
    char folder[PATH_BYTES]; /* The current one; the files below are in it. */
    char self[PATH_BYTES], ferryd[PATH_BYTES], relay[PATH_BYTES]; /* Programs. */
    struct fleet fleet;
    /* Brokers, then relays, then consumers. */
    struct child children[CHILDREN_MAX];
    int relays_from, consumers_from, children_count;
    struct prng prng;
    struct ferry_client *client;
    sqlite3 *sqlite;
    struct ferry_db *db;
    struct traffic sent, outbox;
    int64_t sent_next, outbox_next; /* Messages not yet sent. */
    int64_t told;                   /* Reports. */
    int relay_turn, leaders_killed, all_killed, not_taken_over;
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

static void describe_relay(struct crash *c, const char *name)
{
    const char *args[] = {c->relay,
                          "--db",
                          "sqlite:" SHOP,
                          "--server",
                          c->fleet.servers,
                          "--set",
                          "relay.lease_ms=1s",
                          "--set",
                          "relay.retry_max_ms=200",
                          "--set",
                          "relay.call_timeout_ms=500",
                          NULL};
    child_describe(&c->children[c->children_count++], name, args);
}

static void describe_consumer(struct crash *c, const char *name, const char *role,
                              const char *topic, const char *file)
{
    const char *args[] = {c->self, role, c->fleet.servers, topic, file, NULL};
    child_describe(&c->children[c->children_count++], name, args);
}

static void describe_clients(struct crash *c)
{
    bool cluster = c->fleet.count > 1;
    c->relays_from = c->children_count = c->fleet.count;
    describe_relay(c, "relay");
    if (cluster) {
        describe_relay(c, "relay-2");
    }
    c->consumers_from = c->children_count;
    describe_consumer(c, "reader-sent", "reader", c->sent.topic, SIGHTS_SENT);
    describe_consumer(c, "reader-outbox", "reader", c->outbox.topic, SIGHTS_OUTBOX);
    if (cluster) {
        describe_consumer(c, "effects", "effects", c->outbox.topic, LEDGER);
    }
}

static void look_after_children(struct crash *c)
{
    for (int i = 0; i < c->children_count; i++) {
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

/* So long do messages flow. */
static void flow_ms(struct crash *c, int64_t ms, int64_t sent_allowed, int64_t outbox_allowed)
{
    flow(c, clock_monotonic_us() + ms * 1000, sent_allowed, outbox_allowed);
}

/* ---- Kills --------------------------------------------------------------------------------------
 */

static void kill_one(struct crash *c, int64_t sent_allowed, int64_t outbox_allowed)
{
    int64_t alive_ms = ALIVE_MIN_MS + (int64_t)prng_below(&c->prng, ALIVE_SPREAD_MS);
    int64_t dead_ms = (int64_t)prng_below(&c->prng, DEAD_SPREAD_MS);
    struct child *victim = &c->children[prng_below(&c->prng, (uint64_t)c->children_count)];
    flow_ms(c, alive_ms, sent_allowed, outbox_allowed);
    child_kill(victim);
    flow_ms(c, dead_ms, sent_allowed, outbox_allowed);
    child_start(victim);
}

static int64_t below(struct crash *c, int64_t n)
{
    return (int64_t)prng_below(&c->prng, (uint64_t)n);
}

/* Partitions of both topics that the node leads, as far as is known in time. */
static int64_t led_by(struct crash *c, uint32_t node)
{
    const char *topics[] = {c->sent.topic, c->outbox.topic};
    int64_t led = 0;
    for (int t = 0; t < 2; t++) {
        struct ferry_topic_info *info = NULL;
        if (ferry_topic_info(c->client, topics[t], LEADERS_WAIT_MS, &info) == FERRY_OK) {
            for (size_t i = 0; i < info->partition_count; i++) {
                led += info->partitions[i].leader_node == node;
            }
        }
        ferry_topic_info_free(&info);
    }
    return led;
}

static void kill_a_broker(struct crash *c, int64_t sent_allowed, int64_t outbox_allowed)
{
    int64_t i = below(c, c->fleet.count);
    int64_t away_ms = below(c, 2) == 0 ? below(c, DEAD_SPREAD_MS) : below(c, AWAY_SPREAD_MS);
    c->leaders_killed += led_by(c, (uint32_t)i + 1) > 0;
    flow_ms(c, below(c, 20), sent_allowed, outbox_allowed);
    child_kill(&c->children[i]);
    flow_ms(c, away_ms, sent_allowed, outbox_allowed);
    child_start(&c->children[i]);
}

static void kill_all_brokers(struct crash *c, int64_t sent_allowed, int64_t outbox_allowed)
{
    int first = (int)below(c, c->fleet.count);
    c->all_killed++;
    for (int i = 0; i < c->fleet.count; i++) {
        child_kill(&c->children[(first + i) % c->fleet.count]);
        flow_ms(c, below(c, 20), sent_allowed, outbox_allowed);
    }
    first = (int)below(c, c->fleet.count);
    for (int i = 0; i < c->fleet.count; i++) {
        child_start(&c->children[(first + i) % c->fleet.count]);
        flow_ms(c, below(c, 400), sent_allowed, outbox_allowed);
    }
}

static int64_t committed_count(const struct traffic *t);
static int64_t records_in(struct crash *c, const char *topic);

/* In turns, and gone until the other one has published all that is committed, also while it was the
 * only one. */
static void kill_a_relay(struct crash *c, int64_t sent_allowed, int64_t outbox_allowed)
{
    struct child *victim = &c->children[c->relays_from + c->relay_turn];
    int64_t until_us = clock_monotonic_us() + TAKE_OVER_MS * 1000LL;
    c->relay_turn = (c->relay_turn + 1) % (c->consumers_from - c->relays_from);
    child_kill(victim);
    do {
        flow_ms(c, 50, sent_allowed, outbox_allowed);
        if (clock_monotonic_us() > until_us) {
            fprintf(stderr, "crash: nobody took over from %s within %d s\n", victim->name,
                    TAKE_OVER_MS / 1000);
            c->not_taken_over++;
            break;
        }
    } while (c->outbox_next < outbox_allowed ||
             records_in(c, c->outbox.topic) < committed_count(&c->outbox));
    child_start(victim);
}

static void kill_a_consumer(struct crash *c, int64_t sent_allowed, int64_t outbox_allowed)
{
    int64_t i = c->consumers_from + below(c, c->children_count - c->consumers_from);
    child_kill(&c->children[i]);
    flow_ms(c, below(c, DEAD_SPREAD_MS), sent_allowed, outbox_allowed);
    child_start(&c->children[i]);
}

/* A third of the messages is released before the fault and the rest with it. */
static void fault_in_cluster(struct crash *c, int64_t k, int64_t kills)
{
    int64_t sent_allowed = c->sent.count * k / kills;
    int64_t outbox_allowed = c->outbox.count * k / kills;
    flow_ms(c, RECOVER_MS + below(c, ALIVE_SPREAD_MS), sent_allowed - c->sent.count / kills * 2 / 3,
            outbox_allowed - c->outbox.count / kills * 2 / 3);
    if (k % ALL_EVERY == 0) {
        kill_all_brokers(c, sent_allowed, outbox_allowed);
        return;
    }
    switch (below(c, 10)) {
    case 0:
    case 1:
        kill_a_relay(c, sent_allowed, outbox_allowed);
        break;
    case 2:
    case 3:
        kill_a_consumer(c, sent_allowed, outbox_allowed);
        break;
    default:
        kill_a_broker(c, sent_allowed, outbox_allowed);
    }
}

/* ---- The end ------------------------------------------------------------------------------------
 */

/* -1: not known at the moment. */
static int64_t records_in(struct crash *c, const char *topic)
{
    struct ferry_topic_info *info = NULL;
    int64_t count = 0;
    if (ferry_topic_info(c->client, topic, READY_TIMEOUT_MS, &info) != FERRY_OK) {
        return -1;
    }
    for (size_t i = 0; i < info->partition_count && count >= 0; i++) {
        count = info->partitions[i].err == FERRY_OK ? count + info->partitions[i].end_offset : -1;
    }
    ferry_topic_info_free(&info);
    return count;
}

/* Records that a reader has committed. */
static int64_t records_read(struct crash *c, const char *topic, const char *group)
{
    struct ferry_subscription_info *info = NULL;
    int64_t count = 0;
    enum ferry_err err = ferry_subscription_info(c->client, topic, group, READY_TIMEOUT_MS, &info);
    if (err != FERRY_OK) {
        return -1;
    }
    for (size_t i = 0; i < info->partition_count; i++) {
        count += info->partitions[i].position;
    }
    ferry_subscription_info_free(&info);
    return count;
}

static int64_t committed_count(const struct traffic *t)
{
    int64_t committed = 0;
    for (int64_t n = 0; n < t->count; n++) {
        committed += t->fates[n].kind == FATE_STORED;
    }
    return committed;
}

static bool is_read(struct crash *c, const char *topic, const char *group)
{
    int64_t there = records_in(c, topic);
    return there >= 0 && records_read(c, topic, group) >= there;
}

static bool is_drained(struct crash *c)
{
    return c->told == c->sent.count &&
           records_in(c, c->outbox.topic) >= committed_count(&c->outbox) &&
           is_read(c, c->sent.topic, READER_GROUP) && is_read(c, c->outbox.topic, READER_GROUP) &&
           (c->fleet.count == 1 || is_read(c, c->outbox.topic, EFFECTS_GROUP));
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

static void print_kills(const struct crash *c)
{
    for (int i = 0; i < c->children_count; i++) {
        printf("crash: %s killed %d times\n", c->children[i].name, c->children[i].kills);
    }
    if (c->fleet.count > 1) {
        printf("crash: all brokers at once %d times; %d times one that led partitions\n",
               c->all_killed, c->leaders_killed);
    }
}

static int verdict(struct crash *c)
{
    int64_t effects = 0;
    int64_t sent = check_traffic(c->client, &c->sent, SIGHTS_SENT);
    int64_t outbox = check_traffic(c->client, &c->outbox, SIGHTS_OUTBOX);
    if (c->fleet.count > 1) {
        child_kill(&c->children[c->children_count - 1]);
        effects = effects_check(LEDGER, &c->outbox);
    }
    print_kills(c);
    printf("crash: %lld sent (%lld unknown) and %lld put: %lld and %lld findings\n",
           (long long)c->sent.count, (long long)unknown_count(&c->sent), (long long)c->outbox.count,
           (long long)sent, (long long)(outbox + effects));
    bool good = sent == 0 && outbox == 0 && effects == 0 && c->not_taken_over == 0;
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* ---- The run ------------------------------------------------------------------------------------
 */

static void open_client(struct crash *c)
{
    struct ferry_conf *conf = NULL;
    must_be_ok(c, ferry_conf_new(&conf), "conf");
    must_be_ok(c, ferry_conf_set(conf, "servers", c->fleet.servers, NULL, 0), "servers");
    must_be_ok(c, ferry_conf_set(conf, "retry.backoff_max_ms", "100", NULL, 0), "backoff");
    ferry_conf_on_report(conf, take_report, c);
    must_be_ok(c, ferry_open(&c->client, &conf, NULL, 0), "open");
    struct ferry_topic_spec spec = {.partitions = PARTITIONS, .replicas = (uint32_t)c->fleet.count};
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
    for (int i = c->consumers_from; i < c->children_count; i++) {
        child_kill(&c->children[i]); /* Readers read for ever. */
    }
    for (int i = c->relays_from; i < c->consumers_from; i++) {
        child_stop(&c->children[i]);
    }
    ferry_db_free(&c->db);
    sqlite3_close(c->sqlite);
    ferry_close(&c->client, 1000);
    for (int i = 0; i < c->fleet.count; i++) {
        child_stop(&c->children[i]);
    }
    free(c->outbox.fates);
    free(c->sent.fates);
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", c->folder);
    if (!good || system(command) != 0) {
        printf("crash: see %s\n", c->folder);
    }
}

static int run(struct crash *c, int brokers, int64_t kills)
{
    fleet_describe(&c->fleet, brokers, c->ferryd, c->children);
    c->children_count = brokers;
    if (!fleet_start(&c->fleet, c->children)) {
        give_up(c, "ferryd does not start", FERRY_ERR_UNREACHABLE);
    }
    describe_clients(c);
    open_client(c);
    open_shop(c);
    for (int i = c->relays_from; i < c->children_count; i++) {
        child_start(&c->children[i]);
    }
    for (int64_t k = 1; k <= kills; k++) {
        if (brokers > 1) {
            fault_in_cluster(c, k, kills);
        } else {
            kill_one(c, c->sent.count * k / kills, c->outbox.count * k / kills);
        }
    }
    drain(c);
    return verdict(c);
}

/* As one of the processes that are killed; -1 when it is none. */
static int run_child(int argc, char **argv)
{
    if (argc == 5 && strcmp(argv[1], "reader") == 0) {
        return reader_run(argv[2], argv[3], argv[4]);
    }
    if (argc == 5 && strcmp(argv[1], "effects") == 0) {
        return effects_run(argv[2], argv[3], argv[4]);
    }
    return -1;
}

int main(int argc, char **argv)
{
    static struct crash c; /* Too large for a stack that is checked. */
    int brokers = 1;
    int code = run_child(argc, argv);
    if (code >= 0) {
        return code;
    }
    if (argc > 2 && strcmp(argv[1], "--brokers") == 0) {
        brokers = (int)strtol(argv[2], NULL, 10);
        argc -= 2;
        argv += 2;
    }
    if (argc < 3 || brokers < 1 || brokers > FLEET_MAX) {
        fputs("usage: crash [--brokers N] MESSAGES KILLS [SEED]\n", stderr);
        return 2;
    }
    uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 10) : (uint64_t)clock_wall_ms();
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    printf("crash: seed %llu\n", (unsigned long long)seed);
    init(&c, strtoll(argv[1], NULL, 10), seed);
    code = run(&c, brokers, strtoll(argv[2], NULL, 10));
    fini(&c, code == EXIT_SUCCESS);
    return code;
}
