/* beanstalk_peer: a work queue in beanstalkd. See peer.h; only as a `queue`.
 *
 * URL is HOST:PORT. One connection puts, another reserves and deletes; both send on without waiting
 * for each answer. A message counts when its deletion is answered. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "peer.h"

#define LINE_MAX_BYTES 128
#define BUFFER_BYTES   (1 << 20)
#define RESERVES       64 /* Asked for ahead. */
#define TIME_TO_RUN_S  60
#define WAIT_MS        100
#define RESERVE        "reserve-with-timeout 0\r\n"
#define DELETING_MAX   4096

struct link {
    int fd;
    char *in;
    size_t in_bytes;
    char *out;
    size_t out_bytes;
};

static bool link_open(const struct peer_run *r, struct link *l)
{
    char host[64];
    const char *colon = strrchr(r->url, ':');
    *l = (struct link){.fd = socket(AF_INET, SOCK_STREAM, 0),
                       .in = malloc(BUFFER_BYTES),
                       .out = malloc(BUFFER_BYTES)};
    if (colon == NULL || l->in == NULL || l->out == NULL) {
        peer_failed(r, r->url, "not HOST:PORT, or out of memory");
        return false;
    }
    snprintf(host, sizeof(host), "%.*s", (int)(colon - r->url), r->url);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)strtol(colon + 1, NULL, 10))};
    int one = 1;
    setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1 ||
        connect(l->fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        peer_failed(r, r->url, strerror(errno));
        return false;
    }
    return true;
}

static void link_close(struct link *l)
{
    close(l->fd);
    free(l->in);
    free(l->out);
}

static bool link_flush(struct link *l)
{
    for (size_t at = 0; at < l->out_bytes;) {
        ssize_t n = write(l->fd, l->out + at, l->out_bytes - at);
        if (n < 0 && errno != EINTR) {
            return false;
        }
        at += n > 0 ? (size_t)n : 0;
    }
    l->out_bytes = 0;
    return true;
}

static bool link_put(struct link *l, const void *bytes, size_t count)
{
    if (l->out_bytes + count > BUFFER_BYTES && !link_flush(l)) {
        return false;
    }
    memcpy(l->out + l->out_bytes, bytes, count);
    l->out_bytes += count;
    return true;
}

/* Reads what is there, waiting at most wait_ms; false when the other side is gone. */
static bool link_read(struct link *l, int wait_ms)
{
    struct pollfd p = {.fd = l->fd, .events = POLLIN};
    if (poll(&p, 1, wait_ms) <= 0) {
        return true;
    }
    ssize_t n = read(l->fd, l->in + l->in_bytes, BUFFER_BYTES - l->in_bytes);
    l->in_bytes += n > 0 ? (size_t)n : 0;
    return n > 0 || (n < 0 && errno == EINTR);
}

static void link_drop(struct link *l, size_t bytes)
{
    memmove(l->in, l->in + bytes, l->in_bytes - bytes);
    l->in_bytes -= bytes;
}

/* Takes whole lines "WORD …" off; `each` returns how many bytes it used after the line, or -1 when
 * they are not all there yet. */
typedef ssize_t line_cb(void *arg, const char *line, const char *rest, size_t rest_bytes);
static bool link_lines(struct link *l, line_cb *each, void *arg)
{
    size_t at = 0;
    for (;;) {
        char *end = memchr(l->in + at, '\n', l->in_bytes - at);
        if (end == NULL) {
            break;
        }
        char line[LINE_MAX_BYTES];
        size_t used = (size_t)(end + 1 - (l->in + at));
        snprintf(line, sizeof(line), "%.*s", (int)(used - 1), l->in + at);
        ssize_t more = each(arg, line, end + 1, l->in_bytes - at - used);
        if (more == -1) {
            break;
        }
        if (more < -1) {
            return false;
        }
        at += used + (size_t)more;
    }
    link_drop(l, at);
    return true;
}

/* ---- Putting ---- */

static ssize_t on_inserted(void *arg, const char *line, const char *rest, size_t rest_bytes)
{
    (void)rest;
    (void)rest_bytes;
    if (strncmp(line, "INSERTED ", 9) != 0) {
        peer_failed(arg, "putting", line);
        return -2;
    }
    return 0;
}

static bool put_one(struct peer_run *r, struct link *l)
{
    char line[LINE_MAX_BYTES];
    int n = snprintf(line, sizeof(line), "put 0 0 %d %zu\r\n", TIME_TO_RUN_S, r->bytes);
    peer_number(r, peer_sends(r));
    return link_put(l, line, (size_t)n) && link_put(l, r->payload, r->bytes) &&
           link_put(l, "\r\n", 2);
}

/* ---- Reserving and deleting ---- */

struct worker {
    struct peer_run *r;
    struct link link;
    uint32_t reserving;
    int64_t deleting[DELETING_MAX]; /* Messages by the order of their deletions. */
    size_t first, last;
};

static ssize_t on_line(void *arg, const char *line, const char *rest, size_t rest_bytes)
{
    struct worker *w = arg;
    uint64_t id = 0;
    size_t bytes = 0;
    if (strncmp(line, "DELETED", 7) == 0) {
        peer_confirmed(w->r, w->deleting[w->first++ % DELETING_MAX]);
        return 0;
    }
    if (strncmp(line, "TIMED_OUT", 9) == 0) {
        w->reserving--;
        return 0;
    }
    if (sscanf(line, "RESERVED %lu %zu", &id, &bytes) != 2) {
        peer_failed(w->r, "reserving", line);
        return -2;
    }
    if (rest_bytes < bytes + 2) {
        return -1;
    }
    char command[LINE_MAX_BYTES];
    int n = snprintf(command, sizeof(command), "delete %lu\r\n", id);
    w->reserving--;
    w->deleting[w->last++ % DELETING_MAX] = peer_read_number(w->r, rest, bytes);
    return link_put(&w->link, command, (size_t)n) ? (ssize_t)(bytes + 2) : -2;
}

/* A round: what is ready is reserved, RESERVES at most, and what the round before reserved is
 * deleted. Nothing blocks: a command of a connection waits for the one before it. */
static bool work_once(struct worker *w)
{
    if (w->reserving == 0) {
        for (; w->reserving < RESERVES; w->reserving++) {
            if (!link_put(&w->link, RESERVE, strlen(RESERVE))) {
                return false;
            }
        }
    }
    return link_flush(&w->link) && link_read(&w->link, WAIT_MS) && link_lines(&w->link, on_line, w);
}

static void *work(void *arg)
{
    struct worker *w = arg;
    bool ok = link_open(w->r, &w->link);
    while (ok && !peer_is_over(w->r)) {
        ok = work_once(w);
    }
    if (!ok) {
        peer_stop(w->r);
    }
    link_close(&w->link);
    return NULL;
}

static bool queue_all(struct peer_run *r, struct link *l)
{
    static struct worker w;
    pthread_t worker;
    w.r = r;
    if (pthread_create(&worker, NULL, work, &w) != 0) {
        return false;
    }
    bool ok = true;
    peer_start(r);
    while (ok && peer_goes_on(r) && !peer_is_over(r)) {
        bool room = peer_under_way(r) < r->in_flight;
        ok = !room || put_one(r, l);
        if (!room || r->sent % RESERVES == 0) {
            ok = ok && link_flush(l) && link_read(l, room ? 0 : 1) && link_lines(l, on_inserted, r);
        }
    }
    ok = ok && link_flush(l) && peer_wait_for_all(r);
    peer_stop(r);
    pthread_join(worker, NULL);
    return ok;
}

int main(int argc, char **argv)
{
    struct peer_run r;
    struct link l;
    if (!peer_begin(&r, argc, argv) || !r.queue) {
        return 2;
    }
    bool ok = link_open(&r, &l) && queue_all(&r, &l);
    int code = ok ? peer_end(&r, "beanstalkd") : peer_failed(&r, "queueing", "not all deleted");
    link_close(&l);
    return code;
}
