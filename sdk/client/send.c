/* send: ferry_send and what waits for outcomes: ferry_send_sync, ferry_poll, ferry_flush. */
#include <time.h>

#include "base/clock.h"
#include "client/metadata.h"

static bool is_well_formed(const struct ferry_message *m)
{
    return m->topic != NULL && m->partition >= FERRY_PARTITION_ANY &&
           (m->payload != NULL || m->payload_bytes == 0) && (m->key != NULL || m->key_bytes == 0) &&
           (m->headers != NULL || m->header_count == 0) && m->priority <= BATCH_PRIORITY_MAX &&
           m->due_ms >= 0 && m->delay_ms >= 0 && m->delay_ms <= DELAY_MAX_MS;
}

/* With the lock. The last topic is most often the next one too. */
static enum ferry_err find_topic(struct ferry_client *c, const char *name, struct topic **topic)
{
    if (c->last_topic != NULL && strcmp(c->last_topic->name, name) == 0) {
        *topic = c->last_topic;
        return FERRY_OK;
    }
    enum ferry_err err = topic_get(c, name, topic);
    if (err == FERRY_OK) {
        c->last_topic = *topic;
    }
    return err;
}

static struct ferry_id choose_id(struct ferry_client *c, const struct ferry_message *m,
                                 int64_t now_ms)
{
    if (c->options.message_ids == CONF_IDS_NONE || !id_is_zero(&m->id)) {
        return m->id;
    }
    return c->options.message_ids == CONF_IDS_UUID7 ? id_gen_uuid7(&c->ids, now_ms)
                                                    : id_gen_snowflake(&c->ids, now_ms);
}

/* With the lock. A worker id that the cluster gave is ours for a time only. */
static bool id_is_missing(const struct ferry_client *c, const struct ferry_message *m)
{
    return c->options.message_ids == CONF_IDS_SNOWFLAKE && id_is_zero(&m->id) &&
           c->worker_until_us != INT64_MAX && clock_monotonic_us() >= c->worker_until_us;
}

/* With the lock: the record as it will travel; its headers are in the client's scratch. */
static enum ferry_err make_record(struct ferry_client *c, const struct ferry_message *m,
                                  struct batch_record *r)
{
    int64_t now_ms = m->timestamp_ms != 0 ? m->timestamp_ms : clock_wall_ms();
    *r = (struct batch_record){.timestamp_ms = now_ms,
                               .has_key = m->key != NULL,
                               .key = bytes_of(m->key, m->key_bytes),
                               .payload = bytes_of(m->payload, m->payload_bytes),
                               .id = choose_id(c, m, now_ms),
                               .due = m->due_ms > 0 ? m->due_ms : -m->delay_ms,
                               .priority = m->priority};
    if (m->due_ms > 0 && m->due_ms > clock_wall_ms() + DELAY_MAX_MS) {
        return FERRY_ERR_INVALID_ARGUMENT; /* Its batch would be refused, and others with it. */
    }
    if (m->header_count > 0) {
        buf_clear(&c->headers);
        enum ferry_err err = batch_encode_headers(&c->headers, m->headers, m->header_count);
        if (err != FERRY_OK) {
            return err;
        }
        r->headers = buf_bytes(&c->headers);
    }
    size_t max = c->message_max_bytes;
    bool fits = r->key.size <= max && r->payload.size <= max - r->key.size &&
                r->headers.size <= max - r->key.size - r->payload.size;
    return fits ? FERRY_OK : FERRY_ERR_TOO_LARGE;
}

/* With the lock. */
static enum ferry_err accept(struct ferry_client *c, const struct ferry_message *m,
                             struct waiter *w, bool *wake)
{
    struct batch_record record;
    struct topic *topic;
    if (c->closing) {
        return FERRY_ERR_CLOSED;
    }
    if (id_is_missing(c, m)) {
        return FERRY_ERR_NOT_READY;
    }
    enum ferry_err err = find_topic(c, m->topic, &topic);
    if (err == FERRY_OK && topic->of_dead) {
        err = FERRY_ERR_BAD_NAME;
    }
    if (err == FERRY_OK) {
        err = make_record(c, m, &record);
    }
    if (err != FERRY_OK) {
        return err;
    }
    size_t cost = parcel_record_cost(&record);
    if (c->queued_bytes > 0 && c->queued_bytes + cost > (size_t)c->options.queue_bytes) {
        return FERRY_ERR_QUEUE_FULL;
    }
    struct accepted a = {
        .record = &record, .partition = m->partition, .opaque = m->opaque, .waiter = w};
    err = accumulator_add(topic, &a, wake);
    if (err == FERRY_OK) {
        c->queued_messages++;
        c->queued_bytes += cost;
    }
    return err;
}

enum ferry_err ferry_send(struct ferry_client *client, const struct ferry_message *message)
{
    if (!is_well_formed(message)) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    bool wake = false;
    pthread_mutex_lock(&client->lock);
    enum ferry_err err = accept(client, message, NULL, &wake);
    pthread_mutex_unlock(&client->lock);
    client_wake(client, wake);
    return err;
}

enum ferry_err ferry_send_sync(struct ferry_client *client, const struct ferry_message *message,
                               struct ferry_report *report)
{
    if (!is_well_formed(message)) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    bool wake = false;
    struct waiter w = {.done = false};
    list_init(&w.node);
    pthread_cond_init(&w.changed, NULL);
    pthread_mutex_lock(&client->lock);
    enum ferry_err err = accept(client, message, &w, &wake);
    pthread_mutex_unlock(&client->lock);
    client_wake(client, wake);
    if (err == FERRY_OK) {
        pthread_mutex_lock(&client->lock);
        while (!w.done) { /* The delivery timeout ends it. */
            pthread_cond_wait(&w.changed, &client->lock);
        }
        pthread_mutex_unlock(&client->lock);
        *report = w.report;
        report->topic = message->topic;
        report->opaque = message->opaque;
    }
    pthread_cond_destroy(&w.changed);
    return err;
}

static int64_t deadline_of(int timeout_ms)
{
    if (timeout_ms == 0) {
        return 0;
    }
    return timeout_ms < 0 ? INT64_MAX / 2 : clock_monotonic_us() + (int64_t)timeout_ms * 1000;
}

int ferry_poll(struct ferry_client *client, int timeout_ms)
{
    return due_run(client, deadline_of(timeout_ms));
}

static void pump_all(struct ferry_client *c, void *arg)
{
    (void)arg;
    client_pump_all(c);
}

static void change_flushing(struct ferry_client *c, bool more)
{
    pthread_mutex_lock(&c->lock);
    c->flushing = more ? c->flushing + 1 : c->flushing - 1;
    pthread_mutex_unlock(&c->lock);
}

enum ferry_err ferry_flush(struct ferry_client *client, int timeout_ms)
{
    int64_t deadline_us = deadline_of(timeout_ms);
    change_flushing(client, true);
    if (client->options.linger_ms > 0) {
        client_run_task(client, pump_all, NULL);
    }
    (void)due_run(client, 0);
    while (ferry_queued(client) > 0 && clock_monotonic_us() < deadline_us) {
        (void)due_run(client, deadline_us);
    }
    change_flushing(client, false);
    return ferry_queued(client) == 0 ? FERRY_OK : FERRY_ERR_TIMEOUT;
}
