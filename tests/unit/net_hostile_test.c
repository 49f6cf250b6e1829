/* Peers of a server that break the rules, by accident or on purpose. The names bad_zNN are those of
 * the list of bad inputs for the transport. A raw TCP socket speaks ZMTP 3.0 (NULL) by hand. Every
 * test ends with a good link that still gets its answer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/prng.h"
#include "net/net.h"

#define PATIENCE_MS      10000
#define HANDSHAKE_MS     300
#define MESSAGE_MAX      65536
#define QUEUE_MAX        64
#define UNREAD_MAX_BYTES ((size_t)8 << 20) /* What sanitizers can give back in time. */
#define UNREAD_FREE      ((size_t)1 << 30) /* Never met here. */

struct fixture {
    struct ferry_context *context;
    struct net_server *server;
    struct net_link *link; /* The good one. */
    int port;
};

static void open_server(struct fixture *f, int connections_max, int queue_max, size_t unread_max)
{
    struct net_server_config config = {.message_max_bytes = MESSAGE_MAX,
                                       .connections_max = connections_max,
                                       .queue_max = queue_max,
                                       .replies_max = queue_max,
                                       .unread_max_bytes = unread_max,
                                       .handshake_ms = HANDSHAKE_MS};
    struct err_text e = {0};
    assert_int_equal(net_server_open(f->context, "tcp://127.0.0.1:*", &config, &f->server, &e),
                     FERRY_OK);
    f->port = atoi(strrchr(net_server_endpoint(f->server), ':') + 1);
}

static void open_link(struct fixture *f)
{
    struct err_text e = {0};
    assert_int_equal(
        net_link_open(f->context, net_server_endpoint(f->server), MESSAGE_MAX, &f->link, &e),
        FERRY_OK);
}

static int set_up(void **state)
{
    struct fixture *f = mem_zalloc(1, sizeof(*f));
    assert_non_null(f);
    assert_int_equal(net_context_new(1, &f->context), FERRY_OK);
    open_server(f, 1000, QUEUE_MAX, UNREAD_FREE);
    open_link(f);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    net_link_close(&f->link);
    net_server_close(&f->server);
    net_context_free(&f->context);
    mem_free(f);
    return 0;
}

static struct net_server_stats stats_of(const struct fixture *f)
{
    struct net_server_stats stats;
    net_server_stats(f->server, &stats);
    return stats;
}

static void answer(struct net_server *server, net_peer peer)
{
    struct buf b;
    buf_init(&b, 64);
    buf_append(&b, "answer", 6);
    (void)net_server_send(server, peer, &b);
    buf_fini(&b);
}

/* One turn of a broker's loop: waits a little, answers everything, looks after the connections. */
static void turn(struct fixture *f)
{
    struct net_poll_item items[] = {{.server = f->server, .fd = -1}, {.link = f->link, .fd = -1}};
    (void)net_poll(items, f->link != NULL ? 2 : 1, 5);
    struct net_message m;
    net_message_init(&m);
    net_peer peer;
    while (net_server_receive(f->server, &peer, &m)) {
        answer(f->server, peer);
    }
    net_message_close(&m);
    net_server_watch(f->server);
}

#define TURN_UNTIL(f, condition)                                                                   \
    for (int64_t deadline_ = clock_monotonic_us() + PATIENCE_MS * 1000; !(condition);) {           \
        assert_true(clock_monotonic_us() < deadline_);                                             \
        turn(f);                                                                                   \
    }

/* The good link is served: what every test asks at its end. */
static void others_go_on(struct fixture *f)
{
    struct buf b;
    buf_init(&b, 64);
    buf_append(&b, "question", 8);
    assert_int_equal(net_link_send(f->link, &b), FERRY_OK);
    buf_fini(&b);
    struct net_message m;
    net_message_init(&m);
    TURN_UNTIL(f, net_link_receive(f->link, &m));
    assert_int_equal(net_message_bytes(&m).size, 6);
    net_message_close(&m);
}

/* ---- A peer by hand -------------------------------------------------------------------------- */

static int raw_connect(const struct fixture *f)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)f->port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static void raw_send(int fd, const void *data, size_t bytes)
{
    assert_int_equal(send(fd, data, bytes, MSG_NOSIGNAL), (ssize_t)bytes);
}

static const uint8_t greeting[64] = {0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 3, 0, 'N', 'U', 'L', 'L'};

/* The library takes no message before it has sent its own READY: the 64 bytes of its greeting and
 * a command. Or it closes, to what it does not like. */
static void raw_await_ready(int fd)
{
    struct timeval patience = {.tv_sec = PATIENCE_MS / 1000};
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
    uint8_t bytes[64 + 2];
    if (recv(fd, bytes, sizeof(bytes), MSG_WAITALL) == (ssize_t)sizeof(bytes)) {
        assert_int_equal(bytes[64], 4);
        (void)recv(fd, bytes, bytes[65] < 64 ? bytes[65] : 64, MSG_WAITALL);
    }
}

static void raw_shake_hands(int fd, const char *type, const void *id, size_t id_bytes)
{
    struct buf ready;
    buf_init(&ready, 1024);
    size_t type_bytes = strlen(type);
    size_t body = 6 + (1 + 11 + 4 + type_bytes) + (1 + 8 + 4 + id_bytes);
    buf_append_u8(&ready, 4); /* A short command. */
    buf_append_u8(&ready, (uint8_t)body);
    buf_append(&ready, "\5READY\13Socket-Type\0\0\0", 6 + 12 + 3);
    buf_append_u8(&ready, (uint8_t)type_bytes);
    buf_append(&ready, type, type_bytes);
    buf_append(&ready, "\10Identity\0\0\0", 9 + 3);
    buf_append_u8(&ready, (uint8_t)id_bytes);
    buf_append(&ready, id, id_bytes);
    raw_send(fd, greeting, sizeof(greeting));
    raw_send(fd, ready.data, ready.size);
    buf_fini(&ready);
    raw_await_ready(fd);
}

static int raw_peer(const struct fixture *f)
{
    int fd = raw_connect(f);
    raw_shake_hands(fd, "DEALER", "", 0);
    return fd;
}

/* Reads and drops; true when the server has closed the connection. */
static bool raw_is_closed(int fd)
{
    char bytes[4096];
    ssize_t got;
    while ((got = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0) {
    }
    return got == 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
}

static long resident_kib(void)
{
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%*d %ld", &pages), 1);
    assert_int_equal(fclose(file), 0);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

/* ---- Z01: silence ---------------------------------------------------------------------------- */

/* Connected and silent, in numbers; and a greeting a byte at a time. */
static void bad_z01_silence_and_a_slow_greeting_are_dropped(void **state)
{
    struct fixture *f = *state;
    enum { SILENT = 200 };
    int silent[SILENT];
    for (int i = 0; i < SILENT; i++) {
        silent[i] = raw_connect(f);
        turn(f);
    }
    int slow = raw_connect(f);
    size_t at = 0;
    int64_t start = clock_monotonic_us();
    others_go_on(f);
    while (!raw_is_closed(slow)) {
        assert_true(clock_monotonic_us() - start < PATIENCE_MS * 1000);
        if (at < sizeof(greeting)) {
            (void)send(slow, &greeting[at++], 1, MSG_NOSIGNAL);
        }
        for (int i = 0; i < 5; i++) {
            turn(f);
        }
    }
    (void)close(slow);
    for (int i = 0; i < SILENT; i++) {
        TURN_UNTIL(f, raw_is_closed(silent[i]));
        (void)close(silent[i]);
    }
    TURN_UNTIL(f, stats_of(f).connections_open == 1);
    others_go_on(f);
}

static void bad_z01_a_handshake_without_a_message_is_cut(void **state)
{
    struct fixture *f = *state;
    int fd = raw_peer(f);
    TURN_UNTIL(f, raw_is_closed(fd));
    assert_int_equal(stats_of(f).cut_protocol, 1);
    (void)close(fd);
    others_go_on(f);
}

/* The other side of it: a link that has nothing to say has greeted, and stays. */
static void a_link_that_idles_keeps_its_connection(void **state)
{
    struct fixture *f = *state;
    int64_t end = clock_monotonic_us() + 4 * HANDSHAKE_MS * 1000;
    while (clock_monotonic_us() < end) {
        turn(f);
    }
    assert_int_equal(stats_of(f).connections_accepted, 1);
    assert_int_equal(stats_of(f).connections_open, 1);
    others_go_on(f);
}

/* ---- Z02: sizes ------------------------------------------------------------------------------ */

static void bad_z02_a_header_that_claims_too_much_is_refused_before_memory_is_taken(void **state)
{
    struct fixture *f = *state;
    static const uint8_t claims[][9] = {
        {2, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
        {2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
        {2, 0, 0, 0, 0, 0x40, 0, 0, 0}, /* 1 GiB. */
        {2, 0, 0, 0, 0, 0, 1, 0, 1},    /* One byte more than the limit. */
        {6, 0, 0, 0, 0, 0x40, 0, 0, 0}, /* A command. */
    };
    for (size_t i = 0; i < sizeof(claims) / sizeof(claims[0]); i++) {
        int fd = raw_peer(f);
        raw_send(fd, claims[i], 9);
        int64_t start = clock_monotonic_us();
        TURN_UNTIL(f, raw_is_closed(fd));
        /* At once, not for silence. */
        assert_true(clock_monotonic_us() - start < HANDSHAKE_MS * 1000);
        (void)close(fd);
    }
    assert_int_equal(stats_of(f).cut_protocol, 0);
    others_go_on(f);
}

static void bad_z02_an_oversized_message_is_dropped_with_its_peer(void **state)
{
    struct fixture *f = *state;
    others_go_on(f);
    struct net_link *big;
    struct err_text e;
    assert_int_equal(net_link_open(f->context, net_server_endpoint(f->server), 1 << 20, &big, &e),
                     FERRY_OK);
    struct buf b;
    buf_init(&b, 1 << 20);
    assert_non_null(buf_extend(&b, MESSAGE_MAX + 1));
    memset(b.data, 1, b.size);
    uint64_t received = stats_of(f).received;
    assert_int_equal(net_link_send(big, &b), FERRY_OK);
    TURN_UNTIL(f, stats_of(f).connections_accepted >= 3); /* It came, went and came again. */
    assert_int_equal(stats_of(f).received, received);
    net_link_close(&big);
    buf_fini(&b);
    others_go_on(f);
}

/* ---- Z03: what may wait ---------------------------------------------------------------------- */

/* Room for many messages, so that only their bytes count. */
static void reopen_server(struct fixture *f, size_t unread_max)
{
    net_link_close(&f->link);
    net_server_close(&f->server);
    open_server(f, 100, 100000, unread_max);
    open_link(f);
}

/* A peer that has asked once and reads nothing. Returns its socket. */
static int silent_reader(struct fixture *f, net_peer *peer)
{
    int fd = raw_peer(f);
    raw_send(fd, "\0\1x", 3);
    struct net_message m;
    net_message_init(&m);
    int64_t deadline = clock_monotonic_us() + PATIENCE_MS * 1000;
    do {
        assert_true(clock_monotonic_us() < deadline);
        net_server_watch(f->server);
    } while (!net_server_receive(f->server, peer, &m));
    net_message_close(&m);
    return fd;
}

/* Small replies fill the queue of messages: the reply after that cuts the peer. */
static void bad_z03_a_peer_that_does_not_read_is_cut(void **state)
{
    struct fixture *f = *state;
    net_peer peer = 0;
    int fd = silent_reader(f, &peer);
    enum ferry_err err = FERRY_OK;
    for (int i = 0; err == FERRY_OK && i < 1000000; i++) {
        struct buf b;
        buf_init(&b, 1 << 20);
        assert_non_null(buf_extend(&b, 60000));
        memset(b.data, 7, b.size);
        err = net_server_send(f->server, peer, &b);
        assert_null(b.data); /* Taken, also when refused. */
    }
    assert_int_equal(err, FERRY_ERR_THROTTLED);
    assert_int_equal(stats_of(f).cut_not_reading, 1);
    TURN_UNTIL(f, raw_is_closed(fd));
    struct buf b;
    buf_init(&b, 16);
    buf_append(&b, "x", 1);
    assert_int_equal(net_server_send(f->server, peer, &b), FERRY_ERR_UNREACHABLE);
    buf_fini(&b);
    (void)close(fd);
    others_go_on(f);
}

/* The queue counts messages; large replies are stopped by their bytes, long before it is full. */
static void bad_z03_many_bytes_for_a_peer_that_does_not_read_are_dropped_with_it(void **state)
{
    struct fixture *f = *state;
    reopen_server(f, UNREAD_FREE);
    net_peer peer = 0;
    int fd = silent_reader(f, &peer);
    for (int i = 0; i < 400; i++) {
        struct buf b;
        buf_init(&b, 1 << 20);
        assert_non_null(buf_extend(&b, 60000));
        memset(b.data, 7, b.size);
        assert_int_equal(net_server_send(f->server, peer, &b), FERRY_OK);
    }
    TURN_UNTIL(f, stats_of(f).cut_not_reading == 1);
    TURN_UNTIL(f, raw_is_closed(fd));
    (void)close(fd);
    others_go_on(f);
}

/* A peer that asks for more than it reads, without standing still for long enough to be noticed by
 * the watch: its bytes are bounded as they are sent. */
static void bad_z03_the_bytes_that_wait_for_a_peer_are_bounded(void **state)
{
    struct fixture *f = *state;
    reopen_server(f, UNREAD_MAX_BYTES);
    net_peer peer = 0;
    int fd = silent_reader(f, &peer);
    enum ferry_err err = FERRY_OK;
    size_t sent = 0;
    while (err == FERRY_OK && sent < 4 * UNREAD_MAX_BYTES) {
        struct buf b;
        buf_init(&b, 1 << 20);
        assert_non_null(buf_extend(&b, 60000));
        memset(b.data, 7, b.size);
        sent += b.size;
        err = net_server_send(f->server, peer, &b);
    }
    assert_int_equal(err, FERRY_ERR_THROTTLED);
    /* What the two kernels hold is acknowledged, or is not in the library any more. */
    assert_in_range(sent, UNREAD_MAX_BYTES, 2 * UNREAD_MAX_BYTES);
    assert_int_equal(stats_of(f).cut_not_reading, 1);
    (void)close(fd);
    others_go_on(f);
}

/* ---- Z04, Z05: parts ------------------------------------------------------------------------- */

/* 2 bytes on the wire become 64 in the library's memory, for ever, unless the watch cuts. */
static void bad_z04_endless_multipart_is_cut(void **state)
{
    struct fixture *f = *state;
    others_go_on(f);
    int fd = raw_peer(f);
    uint8_t parts[8192];
    for (size_t i = 0; i < sizeof(parts); i += 2) {
        parts[i] = 1;     /* More follows; */
        parts[i + 1] = 0; /* empty. */
    }
    long before = resident_kib();
    uint64_t sent = 0;
    int64_t deadline = clock_monotonic_us() + PATIENCE_MS * 1000;
    while (stats_of(f).cut_hoarding == 0) {
        assert_true(clock_monotonic_us() < deadline);
        ssize_t got = 1;
        for (int i = 0; i < 100 && got > 0; i++) {
            got = send(fd, parts, sizeof(parts), MSG_DONTWAIT | MSG_NOSIGNAL);
            sent += got > 0 ? (uint64_t)got : 0;
        }
        turn(f);
    }
    long grown = resident_kib() - before;
    print_message("cut after %llu bytes sent, %ld KiB resident more\n", (unsigned long long)sent,
                  grown);
    assert_true(grown < 256 * 1024);
    TURN_UNTIL(f, raw_is_closed(fd));
    (void)close(fd);
    TURN_UNTIL(f, stats_of(f).connections_open == 1);
    others_go_on(f);
}

/* The proof of a hoard does not wait for a quiet moment: the server is never found empty here. */
static void bad_z04_endless_multipart_is_cut_while_others_are_busy(void **state)
{
    struct fixture *f = *state;
    others_go_on(f);
    int fd = raw_peer(f);
    struct buf b;
    buf_init(&b, 1024);
    struct net_message m;
    net_message_init(&m);
    net_peer peer;
    int64_t deadline = clock_monotonic_us() + PATIENCE_MS * 1000;
    while (stats_of(f).cut_hoarding == 0) {
        assert_true(clock_monotonic_us() < deadline);
        for (int i = 0; i < 50; i++) {
            (void)send(fd, "\1\0\1\0\1\0\1\0\1\0\1\0\1\0\1\0\1\0\1\0\1\0\1\0\1\0\1\0\1\0\1\0", 32,
                       MSG_DONTWAIT | MSG_NOSIGNAL);
        }
        for (int i = 0; i < 8; i++) {
            buf_append(&b, "busy", 4);
            enum ferry_err err = net_link_send(f->link, &b);
            assert_true(err == FERRY_OK || err == FERRY_ERR_THROTTLED); /* Enough is waiting. */
            buf_clear(&b);
        }
        for (int i = 0; i < 4; i++) { /* Fewer than come in. */
            (void)net_server_receive(f->server, &peer, &m);
        }
        net_server_watch(f->server);
    }
    net_message_close(&m);
    buf_fini(&b);
    (void)close(fd);
    TURN_UNTIL(f, stats_of(f).connections_open == 1);
    others_go_on(f);
}

static void bad_z05_a_message_of_many_parts_is_cut(void **state)
{
    struct fixture *f = *state;
    int fd = raw_peer(f);
    raw_send(fd, "\1\1a\0\1b\0\1c", 9); /* Two parts, and one more message behind them. */
    TURN_UNTIL(f, raw_is_closed(fd));
    assert_int_equal(stats_of(f).cut_multipart, 1);
    assert_int_equal(stats_of(f).received, 0);
    (void)close(fd);
    others_go_on(f);
}

/* A link greets with one empty message; a second is no frame. */
static void bad_z05_empty_messages_are_cut(void **state)
{
    struct fixture *f = *state;
    int fd = raw_peer(f);
    raw_send(fd, "\0\0\0\0", 4);
    TURN_UNTIL(f, raw_is_closed(fd));
    assert_int_equal(stats_of(f).cut_protocol, 1);
    (void)close(fd);
    others_go_on(f);
}

/* ---- Z06, Z07: who they say they are --------------------------------------------------------- */

static void bad_z06_an_id_of_the_peers_own_is_cut(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *id;
        size_t bytes;
    } ids[] = {{"x", 1}, {"admin", 5}, {"\0\1\2\3\4", 5}, {"\0\0", 2}, {"\0\1\2\3\4\5", 6}};
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        int fd = raw_connect(f);
        raw_shake_hands(fd, "DEALER", ids[i].id, ids[i].bytes);
        raw_send(fd, "\0\1x", 3);
        TURN_UNTIL(f, raw_is_closed(fd));
        (void)close(fd);
        assert_int_equal(stats_of(f).cut_protocol, i + 1);
    }
    assert_int_equal(stats_of(f).received, 0);
    others_go_on(f);
}

/* The second claim to an id gets nothing, and does not keep its place either. */
static void bad_z06_a_second_claim_to_an_id_is_cut(void **state)
{
    struct fixture *f = *state;
    int first = raw_connect(f), second = raw_connect(f);
    raw_shake_hands(first, "DEALER", "same", 4);
    raw_shake_hands(second, "DEALER", "same", 4);
    TURN_UNTIL(f, stats_of(f).connections_open == 3);
    raw_send(second, "\0\1x", 3);
    TURN_UNTIL(f, raw_is_closed(second));
    TURN_UNTIL(f, raw_is_closed(first));
    assert_int_equal(stats_of(f).received, 0);
    (void)close(first);
    (void)close(second);
    others_go_on(f);
}

static void bad_z07_the_wrong_type_of_socket_is_refused(void **state)
{
    struct fixture *f = *state;
    static const char *const types[] = {"PUB", "SUB", "PUSH", "ROUTERX", "", "SERVER"};
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        int fd = raw_connect(f);
        raw_shake_hands(fd, types[i], "", 0);
        TURN_UNTIL(f, raw_is_closed(fd));
        (void)close(fd);
    }
    assert_int_equal(stats_of(f).received, 0);
    others_go_on(f);
}

/* ---- Z08 to Z12: going and staying ----------------------------------------------------------- */

static void bad_z08_a_reply_to_a_vanished_peer_is_unreachable(void **state)
{
    struct fixture *f = *state;
    int fd = raw_peer(f);
    raw_send(fd, "\0\1x", 3);
    struct net_message m;
    net_message_init(&m);
    net_peer peer = 0;
    while (!net_server_receive(f->server, &peer, &m)) {
        net_server_watch(f->server);
    }
    net_message_close(&m);
    (void)close(fd);
    struct buf b;
    buf_init(&b, 16);
    enum ferry_err err = FERRY_OK;
    int64_t deadline = clock_monotonic_us() + PATIENCE_MS * 1000;
    while (err != FERRY_ERR_UNREACHABLE) {
        assert_true(clock_monotonic_us() < deadline);
        turn(f);
        buf_append(&b, "x", 1);
        err = net_server_send(f->server, peer, &b);
        assert_int_equal(b.size, 0);
    }
    assert_int_equal(net_server_send(f->server, peer + 77777, &b), FERRY_ERR_UNREACHABLE);
    buf_fini(&b);
    others_go_on(f);
}

static void bad_z09_a_reset_in_the_middle_of_a_message_loses_only_that(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 20; i++) {
        int fd = raw_peer(f);
        raw_send(fd, "\2\0\0\0\0\0\0\100\0half", 13);
        struct linger reset = {.l_onoff = 1, .l_linger = 0};
        assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)), 0);
        (void)close(fd);
        turn(f);
    }
    TURN_UNTIL(f, stats_of(f).connections_open == 1);
    assert_int_equal(stats_of(f).received, 0);
    others_go_on(f);
}

/* A pulled cable is not to be had in a test: the options that find it are. */
static void bad_z10_a_dead_machine_is_found_by_keepalive(void **state)
{
    struct fixture *f = *state;
    others_go_on(f);
    int found = 0;
    for (int fd = 3; fd < 256; fd++) {
        struct sockaddr_in local;
        socklen_t bytes = sizeof(local);
        if (getsockname(fd, (struct sockaddr *)&local, &bytes) != 0 ||
            local.sin_family != AF_INET || ntohs(local.sin_port) != f->port) {
            continue;
        }
        int listening = 0, alive = 0, idle = 0, timeout = 0;
        bytes = sizeof(int);
        assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &bytes), 0);
        if (listening) {
            continue;
        }
        assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &alive, &bytes), 0);
        assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, &bytes), 0);
        assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, &bytes), 0);
        assert_int_equal(alive, 1);
        assert_true(idle <= 5);
        assert_int_equal(timeout, 2 * HANDSHAKE_MS);
        found++;
    }
    assert_int_equal(found, 1);
}

static void bad_z11_a_link_without_a_server_queues_up_to_its_limit(void **state)
{
    struct fixture *f = *state;
    net_server_close(&f->server);
    struct buf b;
    buf_init(&b, 16);
    enum ferry_err err = FERRY_OK;
    int sent = 0;
    while (err == FERRY_OK && sent < 100000) {
        buf_append(&b, "x", 1);
        err = net_link_send(f->link, &b);
        sent += err == FERRY_OK;
    }
    assert_int_equal(err, FERRY_ERR_THROTTLED);
    assert_int_equal(b.size, 1); /* Still the caller's. */
    assert_in_range(sent, 1, 1024);
    buf_fini(&b);
}

static void bad_z12_closing_does_not_wait_for_what_is_queued(void **state)
{
    struct fixture *f = *state;
    net_server_close(&f->server);
    struct buf b;
    buf_init(&b, 1 << 20);
    for (int i = 0; i < 50; i++) {
        assert_non_null(buf_extend(&b, 60000));
        memset(b.data, 1, b.size);
        assert_int_equal(net_link_send(f->link, &b), FERRY_OK);
    }
    buf_fini(&b);
    int64_t start = clock_monotonic_us();
    net_link_close(&f->link);
    net_context_free(&f->context);
    assert_true(clock_monotonic_us() - start < 2000000);
}

/* ---- Z14: limits of connections and descriptors ---------------------------------------------- */

static void bad_z14_connections_above_the_limit_are_closed_at_once(void **state)
{
    struct fixture *f = *state;
    net_link_close(&f->link);
    net_server_close(&f->server);
    open_server(f, 3, QUEUE_MAX, UNREAD_FREE);
    open_link(f);
    others_go_on(f);
    int kept[2] = {raw_peer(f), raw_peer(f)};
    for (int i = 0; i < 2; i++) {
        raw_send(kept[i], "\0\1x", 3);
    }
    TURN_UNTIL(f, stats_of(f).received >= 3);
    for (int i = 0; i < 50; i++) {
        int fd = raw_connect(f);
        TURN_UNTIL(f, raw_is_closed(fd));
        (void)close(fd);
    }
    assert_int_equal(stats_of(f).cut_limit, 50);
    assert_false(raw_is_closed(kept[0]));
    assert_false(raw_is_closed(kept[1]));
    others_go_on(f);
    (void)close(kept[0]);
    TURN_UNTIL(f, stats_of(f).connections_open == 2);
    int fd = raw_peer(f); /* There is room again. */
    raw_send(fd, "\0\1x", 3);
    uint64_t received = stats_of(f).received;
    TURN_UNTIL(f, stats_of(f).received > received);
    (void)close(fd);
    (void)close(kept[1]);
}

static double cpu_s(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Runs `body` in a child process, whose limits and descriptors it may ruin; asserts its success.
 * For tests without a fixture: a process with the library's threads must not fork (BAD-Z16). */
static void in_a_child(int (*body)(void))
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        _exit(body());
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* A server whose process may open 64 files and has opened them all. The connecting sockets are
 * opened before the limit falls. */
static int without_descriptors(void)
{
    enum { KNOCKS = 40 };
    struct fixture f = {0};
    int knocks[KNOCKS];
    for (int i = 0; i < KNOCKS; i++) {
        int low = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        knocks[i] = fcntl(low, F_DUPFD_CLOEXEC, 200); /* Above the limit to come. */
        (void)close(low);
    }
    if (net_context_new(1, &f.context) != FERRY_OK) {
        return 1;
    }
    open_server(&f, 1000, QUEUE_MAX, UNREAD_FREE);
    open_link(&f);
    others_go_on(&f);
    struct rlimit limit = {.rlim_cur = 64, .rlim_max = 64};
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return 2;
    }
    while (dup(0) >= 0) {
    }
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)f.port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    double cpu = cpu_s();
    for (int i = 0; i < KNOCKS; i++) {
        if (connect(knocks[i], (struct sockaddr *)&to, sizeof(to)) != 0) {
            return 3;
        }
    }
    int64_t start = clock_monotonic_us(), end = start + 2000000;
    int answered = 0;
    while (clock_monotonic_us() < end) {
        turn(&f);
    }
    cpu = cpu_s() - cpu;
    for (int i = 0; i < KNOCKS; i++) {
        answered += raw_is_closed(knocks[i]);
    }
    print_message("%d of %d turned away, %.2f s of CPU in 2 s\n", answered, KNOCKS, cpu);
    if (answered != KNOCKS) {
        return 4;
    }
    if (cpu > 1.0) {
        return 5;
    }
    others_go_on(&f);
    net_link_close(&f.link);
    net_server_close(&f.server);
    net_context_free(&f.context);
    return 0;
}

/* More connections are asked for than there are descriptors: some are left to the rest of the
 * process, and a file can be opened when the server has all the connections it takes. */
static int with_few_descriptors(void)
{
    enum { KNOCKS = 64 };
    struct fixture f = {0};
    int knocks[KNOCKS];
    for (int i = 0; i < KNOCKS; i++) {
        int low = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        knocks[i] = fcntl(low, F_DUPFD_CLOEXEC, 200); /* Above the limit to come. */
        (void)close(low);
    }
    struct rlimit limit = {.rlim_cur = 64, .rlim_max = 64};
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || net_context_new(1, &f.context) != FERRY_OK) {
        return 1;
    }
    open_server(&f, 1000, QUEUE_MAX, UNREAD_FREE);
    open_link(&f);
    others_go_on(&f);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)f.port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (int i = 0; i < KNOCKS; i++) {
        if (connect(knocks[i], (struct sockaddr *)&to, sizeof(to)) != 0) {
            return 2;
        }
        turn(&f);
        int file = open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (file < 0) {
            return 3;
        }
        (void)close(file);
    }
    if (stats_of(&f).cut_limit == 0) {
        return 4;
    }
    others_go_on(&f);
    net_link_close(&f.link);
    net_server_close(&f.server);
    net_context_free(&f.context);
    return 0;
}

static void bad_z14_connections_leave_descriptors_to_the_rest_of_the_process(void **state)
{
    (void)state;
    in_a_child(with_few_descriptors);
}

static void bad_z14_connects_without_descriptors_are_turned_away_and_nothing_spins(void **state)
{
    (void)state;
    in_a_child(without_descriptors);
}

/* ---- Z15, Z18, noise ------------------------------------------------------------------------- */

static int without_standard_files(void)
{
    (void)close(0);
    (void)close(1);
    (void)close(2);
    struct fixture f = {0};
    if (net_context_new(1, &f.context) != FERRY_OK) {
        return 1;
    }
    open_server(&f, 10, QUEUE_MAX, UNREAD_FREE);
    open_link(&f);
    others_go_on(&f);
    net_link_close(&f.link);
    net_server_close(&f.server);
    net_context_free(&f.context);
    return 0;
}

static void bad_z15_standard_files_that_are_closed_do_not_matter(void **state)
{
    (void)state;
    in_a_child(without_standard_files);
}

/* Old protocol versions get the same treatment: parts and ids of their own are cut. */
static void bad_z18_old_protocol_versions_get_no_more_than_new_ones(void **state)
{
    struct fixture *f = *state;
    int v1 = raw_connect(f);
    raw_send(v1, "\4\0own\3\1ab\2\0c", 12); /* ZMTP 1.0: id "own", two parts. */
    TURN_UNTIL(f, raw_is_closed(v1));
    int v2 = raw_connect(f);
    raw_send(v2, "\377\0\0\0\0\0\0\0\1\177\1\5\0\3own\0\1x", 20); /* 2.0, DEALER, id "own". */
    TURN_UNTIL(f, raw_is_closed(v2));
    assert_int_equal(stats_of(f).received, 0);
    (void)close(v1);
    (void)close(v2);
    others_go_on(f);
}

static void random_bytes_on_the_port_hurt_nobody(void **state)
{
    struct fixture *f = *state;
    uint64_t seed = 20260401;
    print_message("seed %llu\n", (unsigned long long)seed);
    struct prng prng;
    prng_init(&prng, seed);
    for (int i = 0; i < 300; i++) {
        int fd = raw_connect(f);
        uint64_t kind = prng_below(&prng, 3);
        if (kind == 1) {
            raw_send(fd, greeting, sizeof(greeting));
        } else if (kind == 2) {
            raw_shake_hands(fd, "DEALER", "", 0);
        }
        uint8_t noise[512];
        size_t bytes = prng_below(&prng, sizeof(noise));
        for (size_t j = 0; j < bytes; j++) {
            noise[j] = (uint8_t)(kind == 2 ? prng_below(&prng, 8) : prng_next(&prng));
        }
        (void)send(fd, noise, bytes, MSG_NOSIGNAL);
        turn(f);
        (void)close(fd);
    }
    TURN_UNTIL(f, stats_of(f).connections_open == 1);
    others_go_on(f);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(bad_z01_silence_and_a_slow_greeting_are_dropped),
        TEST(bad_z01_a_handshake_without_a_message_is_cut),
        TEST(a_link_that_idles_keeps_its_connection),
        TEST(bad_z02_a_header_that_claims_too_much_is_refused_before_memory_is_taken),
        TEST(bad_z02_an_oversized_message_is_dropped_with_its_peer),
        TEST(bad_z03_a_peer_that_does_not_read_is_cut),
        TEST(bad_z03_many_bytes_for_a_peer_that_does_not_read_are_dropped_with_it),
        TEST(bad_z03_the_bytes_that_wait_for_a_peer_are_bounded),
        TEST(bad_z04_endless_multipart_is_cut),
        TEST(bad_z04_endless_multipart_is_cut_while_others_are_busy),
        TEST(bad_z05_a_message_of_many_parts_is_cut),
        TEST(bad_z05_empty_messages_are_cut),
        TEST(bad_z06_an_id_of_the_peers_own_is_cut),
        TEST(bad_z06_a_second_claim_to_an_id_is_cut),
        TEST(bad_z07_the_wrong_type_of_socket_is_refused),
        TEST(bad_z08_a_reply_to_a_vanished_peer_is_unreachable),
        TEST(bad_z09_a_reset_in_the_middle_of_a_message_loses_only_that),
        TEST(bad_z10_a_dead_machine_is_found_by_keepalive),
        TEST(bad_z11_a_link_without_a_server_queues_up_to_its_limit),
        TEST(bad_z12_closing_does_not_wait_for_what_is_queued),
        TEST(bad_z14_connections_above_the_limit_are_closed_at_once),
        cmocka_unit_test(bad_z14_connections_leave_descriptors_to_the_rest_of_the_process),
        cmocka_unit_test(bad_z14_connects_without_descriptors_are_turned_away_and_nothing_spins),
        cmocka_unit_test(bad_z15_standard_files_that_are_closed_do_not_matter),
        TEST(bad_z18_old_protocol_versions_get_no_more_than_new_ones),
        TEST(random_bytes_on_the_port_hurt_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
