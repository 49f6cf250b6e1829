/* The promises of net.h over tcp, ipc and inproc, between well-behaved peers. The badly behaved
 * ones are in net_hostile_test.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/prng.h"
#include "net/net.h"
#include "net/net_conns.h"

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

static const struct net_server_config small = {.message_max_bytes = 4 << 20,
                                               .connections_max = 100,
                                               .queue_max = 1000,
                                               .replies_max = 1000,
                                               .unread_max_bytes = 64 << 20,
                                               .handshake_ms = 2000};

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

static void messages_of_one_link_stay_in_order(void **state)
{
    struct fixture *f = *state;
    open_pair(f, "tcp://127.0.0.1:*");
    enum { COUNT = 20000 };
    struct buf b;
    buf_init(&b, 64);
    struct net_message m;
    net_message_init(&m);
    uint32_t sent = 0, got = 0;
    int64_t deadline = clock_monotonic_us() + PATIENCE_MS * 1000;
    while (got < COUNT) {
        assert_true(clock_monotonic_us() < deadline);
        while (sent < COUNT) {
            buf_clear(&b);
            buf_append_le32(&b, sent);
            enum ferry_err err = net_link_send(f->link, &b);
            if (err != FERRY_OK) {
                assert_int_equal(err, FERRY_ERR_THROTTLED);
                break;
            }
            sent++;
        }
        net_peer peer;
        while (net_server_receive(f->server, &peer, &m)) {
            assert_int_equal(get_le32(net_message_bytes(&m).data), got++);
        }
    }
    struct net_server_stats stats;
    net_server_stats(f->server, &stats);
    assert_int_equal(stats.received, COUNT);
    assert_int_equal(stats.received_bytes, 4 * COUNT);
    assert_int_equal(stats.connections_open, 1);
    net_message_close(&m);
    buf_fini(&b);
}

/* Several links of one server are told apart, and each gets its own answer. */
static void each_link_gets_its_own_answer(void **state)
{
    struct fixture *f = *state;
    open_pair(f, "tcp://127.0.0.1:*");
    enum { LINKS = 10 };
    struct net_link *links[LINKS];
    struct buf b;
    buf_init(&b, 64);
    struct net_message m;
    net_message_init(&m);
    for (int i = 0; i < LINKS; i++) {
        assert_int_equal(
            net_link_open(f->context, net_server_endpoint(f->server), 1024, &links[i], NULL),
            FERRY_OK);
        buf_append_u8(&b, (uint8_t)i);
        assert_int_equal(net_link_send(links[i], &b), FERRY_OK);
    }
    for (int i = 0; i < LINKS; i++) {
        net_peer peer = server_get(f->server, &m);
        buf_append_bytes(&b, net_message_bytes(&m));
        assert_int_equal(net_server_send(f->server, peer, &b), FERRY_OK);
    }
    for (int i = 0; i < LINKS; i++) {
        link_get(links[i], &m);
        assert_int_equal(net_message_bytes(&m).data[0], i);
        net_link_close(&links[i]);
    }
    net_message_close(&m);
    buf_fini(&b);
}

static void a_link_may_be_opened_before_its_server(void **state)
{
    struct fixture *f = *state;
    open_pair(f, "tcp://127.0.0.1:*"); /* To learn of a port that is free. */
    char endpoint[128];
    (void)snprintf(endpoint, sizeof(endpoint), "%s", net_server_endpoint(f->server));
    net_link_close(&f->link);
    net_server_close(&f->server);
    assert_int_equal(net_link_open(f->context, endpoint, 1024, &f->link, NULL), FERRY_OK);
    struct buf b;
    buf_init(&b, 64);
    buf_append(&b, "early", 5);
    assert_int_equal(net_link_send(f->link, &b), FERRY_OK);
    assert_int_equal(net_server_open(f->context, endpoint, &small, &f->server, NULL), FERRY_OK);
    struct net_message m;
    net_message_init(&m);
    (void)server_get(f->server, &m);
    assert_int_equal(net_message_bytes(&m).size, 5);
    net_message_close(&m);
    buf_fini(&b);
}

/* After net_server_close the port is free, at once, every time. */
static void a_closed_server_leaves_its_endpoint_free(void **state)
{
    struct fixture *f = *state;
    char endpoints[2][128];
    open_pair(f, "tcp://127.0.0.1:*");
    (void)snprintf(endpoints[0], sizeof(endpoints[0]), "%s", net_server_endpoint(f->server));
    (void)snprintf(endpoints[1], sizeof(endpoints[1]), "ipc://%s/socket", f->folder);
    for (int i = 0; i < 20; i++) {
        net_link_close(&f->link);
        net_server_close(&f->server);
        open_pair(f, endpoints[i % 2]);
        round_trip(f, 10);
    }
}

static void expect_refused(struct fixture *f, const char *endpoint, enum ferry_err err,
                           const char *word)
{
    struct net_server *server = NULL;
    struct err_text e = {0};
    assert_int_equal(net_server_open(f->context, endpoint, &small, &server, &e), err);
    assert_null(server);
    if (strstr(e.text, word) == NULL) {
        fail_msg("%s: the detail \"%s\" does not say \"%s\"", endpoint, e.text, word);
    }
}

static void an_endpoint_in_use_is_refused_with_the_remedy(void **state)
{
    struct fixture *f = *state;
    char ipc[128];
    (void)snprintf(ipc, sizeof(ipc), "ipc://%s/socket", f->folder);
    const char *const endpoints[] = {"tcp://127.0.0.1:*", ipc, "inproc://one"};
    for (size_t i = 0; i < 3; i++) {
        open_pair(f, endpoints[i]);
        expect_refused(f, net_server_endpoint(f->server), FERRY_ERR_LOCKED, "choose another");
        round_trip(f, 10); /* Unharmed by the attempt. */
        net_link_close(&f->link);
        net_server_close(&f->server);
    }
}

static void a_bad_endpoint_is_refused_with_the_remedy(void **state)
{
    struct fixture *f = *state;
    static const char *const malformed[] = {
        "",
        "tcp://",
        "tcp://:1",
        "tcp://127.0.0.1",
        "udp://a:1",
        "127.0.0.1:1",
        "tcp://a:65536",
        "tcp://a:1x",
        "tcp://::1:9",
        "tcp://a:-1",
        "tcp://a:000000001",
        "ipc://",
        "inproc://",
        "tcp://a:",
    };
    for (size_t i = 0; i < sizeof(malformed) / sizeof(malformed[0]); i++) {
        expect_refused(f, malformed[i], FERRY_ERR_BAD_OPTION_VALUE, "write tcp://HOST:PORT");
        struct net_link *link = NULL;
        assert_int_equal(net_link_open(f->context, malformed[i], 1, &link, NULL),
                         FERRY_ERR_BAD_OPTION_VALUE);
        assert_null(link);
    }
    struct net_link *link = NULL;
    assert_int_equal(net_link_open(f->context, "tcp://127.0.0.1:0", 1, &link, NULL),
                     FERRY_ERR_BAD_OPTION_VALUE);
    assert_int_equal(net_link_open(f->context, "tcp://*:1", 1, &link, NULL),
                     FERRY_ERR_BAD_OPTION_VALUE);
    expect_refused(f, "tcp://no-such-host.invalid:1", FERRY_ERR_BAD_OPTION_VALUE, "spelling");
    expect_refused(f, "tcp://192.0.2.1:*", FERRY_ERR_BAD_OPTION_VALUE, "of this machine");
    expect_refused(f, "ipc:///no/such/folder/s", FERRY_ERR_IO, "create it");
    char name[400];
    memset(name, 'a', sizeof(name));
    memcpy(name, "ipc:///", 7);
    name[sizeof(name) - 1] = '\0';
    expect_refused(f, name, FERRY_ERR_BAD_OPTION_VALUE, "too long");
    name[120] = '\0';
    expect_refused(f, name, FERRY_ERR_BAD_OPTION_VALUE, "107");
}

/* A killed process leaves its socket file; a file that is no socket is not ours to remove. */
static void an_ipc_path_left_by_the_dead_is_taken_over(void **state)
{
    struct fixture *f = *state;
    char path[100], endpoint[128];
    (void)snprintf(path, sizeof(path), "%s/socket", f->folder);
    (void)snprintf(endpoint, sizeof(endpoint), "ipc://%s", path);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fclose(file), 0);
    expect_refused(f, endpoint, FERRY_ERR_LOCKED, path);
    assert_int_equal(unlink(path), 0);
    pid_t child = fork();
    if (child == 0) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        memcpy(address.sun_path, path, strlen(path) + 1);
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        _exit(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 1) == 0
                  ? 0
                  : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    open_pair(f, endpoint);
    round_trip(f, 10);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

static void *signal_later(void *wake)
{
    net_wake_signal(wake);
    return NULL;
}

static void a_wake_from_another_thread_ends_the_wait(void **state)
{
    struct fixture *f = *state;
    open_pair(f, "tcp://127.0.0.1:*");
    struct net_wake wake;
    assert_int_equal(net_wake_init(&wake), FERRY_OK);
    struct net_poll_item items[] = {
        {.server = f->server, .fd = -1}, {.fd = wake.fd}, {.link = f->link, .fd = -1}};
    for (int i = 0; i < 10; i++) {
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, signal_later, &wake), 0);
        struct net_message m;
        net_message_init(&m);
        do { /* The link's greeting may be readable first; nothing of it is received. */
            net_peer peer;
            assert_false(net_server_receive(f->server, &peer, &m));
            assert_true(net_poll(items, 3, -1) >= 0);
        } while (!items[1].readable);
        assert_false(items[2].readable);
        assert_int_equal(pthread_join(thread, NULL), 0);
        net_wake_signal(&wake); /* Twice is once. */
        net_wake_clear(&wake);
        assert_int_equal(net_poll(&items[1], 1, 0), 0);
        net_message_close(&m);
    }
    net_wake_fini(&wake);
    net_wake_fini(&wake);
}

static void a_wait_without_news_ends_in_time(void **state)
{
    struct fixture *f = *state;
    open_pair(f, "tcp://127.0.0.1:*");
    round_trip(f, 1);
    struct net_poll_item item = {.server = f->server, .fd = -1};
    int64_t start = clock_monotonic_us();
    assert_int_equal(net_poll(&item, 1, 50), 0);
    int64_t took = clock_monotonic_us() - start;
    assert_in_range(took, 49000, 5000000);
}

static void a_message_moves_with_its_bytes(void **state)
{
    struct fixture *f = *state;
    open_pair(f, "inproc://move");
    struct buf b;
    buf_init(&b, 64);
    buf_append(&b, "payload", 7);
    assert_int_equal(net_link_send(f->link, &b), FERRY_OK);
    struct net_message from, to;
    net_message_init(&from);
    net_message_init(&to);
    (void)server_get(f->server, &from);
    net_message_move(&to, &from);
    assert_int_equal(net_message_bytes(&from).size, 0);
    assert_true(bytes_equal(net_message_bytes(&to), bytes_of_string("payload")));
    net_message_close(&to);
    net_message_close(&to);
    net_message_close(&from);
    buf_fini(&b);
}

/* A link that is cut connects again by itself, as another peer. */
static void a_cut_link_comes_back_as_another_peer(void **state)
{
    struct fixture *f = *state;
    open_pair(f, "tcp://127.0.0.1:*");
    struct buf b;
    buf_init(&b, 64);
    struct net_message m;
    net_message_init(&m);
    buf_append(&b, "one", 3);
    assert_int_equal(net_link_send(f->link, &b), FERRY_OK);
    net_peer first = server_get(f->server, &m);
    net_server_cut(f->server, first, "a test");
    net_server_cut(f->server, first, "a test");
    struct net_server_stats stats;
    int64_t deadline = clock_monotonic_us() + PATIENCE_MS * 1000;
    do {
        assert_true(clock_monotonic_us() < deadline);
        struct net_poll_item item = {.server = f->server, .fd = -1};
        (void)net_poll(&item, 1, 10);
        net_server_watch(f->server);
        net_server_stats(f->server, &stats);
    } while (stats.connections_accepted < 2);
    assert_int_equal(stats.cut_protocol, 1);
    buf_append(&b, "two", 3);
    assert_int_equal(net_link_send(f->link, &b), FERRY_OK);
    net_peer second = server_get(f->server, &m);
    assert_int_not_equal(first, second);
    assert_true(bytes_equal(net_message_bytes(&m), bytes_of_string("two")));
    net_message_close(&m);
    buf_fini(&b);
}

/* Each allocation of opening fails once in turn: an error, and nothing is left open. */
static void opening_survives_the_lack_of_memory(void **state)
{
    struct fixture *f = *state;
    bool opened = false;
    for (long n = 1; !opened && n < 100; n++) {
        mem_test_fail_after(n);
        enum ferry_err err =
            net_server_open(f->context, "tcp://127.0.0.1:*", &small, &f->server, NULL);
        mem_test_fail_after(0);
        opened = err == FERRY_OK;
        assert_true(opened || err == FERRY_ERR_NO_MEMORY);
    }
    assert_true(opened);
    mem_test_fail_after(1);
    assert_int_equal(net_link_open(f->context, net_server_endpoint(f->server), 1, &f->link, NULL),
                     FERRY_ERR_NO_MEMORY);
    struct ferry_context *context = NULL;
    mem_test_fail_after(1);
    assert_int_equal(net_context_new(1, &context), FERRY_ERR_NO_MEMORY);
}

/* The table of connections against a naive twin, in which everything is searched for. */
static void connections_agree_with_a_naive_table(void **state)
{
    (void)state;
    enum { FDS = 64 };
    struct net_conns conns;
    assert_true(net_conns_init(&conns, FDS));
    struct {
        bool open, bound;
        uint32_t peer;
    } twin[FDS] = {0};
    uint64_t seed = 20260402;
    print_message("seed %llu\n", (unsigned long long)seed);
    struct prng prng;
    prng_init(&prng, seed);
    uint32_t next_peer = UINT32_MAX - 500; /* So that the ids wrap. */
    for (int i = 0; i < 20000; i++) {
        int fd = (int)prng_below(&prng, FDS);
        switch (prng_below(&prng, 3)) {
        case 0:
            assert_non_null(net_conns_open(&conns, fd, i));
            twin[fd].open = true;
            twin[fd].bound = false;
            break;
        case 1:
            net_conns_close(&conns, fd);
            twin[fd].open = twin[fd].bound = false;
            break;
        default:
            if (twin[fd].open) {
                twin[fd].peer = next_peer;
                next_peer += 1 + (uint32_t)prng_below(&prng, 3) * 64;
                twin[fd].bound = true;
                assert_true(net_conns_bind(&conns, fd, twin[fd].peer));
            }
        }
        net_conns_check(&conns);
        for (int at = 0; at < FDS; at++) {
            assert_int_equal(net_conns_of_fd(&conns, at) != NULL, twin[at].open);
            if (twin[at].bound) {
                assert_int_equal(net_conns_fd_of_peer(&conns, twin[at].peer), at);
            }
        }
        assert_int_equal(net_conns_fd_of_peer(&conns, next_peer), -1);
    }
    net_conns_fini(&conns);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_request_and_its_reply_cross_tcp),
        TEST(a_request_and_its_reply_cross_ipc),
        TEST(a_request_and_its_reply_cross_inproc),
        TEST(messages_of_one_link_stay_in_order),
        TEST(each_link_gets_its_own_answer),
        TEST(a_link_may_be_opened_before_its_server),
        TEST(a_closed_server_leaves_its_endpoint_free),
        TEST(an_endpoint_in_use_is_refused_with_the_remedy),
        TEST(a_bad_endpoint_is_refused_with_the_remedy),
        TEST(an_ipc_path_left_by_the_dead_is_taken_over),
        TEST(a_wake_from_another_thread_ends_the_wait),
        TEST(a_wait_without_news_ends_in_time),
        TEST(a_message_moves_with_its_bytes),
        TEST(a_cut_link_comes_back_as_another_peer),
        TEST(opening_survives_the_lack_of_memory),
        TEST(connections_agree_with_a_naive_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
