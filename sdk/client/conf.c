#include "client/conf.h"

#include <stdio.h>

#include "base/mem.h"
#include "wire/batch.h"

#define AT(field) offsetof(struct client_options, field)

#define SECOND_MS 1000
#define DAY_MS    (24 * 60 * 60 * 1000)

static const struct option_row rows[] = {
    {"servers", OPTION_TEXT, AT(servers), 1, CONF_SERVERS_BYTES_MAX, "tcp://127.0.0.1:7400", NULL,
     "Brokers to ask first, separated by commas; the rest of the cluster is learned from them."},
    {"client.name", OPTION_TEXT, AT(client_name), 1, CONF_NAME_BYTES_MAX, "ferry", NULL,
     "What the broker calls this client when it speaks to people."},
    {"producer.name", OPTION_TEXT, AT(producer_name), 0, CONF_NAME_BYTES_MAX, "", NULL,
     "A name makes the producer one of a kind: opening a second of the same name fences the "
     "first."},
    {"client.zone", OPTION_TEXT, AT(zone), 0, CONF_ZONE_BYTES_MAX, "", NULL,
     "Where this client runs: a member of a group is given partitions led in its zone where it "
     "can."},
    {"producer.partitioner", OPTION_CHOICE, AT(partitioner), 0, 2, "sticky",
     "sticky|round_robin|least_loaded", "How messages without a key are spread over partitions."},
    {"producer.linger_ms", OPTION_MS, AT(linger_ms), 0, 60 * SECOND_MS, "0", NULL,
     "How long a message may wait for company before its batch goes out."},
    {"producer.batch_bytes", OPTION_BYTES, AT(batch_bytes), 1024, BATCH_MAX_BYTES / 2, "256K", NULL,
     "A batch that has grown to this size goes out and a new one begins."},
    {"producer.inflight", OPTION_INT, AT(producer_inflight), 1, 8, "8", NULL,
     "Batches of one partition that may wait for their answers at the same time."},
    {"queue.bytes", OPTION_BYTES, AT(queue_bytes), 64 << 10, INT64_C(16) << 30, "32M", NULL,
     "Messages accepted and not yet reported; past it ferry_send answers QUEUE_FULL."},
    {"delivery.timeout_ms", OPTION_MS, AT(delivery_timeout_ms), 100, 7 * (int64_t)DAY_MS, "120s",
     NULL, "How long a message is tried before its report says NOT_STORED or UNKNOWN."},
    {"request.timeout_ms", OPTION_MS, AT(request_timeout_ms), 50, 600 * SECOND_MS, "10s", NULL,
     "How long one request waits for its answer before it is tried again."},
    {"retry.backoff_ms", OPTION_MS, AT(backoff_ms), 1, 60 * SECOND_MS, "50", NULL,
     "The first pause before a retry; it doubles with each, and jitter is added."},
    {"retry.backoff_max_ms", OPTION_MS, AT(backoff_max_ms), 1, 600 * SECOND_MS, "1s", NULL,
     "The longest pause before a retry."},
    {"metadata.max_age_ms", OPTION_MS, AT(metadata_max_age_ms), 1000, DAY_MS, "5m", NULL,
     "How old the knowledge of where a topic lives may become before it is asked for again."},
    {"message.max_bytes", OPTION_BYTES, AT(message_max_bytes), 1, BATCH_MAX_BYTES / 2, "1M", NULL,
     "The largest message (key, headers and payload) that ferry_send takes."},
    {"message.ids", OPTION_CHOICE, AT(message_ids), 0, 2, "none", "none|uuid7|snowflake",
     "Which id a message gets that comes without one."},
    {"snowflake.worker_id", OPTION_INT, AT(snowflake_worker_id), -1, 1023, "0", NULL,
     "Tells the snowflake ids of this process from those of others: unique in the fleet; -1: the "
     "cluster gives one."},
    {"fetch.max_wait_ms", OPTION_MS, AT(fetch_max_wait_ms), 0, 60 * SECOND_MS, "500", NULL,
     "How long the broker may hold a fetch back when there is nothing new."},
    {"fetch.min_bytes", OPTION_BYTES, AT(fetch_min_bytes), 1, 4 << 20, "1", NULL,
     "How much must be there before the broker answers a fetch early."},
    {"fetch.max_bytes", OPTION_BYTES, AT(fetch_max_bytes), 4096, 16 << 20, "4M", NULL,
     "The most that one fetch brings; one batch always comes, however large it is."},
    {"fetch.queue_bytes", OPTION_BYTES, AT(fetch_queue_bytes), 64 << 10, INT64_C(4) << 30, "16M",
     NULL, "Read ahead of one consumer: fetched and not yet taken by the application."},
};

const struct option_table conf_table = {rows, sizeof(rows) / sizeof(rows[0])};

enum ferry_err ferry_conf_new(struct ferry_conf **conf)
{
    struct ferry_conf *made = mem_zalloc(1, sizeof(*made));
    if (made == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    option_defaults(&conf_table, &made->options);
    *conf = made;
    return FERRY_OK;
}

void ferry_conf_free(struct ferry_conf **conf)
{
    mem_free(*conf);
    *conf = NULL;
}

enum ferry_err ferry_conf_set(struct ferry_conf *conf, const char *name, const char *value,
                              char *detail, size_t detail_bytes)
{
    struct err_text e = {.text = ""};
    enum ferry_err err = option_set(&conf_table, &conf->options, name, value, &e);
    if (err != FERRY_OK && detail != NULL && detail_bytes > 0) {
        (void)snprintf(detail, detail_bytes, "%s", e.text);
    }
    return err;
}

void ferry_conf_on_report(struct ferry_conf *conf, ferry_report_cb *callback, void *arg)
{
    conf->report = callback;
    conf->report_arg = arg;
}

void ferry_conf_set_context(struct ferry_conf *conf, struct ferry_context *context)
{
    conf->context = context;
}
