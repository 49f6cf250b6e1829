/* stream: a group of readers. The broker shares the partitions out over its members, as they come
 * and go; each partition is read in order by one member at a time, which commits how far it is.
 *
 *   stream FOLDER      6000 messages; a second member joins on the way, and leaves again */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ferry.h"
#include "ferry_broker.h"

#define TOPIC      "clicks"
#define GROUP      "counters"
#define PARTITIONS 4
#define MESSAGES   2000
#define WAIT_MS    10000

struct counting {
    int seen[MESSAGES]; /* How often each message was read: it is sent three times. */
    int total;
    int64_t next[PARTITIONS]; /* By partition: the offset expected next. */
    int out_of_order;
};

/* A member, and how far it is in each partition that it has. */
struct member {
    const char *name;
    struct ferry_consumer *consumer;
    int64_t done[PARTITIONS]; /* One past the last one read; -1: nothing new. */
    int read;
};

static int complain(const char *what, enum ferry_err err, const char *detail)
{
    fprintf(stderr, "stream: %s: %s: %s\n", what, ferry_err_name(err),
            detail[0] != '\0' ? detail : ferry_err_text(err));
    return EXIT_FAILURE;
}

static enum ferry_err send_all(struct ferry_client *client)
{
    enum ferry_err err = FERRY_OK;
    for (int i = 0; i < MESSAGES && err == FERRY_OK; i++) {
        char text[32];
        (void)snprintf(text, sizeof(text), "%d", i);
        struct ferry_message message = {.topic = TOPIC,
                                        .partition = i % PARTITIONS,
                                        .payload = text,
                                        .payload_bytes = strlen(text)};
        err = ferry_send(client, &message);
    }
    return err == FERRY_OK ? ferry_flush(client, WAIT_MS) : err;
}

static enum ferry_err commit(struct member *m, int32_t partition)
{
    enum ferry_err err = FERRY_OK;
    if (m->done[partition] >= 0) {
        err = ferry_consumer_commit(m->consumer, partition, m->done[partition], WAIT_MS);
        m->done[partition] = err == FERRY_OK ? -1 : m->done[partition];
    }
    return err;
}

/* A partition that is to go to another member: committed first, so that nothing is read twice. */
static void on_assignment(struct ferry_consumer *consumer, int32_t partition, bool given, void *arg)
{
    struct member *m = arg;
    (void)consumer;
    if (!given) {
        (void)commit(m, partition);
    }
    printf("%s %s partition %d\n", m->name, given ? "gets" : "gives", partition);
}

static enum ferry_err join(struct ferry_client *client, struct member *m)
{
    const struct ferry_join_spec spec = {.member = m->name, .session_ms = 2000};
    for (int i = 0; i < PARTITIONS; i++) {
        m->done[i] = -1;
    }
    enum ferry_err err =
        ferry_consumer_join(&m->consumer, client, TOPIC, GROUP, FERRY_FROM_START, &spec, WAIT_MS);
    if (err == FERRY_OK) {
        ferry_consumer_on_assignment(m->consumer, on_assignment, m);
    }
    return err;
}

static void count(struct counting *c, struct member *m, const struct ferry_record *record)
{
    char text[32] = "";
    if (record->payload_bytes < sizeof(text)) {
        memcpy(text, record->payload, record->payload_bytes);
    }
    int number = atoi(text);
    number = number >= 0 && number < MESSAGES ? number : 0;
    c->seen[number]++;
    c->total++;
    c->out_of_order += record->offset != c->next[record->partition];
    c->next[record->partition] = record->offset + 1;
    m->done[record->partition] = record->offset + 1;
    m->read++;
}

/* One batch, if there is one: counted, then committed. */
static enum ferry_err read_some(struct counting *c, struct member *m)
{
    enum { A_MOMENT_MS = 20 };
    struct ferry_batch *batch = NULL;
    enum ferry_err err = ferry_consumer_fetch(m->consumer, A_MOMENT_MS, &batch);
    if (err != FERRY_OK) {
        return err == FERRY_ERR_TIMEOUT ? FERRY_OK : err;
    }
    for (size_t i = 0; i < ferry_batch_count(batch); i++) {
        struct ferry_record record;
        ferry_batch_record(batch, i, &record);
        count(c, m, &record);
    }
    int32_t partition = ferry_batch_partition(batch);
    ferry_batch_free(&batch);
    return commit(m, partition);
}

static int partitions_of(const struct member *m)
{
    int count = 0;
    for (int i = 0; i < PARTITIONS; i++) {
        count += ferry_consumer_has(m->consumer, i);
    }
    return count;
}

/* Both take turns here; they could as well be processes on several machines. */
static enum ferry_err read_both(struct counting *c, struct member *first, struct member *second)
{
    enum ferry_err err = read_some(c, first);
    return err == FERRY_OK ? read_some(c, second) : err;
}

/* The second one gets its share: partitions are handed over one by one. */
static enum ferry_err share(struct counting *c, struct member *first, struct member *second)
{
    enum { TURNS = 300 };
    enum ferry_err err = FERRY_OK;
    for (int i = 0; i < TURNS && err == FERRY_OK && partitions_of(second) < PARTITIONS / 2; i++) {
        err = read_both(c, first, second);
    }
    printf("%s has %d of %d partitions\n", second->name, partitions_of(second), PARTITIONS);
    return err;
}

/* Three times MESSAGES: to the first alone, to both, to the first alone again. */
static enum ferry_err read_all(struct ferry_client *client, struct counting *c,
                               struct member *first, struct member *second)
{
    enum ferry_err err = join(client, first);
    while (err == FERRY_OK && c->total < MESSAGES) {
        err = read_some(c, first);
    }
    if (err == FERRY_OK) {
        err = join(client, second);
    }
    if (err == FERRY_OK) {
        err = share(c, first, second);
    }
    err = err == FERRY_OK ? send_all(client) : err;
    while (err == FERRY_OK && c->total < 2 * MESSAGES) {
        err = read_both(c, first, second);
    }
    ferry_consumer_close(&second->consumer); /* It leaves: the first has all of it again. */
    err = err == FERRY_OK ? send_all(client) : err;
    while (err == FERRY_OK && c->total < 3 * MESSAGES) {
        err = read_some(c, first);
    }
    ferry_consumer_close(&first->consumer);
    return err;
}

static int verdict(const struct counting *c, const struct member *first,
                   const struct member *second)
{
    int wrong = 0;
    for (int i = 0; i < MESSAGES; i++) {
        wrong += c->seen[i] != 3;
    }
    printf("sent %d, read %d: %s %d, %s %d; not read once %d, out of order %d\n", 3 * MESSAGES,
           c->total, first->name, first->read, second->name, second->read, wrong, c->out_of_order);
    bool good = wrong == 0 && c->out_of_order == 0 && second->read > 0;
    puts(good ? "good: every message was read once, by whoever had its partition"
              : "BAD: the numbers differ");
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int use(struct ferry_broker *broker)
{
    char detail[512] = "";
    struct ferry_conf *conf = NULL;
    struct ferry_client *client = NULL;
    struct member first = {.name = "ann"}, second = {.name = "ben"};
    static struct counting counting;
    const struct ferry_topic_spec topic = {.name = TOPIC, .partitions = PARTITIONS};
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
    err = ferry_topic_create(client, &topic, WAIT_MS);
    if (err == FERRY_OK) {
        err = send_all(client);
    }
    if (err == FERRY_OK) {
        err = read_all(client, &counting, &first, &second);
    }
    ferry_error_detail(client, detail, sizeof(detail));
    ferry_close(&client, WAIT_MS);
    return err != FERRY_OK ? complain(TOPIC, err, detail) : verdict(&counting, &first, &second);
}

int main(int argc, char **argv)
{
    char data[1024], detail[512] = "";
    if (argc != 2) {
        fputs("usage: stream FOLDER\n", stderr);
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
