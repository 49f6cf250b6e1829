/* The clerk does what messages ask of its bank: debits, fees, credits and their compensations, for
 * sagas of all three banks; and takes the answers to those that its own bank began.
 *
 * Everything happens in ferry_consume_tx's transaction: the change of the account, the entry, the
 * event, the saga's next message, and the note that this record is done. */
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "bank.h"

#define OPEN_TIMEOUT_MS  30000
#define CLOSE_TIMEOUT_MS 1000
#define SESSION_MS       3000 /* After so long a silence the other clerk has its partitions. */

/* One change of one account. */
struct change {
    const char *saga; /* Its id as text. */
    int64_t step, undo, account, amount;
};

static bool read_transfer(const struct ferry_record *record, struct transfer *t)
{
    char text[128];
    (void)snprintf(text, sizeof(text), "%.*s", (int)record->payload_bytes,
                   (const char *)record->payload);
    return sscanf(text, "%" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64,
                  &t->number, &t->payer, &t->payee, &t->amount, &t->fee, &t->delay_ms) == 6;
}

static struct change change_of(const struct ferry_saga_command *command, const struct transfer *t)
{
    struct change c = {.step = command->step, .undo = command->undo ? 1 : 0};
    switch (command->step) {
    case DEBIT:
        c.account = t->payer;
        c.amount = -(t->amount + t->fee);
        break;
    case FEE:
        c.account = FEE_ACCOUNTS + t->payer - PAYERS;
        c.amount = t->fee;
        break;
    default:
        c.account = t->payee;
        c.amount = t->amount;
        break;
    }
    c.amount = command->undo ? -c.amount : c.amount;
    return c;
}

/* Tells the world, in the order of the account's versions: the transaction has the account's row.
 */
static enum ferry_err put_event(struct bank *b, const struct change *c, int64_t version)
{
    char key[32], text[160];
    (void)snprintf(key, sizeof(key), "%c/%lld", b->letter, (long long)c->account);
    (void)snprintf(text, sizeof(text), "%s %lld %lld %lld %lld", c->saga, (long long)c->step,
                   (long long)c->undo, (long long)c->amount, (long long)version);
    const struct ferry_message message = {.topic = EVENTS_TOPIC,
                                          .key = key,
                                          .key_bytes = strlen(key),
                                          .payload = text,
                                          .payload_bytes = strlen(text)};
    return ferry_outbox_put(b->sql.db, &message, NULL);
}

/* *done false: there is no such account, or not so much on it. */
static enum ferry_err change_account(struct bank *b, const struct change *c, bool *done)
{
    int64_t changed = 0, version = 0;
    enum ferry_err err = sql_run(&b->sql, &changed,
                                 "UPDATE account SET balance = balance + ?, version = version + 1"
                                 " WHERE id = ? AND balance + ? >= 0",
                                 "iii", c->amount, c->account, c->amount);
    *done = changed == 1;
    if (err != FERRY_OK || !*done) {
        return err;
    }
    err = sql_run(&b->sql, &version, "SELECT version FROM account WHERE id = ?", "i", c->account);
    if (err == FERRY_OK) {
        err = sql_run(&b->sql, NULL, "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?)", "tiiiii",
                      c->saga, c->step, c->undo, c->account, c->amount, version);
    }
    return err == FERRY_OK ? put_event(b, c, version) : err;
}

static enum ferry_err obey(struct bank *b, const struct ferry_record *record,
                           const struct ferry_saga_command *command)
{
    struct transfer t = {0};
    bool run = false, done = false;
    enum ferry_err err = ferry_saga_enter(b->sql.db, record, &run);
    if (err != FERRY_OK || !run) {
        return err; /* Done before, or not to be done any more. */
    }
    if (!read_transfer(record, &t)) {
        return ferry_saga_refuse(b->sql.db, record, "not a transfer");
    }
    if (command->step == CREDIT && !command->undo) {
        poll(NULL, 0, (int)t.delay_ms); /* A slow day. */
    }
    char saga[FERRY_ID_TEXT_BYTES];
    ferry_id_format(&command->saga, saga);
    struct change c = change_of(command, &t);
    c.saga = saga;
    err = change_account(b, &c, &done);
    if (err != FERRY_OK) {
        return err;
    }
    return done ? ferry_saga_done(b->sql.db, record, NULL, 0)
                : ferry_saga_refuse(b->sql.db, record,
                                    command->step == CREDIT ? "no such account" : "no cover");
}

/* An answer, an end or a timer of a saga that began here. */
static enum ferry_err take_answer(struct bank *b, const struct ferry_record *record)
{
    enum ferry_saga_state state = FERRY_SAGA_RUNNING;
    struct ferry_id id;
    enum ferry_err err = ferry_saga_answer(b->sql.db, NULL, record, &state);
    if (err != FERRY_OK || state < FERRY_SAGA_DONE || !ferry_saga_of(record, &id)) {
        return err;
    }
    char saga[FERRY_ID_TEXT_BYTES];
    ferry_id_format(&id, saga);
    return sql_run(&b->sql, NULL, "UPDATE transfer SET state = ? WHERE saga = ?", "it",
                   (int64_t)state, saga);
}

static enum ferry_err handle(const struct ferry_record *record, struct ferry_db *db, void *arg)
{
    struct bank *b = arg;
    struct ferry_saga_command command;
    (void)db; /* It is b->sql.db. */
    return ferry_saga_command_of(record, &command) ? obey(b, record, &command)
                                                   : take_answer(b, record);
}

/* The loop still has the old one until there is a new one. */
static enum ferry_err reconnect(struct ferry_db **db, void *arg)
{
    struct bank *b = arg;
    struct sql fresh;
    (void)sql_init(&fresh, b->sql.url);
    enum ferry_err err = sql_connect(&fresh, bank_should_stop, NULL);
    if (err != FERRY_OK) {
        sql_close(&fresh);
        return err;
    }
    sql_close(&b->sql);
    b->sql = fresh;
    *db = fresh.db;
    return FERRY_OK;
}

static enum ferry_err open_client(const char *servers, struct ferry_client **client)
{
    char detail[512] = "";
    struct ferry_conf *conf = NULL;
    enum ferry_err err = ferry_conf_new(&conf);
    if (err == FERRY_OK) {
        err = ferry_conf_set(conf, "servers", servers, detail, sizeof(detail));
    }
    if (err == FERRY_OK) {
        err = ferry_open(client, &conf, detail, sizeof(detail));
    }
    ferry_conf_free(&conf); /* NULL once the client has taken it. */
    return err;
}

enum ferry_err bank_clerk(struct bank *b, const char *servers, const char *name)
{
    struct ferry_client *client = NULL;
    struct ferry_consumer *consumer = NULL;
    const char *topic = b->kinds[0].topics[0], *group = "clerks";
    enum ferry_err err = open_client(servers, &client);
    if (err == FERRY_OK) {
        const struct ferry_join_spec spec = {.member = name, .session_ms = SESSION_MS};
        err = ferry_consumer_join(&consumer, client, topic, group, FERRY_FROM_START, &spec,
                                  OPEN_TIMEOUT_MS);
    }
    if (err == FERRY_OK) {
        const struct ferry_consume_options options = {
            .group = group, .stop = bank_should_stop, .reconnect = reconnect};
        err = ferry_consume_tx(consumer, b->sql.db, handle, b, &options);
    }
    ferry_consumer_close(&consumer);
    ferry_close(&client, CLOSE_TIMEOUT_MS);
    return err;
}
