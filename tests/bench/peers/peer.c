#include "peer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int64_t peer_now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int peer_failed(const struct peer_run *r, const char *what, const char *why)
{
    fprintf(stderr, "%s: %s: %s\n", r->program, what, why);
    return 1;
}

bool peer_begin(struct peer_run *r, int argc, char **argv)
{
    bool queue = argc == 6 && strcmp(argv[5], "queue") == 0;
    double seconds = argc == 5 || queue ? strtod(argv[4], NULL) : 0;
    *r = (struct peer_run){.program = argv[0], .queue = queue, .lock = PTHREAD_MUTEX_INITIALIZER};
    if (seconds <= 0 || strtol(argv[2], NULL, 10) < 1 || strtol(argv[3], NULL, 10) < 1) {
        fprintf(stderr, "usage: %s URL BYTES IN_FLIGHT SECONDS [queue]\n", argv[0]);
        return false;
    }
    r->url = argv[1];
    r->bytes = (size_t)strtol(argv[2], NULL, 10);
    r->in_flight = strtol(argv[3], NULL, 10);
    r->until_us = (int64_t)(seconds * 1e6);
    r->payload = malloc(r->bytes);
    r->sent_us = malloc((size_t)PEER_MESSAGES_MAX * sizeof(r->sent_us[0]));
    r->latencies_us = calloc((size_t)PEER_MESSAGES_MAX, sizeof(r->latencies_us[0]));
    if (r->payload == NULL || r->sent_us == NULL || r->latencies_us == NULL) {
        peer_failed(r, "starting", "out of memory");
        return false;
    }
    for (size_t i = 0; i < r->bytes; i++) {
        r->payload[i] = (char)('a' + i * 2654435761u % 26);
    }
    return true;
}

void peer_number(struct peer_run *r, int64_t n)
{
    memcpy(r->payload, &n, r->bytes < sizeof(n) ? r->bytes : sizeof(n));
}

int64_t peer_read_number(const struct peer_run *r, const void *payload, size_t bytes)
{
    int64_t n = -1;
    if (bytes == r->bytes && bytes >= sizeof(n)) {
        memcpy(&n, payload, sizeof(n));
    }
    return n >= 0 && n < PEER_MESSAGES_MAX ? n : -1;
}

int64_t peer_under_way(struct peer_run *r)
{
    pthread_mutex_lock(&r->lock);
    int64_t under_way = r->sent - r->confirmed;
    pthread_mutex_unlock(&r->lock);
    return under_way;
}

bool peer_is_over(struct peer_run *r)
{
    pthread_mutex_lock(&r->lock);
    bool over = r->over;
    pthread_mutex_unlock(&r->lock);
    return over;
}

void peer_stop(struct peer_run *r)
{
    pthread_mutex_lock(&r->lock);
    r->over = true;
    pthread_mutex_unlock(&r->lock);
}

bool peer_wait_for_all(struct peer_run *r)
{
    int64_t before = -1, moved_us = peer_now_us();
    for (int64_t left; (left = peer_under_way(r)) > 0 && !peer_is_over(r); before = left) {
        moved_us = left == before ? moved_us : peer_now_us();
        if (peer_now_us() - moved_us > PEER_PATIENCE_S * INT64_C(1000000)) {
            return false;
        }
        struct timespec pause = {.tv_nsec = 200000};
        nanosleep(&pause, NULL);
    }
    return peer_under_way(r) == 0;
}

void peer_start(struct peer_run *r)
{
    r->began_us = peer_now_us();
    r->until_us += r->began_us;
}

bool peer_goes_on(const struct peer_run *r)
{
    return r->sent < PEER_MESSAGES_MAX && peer_now_us() < r->until_us;
}

int64_t peer_sends(struct peer_run *r)
{
    pthread_mutex_lock(&r->lock);
    int64_t n = r->sent++;
    r->sent_us[n] = peer_now_us();
    pthread_mutex_unlock(&r->lock);
    return n;
}

void peer_confirmed(struct peer_run *r, int64_t n)
{
    pthread_mutex_lock(&r->lock);
    if (r->latencies_us[n] == 0) {
        int64_t took_us = peer_now_us() - r->sent_us[n];
        r->latencies_us[n] = took_us > 0 ? took_us : 1;
        r->confirmed++;
    }
    pthread_mutex_unlock(&r->lock);
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

int peer_end(struct peer_run *r, const char *version)
{
    double seconds = (double)(peer_now_us() - r->began_us) / 1e6;
    int64_t unconfirmed = r->sent - r->confirmed;
    const int64_t *sorted = r->latencies_us + unconfirmed; /* Those without one are 0 and first. */
    qsort(r->latencies_us, (size_t)r->sent, sizeof(r->latencies_us[0]), by_value);
    printf("{\"version\":\"%s\",\"records\":%" PRId64 ",\"refused\":%" PRId64
           ",\"unconfirmed\":%" PRId64 ",\"seconds\":%.6f,\"records_per_second\":%.1f,"
           "\"bytes_per_second\":%.1f,\"latency_us\":{\"p50\":%" PRId64 ",\"p99\":%" PRId64 "}}\n",
           version, r->confirmed, r->refused, unconfirmed, seconds, (double)r->confirmed / seconds,
           (double)r->confirmed * (double)r->bytes / seconds,
           r->confirmed > 0 ? sorted[r->confirmed / 2] : 0,
           r->confirmed > 0 ? sorted[(r->confirmed - 1) * 99 / 100] : 0);
    free(r->payload);
    free(r->sent_us);
    free(r->latencies_us);
    return unconfirmed == 0 && r->confirmed > 0 ? 0
                                                : peer_failed(r, "publishing", "not all confirmed");
}
