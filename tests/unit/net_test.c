/* The promises of net.h over tcp, ipc and inproc, between well-behaved peers. The badly behaved ones
 * are in net_hostile_test.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "net/net.h"

#define PATIENCE_MS 10000

struct fixture {
    char folder[64];
    struct ferry_context *context;
    struct net_server *server;
    struct net_link *link;
};

static int set_up(void **state)
{
    struct fixture *f = mem_zalloc(1, sizeof(*f));
    assert_non_null(f);
    (void)snprintf(f->folder, sizeof(f->folder), "/tmp/ferry-net-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    assert_int_equal(net_context_new(1, &f->context), FERRY_OK);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    net_link_close(&f->link);
    net_server_close(&f->server);
    net_context_free(&f->context);
    assert_int_equal(rmdir(f->folder), 0); /* Nothing is left behind, no socket file either. */
    mem_free(f);
    return 0;
}

static const struct net_server_config small = {
    .message_max_bytes = 4 << 20, .connections_max = 100, .queue_max = 1000, .handshake_ms = 2000};

static void open_pair(struct fixture *f, const char *endpoint)
{
    struct err_text e = {0};
    assert_int_equal(net_server_open(f->context, endpoint, &small, &f->server, &e), FERRY_OK);
    assert_int_equal(
        net_link_open(f->context, net_server_endpoint(f->server), 4 << 20, &f->link, &e), FERRY_OK);
}

static void fill(struct buf *b, size_t bytes, uint8_t with)
{
    uint8_t *at = buf_extend(b, bytes);
    assert_non_null(at);
    memset(at, with, bytes);
}

/* Waits for the server's next message. */
static net_peer server_get(struct net_server *server, struct net_message *m)
{
    net_peer peer;
    int64_t deadline = clock_monotonic_us() + PATIENCE_MS * 1000;
    while (!net_server_receive(server, &peer, m)) {
        assert_true(clock_monotonic_us() < deadline);
        struct net_poll_item item = {.server = server, .fd = -1};
        (void)net_poll(&item, 1, 100);
        net_server_watch(server);
    }
    return peer;
}

static void link_get(struct net_link *link, struct net_message *m)
{
    int64_t deadline = clock_monotonic_us() + PATIENCE_MS * 1000;
    while (!net_link_receive(link, m)) {
        assert_true(clock_monotonic_us() < deadline);
        struct net_poll_item item = {.link = link, .fd = -1};
        (void)net_poll(&item, 1, 100);
    }
}

static void round_trip(struct fixture *f, size_t bytes)
{
    struct buf b;
    buf_init(&b, 8 << 20);
    struct net_message m;
    net_message_init(&m);
    fill(&b, bytes, 0x5a);
    assert_int_equal(net_link_send(f->link, &b), FERRY_OK);
    assert_int_equal(b.size, 0);
    net_peer peer = server_get(f->server, &m);
    assert_int_equal(net_message_bytes(&m).size, bytes);
    assert_int_equal(net_message_bytes(&m).data[bytes - 1], 0x5a);
    fill(&b, bytes + 1, 0xa5);
    assert_int_equal(net_server_send(f->server, peer, &b), FERRY_OK);
    assert_int_equal(b.size, 0);
    link_get(f->link, &m);
    assert_int_equal(net_message_bytes(&m).size, bytes + 1);
    assert_int_equal(net_message_bytes(&m).data[bytes], 0xa5);
    net_message_close(&m);
    buf_fini(&b);
}

static void a_request_and_its_reply_cross_tcp(void **state)
{
    open_pair(*state, "tcp://127.0.0.1:*");
    round_trip(*state, 1);
    round_trip(*state, 64);
    round_trip(*state, 65536);
    round_trip(*state, 3 << 20);
}

static void a_request_and_its_reply_cross_ipc(void **state)
{
    struct fixture *f = *state;
    char endpoint[128];
    (void)snprintf(endpoint, sizeof(endpoint), "ipc://%s/socket", f->folder);
    open_pair(f, endpoint);
    round_trip(f, 64);
    round_trip(f, 3 << 20);
}

static void a_request_and_its_reply_cross_inproc(void **state)
{
    open_pair(*state, "inproc://broker");
    round_trip(*state, 64);
    round_trip(*state, 3 << 20);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_request_and_its_reply_cross_tcp),
        TEST(a_request_and_its_reply_cross_ipc),
        TEST(a_request_and_its_reply_cross_inproc),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
