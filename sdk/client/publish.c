#include "client/publish.h"

#include "base/checksum.h"
#include "base/clock.h"
#include "base/mem.h"
#include "ring/ring.h"
#include "wire/batch.h"

enum publishing_stage {
    PUBLISHING_TOPIC, /* How many partitions there are. */
    PUBLISHING_SEND,
    PUBLISHING_OVER
};

struct publishing {
    struct ferry_client *client;
    struct topic *topic;
    int32_t partition; /* FERRY_PARTITION_ANY: by key or id. */
    uint32_t count;
    int64_t deadline_us;
    struct batch_writer writer;
    struct bytes batch; /* In the writer. */
    struct publish_request *request;
    enum publishing_stage stage;
    struct call call;
    enum ferry_err err;
    struct ferry_publish_result result;
};

/* ---- What is published. */

/* All of one topic, none delayed, and of those that name a partition all the same one. */
static bool are_well_formed(const struct ferry_message *messages, size_t count)
{
    int32_t partition = FERRY_PARTITION_ANY;
    for (size_t i = 0; i < count; i++) {
        const struct ferry_message *m = &messages[i];
        bool whole =
            m->topic != NULL && strcmp(m->topic, messages[0].topic) == 0 &&
            m->partition >= FERRY_PARTITION_ANY && (m->payload != NULL || m->payload_bytes == 0) &&
            (m->key != NULL || m->key_bytes == 0) && (m->headers != NULL || m->header_count == 0);
        bool now = m->due_ms == 0 && m->delay_ms == 0;
        bool together = partition < 0 || m->partition < 0 || m->partition == partition;
        if (!whole || !now || !together || m->priority > BATCH_PRIORITY_MAX) {
            return false;
        }
        partition = m->partition >= 0 ? m->partition : partition;
    }
    return true;
}

/* Only keys have versions. */
static bool add_expectations(struct publishing *p, const struct ferry_message *messages,
                             size_t count, const uint64_t *versions)
{
    for (size_t i = 0; versions != NULL && i < count; i++) {
        if (versions[i] == FERRY_ANY_VERSION) {
            continue;
        }
        if (messages[i].key == NULL || p->request->count == PUBLISH_EXPECT_MAX) {
            return false;
        }
        p->request->expect[p->request->count++] =
            (struct publish_expect){.record = (uint32_t)i, .version = versions[i]};
    }
    return true;
}

static enum ferry_err add_message(struct publishing *p, const struct ferry_message *m,
                                  struct buf *headers)
{
    struct ferry_client *c = p->client;
    struct batch_record r = {.timestamp_ms =
                                 m->timestamp_ms != 0 ? m->timestamp_ms : clock_wall_ms(),
                             .has_key = m->key != NULL,
                             .key = bytes_of(m->key, m->key_bytes),
                             .payload = bytes_of(m->payload, m->payload_bytes),
                             .id = id_is_zero(&m->id) ? ferry_id_new(c) : m->id,
                             .priority = m->priority};
    buf_clear(headers);
    if (m->header_count > 0) {
        enum ferry_err err = batch_encode_headers(headers, m->headers, m->header_count);
        if (err != FERRY_OK) {
            return err;
        }
        r.headers = buf_bytes(headers);
    }
    pthread_mutex_lock(&c->lock);
    size_t max = c->message_max_bytes;
    pthread_mutex_unlock(&c->lock);
    bool fits = r.key.size <= max && r.payload.size <= max - r.key.size &&
                r.headers.size <= max - r.key.size - r.payload.size;
    return fits ? batch_writer_add(&p->writer, &r) : FERRY_ERR_TOO_LARGE;
}

static enum ferry_err make_batch(struct publishing *p, const struct ferry_message *messages,
                                 size_t count)
{
    struct buf headers;
    enum ferry_err err = FERRY_OK;
    pthread_mutex_lock(&p->client->lock);
    batch_writer_init(&p->writer, p->client->batch_max_bytes);
    buf_init(&headers, p->client->message_max_bytes);
    pthread_mutex_unlock(&p->client->lock);
    p->partition = FERRY_PARTITION_ANY;
    for (size_t i = 0; i < count && err == FERRY_OK; i++) {
        err = add_message(p, &messages[i], &headers);
        p->partition = messages[i].partition >= 0 ? messages[i].partition : p->partition;
    }
    buf_fini(&headers);
    if (err == FERRY_OK) {
        err = batch_writer_finish(&p->writer, 0, 0, 0, &p->batch);
    }
    return err;
}

/* ---- Where to. */

static int32_t choose_partition(const struct publishing *p, int32_t partitions)
{
    struct batch_reader reader;
    struct batch_record record;
    struct ferry_id first = {{0}};
    enum ferry_err err;
    if (p->partition >= 0) {
        return p->partition;
    }
    batch_reader_init(&reader, p->batch);
    while (batch_reader_next(&reader, &record, &err)) {
        if (record.has_key) {
            return ferry_partition_of_key(record.key.data, record.key.size, partitions);
        }
        first = id_is_zero(&first) ? record.id : first;
    }
    return ferry_partition_of_key(first.bytes, sizeof(first.bytes), partitions);
}

/* ---- The stages. */

static void encode_partition_info(struct buf *b, const struct call *call, uint64_t group)
{
    (void)call;
    struct partition_info_request request = {.group = group};
    partition_info_request_encode(b, &request);
}

static void encode_publish(struct buf *b, const struct call *call, uint64_t group)
{
    const struct publishing *p = call->request;
    p->request->group = group;
    publish_request_encode(b, p->request);
    frame_begin_attachment(b);
    buf_append_bytes(b, p->batch);
}

static int left_ms(int64_t deadline_us)
{
    int64_t left_us = deadline_us - clock_monotonic_us();
    return left_us > 0 ? (int)((left_us + 999) / 1000) : 0;
}

static void ask(struct publishing *p, enum command command, call_encode *encode, int32_t partition)
{
    call_init(&p->call, command, ROUTE_PARTITION, encode, p, left_ms(p->deadline_us));
    call_to_partition(&p->call, p->topic, partition);
    call_begin(p->client, &p->call, 1);
}

static void send(struct publishing *p)
{
    pthread_mutex_lock(&p->client->lock);
    int32_t partitions = p->topic->partition_count;
    pthread_mutex_unlock(&p->client->lock);
    p->stage = PUBLISHING_SEND;
    ask(p, COMMAND_PUBLISH, encode_publish, choose_partition(p, partitions));
}

static bool duplicates_are_sane(const struct publishing *p, const struct publish_reply *reply)
{
    struct bytes told = p->call.frame.attachment;
    if (reply->duplicate_count > p->count ||
        told.size != (size_t)reply->duplicate_count * PRODUCE_DUPLICATE_BYTES) {
        return false;
    }
    for (size_t at = 0; at < told.size; at += PRODUCE_DUPLICATE_BYTES) {
        const uint8_t *one = told.data + at;
        bool ascends = at == 0 || get_le32(one) > get_le32(one - PRODUCE_DUPLICATE_BYTES);
        if (!ascends || get_le32(one) >= p->count || (int64_t)get_le64(one + 4) < -1) {
            return false;
        }
    }
    return true;
}

/* When all are repeats, the list of them says where the first one is. */
static enum ferry_err take_stored(struct publishing *p)
{
    struct publish_reply reply;
    if (publish_reply_decode(p->call.frame.body, &reply) != FERRY_OK ||
        !duplicates_are_sane(p, &reply) || reply.base_offset < -1 ||
        (reply.base_offset < 0 && reply.duplicate_count != p->count)) {
        return FERRY_ERR_BAD_FRAME;
    }
    p->result.duplicate = reply.duplicate_count == p->count;
    p->result.base_offset = p->result.duplicate
                                ? (int64_t)get_le64(p->call.frame.attachment.data + 4)
                                : reply.base_offset;
    return FERRY_OK;
}

/* Without a memory of ids the conflict may be with our own try whose answer was lost. */
static enum ferry_err take_conflict(struct publishing *p)
{
    struct publish_refusal refusal;
    pthread_mutex_lock(&p->client->lock);
    bool remembers = p->topic->dedupe_window_ms >= 0;
    pthread_mutex_unlock(&p->client->lock);
    if (!p->call.answered || publish_refusal_decode(p->call.frame.body, &refusal) != FERRY_OK ||
        refusal.record < -1 || refusal.record >= (int64_t)p->count) {
        return FERRY_ERR_BAD_FRAME;
    }
    p->result.conflict = refusal.record < 0 ? SIZE_MAX : (size_t)refusal.record;
    p->result.version = refusal.version;
    return p->call.doubtful && !remembers ? FERRY_ERR_TIMEOUT : FERRY_ERR_VERSION_CONFLICT;
}

static enum ferry_err take_published(struct publishing *p)
{
    if (p->call.err == FERRY_OK) {
        return take_stored(p);
    }
    return p->call.err == FERRY_ERR_VERSION_CONFLICT ? take_conflict(p) : p->call.err;
}

bool publishing_step(struct publishing *p)
{
    if (p->stage == PUBLISHING_OVER || !call_all_finished(p->client, &p->call, 1)) {
        return p->stage == PUBLISHING_OVER;
    }
    bool found = p->stage == PUBLISHING_TOPIC && p->call.err == FERRY_OK;
    p->err = p->stage == PUBLISHING_SEND ? take_published(p) : p->call.err;
    call_fini(&p->call);
    if (found) {
        send(p);
        return false;
    }
    p->stage = PUBLISHING_OVER;
    return true;
}

static void publishing_free(struct publishing *p)
{
    batch_writer_fini(&p->writer);
    mem_free(p->request);
    mem_free(p);
}

static enum ferry_err find_topic(struct ferry_client *c, const char *name, struct topic **topic)
{
    pthread_mutex_lock(&c->lock);
    enum ferry_err err = topic_get(c, name, topic);
    pthread_mutex_unlock(&c->lock);
    return err == FERRY_OK && (*topic)->of_dead ? FERRY_ERR_BAD_NAME : err;
}

enum ferry_err publishing_begin(struct ferry_client *c, const struct ferry_message *messages,
                                size_t count, const uint64_t *versions, int timeout_ms,
                                struct publishing **publishing)
{
    struct topic *t;
    if (count == 0 || count > BATCH_IDS_MAX || messages[0].topic == NULL ||
        !are_well_formed(messages, count)) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    enum ferry_err err = find_topic(c, messages[0].topic, &t);
    if (err != FERRY_OK) {
        return err;
    }
    struct publishing *p = mem_zalloc(1, sizeof(*p));
    if (p == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    p->client = c;
    p->topic = t;
    p->count = (uint32_t)count;
    p->result.conflict = SIZE_MAX;
    p->result.base_offset = -1;
    p->deadline_us =
        clock_monotonic_us() + (timeout_ms < 0 ? INT64_MAX / 2 : (int64_t)timeout_ms * 1000);
    p->request = mem_zalloc(1, sizeof(*p->request));
    err = p->request == NULL ? FERRY_ERR_NO_MEMORY : make_batch(p, messages, count);
    if (err == FERRY_OK && !add_expectations(p, messages, count, versions)) {
        err = FERRY_ERR_INVALID_ARGUMENT;
    }
    if (err != FERRY_OK) {
        publishing_free(p);
        return err;
    }
    ask(p, COMMAND_PARTITION_INFO, encode_partition_info, 0);
    *publishing = p;
    return FERRY_OK;
}

enum ferry_err publishing_end(struct publishing **publishing, struct ferry_publish_result *result)
{
    struct publishing *p = *publishing;
    enum ferry_err err = p->err;
    *publishing = NULL;
    must(p->stage == PUBLISHING_OVER);
    if (err == FERRY_OK || err == FERRY_ERR_VERSION_CONFLICT) {
        *result = p->result;
    }
    publishing_free(p);
    return err;
}

enum ferry_err ferry_publish(struct ferry_client *client, const struct ferry_message *messages,
                             size_t count, const uint64_t *versions, int timeout_ms,
                             struct ferry_publish_result *result)
{
    struct publishing *p;
    enum ferry_err err = publishing_begin(client, messages, count, versions, timeout_ms, &p);
    if (err != FERRY_OK) {
        return err;
    }
    while (!publishing_step(p)) {
        call_wait(client, &p->call, 1);
    }
    return publishing_end(&p, result);
}

/* ---- Versions and ids. */

static void encode_key_version(struct buf *b, const struct call *call, uint64_t group)
{
    struct key_version_request request = *(const struct key_version_request *)call->request;
    request.group = group;
    key_version_request_encode(b, &request);
}

enum ferry_err ferry_key_version(struct ferry_client *client, const char *topic, const void *key,
                                 size_t key_bytes, int timeout_ms, uint64_t *version)
{
    struct key_version_request request = {.key = bytes_of(key, key_bytes)};
    struct key_version_reply reply;
    struct topic *t;
    struct call call;
    uint8_t hash[16];
    int32_t partitions;
    enum ferry_err err = find_topic(client, topic, &t);
    if (err == FERRY_OK) {
        err = ferry_topic_partitions(client, topic, timeout_ms, &partitions);
    }
    if (err != FERRY_OK) {
        return err;
    }
    if (key_bytes > VERSION_KEY_MAX_BYTES) {
        checksum_128_of(key, key_bytes, hash);
        request.key = bytes_of(hash, sizeof(hash));
    }
    call_init(&call, COMMAND_KEY_VERSION, ROUTE_PARTITION, encode_key_version, &request,
              timeout_ms);
    call_to_partition(&call, t, ferry_partition_of_key(key, key_bytes, partitions));
    err = call_run_one(client, &call);
    if (err == FERRY_OK && key_version_reply_decode(call.frame.body, &reply) != FERRY_OK) {
        err = FERRY_ERR_BAD_FRAME;
    }
    if (err == FERRY_OK) {
        *version = reply.version;
    }
    call_fini(&call);
    return err;
}

struct ferry_id ferry_id_derive(const struct ferry_id *topic_id, int32_t partition, int64_t offset,
                                uint32_t n)
{
    uint8_t bytes[sizeof(topic_id->bytes) + 4 + 8 + 4];
    struct ferry_id id;
    memcpy(bytes, topic_id->bytes, sizeof(topic_id->bytes));
    put_le32(bytes + 16, (uint32_t)partition);
    put_le64(bytes + 20, (uint64_t)offset);
    put_le32(bytes + 28, n);
    checksum_128_of(bytes, sizeof(bytes), id.bytes);
    id.bytes[6] = (uint8_t)((id.bytes[6] & 0x0f) | 0x80); /* UUIDv8, */
    id.bytes[8] = (uint8_t)((id.bytes[8] & 0x3f) | 0x80); /* of RFC 9562's variant. */
    return id;
}
