#include "lib/broker_fixture.h"

#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "lib/partition_fixture.h"

/* ---- The broker ---- */

int broker_setup(void **state)
{
    struct broker_fixture *f = mem_zalloc(1, sizeof(*f));
    if (f == NULL || fixture_make_folder(f->root, sizeof(f->root), "broker") != 0) {
        mem_free(f);
        return -1;
    }
    char endpoint[300], data[300];
    (void)snprintf(endpoint, sizeof(endpoint), "inproc://%s", f->root);
    (void)snprintf(data, sizeof(data), "%s/data", f->root);
    option_defaults(broker_option_table(), &f->options);
    broker_set(f, "listen.endpoint", endpoint);
    broker_set(f, "node.data", data);
    broker_set(f, "store.grow_bytes", "4M");
    *state = f;
    return 0;
}

int broker_teardown(void **state)
{
    struct broker_fixture *f = *state;
    for (size_t i = 0; i < LINKS_MAX; i++) {
        net_link_close(&f->links[i]);
    }
    broker_stop(&f->broker);
    fixture_remove_tree(f->root);
    mem_free(f);
    return 0;
}

void broker_set(struct broker_fixture *f, const char *option, const char *value)
{
    if (option_set(broker_option_table(), &f->options, option, value, &f->detail) != FERRY_OK) {
        fail_msg("%s", f->detail.text);
    }
}

void broker_up(struct broker_fixture *f)
{
    enum ferry_err err = broker_start(&f->options, &f->broker, &f->detail);
    if (err != FERRY_OK) {
        fail_msg("broker_start: %s: %s", ferry_err_name(err), f->detail.text);
    }
}

void broker_down(struct broker_fixture *f)
{
    broker_stop(&f->broker);
}

/* ---- A client ---- */

void wire_connect(struct broker_fixture *f, struct wire_client *c, const char *endpoint)
{
    *c = (struct wire_client){.next_id = 1};
    enum ferry_err err = net_link_open(broker_context(f->broker),
                                       endpoint != NULL ? endpoint : broker_endpoint(f->broker),
                                       FRAME_MAX_BYTES, &c->link, &f->detail);
    if (err != FERRY_OK) {
        fail_msg("%s", f->detail.text);
    }
    size_t i = 0;
    while (i < LINKS_MAX && f->links[i] != NULL) {
        i++;
    }
    assert_true(i < LINKS_MAX);
    f->links[i] = c->link;
    c->slot = &f->links[i];
}

void wire_close(struct wire_client *c)
{
    *c->slot = NULL;
    net_link_close(&c->link);
}

void wire_begin(struct wire_client *c, struct buf *b, enum command command)
{
    buf_init(b, FRAME_MAX_BYTES);
    frame_begin_request(b, (uint16_t)command, c->next_id, ANSWER_MS);
}

uint64_t wire_send(struct wire_client *c, struct buf *b, struct bytes attachment)
{
    if (attachment.size > 0) {
        frame_begin_attachment(b);
        buf_append_bytes(b, attachment);
    }
    assert_true(frame_end(b));
    assert_int_equal(net_link_send(c->link, b), FERRY_OK);
    buf_fini(b);
    return c->next_id++;
}

void wire_send_raw(struct wire_client *c, const void *bytes, size_t size)
{
    struct buf b;
    buf_init(&b, FRAME_MAX_BYTES);
    buf_append(&b, bytes, size);
    assert_int_equal(net_link_send(c->link, &b), FERRY_OK);
    buf_fini(&b);
}

bool wire_receive_within(struct wire_client *c, struct wire_reply *r, int ms)
{
    int64_t until_us = clock_monotonic_us() + (int64_t)ms * 1000;
    struct err_text e;
    *r = (struct wire_reply){0};
    net_message_init(&r->message);
    while (!net_link_receive(c->link, &r->message)) {
        int64_t left_us = until_us - clock_monotonic_us();
        if (left_us <= 0) {
            return false;
        }
        struct net_poll_item item = {.link = c->link, .fd = -1};
        (void)net_poll(&item, 1, (int)(left_us / 1000) + 1);
    }
    assert_int_equal(frame_parse(net_message_bytes(&r->message), &r->frame, &e), FERRY_OK);
    assert_int_equal(r->frame.kind, FRAME_REPLY);
    r->status = (enum ferry_err)r->frame.status;
    if (r->status != FERRY_OK) {
        assert_int_equal(error_reply_decode(r->frame.body, &r->error), FERRY_OK);
    }
    return true;
}

void wire_receive(struct wire_client *c, struct wire_reply *r)
{
    if (!wire_receive_within(c, r, ANSWER_MS)) {
        fail_msg("no answer");
    }
}

void wire_reply_close(struct wire_reply *r)
{
    net_message_close(&r->message);
}

enum ferry_err wire_call(struct wire_client *c, struct buf *b, struct bytes attachment,
                         struct wire_reply *r)
{
    struct wire_reply mine;
    uint64_t id = wire_send(c, b, attachment);
    wire_receive(c, &mine);
    assert_int_equal(mine.frame.request_id, id);
    enum ferry_err status = mine.status;
    if (r != NULL) {
        *r = mine;
    } else {
        wire_reply_close(&mine);
    }
    return status;
}

/* ---- Topics ---- */

static const struct bytes nothing = {0};

void wire_hello(struct wire_client *c, const char *name)
{
    struct hello_request q = {.client_name = bytes_of_string(name),
                              .client_version = bytes_of_string("0")};
    struct buf b;
    wire_begin(c, &b, COMMAND_HELLO);
    hello_request_encode(&b, &q);
    assert_int_equal(wire_call(c, &b, nothing, NULL), FERRY_OK);
}

enum ferry_err wire_quota_set(struct wire_client *c, const char *client, const char *topic,
                              uint64_t bytes, uint64_t messages, uint64_t requests)
{
    struct quota_set_request q = {.quota = {.client = bytes_of_string(client),
                                            .topic = bytes_of_string(topic),
                                            .bytes_per_second = bytes,
                                            .messages_per_second = messages,
                                            .requests_per_second = requests}};
    struct buf b;
    wire_begin(c, &b, COMMAND_QUOTA_SET);
    quota_set_request_encode(&b, &q);
    return wire_call(c, &b, nothing, NULL);
}

enum ferry_err wire_topic_create(struct wire_client *c, const char *name, uint32_t partitions,
                                 struct ferry_id *id)
{
    struct topic_create_request q = {.name = bytes_of_string(name), .partitions = partitions};
    struct wire_reply r;
    struct buf b;
    wire_begin(c, &b, COMMAND_TOPIC_CREATE);
    topic_create_request_encode(&b, &q);
    enum ferry_err status = wire_call(c, &b, nothing, &r);
    if (status == FERRY_OK) {
        struct topic_create_reply reply;
        assert_int_equal(topic_create_reply_decode(r.frame.body, &reply), FERRY_OK);
        if (id != NULL) {
            *id = reply.topic_id;
        }
    }
    wire_reply_close(&r);
    return status;
}

enum ferry_err wire_topic_delete(struct wire_client *c, const char *name)
{
    struct topic_delete_request q = {.name = bytes_of_string(name)};
    struct buf b;
    wire_begin(c, &b, COMMAND_TOPIC_DELETE);
    topic_delete_request_encode(&b, &q);
    return wire_call(c, &b, nothing, NULL);
}

static void copy_metadata(const struct metadata_reply *reply, struct wire_topic *t)
{
    t->id = reply->topic_id;
    t->partition_count = reply->partition_count;
    assert_true(reply->partition_count <= 16 && reply->endpoint_count <= 4);
    for (uint32_t i = 0; i < reply->partition_count; i++) {
        t->groups[i] = reply->partitions[i].group;
        t->endpoint[i] = reply->partitions[i].endpoint;
    }
    for (uint32_t i = 0; i < reply->endpoint_count; i++) {
        memcpy(t->endpoints[i], reply->endpoints[i].endpoint.data,
               reply->endpoints[i].endpoint.size);
        t->endpoints[i][reply->endpoints[i].endpoint.size] = '\0';
    }
}

enum ferry_err wire_metadata(struct wire_client *c, const char *name, struct wire_topic *t)
{
    struct metadata_request q = {.topic = bytes_of_string(name)};
    struct wire_reply r;
    struct buf b;
    wire_begin(c, &b, COMMAND_METADATA);
    metadata_request_encode(&b, &q);
    enum ferry_err status = wire_call(c, &b, nothing, &r);
    if (status == FERRY_OK) {
        struct metadata_reply *reply = mem_zalloc(1, sizeof(*reply));
        assert_non_null(reply);
        assert_int_equal(metadata_reply_decode(r.frame.body, reply), FERRY_OK);
        copy_metadata(reply, t);
        mem_free(reply);
    }
    wire_reply_close(&r);
    return status;
}

uint64_t wire_new_topic(struct wire_client *c, const char *name)
{
    struct wire_topic t;
    assert_int_equal(wire_topic_create(c, name, 1, NULL), FERRY_OK);
    assert_int_equal(wire_metadata(c, name, &t), FERRY_OK);
    return t.groups[0];
}

/* ---- Produce and fetch ---- */

void wire_batch(struct buf *b, uint64_t producer, uint64_t sequence, uint32_t count,
                size_t payload_bytes, uint64_t content)
{
    struct batch_writer w;
    struct bytes batch;
    size_t size = payload_bytes < 8 ? 8 : payload_bytes;
    uint8_t *payload = mem_zalloc(1, size);
    assert_non_null(payload);
    batch_writer_init(&w, BATCH_MAX_BYTES);
    for (uint32_t i = 0; i < count; i++) {
        put_le64(payload, content + i);
        struct batch_record r = {.payload = bytes_of(payload, size)};
        assert_int_equal(batch_writer_add(&w, &r), FERRY_OK);
    }
    assert_int_equal(batch_writer_finish(&w, producer, 0, sequence, &batch), FERRY_OK);
    buf_init(b, BATCH_MAX_BYTES);
    buf_append_bytes(b, batch);
    assert_true(buf_ok(b));
    batch_writer_fini(&w);
    mem_free(payload);
}

uint64_t wire_send_produce(struct wire_client *c, uint64_t group, struct bytes batch)
{
    struct produce_request q = {.group = group};
    struct buf b;
    wire_begin(c, &b, COMMAND_PRODUCE);
    produce_request_encode(&b, &q);
    return wire_send(c, &b, batch);
}

enum ferry_err wire_produce(struct wire_client *c, uint64_t group, uint32_t count, uint64_t content,
                            int64_t *base_offset)
{
    struct buf batch;
    struct wire_reply r;
    wire_batch(&batch, 0, 0, count, 8, content);
    uint64_t id = wire_send_produce(c, group, buf_bytes(&batch));
    buf_fini(&batch);
    wire_receive(c, &r);
    assert_int_equal(r.frame.request_id, id);
    enum ferry_err status = r.status;
    if (status == FERRY_OK) {
        struct produce_reply reply;
        assert_int_equal(produce_reply_decode(r.frame.body, &reply), FERRY_OK);
        if (base_offset != NULL) {
            *base_offset = reply.base_offset;
        }
    }
    wire_reply_close(&r);
    return status;
}

uint64_t wire_send_fetch(struct wire_client *c, const struct fetch_request *q)
{
    struct buf b;
    wire_begin(c, &b, COMMAND_FETCH);
    fetch_request_encode(&b, q);
    return wire_send(c, &b, nothing);
}

struct fetch_request wire_fetch_of(uint64_t group, int64_t offset, uint32_t max_wait_ms)
{
    return (struct fetch_request){.max_wait_ms = max_wait_ms,
                                  .min_bytes = 1,
                                  .max_bytes = 1 << 20,
                                  .count = 1,
                                  .items = {{.group = group, .offset = offset}}};
}

void wire_fetch_reply(const struct wire_reply *r, struct fetch_reply *reply)
{
    assert_int_equal(r->frame.command, COMMAND_FETCH);
    assert_int_equal(r->status, FERRY_OK);
    assert_int_equal(fetch_reply_decode(r->frame.body, reply), FERRY_OK);
}

size_t wire_contents(const struct wire_reply *r, uint32_t item, uint64_t *contents, size_t max)
{
    static struct fetch_reply reply;
    wire_fetch_reply(r, &reply);
    size_t at = 0, count = 0;
    for (uint32_t i = 0; i < item; i++) {
        at += reply.items[i].data_bytes;
    }
    struct bytes rest = bytes_of(r->frame.attachment.data + at, reply.items[item].data_bytes);
    while (rest.size > 0) {
        struct fetch_entry entry;
        struct batch_header h;
        struct err_text e;
        struct batch_reader reader;
        struct batch_record record;
        enum ferry_err err = FERRY_OK;
        assert_int_equal(fetch_entry_next(&rest, &entry, &h, &e), FERRY_OK);
        batch_reader_init(&reader, entry.batch);
        while (batch_reader_next(&reader, &record, &err)) {
            assert_true(count < max);
            contents[count++] = get_le64(record.payload.data);
        }
    }
    return count;
}
