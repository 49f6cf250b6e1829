/* What nodes say to each other about themselves: round trips, and bytes that no correct node sends.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/prng.h"
#include "server/node_wire.h"

#define SEED   20261126
#define ROUNDS 20000

static struct bytes text(const char *s)
{
    return bytes_of_string(s);
}

static struct node_record some_record(void)
{
    return (struct node_record){.member = member_of_node(7, 0xdeadbeef),
                                .boot = 3,
                                .boot_id = 99,
                                .weight = 2,
                                .shards = 2,
                                .zone = text("rack-4"),
                                .client = text("tcp://a:1 tcp://a:2"),
                                .peer = text("tcp://a:3 tcp://a:4")};
}

static void assert_same_text(struct bytes a, struct bytes b)
{
    assert_true(bytes_equal(a, b));
}

static void assert_same_record(const struct node_record *a, const struct node_record *b)
{
    assert_true(a->member == b->member && a->boot == b->boot && a->boot_id == b->boot_id);
    assert_true(a->weight == b->weight && a->shards == b->shards);
    assert_same_text(a->zone, b->zone);
    assert_same_text(a->client, b->client);
    assert_same_text(a->peer, b->peer);
}

/* ---- One of each ---- */

enum { HELLO, HELLO_REPLY, REGISTER, REGISTER_REPLY, LEADERS, MOVED, FENCED, KINDS };

static void encode_some(struct buf *b, int kind)
{
    struct node_record record = some_record();
    struct node_led led[2] = {{5, 1, 0}, {9, 4, 1000}};
    uint32_t nodes[3] = {1, 2, 65535};
    buf_init(b, PEER_FRAME_MAX_BYTES);
    switch (kind) {
    case HELLO: {
        struct node_hello h = {.is_member = true, .founders_hash = 5, .record = record};
        node_hello_encode(b, &h);
        break;
    }
    case HELLO_REPLY: {
        struct node_hello_reply h = {.is_member = true,
                                     .founders_hash = 5,
                                     .cluster_id = {{1, 2, 3}},
                                     .founder_count = 2,
                                     .founders = {1, 2},
                                     .leader = text("tcp://a:3"),
                                     .record = record};
        node_hello_reply_encode(b, &h);
        break;
    }
    case REGISTER: {
        struct node_register r = {.attempt = 8, .record = record};
        node_register_encode(b, &r);
        break;
    }
    case REGISTER_REPLY: {
        struct node_register_reply r = {.attempt = 8,
                                        .answer = NODE_REFUSED,
                                        .err = FERRY_ERR_OLD_FOLDER,
                                        .cluster_id = {{1}},
                                        .meta_index = 77,
                                        .detail = text("why"),
                                        .record_count = 2};
        node_register_reply_encode(b, &r);
        node_record_encode(b, &record);
        node_record_encode(b, &record);
        break;
    }
    case LEADERS:
        node_leaders_encode(b, led, 2);
        break;
    case MOVED:
        node_moved_encode(b, nodes, 3);
        break;
    default: {
        struct node_fenced f = {.err = FERRY_ERR_NODE_REPLACED, .text = text("gone")};
        node_fenced_encode(b, &f);
        break;
    }
    }
    assert_true(buf_ok(b));
}

static enum ferry_err decode_any(struct bytes body, int kind)
{
    static struct node_register_reply reply;
    struct node_hello hello;
    struct node_hello_reply hello_reply;
    struct node_register reg;
    struct node_fenced fenced;
    uint32_t nodes[REPLICAS_MAX], count = 0;
    switch (kind) {
    case HELLO:
        return node_hello_decode(body, &hello);
    case HELLO_REPLY:
        return node_hello_reply_decode(body, &hello_reply);
    case REGISTER:
        return node_register_decode(body, &reg);
    case REGISTER_REPLY:
        return node_register_reply_decode(body, &reply);
    case LEADERS: {
        enum ferry_err err = node_leaders_decode(body, &count);
        for (uint32_t i = 0; err == FERRY_OK && i < count; i++) {
            (void)node_leaders_at(body, i);
        }
        return err;
    }
    case MOVED:
        return node_moved_decode(body, nodes, &count);
    default:
        return node_fenced_decode(body, &fenced);
    }
}

static void what_is_said_is_understood(void **state)
{
    (void)state;
    struct buf b;
    struct node_record record = some_record();
    struct node_hello_reply h;
    struct node_register_reply r;
    encode_some(&b, HELLO_REPLY);
    assert_int_equal(node_hello_reply_decode(buf_bytes(&b), &h), FERRY_OK);
    assert_true(h.is_member && h.founder_count == 2 && h.founders[1] == 2 && h.founders_hash == 5);
    assert_same_text(h.leader, text("tcp://a:3"));
    assert_same_record(&h.record, &record);
    buf_fini(&b);
    encode_some(&b, REGISTER_REPLY);
    assert_int_equal(node_register_reply_decode(buf_bytes(&b), &r), FERRY_OK);
    assert_true(r.attempt == 8 && r.answer == NODE_REFUSED && r.err == FERRY_ERR_OLD_FOLDER);
    assert_true(r.meta_index == 77 && r.record_count == 2);
    struct bytes rest = r.records;
    for (int i = 0; i < 2; i++) {
        struct node_record one;
        assert_int_equal(node_record_decode(&rest, &one), FERRY_OK);
        assert_same_record(&one, &record);
    }
    assert_int_equal(rest.size, 0);
    buf_fini(&b);
    encode_some(&b, LEADERS);
    assert_true(node_leaders_at(buf_bytes(&b), 1).group == 9);
    assert_true(node_leaders_at(buf_bytes(&b), 1).term == 4);
    assert_true(node_leaders_at(buf_bytes(&b), 1).bytes == 1000);
    buf_fini(&b);
}

/* Every body is refused when a byte is missing or one is too many. */
static void cut_and_padded_bodies_are_refused(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        struct buf b;
        encode_some(&b, kind);
        assert_int_equal(decode_any(buf_bytes(&b), kind), FERRY_OK);
        size_t size = b.size;
        for (size_t cut = 0; cut < size; cut++) {
            assert_int_equal(decode_any(bytes_of(b.data, cut), kind), FERRY_ERR_BAD_FRAME);
        }
        buf_append_u8(&b, 0);
        assert_int_equal(decode_any(buf_bytes(&b), kind), FERRY_ERR_BAD_FRAME);
        buf_fini(&b);
    }
}

/* Bytes changed at random are refused, or read without harm (the sanitizers look on). */
static void changed_bytes_do_no_harm(void **state)
{
    (void)state;
    struct prng p;
    uint32_t refused = 0;
    prng_init(&p, SEED);
    print_message("seed %d\n", SEED);
    for (int round = 0; round < ROUNDS; round++) {
        struct buf b;
        int kind = (int)prng_below(&p, KINDS);
        encode_some(&b, kind);
        for (uint64_t i = 0; i <= prng_below(&p, 4); i++) {
            b.data[prng_below(&p, b.size)] = (uint8_t)prng_next(&p);
        }
        refused += decode_any(buf_bytes(&b), kind) != FERRY_OK ? 1 : 0;
        buf_fini(&b);
    }
    assert_true(refused > ROUNDS / 4);
}

static enum ferry_err decode_record(const struct node_record *r)
{
    struct buf b;
    struct node_record out;
    buf_init(&b, PEER_FRAME_MAX_BYTES);
    node_record_encode(&b, r);
    struct bytes rest = buf_bytes(&b);
    enum ferry_err err = node_record_decode(&rest, &out);
    buf_fini(&b);
    return err;
}

/* Endpoints are one for each shard, printable, and short enough for whoever keeps them. */
static void records_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    char longest[ENDPOINT_MAX_BYTES + 2];
    struct node_record good = some_record(), r = good;
    assert_int_equal(decode_record(&r), FERRY_OK);
    r.shards = 3;
    assert_int_equal(decode_record(&r), FERRY_ERR_BAD_FRAME);
    r = good;
    r.shards = 0;
    assert_int_equal(decode_record(&r), FERRY_ERR_BAD_FRAME);
    r = good;
    r.member = member_of_node(0, 5);
    assert_int_equal(decode_record(&r), FERRY_ERR_BAD_FRAME);
    r = good;
    r.client = text("tcp://a:1  tcp://a:2");
    assert_int_equal(decode_record(&r), FERRY_ERR_BAD_FRAME);
    r.client = text("tcp://a:1 tcp://\n:2");
    assert_int_equal(decode_record(&r), FERRY_ERR_BAD_FRAME);
    r.client = text("tcp://a:1 ");
    assert_int_equal(decode_record(&r), FERRY_ERR_BAD_FRAME);
    r = good;
    r.zone = text("a\tb");
    assert_int_equal(decode_record(&r), FERRY_ERR_BAD_FRAME);
    r = good;
    r.shards = 1;
    r.peer = text("x");
    memset(longest, 'x', sizeof(longest));
    r.client = bytes_of(longest, ENDPOINT_MAX_BYTES);
    assert_int_equal(decode_record(&r), FERRY_OK);
    r.client = bytes_of(longest, ENDPOINT_MAX_BYTES + 1);
    assert_int_equal(decode_record(&r), FERRY_ERR_BAD_FRAME);
}

/* The n-th of the joined endpoints, and nothing past the last. */
static void endpoints_are_found_by_shard(void **state)
{
    (void)state;
    char at[ENDPOINT_MAX_BYTES + 1];
    assert_true(node_endpoint(text("tcp://a:1 tcp://b:2"), 0, at));
    assert_string_equal(at, "tcp://a:1");
    assert_true(node_endpoint(text("tcp://a:1 tcp://b:2"), 1, at));
    assert_string_equal(at, "tcp://b:2");
    assert_false(node_endpoint(text("tcp://a:1 tcp://b:2"), 2, at));
    assert_string_equal(at, "");
    assert_false(node_endpoint(text(""), 0, at));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_said_is_understood),
        cmocka_unit_test(cut_and_padded_bodies_are_refused),
        cmocka_unit_test(changed_bytes_do_no_harm),
        cmocka_unit_test(records_that_make_no_sense_are_refused),
        cmocka_unit_test(endpoints_are_found_by_shard),
    };
    return cmocka_run_group_tests_name("node_wire", tests, NULL, NULL);
}
