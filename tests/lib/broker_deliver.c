#include "lib/broker_deliver.h"

#include "base/mem.h"

static const struct bytes nothing = {0};

enum ferry_err wire_subscribe_with(struct wire_client *c,
                                   const struct subscription_create_request *q)
{
    struct buf b;
    wire_begin(c, &b, COMMAND_SUBSCRIPTION_CREATE);
    subscription_create_request_encode(&b, q);
    return wire_call(c, &b, nothing, NULL);
}

enum ferry_err wire_subscribe(struct wire_client *c, uint64_t group, const char *name,
                              uint32_t mode)
{
    struct subscription_create_request q = {.group = group,
                                            .name = bytes_of_string(name),
                                            .mode = mode,
                                            .from = FERRY_FROM_START,
                                            .priority_age_ms = 0};
    return wire_subscribe_with(c, &q);
}

struct receive_request wire_receive_of(uint64_t group, const char *subscription, const char *member,
                                       uint32_t max_messages, uint32_t max_wait_ms)
{
    return (struct receive_request){.subscription = bytes_of_string(subscription),
                                    .member = bytes_of_string(member),
                                    .max_messages = max_messages,
                                    .max_bytes = 1 << 20,
                                    .max_wait_ms = max_wait_ms,
                                    .count = 1,
                                    .items = {{.group = group}}};
}

uint64_t wire_send_receive(struct wire_client *c, const struct receive_request *q)
{
    struct buf b;
    wire_begin(c, &b, COMMAND_RECEIVE);
    receive_request_encode(&b, q);
    return wire_send(c, &b, nothing);
}

static bool is_skipped(const struct fetch_entry *entry, uint32_t record)
{
    for (uint32_t i = 0; i < entry->skip_count; i++) {
        if (fetch_entry_skip(entry, i) == record) {
            return true;
        }
    }
    return false;
}

static void read_entry(struct wire_delivery *d, const struct fetch_entry *entry)
{
    struct batch_reader reader;
    struct batch_record record;
    enum ferry_err err = FERRY_OK;
    int64_t offset = entry->base_offset;
    batch_reader_init(&reader, entry->batch);
    for (uint32_t i = 0; batch_reader_next(&reader, &record, &err); i++) {
        if (is_skipped(entry, i)) {
            continue;
        }
        assert_true(d->count < WIRE_MESSAGES_MAX);
        d->offsets[d->count] = offset++;
        d->contents[d->count++] = get_le64(record.payload.data);
    }
    assert_int_equal(err, FERRY_OK);
}

enum ferry_err wire_read_delivery(struct wire_client *c, struct wire_delivery *d)
{
    struct wire_reply r;
    *d = (struct wire_delivery){0};
    wire_receive(c, &r);
    assert_int_equal(r.frame.command, COMMAND_RECEIVE);
    enum ferry_err status = r.status;
    if (status == FERRY_OK) {
        struct bytes rest = r.frame.attachment;
        assert_int_equal(receive_reply_decode(r.frame.body, &d->reply), FERRY_OK);
        while (rest.size > 0) {
            struct fetch_entry entry;
            struct batch_header h;
            struct err_text e;
            assert_int_equal(fetch_entry_next(&rest, &entry, &h, &e), FERRY_OK);
            read_entry(d, &entry);
        }
        assert_int_equal(d->count, d->reply.count);
    }
    wire_reply_close(&r);
    return status;
}

enum ferry_err wire_receive_now(struct wire_client *c, const struct receive_request *q,
                                struct wire_delivery *d)
{
    (void)wire_send_receive(c, q);
    return wire_read_delivery(c, d);
}

enum ferry_err wire_settle_items(struct wire_client *c, const struct settle_request *q,
                                 struct settle_reply *reply)
{
    struct wire_reply r;
    struct buf b;
    wire_begin(c, &b, COMMAND_SETTLE);
    settle_request_encode(&b, q);
    enum ferry_err status = wire_call(c, &b, nothing, &r);
    if (status == FERRY_OK) {
        assert_int_equal(settle_reply_decode(r.frame.body, reply), FERRY_OK);
    }
    wire_reply_close(&r);
    return status;
}

enum ferry_err wire_settle(struct wire_client *c, uint64_t group, const char *subscription,
                           const struct wire_delivery *d, uint32_t kind, int64_t first,
                           uint32_t count, int64_t delay_ms)
{
    static struct settle_request q;
    static struct settle_reply reply;
    q = (struct settle_request){.group = group,
                                .subscription = bytes_of_string(subscription),
                                .member = bytes_of_string("m"),
                                .count = 1};
    q.items[0] = (struct settle_item){.lease = d->reply.lease,
                                      .token = d->reply.token,
                                      .kind = kind,
                                      .first = first,
                                      .count = count,
                                      .delay_ms = delay_ms,
                                      .reason = bytes_of_string("because")};
    enum ferry_err err = wire_settle_items(c, &q, &reply);
    if (err != FERRY_OK || reply.count == 0) {
        return err;
    }
    assert_int_equal(reply.count, 1);
    return (enum ferry_err)reply.results[0].status;
}

enum ferry_err wire_subscription(struct wire_client *c, uint64_t group, const char *name,
                                 struct subscription_get_reply *reply)
{
    struct subscription_get_request q = {.group = group, .name = bytes_of_string(name)};
    struct wire_reply r;
    struct buf b;
    wire_begin(c, &b, COMMAND_SUBSCRIPTION_GET);
    subscription_get_request_encode(&b, &q);
    enum ferry_err status = wire_call(c, &b, nothing, &r);
    if (status == FERRY_OK) {
        assert_int_equal(subscription_get_reply_decode(r.frame.body, reply), FERRY_OK);
    }
    wire_reply_close(&r);
    return status;
}
