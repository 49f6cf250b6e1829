/* keyed: updates of many accounts, shared by workers, each account's in order. One message of a key
 * is out at a time; a key that fails holds back only itself.
 *
 *   keyed FOLDER      20 accounts with 30 updates each, three workers, some updates fail at first
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ferry.h"
#include "ferry_broker.h"

#define TOPIC    "accounts"
#define BOOKS    "books"
#define ACCOUNTS 20
#define UPDATES  30
#define WORKERS  3
#define WAIT_MS  10000

struct books {
    int next[ACCOUNTS]; /* The update that each account waits for. */
    bool out[ACCOUNTS]; /* One of its updates is with a worker now. */
    int applied, failed;
    int out_of_order; /* Must stay 0. */
    int at_once;      /* Two of one account at the same time: must stay 0. */
};

static int complain(const char *what, enum ferry_err err, const char *detail)
{
    fprintf(stderr, "keyed: %s: %s: %s\n", what, ferry_err_name(err),
            detail[0] != '\0' ? detail : ferry_err_text(err));
    return EXIT_FAILURE;
}

static enum ferry_err make_subscription(struct ferry_client *client)
{
    const struct ferry_topic_spec topic = {.name = TOPIC, .partitions = 4};
    const struct ferry_subscription_spec books = {.mode = FERRY_MODE_KEYED,
                                                  .from = FERRY_FROM_START,
                                                  .backoff_min_ms = 50,
                                                  .backoff_max_ms = 1000,
                                                  .key_policy = FERRY_KEY_WAIT};
    enum ferry_err err = ferry_topic_create(client, &topic, WAIT_MS);
    return err == FERRY_OK ? ferry_subscription_make(client, TOPIC, BOOKS, &books, WAIT_MS) : err;
}

static enum ferry_err send_updates(struct ferry_client *client)
{
    enum ferry_err err = FERRY_OK;
    for (int i = 0; i < ACCOUNTS * UPDATES && err == FERRY_OK; i++) {
        char key[32], text[32];
        (void)snprintf(key, sizeof(key), "account-%d", i % ACCOUNTS);
        (void)snprintf(text, sizeof(text), "%d %d", i % ACCOUNTS, i / ACCOUNTS);
        struct ferry_message message = {.topic = TOPIC,
                                        .partition = FERRY_PARTITION_ANY,
                                        .key = key,
                                        .key_bytes = strlen(key),
                                        .payload = text,
                                        .payload_bytes = strlen(text)};
        err = ferry_send(client, &message);
    }
    return err == FERRY_OK ? ferry_flush(client, WAIT_MS) : err;
}

static void read_update(const struct ferry_record *record, int *account, int *update)
{
    char text[32] = "";
    *account = *update = 0;
    if (record->payload_bytes < sizeof(text)) {
        memcpy(text, record->payload, record->payload_bytes);
    }
    if (sscanf(text, "%d %d", account, update) != 2 || *account < 0 || *account >= ACCOUNTS) {
        *account = *update = 0;
    }
}

/* All that a worker got is out at the same time, and no two of it are of one account. */
static void take(struct books *books, const struct ferry_delivery *deliveries, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int account, update;
        read_update(&deliveries[i].record, &account, &update);
        books->at_once += books->out[account];
        books->out[account] = true;
    }
}

/* Every seventh update fails when it is tried first: its account waits, the others go on. */
static enum ferry_err apply(struct books *books, struct ferry_receiver *worker,
                            struct ferry_delivery *delivery)
{
    int account, update;
    read_update(&delivery->record, &account, &update);
    books->out[account] = false;
    books->out_of_order += update != books->next[account];
    if ((account + update) % 7 == 0 && delivery->failed == 0) {
        books->failed++;
        return ferry_nack(worker, delivery, -1, "the account is locked");
    }
    books->next[account] = update + 1;
    books->applied++;
    return ferry_ack(worker, delivery);
}

static enum ferry_err work(struct ferry_receiver *workers[WORKERS], struct books *books)
{
    enum ferry_err err = FERRY_OK;
    for (int turn = 0; err == FERRY_OK && books->applied < ACCOUNTS * UPDATES; turn++) {
        enum { SOME = 10, A_MOMENT_MS = 20 };
        struct ferry_delivery deliveries[SOME];
        size_t count = 0;
        struct ferry_receiver *worker = workers[turn % WORKERS];
        err = ferry_receive(worker, A_MOMENT_MS, deliveries, SOME, &count);
        err = err == FERRY_ERR_TIMEOUT ? FERRY_OK : err;
        take(books, deliveries, count);
        for (size_t i = 0; i < count && err == FERRY_OK; i++) {
            err = apply(books, worker, &deliveries[i]);
        }
    }
    for (int i = 0; i < WORKERS && err == FERRY_OK; i++) {
        err = ferry_receiver_flush(workers[i], WAIT_MS, NULL);
    }
    return err;
}

static enum ferry_err run_workers(struct ferry_client *client, struct books *books)
{
    static const char *const names[WORKERS] = {"ann", "ben", "cem"};
    struct ferry_receiver *workers[WORKERS] = {NULL};
    enum ferry_err err = FERRY_OK;
    for (int i = 0; i < WORKERS && err == FERRY_OK; i++) {
        const struct ferry_receiver_spec spec = {.member = names[i], .batch_max = 10};
        err = ferry_receiver_open(&workers[i], client, TOPIC, BOOKS, &spec, WAIT_MS);
    }
    if (err == FERRY_OK) {
        err = work(workers, books);
    }
    for (int i = 0; i < WORKERS; i++) {
        ferry_receiver_close(&workers[i], WAIT_MS);
    }
    return err;
}

static int verdict(const struct books *books)
{
    printf("updates %d, failed at first %d, out of order %d, two of an account at once %d\n",
           books->applied, books->failed, books->out_of_order, books->at_once);
    bool good = books->out_of_order == 0 && books->at_once == 0;
    puts(good ? "good: every account has its updates once and in order" : "BAD: the order broke");
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int use(struct ferry_broker *broker)
{
    char detail[512] = "";
    struct ferry_conf *conf = NULL;
    struct ferry_client *client = NULL;
    struct books books = {.applied = 0};
    enum ferry_err err = ferry_conf_new(&conf);
    if (err == FERRY_OK) {
        err = ferry_broker_conf(broker, conf);
    }
    if (err == FERRY_OK) {
        err = ferry_open(&client, &conf, detail, sizeof(detail));
    }
    ferry_conf_free(&conf); /* NULL once the client has taken it. */
    if (err != FERRY_OK) {
        return complain("client", err, detail);
    }
    err = make_subscription(client);
    if (err == FERRY_OK) {
        err = send_updates(client);
    }
    if (err == FERRY_OK) {
        err = run_workers(client, &books);
    }
    ferry_error_detail(client, detail, sizeof(detail));
    ferry_close(&client, WAIT_MS);
    return err != FERRY_OK ? complain(TOPIC, err, detail) : verdict(&books);
}

int main(int argc, char **argv)
{
    char data[1024], detail[512] = "";
    if (argc != 2) {
        fputs("usage: keyed FOLDER\n", stderr);
        return 2;
    }
    (void)snprintf(data, sizeof(data), "node.data=%s", argv[1]);
    const char *options[] = {data};
    struct ferry_broker *broker = NULL;
    enum ferry_err err = ferry_broker_start(&broker, options, 1, detail, sizeof(detail));
    if (err != FERRY_OK) {
        return complain(argv[1], err, detail);
    }
    int code = use(broker);
    ferry_broker_stop(&broker); /* After its clients are closed. */
    return code;
}
