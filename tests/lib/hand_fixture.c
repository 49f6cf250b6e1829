#include "lib/hand_fixture.h"

#include "base/mem.h"

#define OUT_MAX_BYTES (64u << 20)

static struct bytes name_of(const char *name)
{
    return bytes_of_string(name);
}

void hand_make(struct part_fixture *f, const char *name, uint32_t mode,
               const struct subscription_create_request *settings)
{
    struct subscription_create_request q = {.from = FERRY_FROM_START,
                                            .priority_age_ms = UINT32_MAX};
    if (settings != NULL) {
        q = *settings;
    }
    q.name = name_of(name);
    q.mode = mode;
    struct partition_ticket *t = part_ticket(f);
    assert_int_equal(
        partition_subscription_make(f->p, &q, bytes_of(NULL, 0), f->now_ms, f->now_us, t),
        FERRY_OK);
    part_turn(f);
    assert_true(part_is_done(f, t));
}

/* ---- Receive ---- */

static void take_records(struct part_fixture *f, struct hand *h, struct bytes rest)
{
    uint32_t count = 0;
    while (rest.size > 0) {
        struct fetch_entry entry;
        struct batch_header header;
        struct batch_reader reader;
        struct batch_record r;
        enum ferry_err err = FERRY_OK;
        uint32_t skip = 0;
        assert_int_equal(fetch_entry_next(&rest, &entry, &header, &f->detail), FERRY_OK);
        int64_t offset = entry.base_offset;
        batch_reader_init(&reader, entry.batch);
        for (uint32_t i = 0; batch_reader_next(&reader, &r, &err); i++) {
            if (skip < entry.skip_count && fetch_entry_skip(&entry, skip) == i) {
                skip++;
                continue;
            }
            assert_true(count < HAND_MAX);
            h->messages[count++] = (struct hand_message){
                .offset = offset++, .content = get_le64(r.payload.data), .handed = 1};
        }
        assert_int_equal(err, FERRY_OK);
    }
    assert_int_equal(count, h->count);
}

static void take_repeats(struct hand *h, struct bytes repeats)
{
    for (size_t at = 0; at < repeats.size; at += DELIVERY_REPEAT_BYTES) {
        int64_t offset = (int64_t)get_le64(repeats.data + at);
        uint32_t found = 0;
        for (uint32_t i = 0; i < h->count; i++) {
            if (h->messages[i].offset == offset) {
                h->messages[i].handed = get_le32(repeats.data + at + 8);
                h->messages[i].failed = get_le32(repeats.data + at + 12);
                found++;
            }
        }
        assert_int_equal(found, 1);
    }
}

static void read_hand(struct part_fixture *f, struct partition_ticket *t, struct hand *h)
{
    struct buf repeats, out;
    buf_init(&repeats, OUT_MAX_BYTES);
    buf_init(&out, OUT_MAX_BYTES);
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    enum ferry_err err = partition_read_delivery(f->p, t, &repeats, &out);
    store_read_end(f->store);
    assert_string_equal(ferry_err_name(err), ferry_err_name(FERRY_OK));
    assert_int_equal(t->count, h->count);
    take_records(f, h, buf_bytes(&out));
    take_repeats(h, buf_bytes(&repeats));
    buf_fini(&repeats);
    buf_fini(&out);
}

static enum ferry_err receive(struct part_fixture *f, const struct receive *r,
                              struct partition_ticket *t, enum receive_answer *answer)
{
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    enum ferry_err err = partition_receive(f->p, r, f->now_ms, f->now_us, t, answer);
    store_read_end(f->store);
    return err;
}

struct hand *hand_receive_with(struct part_fixture *f, const struct receive *r)
{
    struct hand none = {0};
    struct hand *h = part_keep(f, &none, sizeof(none));
    struct partition_ticket *t = part_ticket(f);
    enum ferry_err err = receive(f, r, t, &h->answer);
    assert_string_equal(ferry_err_name(err), ferry_err_name(FERRY_OK));
    if (h->answer != RECEIVE_PROPOSED) {
        return h;
    }
    part_turn(f);
    assert_true(part_is_done(f, t));
    assert_int_equal(t->base.err, FERRY_OK);
    h->lease = t->lease;
    h->token = t->token;
    h->lease_ms = t->lease_ms;
    h->count = t->count;
    read_hand(f, t, h);
    return h;
}

struct hand *hand_receive(struct part_fixture *f, const char *name, const char *member,
                          uint32_t max_messages)
{
    struct receive r = {.subscription = name_of(name),
                        .member = name_of(member),
                        .max_messages = max_messages,
                        .max_bytes = 8u << 20};
    return hand_receive_with(f, &r);
}

struct hand *hand_take(struct part_fixture *f, const char *name, const char *member,
                       uint32_t messages)
{
    struct hand *h = hand_receive(f, name, member, messages);
    assert_int_equal(h->answer, RECEIVE_PROPOSED);
    assert_int_equal(h->count, messages);
    return h;
}

void hand_nothing(struct part_fixture *f, const char *name, const char *member)
{
    assert_int_equal(hand_receive(f, name, member, HAND_MAX)->answer, RECEIVE_NOTHING);
}

enum ferry_err hand_receive_error(struct part_fixture *f, const struct receive *r)
{
    enum receive_answer answer;
    struct partition_ticket *t = part_ticket(f);
    enum ferry_err err = receive(f, r, t, &answer);
    assert_true(list_is_empty(&t->base.node));
    return err;
}

/* ---- Settle ---- */

struct settle_item hand_item(const struct hand *h, uint32_t kind, int64_t first, uint32_t count,
                             int64_t delay_ms)
{
    bool reason = kind == SETTLE_NACK || kind == SETTLE_REJECT;
    return (struct settle_item){.lease = h->lease,
                                .token = h->token,
                                .kind = kind,
                                .first = first,
                                .count = count,
                                .delay_ms = delay_ms,
                                .reason = name_of(reason ? "why" : "")};
}

struct partition_ticket *hand_propose(struct part_fixture *f, const char *name,
                                      const struct settle_item *items, uint32_t count)
{
    struct settle_request *q = mem_zalloc(1, sizeof(*q));
    struct partition_ticket *t = part_ticket(f);
    assert_non_null(q);
    q->subscription = name_of(name);
    q->member = name_of("settler");
    q->count = count;
    memcpy(q->items, items, count * sizeof(*items));
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    enum ferry_err err = partition_settle(f->p, q, f->now_ms, f->now_us, t);
    store_read_end(f->store);
    assert_string_equal(ferry_err_name(err), ferry_err_name(FERRY_OK));
    mem_free(q);
    return t;
}

uint16_t hand_status(const struct partition_ticket *t, uint32_t item)
{
    return t->statuses.size == 0 ? 0 : get_le16(t->statuses.data + (size_t)item * 2);
}

enum ferry_err hand_settle(struct part_fixture *f, const char *name, const struct hand *h,
                           uint32_t kind, int64_t first, uint32_t count, int64_t delay_ms)
{
    struct settle_item item = hand_item(h, kind, first, count, delay_ms);
    struct partition_ticket *t = hand_propose(f, name, &item, 1);
    part_turn(f);
    assert_true(part_is_done(f, t));
    assert_int_equal(t->base.err, FERRY_OK);
    return (enum ferry_err)hand_status(t, 0);
}

void hand_settle_all(struct part_fixture *f, const char *name, const struct hand *h, uint32_t kind)
{
    for (uint32_t i = 0; i < h->count;) {
        uint32_t end = i + 1;
        while (end < h->count && h->messages[end].offset == h->messages[end - 1].offset + 1) {
            end++;
        }
        enum ferry_err err = hand_settle(f, name, h, kind, h->messages[i].offset, end - i, -1);
        assert_string_equal(ferry_err_name(err), ferry_err_name(FERRY_OK));
        i = end;
    }
}

/* ---- Looking ---- */

struct subscription_get_reply hand_get(struct part_fixture *f, const char *name)
{
    struct subscription_get_reply reply;
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    enum ferry_err err = partition_subscription_get(f->p, name_of(name), f->now_ms, &reply);
    store_read_end(f->store);
    assert_string_equal(ferry_err_name(err), ferry_err_name(FERRY_OK));
    return reply;
}

void hand_conserves(struct part_fixture *f, const char *name, int64_t from)
{
    struct subscription_get_reply r = hand_get(f, name);
    uint64_t ended = r.acked + r.died - r.revived + r.expired;
    assert_int_equal(r.end_offset - from, ended + r.ready + r.leased + r.waiting);
}

/* ---- Dead letters ---- */

uint32_t hand_dead(struct part_fixture *f, const char *name, struct dead_item *items, uint32_t max)
{
    static struct dead_list_reply reply;
    uint32_t count = 0;
    struct dead_list_request q = {
        .subscription = name_of(name), .count_max = 7, .with_history = true};
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    do {
        assert_int_equal(partition_dead_list(f->p, &q, &reply), FERRY_OK);
        for (uint32_t i = 0; i < reply.count; i++) {
            assert_true(count < max);
            items[count] = reply.items[i];
            struct dead_item *d = &items[count++];
            d->reason.data = part_keep(f, d->reason.data, d->reason.size);
            for (uint32_t k = 0; k < d->failure_count; k++) {
                struct failure *x = &d->failures[k];
                x->reason.data = part_keep(f, x->reason.data, x->reason.size);
                x->member.data = part_keep(f, x->member.data, x->member.size);
            }
        }
        q.from = reply.next;
    } while (reply.next != 0);
    store_read_end(f->store);
    assert_int_equal(count, reply.total);
    return count;
}

uint32_t hand_dead_change(struct part_fixture *f, const char *name, uint32_t kind, uint64_t number,
                          struct bytes record)
{
    struct dead_change_request q = {.subscription = name_of(name), .kind = kind, .count = 1};
    struct partition_ticket *t = part_ticket(f);
    q.items[0].number = number;
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    enum ferry_err err = partition_dead_change(f->p, &q, record, name_of("admin"), f->now_ms,
                                               f->now_us, t, &f->detail);
    store_read_end(f->store);
    assert_string_equal(ferry_err_name(err), ferry_err_name(FERRY_OK));
    part_turn(f);
    assert_true(part_is_done(f, t));
    assert_int_equal(t->base.err, FERRY_OK);
    return t->count;
}

uint32_t hand_read_dead(struct part_fixture *f, const char *name, struct part_record *records,
                        uint32_t max)
{
    struct buf out;
    int64_t next = 1, end = 0;
    uint32_t count = 0;
    buf_init(&out, OUT_MAX_BYTES);
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    do {
        buf_clear(&out);
        assert_int_equal(partition_read_dead(f->p, name_of(name), next, 1000, &out, &next, &end),
                         FERRY_OK);
        for (struct bytes rest = buf_bytes(&out); rest.size > 0;) {
            struct fetch_entry entry;
            struct batch_header h;
            struct batch_reader reader;
            struct batch_record r;
            enum ferry_err err;
            assert_int_equal(fetch_entry_next(&rest, &entry, &h, &f->detail), FERRY_OK);
            batch_reader_init(&reader, entry.batch);
            assert_true(batch_reader_next(&reader, &r, &err) && count < max);
            records[count++] = (struct part_record){.offset = entry.base_offset,
                                                    .append_time_ms = entry.append_time_ms,
                                                    .content = get_le64(r.payload.data),
                                                    .id = r.id};
        }
    } while (next < end);
    store_read_end(f->store);
    buf_fini(&out);
    return count;
}

/* ---- Produce ---- */

void hand_produce(struct part_fixture *f, const struct keyed_of *b)
{
    struct batch_writer w;
    struct bytes batch;
    size_t size = b->payload_bytes < 8 ? 8 : b->payload_bytes;
    uint8_t *payload = mem_zalloc(1, size);
    assert_non_null(payload);
    batch_writer_init(&w, BATCH_MAX_BYTES);
    for (uint32_t i = 0; i < b->count; i++) {
        const char *key = b->keys != NULL ? b->keys[i] : "";
        put_le64(payload, b->content + i);
        struct batch_record r = {.timestamp_ms = f->now_ms,
                                 .has_key = key[0] != '\0',
                                 .key = name_of(key),
                                 .payload = bytes_of(payload, size),
                                 .priority = b->priorities != NULL ? b->priorities[i] : 0};
        assert_int_equal(batch_writer_add(&w, &r), FERRY_OK);
    }
    assert_int_equal(batch_writer_finish(&w, 0, 0, 0, &batch), FERRY_OK);
    struct partition_ticket *t = part_ticket(f);
    batch = bytes_of(part_keep(f, batch.data, batch.size), batch.size);
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    assert_int_equal(partition_produce(f->p, batch, f->now_ms, f->now_us, t, &f->detail), FERRY_OK);
    store_read_end(f->store);
    part_turn(f);
    assert_true(part_is_done(f, t));
    batch_writer_fini(&w);
    mem_free(payload);
}
