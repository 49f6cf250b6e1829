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
    double seconds = argc == 5 ? strtod(argv[4], NULL) : 0;
    *r = (struct peer_run){.program = argv[0]};
    if (seconds <= 0 || strtol(argv[2], NULL, 10) < 1 || strtol(argv[3], NULL, 10) < 1) {
        fprintf(stderr, "usage: %s URL BYTES IN_FLIGHT SECONDS\n", argv[0]);
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
    r->sent_us[r->sent] = peer_now_us();
    return r->sent++;
}

void peer_confirmed(struct peer_run *r, int64_t n)
{
    if (r->latencies_us[n] == 0) {
        int64_t took_us = peer_now_us() - r->sent_us[n];
        r->latencies_us[n] = took_us > 0 ? took_us : 1;
        r->confirmed++;
    }
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
