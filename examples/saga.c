/* saga: an order that three services have to agree on, each with a database of its own. The bank
 * takes the money, the store sets the goods aside, the carrier takes the parcel; if one refuses,
 * those before it take back what they did. The shop starts the saga with the order, in one
 * transaction, and learns how it ended.
 *
 *   saga FOLDER [FERRY-OUTBOX]      three orders; one goes too far, one is too dear
 *
 * All services are in this program, one after another; each could be a process elsewhere. The
 * broker is in it too (see embedded.c); the relay is the program ferry-outbox, for all four
 * databases. */
#include <fcntl.h>
#include <libgen.h>
#include <signal.h>
#include <spawn.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ferry.h"
#include "ferry_broker.h"
#include "ferry_outbox.h"

#define WAIT_MS    10000
#define ANSWER_MS  60000 /* Then a step is taken back, as nobody knows what became of it. */
#define A_MOMENT   20    /* Milliseconds for each service at a time. */
#define TURNS_MAX  2000  /* Then something is wrong. */
#define MONEY      100
#define STOCK      5
#define ORDERS     3
#define SERVICES   4
#define TEXT_BYTES 512

enum { SHOP, BANK, STORE, CARRIER };

extern char **environ;

static const char *const names[SERVICES] = {"shop", "bank", "store", "carrier"};

/* What the shop has to know: who is asked, in which order, and for how long it waits. */
static const struct ferry_saga_step steps[] = {
    {.topic = "bank", .deadline_ms = ANSWER_MS},
    {.topic = "store", .deadline_ms = ANSWER_MS},
    {.topic = "carrier", .deadline_ms = ANSWER_MS},
};
static const struct ferry_saga_def order_saga = {.type = "order",
                                                 .kind = FERRY_SAGA_ORCHESTRATED,
                                                 .steps = steps,
                                                 .count = 3,
                                                 .reply_topic = "shop"};

struct service {
    int which;
    char path[TEXT_BYTES];
    sqlite3 *sqlite;
    struct ferry_db *db;
    struct ferry_consumer *consumer;
    struct ferry_consume_figures figures; /* What a metrics page of this service would tell. */
    int *ended;                           /* Of the shop: how many sagas have. */
};

struct order {
    int number, price;
    char place[32];
};

static pid_t relay; /* 0: not started. */

static void stop_relay(void)
{
    if (relay > 0) {
        (void)kill(relay, SIGTERM);
        (void)waitpid(relay, NULL, 0);
        relay = 0;
    }
}

static void check(enum ferry_err err, const char *what, const char *detail)
{
    if (err != FERRY_OK) {
        stop_relay();
        fprintf(stderr, "saga: %s: %s: %s\n", what, ferry_err_name(err),
                detail[0] != '\0' ? detail : ferry_err_text(err));
        exit(EXIT_FAILURE);
    }
}

static void run_sql(struct service *s, const char *sql)
{
    if (sqlite3_exec(s->sqlite, sql, NULL, NULL, NULL) != SQLITE_OK) {
        check(FERRY_ERR_DB, sql, sqlite3_errmsg(s->sqlite));
    }
}

static int number_of(struct service *s, const char *sql)
{
    sqlite3_stmt *stmt = NULL;
    if (sqlite3_prepare_v2(s->sqlite, sql, -1, &stmt, NULL) != SQLITE_OK) {
        check(FERRY_ERR_DB, sql, sqlite3_errmsg(s->sqlite));
    }
    int number = sqlite3_step(stmt) == SQLITE_ROW ? sqlite3_column_int(stmt, 0) : 0;
    sqlite3_finalize(stmt);
    return number;
}

/* ---- The services -------------------------------------------------------------------------- */

/* The order travels as the saga's data: its number, price and place. */
static void order_of(const struct ferry_record *record, struct order *o)
{
    char text[TEXT_BYTES];
    (void)snprintf(text, sizeof(text), "%.*s", (int)record->payload_bytes,
                   (const char *)record->payload);
    *o = (struct order){.number = 0};
    (void)sscanf(text, "%d %d %31s", &o->number, &o->price, o->place);
}

/* Why the service cannot do it; NULL: it can. */
static const char *objection(struct service *s, const struct order *o)
{
    if (s->which == BANK && number_of(s, "SELECT money FROM account") < o->price) {
        return "there is not enough money";
    }
    if (s->which == STORE && number_of(s, "SELECT goods FROM stock") < 1) {
        return "it is sold out";
    }
    return s->which == CARRIER && strcmp(o->place, "moon") == 0 ? "it is too far" : NULL;
}

/* The effect, and with `undo` what takes it back. */
static void apply(struct service *s, const struct order *o, bool undo)
{
    char sql[TEXT_BYTES] = "";
    switch (s->which) {
    case BANK:
        (void)snprintf(sql, sizeof(sql), "UPDATE account SET money = money - %d",
                       undo ? -o->price : o->price);
        break;
    case STORE:
        (void)snprintf(sql, sizeof(sql), "UPDATE stock SET goods = goods - %d", undo ? -1 : 1);
        break;
    default:
        (void)snprintf(sql, sizeof(sql),
                       undo ? "DELETE FROM parcel WHERE number = %d"
                            : "INSERT INTO parcel VALUES (%d)",
                       o->number);
    }
    run_sql(s, sql);
}

/* A step: runs in the transaction that also holds its barrier, its answer, and the note that the
 * record is done. */
static enum ferry_err take_part(const struct ferry_record *record, struct ferry_db *db, void *arg)
{
    struct service *s = arg;
    struct ferry_saga_command command;
    struct order o;
    bool run = false;
    if (!ferry_saga_command_of(record, &command)) {
        return FERRY_OK; /* Not for us. */
    }
    enum ferry_err err = ferry_saga_enter(db, record, &run);
    if (err != FERRY_OK || !run) {
        return err;
    }
    order_of(record, &o);
    const char *why = command.undo ? NULL : objection(s, &o);
    printf("order %d: %s %s\n", o.number, names[s->which],
           why != NULL    ? "refuses"
           : command.undo ? "takes it back"
                          : "does its part");
    if (why != NULL) {
        return ferry_saga_refuse(db, record, why);
    }
    apply(s, &o, command.undo);
    return ferry_saga_done(db, record, NULL, 0);
}

/* The shop: moves the saga on, and notes with its end what became of the order. */
static enum ferry_err take_answer(const struct ferry_record *record, struct ferry_db *db, void *arg)
{
    struct service *s = arg;
    enum ferry_saga_state state;
    struct ferry_id id;
    char id_text[FERRY_ID_TEXT_BYTES], sql[TEXT_BYTES];
    enum ferry_err err = ferry_saga_answer(db, &order_saga, record, &state);
    if (err == FERRY_OK && (state == FERRY_SAGA_DONE || state == FERRY_SAGA_COMPENSATED) &&
        ferry_saga_of(record, &id)) {
        ferry_id_format(&id, id_text);
        (void)snprintf(sql, sizeof(sql), "UPDATE purchase SET state = '%s' WHERE saga = '%s'",
                       state == FERRY_SAGA_DONE ? "delivered" : "cancelled", id_text);
        run_sql(s, sql);
        (*s->ended)++;
    }
    return err;
}

/* The order and its saga: both or neither. */
static void place_order(struct service *s, const struct order *o)
{
    struct ferry_id id;
    char data[TEXT_BYTES], id_text[FERRY_ID_TEXT_BYTES], sql[TEXT_BYTES];
    int bytes = snprintf(data, sizeof(data), "%d %d %s", o->number, o->price, o->place);
    run_sql(s, "BEGIN IMMEDIATE");
    check(ferry_saga_start(s->db, &order_saga, NULL, 0, data, (size_t)bytes, &id), "start",
          ferry_db_detail(s->db));
    ferry_id_format(&id, id_text);
    (void)snprintf(sql, sizeof(sql), "INSERT INTO purchase VALUES (%d, '%s', 'open')", o->number,
                   id_text);
    run_sql(s, sql);
    run_sql(s, "COMMIT");
    ferry_outbox_committed(s->db);
}

/* ---- The frame ------------------------------------------------------------------------------- */

static void open_service(struct service *s, int which, const char *folder)
{
    static const char *const tables[SERVICES] = {
        "CREATE TABLE purchase (number INTEGER PRIMARY KEY, saga TEXT, state TEXT)",
        "CREATE TABLE account (money INTEGER); INSERT INTO account VALUES (100)",
        "CREATE TABLE stock (goods INTEGER); INSERT INTO stock VALUES (5)",
        "CREATE TABLE parcel (number INTEGER PRIMARY KEY)"};
    s->which = which;
    (void)snprintf(s->path, sizeof(s->path), "%s/%s.db", folder, names[which]);
    if (sqlite3_open(s->path, &s->sqlite) != SQLITE_OK) {
        check(FERRY_ERR_DB, s->path, sqlite3_errmsg(s->sqlite));
    }
    sqlite3_busy_timeout(s->sqlite, WAIT_MS);
    check(ferry_db_sqlite(&s->db, s->sqlite), s->path, "");
    check(ferry_migrate(s->db), "migrate", ferry_db_detail(s->db));
    run_sql(s, tables[which]);
}

static struct ferry_broker *start_broker(const char *folder, struct ferry_client **client)
{
    char data[TEXT_BYTES], detail[TEXT_BYTES] = "";
    struct ferry_broker *broker = NULL;
    struct ferry_conf *conf = NULL;
    (void)snprintf(data, sizeof(data), "node.data=%s/data", folder);
    const char *options[] = {data, "listen.endpoint=tcp://127.0.0.1:*"};
    check(ferry_broker_start(&broker, options, 2, detail, sizeof(detail)), "broker", detail);
    check(ferry_conf_new(&conf), "conf", "");
    check(ferry_broker_conf(broker, conf), "conf", "");
    check(ferry_open(client, &conf, detail, sizeof(detail)), "open", detail);
    return broker;
}

/* One relay serves all four; what it says is in FOLDER/relay.log. */
static void start_relay(char *program, const char *folder, const char *endpoint,
                        struct service *services)
{
    char urls[SERVICES][TEXT_BYTES + 8], server[TEXT_BYTES], log[TEXT_BYTES];
    char *words[2 * SERVICES + 4] = {program, "--server", server};
    posix_spawn_file_actions_t actions;
    (void)snprintf(server, sizeof(server), "%s", endpoint);
    (void)snprintf(log, sizeof(log), "%s/relay.log", folder);
    for (int i = 0; i < SERVICES; i++) {
        (void)snprintf(urls[i], sizeof(urls[i]), "sqlite:%s", services[i].path);
        words[3 + 2 * i] = "--db";
        words[4 + 2 * i] = urls[i];
    }
    int failed = posix_spawn_file_actions_init(&actions);
    if (failed == 0) {
        failed = posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, log,
                                                  O_CREAT | O_WRONLY | O_TRUNC, 0600);
    }
    if (failed == 0) {
        failed = posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
    }
    if (failed == 0) {
        failed = posix_spawn(&relay, program, &actions, NULL, words, environ);
        (void)posix_spawn_file_actions_destroy(&actions);
    }
    if (failed != 0) {
        relay = 0;
        check(FERRY_ERR_IO, program, strerror(failed));
    }
}

/* All services take turns until every saga has ended. */
static void serve(struct service *services, const int *ended)
{
    for (int turn = 0; *ended < ORDERS; turn++) {
        struct service *s = &services[turn % SERVICES];
        const struct ferry_consume_options options = {
            .group = names[s->which], .idle_exit_ms = A_MOMENT, .figures = &s->figures};
        check(ferry_consume_tx(s->consumer, s->db, s->which == SHOP ? take_answer : take_part, s,
                               &options),
              names[s->which], ferry_db_detail(s->db));
        check(turn < TURNS_MAX ? FERRY_OK : FERRY_ERR_TIMEOUT, "serve", "");
    }
}

/* As another thread would read them for Prometheus. */
static void tell_figures(const struct service *services)
{
    for (int i = 0; i < SERVICES; i++) {
        struct ferry_consume_figures f;
        ferry_consume_figures(&services[i].figures, &f);
        printf("%s: %llu applied, %llu again, %llu tried once more; the handler took %llu us\n",
               names[i], (unsigned long long)f.fresh, (unsigned long long)f.duplicates,
               (unsigned long long)f.retries, (unsigned long long)f.handler_us);
    }
}

static int verdict(struct service *services)
{
    tell_figures(services);
    int done =
        number_of(&services[SHOP], "SELECT count(*) FROM purchase WHERE state = 'delivered'");
    int cancelled =
        number_of(&services[SHOP], "SELECT count(*) FROM purchase WHERE state = 'cancelled'");
    int money = number_of(&services[BANK], "SELECT money FROM account");
    int goods = number_of(&services[STORE], "SELECT goods FROM stock");
    int parcels = number_of(&services[CARRIER], "SELECT count(*) FROM parcel");
    printf("delivered %d, cancelled %d; money %d, goods %d, parcels %d\n", done, cancelled, money,
           goods, parcels);
    bool good =
        done == 1 && cancelled == 2 && money == MONEY - 20 && goods == STOCK - 1 && parcels == 1;
    puts(good ? "good: every order was done everywhere or nowhere" : "BAD: the databases differ");
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int run(const char *folder, char *relay_program)
{
    static const struct order orders[ORDERS] = {{1, 20, "town"}, {2, 30, "moon"}, {3, 500, "town"}};
    struct service services[SERVICES] = {{.which = 0}};
    struct ferry_client *client = NULL;
    int ended = 0;
    struct ferry_broker *broker = start_broker(folder, &client);
    for (int i = 0; i < SERVICES; i++) {
        const struct ferry_topic_spec topic = {.name = names[i], .partitions = 1};
        open_service(&services[i], i, folder);
        services[i].ended = &ended;
        check(ferry_topic_create(client, &topic, WAIT_MS), names[i], "");
        check(ferry_consumer_open(&services[i].consumer, client, names[i], names[i],
                                  FERRY_FROM_START, WAIT_MS),
              names[i], "");
    }
    start_relay(relay_program, folder, ferry_broker_endpoint(broker), services);
    for (int i = 0; i < ORDERS; i++) {
        place_order(&services[SHOP], &orders[i]);
    }
    serve(services, &ended);
    int code = verdict(services);
    stop_relay();
    for (int i = 0; i < SERVICES; i++) {
        ferry_consumer_close(&services[i].consumer);
        ferry_db_free(&services[i].db);
        sqlite3_close(services[i].sqlite);
    }
    ferry_close(&client, WAIT_MS);
    ferry_broker_stop(&broker);
    return code;
}

int main(int argc, char **argv)
{
    char self[TEXT_BYTES], beside[TEXT_BYTES + 32];
    if (argc != 2 && argc != 3) {
        fputs("usage: saga FOLDER [FERRY-OUTBOX]\n", stderr);
        return 2;
    }
    (void)snprintf(self, sizeof(self), "%s", argv[0]);
    (void)snprintf(beside, sizeof(beside), "%s/../ferry-outbox", dirname(self));
    return run(argv[1], argc == 3 ? argv[2] : beside);
}
