#include "client/admin_ask.h"

#include "base/clock.h"
#include "base/mem.h"
#include "wire/batch.h"

int64_t admin_deadline_us(int timeout_ms)
{
    return clock_monotonic_us() + (int64_t)timeout_ms * 1000;
}

int admin_left_ms(int64_t deadline_us)
{
    int64_t left_us = deadline_us - clock_monotonic_us();
    return left_us > 0 ? (int)((left_us + 999) / 1000) : 0;
}

/* ---- Topics. */

enum ferry_err admin_topic(struct ferry_client *c, const char *name, int timeout_ms,
                           struct topic **topic)
{
    pthread_mutex_lock(&c->lock);
    enum ferry_err err = topic_get(c, name, topic);
    pthread_mutex_unlock(&c->lock);
    return err != FERRY_OK ? err : topic_await(*topic, true, timeout_ms);
}

int32_t admin_partition_count(struct topic *t)
{
    pthread_mutex_lock(&t->client->lock);
    int32_t count = t->partition_count;
    pthread_mutex_unlock(&t->client->lock);
    return count;
}

enum ferry_err admin_ask_partition(struct ferry_client *c, struct call *call, enum command command,
                                   struct topic *t, int32_t partition, call_encode *encode,
                                   const void *request, int64_t deadline_us)
{
    call_init(call, command, ROUTE_PARTITION, encode, request, admin_left_ms(deadline_us));
    call_to_partition(call, t, partition);
    return call_run_one(c, call);
}

/* ---- Questions to every partition. */

static void prepare_call(struct admin_survey *s, int32_t partition, enum command command,
                         call_encode *encode, const void *request, int64_t deadline_us)
{
    struct call *call = &s->calls[partition];
    call_init(call, command, ROUTE_PARTITION, encode, request, admin_left_ms(deadline_us));
    call_to_partition(call, s->topic, partition);
}

static enum ferry_err begin_survey(struct admin_survey *s, struct ferry_client *c,
                                   const char *topic, int64_t deadline_us)
{
    *s = (struct admin_survey){.client = c};
    enum ferry_err err = admin_topic(c, topic, admin_left_ms(deadline_us), &s->topic);
    if (err != FERRY_OK) {
        return err;
    }
    s->count = admin_partition_count(s->topic);
    s->calls = mem_zalloc((size_t)s->count, sizeof(*s->calls));
    return s->calls != NULL ? FERRY_OK : FERRY_ERR_NO_MEMORY;
}

enum ferry_err admin_survey_run(struct admin_survey *s, struct ferry_client *c, const char *topic,
                                enum command command, call_encode *encode, const void *request,
                                int64_t deadline_us)
{
    enum ferry_err err = begin_survey(s, c, topic, deadline_us);
    for (int32_t i = 0; err == FERRY_OK && i < s->count; i++) {
        prepare_call(s, i, command, encode, request, deadline_us);
    }
    if (err == FERRY_OK) {
        call_run(c, s->calls, (size_t)s->count);
    }
    return err;
}

enum ferry_err admin_survey_run_0_last(struct admin_survey *s, struct ferry_client *c,
                                       const char *topic, enum command command, call_encode *encode,
                                       const void *request, int64_t deadline_us)
{
    enum ferry_err err = begin_survey(s, c, topic, deadline_us);
    for (int32_t i = 1; err == FERRY_OK && i < s->count; i++) {
        prepare_call(s, i, command, encode, request, deadline_us);
    }
    if (err == FERRY_OK) {
        call_run(c, s->calls + 1, (size_t)s->count - 1);
        prepare_call(s, 0, command, encode, request, deadline_us);
        call_run(c, s->calls, 1);
    }
    return err;
}

void admin_survey_free(struct admin_survey *s)
{
    for (int32_t i = 0; i < s->count; i++) {
        call_fini(&s->calls[i]);
    }
    mem_free(s->calls);
}

enum ferry_err admin_survey_error(struct admin_survey *s, enum ferry_err but)
{
    bool any_ok = false;
    for (int32_t i = 0; i < s->count; i++) {
        const struct call *call = &s->calls[i];
        if (call->err != FERRY_OK && call->err != but) {
            call_keep_detail(s->client, call->detail.text);
            return call->err;
        }
        any_ok = any_ok || call->err == FERRY_OK;
    }
    return any_ok ? FERRY_OK : but;
}

/* ---- Batches. */

enum ferry_err admin_batch_of(struct batch_writer *w, const struct ferry_message *m,
                              struct bytes *batch)
{
    struct buf headers;
    struct batch_record r = {.timestamp_ms =
                                 m->timestamp_ms != 0 ? m->timestamp_ms : clock_wall_ms(),
                             .has_key = m->key != NULL,
                             .key = bytes_of(m->key, m->key_bytes),
                             .payload = bytes_of(m->payload, m->payload_bytes),
                             .id = m->id,
                             .priority = m->priority};
    enum ferry_err err = FERRY_OK;
    buf_init(&headers, BATCH_MAX_BYTES);
    if (m->header_count > 0) {
        err = batch_encode_headers(&headers, m->headers, m->header_count);
        r.headers = buf_bytes(&headers);
    }
    if (err == FERRY_OK) {
        err = batch_writer_add(w, &r);
    }
    if (err == FERRY_OK) {
        err = batch_writer_finish(w, 0, 0, 0, batch);
    }
    buf_fini(&headers);
    return err;
}
