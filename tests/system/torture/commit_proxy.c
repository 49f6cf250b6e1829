/* commit_proxy: stands between applications and their database server, and loses answers to COMMIT.
 *
 *   commit_proxy HOST PORT SERVER_PORT
 *
 * Each SIGUSR1 lets the answer to one more COMMIT be lost: the next one that a client sends is
 * handed to the server, the server's answer is waited for and thrown away, and the connection is
 * cut. So the transaction is there and its client does not know. A line on standard output for
 * each. It knows nothing of the protocols of PostgreSQL and MariaDB but that both send the word. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define PAIRS_MAX      128
#define CHUNK_BYTES    65536
#define ANSWER_WAIT_MS 3000

static const char commit[] = "COMMIT";

struct pair {
    int client, server; /* -1: free. */
};

static volatile sig_atomic_t armed;

static void arm(int signal)
{
    (void)signal;
    armed++;
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static struct sockaddr_in address_of(const char *host, const char *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)strtoul(port, NULL, 10))};
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1) {
        fprintf(stderr, "commit_proxy: %s: not an address\n", host);
        exit(2);
    }
    return address;
}

static int listen_at(const struct sockaddr_in *address)
{
    int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
        bind(fd, (const struct sockaddr *)address, sizeof(*address)) != 0 ||
        listen(fd, PAIRS_MAX) != 0) {
        die("listen");
    }
    return fd;
}

static void close_pair(struct pair *p)
{
    close(p->client);
    close(p->server);
    *p = (struct pair){-1, -1};
}

static void no_delay(int fd)
{
    int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

static void accept_client(int listener, const struct sockaddr_in *server, struct pair *pairs)
{
    int client = accept(listener, NULL, NULL);
    if (client < 0) {
        return;
    }
    for (int i = 0; i < PAIRS_MAX; i++) {
        if (pairs[i].client >= 0) {
            continue;
        }
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0 && connect(fd, (const struct sockaddr *)server, sizeof(*server)) == 0) {
            no_delay(client);
            no_delay(fd);
            pairs[i] = (struct pair){client, fd};
            return;
        }
        if (fd >= 0) {
            close(fd);
        }
        break;
    }
    close(client); /* No server, or no room: as if nobody listened. */
}

static bool send_all(int fd, const char *data, size_t bytes)
{
    while (bytes > 0) {
        ssize_t sent = send(fd, data, bytes, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) {
            continue;
        }
        if (sent <= 0) {
            return false;
        }
        data += sent;
        bytes -= (size_t)sent;
    }
    return true;
}

static bool says_commit(const char *data, size_t bytes)
{
    for (size_t i = 0; i + sizeof(commit) - 1 <= bytes; i++) {
        if (strncasecmp(data + i, commit, sizeof(commit) - 1) == 0) {
            return true;
        }
    }
    return false;
}

/* The server has done it when it answers. */
static void lose_answer(struct pair *p)
{
    char nothing[256];
    struct pollfd wait = {.fd = p->server, .events = POLLIN};
    while (poll(&wait, 1, ANSWER_WAIT_MS) < 0 && errno == EINTR) {
    }
    ssize_t answer = recv(p->server, nothing, sizeof(nothing), MSG_DONTWAIT);
    printf("an answer of %zd bytes to COMMIT is lost\n", answer);
    fflush(stdout);
    armed--;
    close_pair(p);
}

static void pass(struct pair *p, bool from_client, char *chunk)
{
    int from = from_client ? p->client : p->server, to = from_client ? p->server : p->client;
    ssize_t got = recv(from, chunk, CHUNK_BYTES, 0);
    if (got < 0 && errno == EINTR) {
        return;
    }
    if (got <= 0 || !send_all(to, chunk, (size_t)got)) {
        close_pair(p);
        return;
    }
    if (from_client && armed > 0 && says_commit(chunk, (size_t)got)) {
        lose_answer(p);
    }
}

static void turn(int listener, const struct sockaddr_in *server, struct pair *pairs, char *chunk)
{
    struct pollfd fds[1 + 2 * PAIRS_MAX];
    fds[0] = (struct pollfd){.fd = listener, .events = POLLIN};
    for (int i = 0; i < PAIRS_MAX; i++) { /* poll() passes over -1. */
        fds[1 + 2 * i] = (struct pollfd){.fd = pairs[i].client, .events = POLLIN};
        fds[2 + 2 * i] = (struct pollfd){.fd = pairs[i].server, .events = POLLIN};
    }
    if (poll(fds, 1 + 2 * PAIRS_MAX, -1) < 0) {
        return;
    }
    for (int i = 0; i < PAIRS_MAX; i++) {
        if (pairs[i].client >= 0 && fds[1 + 2 * i].revents != 0) {
            pass(&pairs[i], true, chunk);
        }
        if (pairs[i].client >= 0 && fds[2 + 2 * i].revents != 0) {
            pass(&pairs[i], false, chunk);
        }
    }
    if (fds[0].revents != 0) {
        accept_client(listener, server, pairs);
    }
}

int main(int argc, char **argv)
{
    static struct pair pairs[PAIRS_MAX];
    static char chunk[CHUNK_BYTES];
    if (argc != 4) {
        fputs("usage: commit_proxy HOST PORT SERVER_PORT\n", stderr);
        return 2;
    }
    struct sigaction action = {.sa_handler = arm};
    sigaction(SIGUSR1, &action, NULL);
    for (int i = 0; i < PAIRS_MAX; i++) {
        pairs[i] = (struct pair){-1, -1};
    }
    struct sockaddr_in here = address_of(argv[1], argv[2]), server = address_of(argv[1], argv[3]);
    int listener = listen_at(&here);
    for (;;) {
        turn(listener, &server, pairs, chunk);
    }
}
