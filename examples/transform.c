/* transform: reads one topic, makes a message of each record, and publishes it to another, without
 * loss and without duplicates: the id of what is made is derived from the record it is made of, so
 * publishing it again after a crash stores nothing twice.
 *
 *   transform FOLDER      500 orders become invoices; it "crashes" on the way, and starts again */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ferry.h"
#include "ferry_broker.h"

#define IN      "orders"
#define OUT     "invoices"
#define GROUP   "billing"
#define ORDERS  500
#define WAIT_MS 10000

struct progress {
    int made;       /* Published, repeats included. */
    int duplicates; /* Recognised by their id. */
    int crash_at;   /* Dies once it has made so many, before it commits; 0: never. */
};

static int complain(const char *what, enum ferry_err err, const char *detail)
{
    fprintf(stderr, "transform: %s: %s: %s\n", what, ferry_err_name(err),
            detail[0] != '\0' ? detail : ferry_err_text(err));
    return EXIT_FAILURE;
}

static enum ferry_err make_topics(struct ferry_client *client)
{
    const struct ferry_topic_spec in = {.name = IN, .partitions = 2};
    const struct ferry_topic_spec out = {.name = OUT, .partitions = 3};
    enum ferry_err err = ferry_topic_create(client, &in, WAIT_MS);
    return err == FERRY_OK ? ferry_topic_create(client, &out, WAIT_MS) : err;
}

static enum ferry_err send_orders(struct ferry_client *client)
{
    enum ferry_err err = FERRY_OK;
    for (int i = 0; i < ORDERS && err == FERRY_OK; i++) {
        char text[32];
        (void)snprintf(text, sizeof(text), "order %d", i);
        struct ferry_message message = {.topic = IN,
                                        .partition = FERRY_PARTITION_ANY,
                                        .key = text,
                                        .key_bytes = strlen(text),
                                        .payload = text,
                                        .payload_bytes = strlen(text)};
        err = ferry_send(client, &message);
    }
    return err == FERRY_OK ? ferry_flush(client, WAIT_MS) : err;
}

/* One record in, one message out. Asked twice it is stored once. */
static enum ferry_err transform(struct ferry_client *client, const struct ferry_id *topic_id,
                                const struct ferry_record *record, struct progress *progress)
{
    char text[64] = "";
    size_t bytes = record->payload_bytes < sizeof(text) ? record->payload_bytes : sizeof(text);
    for (size_t i = 0; i < bytes; i++) {
        text[i] = (char)toupper(((const unsigned char *)record->payload)[i]);
    }
    const struct ferry_message message = {
        .topic = OUT,
        .partition = FERRY_PARTITION_ANY,
        .key = record->key,
        .key_bytes = record->key_bytes,
        .payload = text,
        .payload_bytes = bytes,
        .id = ferry_id_derive(topic_id, record->partition, record->offset, 0)};
    struct ferry_publish_result result;
    enum ferry_err err = ferry_publish(client, &message, 1, NULL, WAIT_MS, &result);
    if (err == FERRY_OK) {
        progress->made++;
        progress->duplicates += result.duplicate;
    }
    return err;
}

static bool crashes(const struct progress *progress)
{
    return progress->crash_at > 0 && progress->made >= progress->crash_at;
}

/* Commits only what has been published; what it published and did not commit it does again. */
static enum ferry_err run_once(struct ferry_client *client, struct progress *progress)
{
    struct ferry_consumer *consumer = NULL;
    enum ferry_err err =
        ferry_consumer_open(&consumer, client, IN, GROUP, FERRY_FROM_START, WAIT_MS);
    while (err == FERRY_OK && !crashes(progress) && !ferry_consumer_at_end(consumer)) {
        struct ferry_batch *batch = NULL;
        const struct ferry_id topic_id = ferry_consumer_topic_id(consumer);
        err = ferry_consumer_fetch(consumer, 1000, &batch);
        if (err == FERRY_ERR_TIMEOUT) {
            err = FERRY_OK;
            continue;
        }
        for (size_t i = 0; err == FERRY_OK && i < ferry_batch_count(batch) && !crashes(progress);
             i++) {
            struct ferry_record record;
            ferry_batch_record(batch, i, &record);
            err = transform(client, &topic_id, &record, progress);
        }
        if (err == FERRY_OK && !crashes(progress)) {
            err = ferry_consumer_commit(consumer, ferry_batch_partition(batch),
                                        ferry_batch_next_offset(batch), WAIT_MS);
        }
        ferry_batch_free(&batch);
    }
    ferry_consumer_close(&consumer);
    return err;
}

/* How many invoices there are, and how many have come twice. */
static enum ferry_err check(struct ferry_client *client, int *total, int *twice)
{
    static int seen[ORDERS];
    struct ferry_consumer *consumer = NULL;
    enum ferry_err err =
        ferry_consumer_open(&consumer, client, OUT, NULL, FERRY_FROM_START, WAIT_MS);
    while (err == FERRY_OK && !ferry_consumer_at_end(consumer)) {
        struct ferry_batch *batch = NULL;
        err = ferry_consumer_fetch(consumer, 1000, &batch);
        if (err == FERRY_ERR_TIMEOUT) {
            err = FERRY_OK;
            continue;
        }
        for (size_t i = 0; err == FERRY_OK && i < ferry_batch_count(batch); i++) {
            struct ferry_record record;
            char text[64] = "";
            int number = 0;
            ferry_batch_record(batch, i, &record);
            memcpy(text, record.payload,
                   record.payload_bytes < sizeof(text) ? record.payload_bytes : sizeof(text) - 1);
            if (sscanf(text, "ORDER %d", &number) == 1 && number >= 0 && number < ORDERS) {
                *twice += seen[number]++ > 0;
                ++*total;
            }
        }
        ferry_batch_free(&batch);
    }
    ferry_consumer_close(&consumer);
    return err;
}

static enum ferry_err run(struct ferry_client *client, struct progress *progress)
{
    enum ferry_err err = make_topics(client);
    if (err == FERRY_OK) {
        err = send_orders(client);
    }
    progress->crash_at = ORDERS / 2;
    if (err == FERRY_OK) {
        err = run_once(client, progress);
    }
    printf("crashed after %d invoices, before it committed the last of them\n", progress->made);
    progress->crash_at = 0;
    return err == FERRY_OK ? run_once(client, progress) : err;
}

static int use(struct ferry_broker *broker)
{
    char detail[512] = "";
    struct ferry_conf *conf = NULL;
    struct ferry_client *client = NULL;
    struct progress progress = {.made = 0};
    int total = 0, twice = 0;
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
    err = run(client, &progress);
    if (err == FERRY_OK) {
        err = check(client, &total, &twice);
    }
    ferry_error_detail(client, detail, sizeof(detail));
    ferry_close(&client, WAIT_MS);
    if (err != FERRY_OK) {
        return complain(OUT, err, detail);
    }
    bool good = total == ORDERS && twice == 0;
    printf("orders %d, published %d, recognised as repeats %d, invoices %d, twice %d\n", ORDERS,
           progress.made, progress.duplicates, total, twice);
    puts(good ? "good: one invoice for each order" : "BAD: the numbers differ");
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    char data[1024], detail[512] = "";
    if (argc != 2) {
        fputs("usage: transform FOLDER\n", stderr);
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
