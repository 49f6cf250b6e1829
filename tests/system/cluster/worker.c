/* The worker: takes messages of a subscription of mode queue or keyed and does with each what
 * chance says: most are acked, some fail, are given back, refused, or kept past their lease. */
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/prng.h"
#include "system/cluster/workload.h"

#define OPEN_TIMEOUT_MS    2000
#define RECEIVE_TIMEOUT_MS 100
#define PAUSE_MS           100
#define DELIVERIES_MAX     32
#define CLOSE_WAIT_MS      5000
#define HANDED_MAX         1000000

enum { NACK_PERCENT = 8, RELEASE_PERCENT = 4, REJECT_PERCENT = 1, SLEEP_PER_MILLE = 3 };

struct worker {
    struct workload *w;
    struct ferry_client *client;
    struct ferry_receiver *receiver;
    struct prng prng;
};

static const char *name_of(enum ferry_settle settle)
{
    static const char *const names[] = {"?", "ack", "nack", "release", "reject"};
    return names[settle];
}

static void on_settled(const struct ferry_settled *settled, void *arg)
{
    const struct workload *w = arg;
    fprintf(w->history, "d %" PRId64 " %" PRId32 " %" PRId64 " %" PRIuPTR " %s %s\n",
            clock_monotonic_us(), settled->partition, settled->offset, (uintptr_t)settled->opaque,
            name_of(settled->settle),
            settled->err == FERRY_OK ? "OK" : ferry_err_name(settled->err));
}

static void note_delivery(const struct workload *w, const struct ferry_delivery *d)
{
    char before[128];
    (void)snprintf(
        before, sizeof(before), "h %" PRId64 " %" PRId32 " %" PRId64 " %" PRIu32 " %" PRIu32,
        clock_monotonic_us(), d->record.partition, d->record.offset, d->handed_out, d->failed);
    workload_note_record(w, before, &d->record);
}

static enum ferry_settle what_to_do(struct worker *k)
{
    uint64_t chance = k->w->faithful ? 100 : prng_below(&k->prng, 100);
    if (chance < NACK_PERCENT) {
        return FERRY_NACK;
    }
    if (chance < NACK_PERCENT + RELEASE_PERCENT) {
        return FERRY_RELEASE;
    }
    return chance < NACK_PERCENT + RELEASE_PERCENT + REJECT_PERCENT ? FERRY_REJECT : FERRY_ACK;
}

static void settle(struct worker *k, struct ferry_delivery *d)
{
    enum ferry_settle what = what_to_do(k);
    if (!k->w->faithful && prng_below(&k->prng, 1000) < SLEEP_PER_MILLE) {
        (void)poll(NULL, 0, (int)(k->w->lease_ms + PAUSE_MS)); /* Past the lease. */
    }
    fprintf(k->w->history, "b %" PRId64 " %" PRId32 " %" PRId64 " %" PRIu32 " %s\n",
            clock_monotonic_us(), d->record.partition, d->record.offset, d->handed_out,
            name_of(what));
    enum ferry_err err =
        ferry_settle(k->receiver, d, what, what == FERRY_NACK ? 50 : 0,
                     what == FERRY_ACK ? NULL : "by chance", (void *)(uintptr_t)d->handed_out);
    if (err != FERRY_OK) {
        workload_note_error(k->w, err);
    }
}

static bool open_receiver(struct worker *k)
{
    struct ferry_receiver_spec spec = {.member = k->w->name,
                                       .inflight_max = 64,
                                       .batch_max = 16,
                                       .lease_ms = (uint32_t)k->w->lease_ms,
                                       .no_extend = k->w->no_extend};
    while (!*k->w->stopped) {
        enum ferry_err err = ferry_receiver_open(&k->receiver, k->client, k->w->topics[0],
                                                 k->w->subscription, &spec, OPEN_TIMEOUT_MS);
        if (err == FERRY_OK) {
            ferry_receiver_on_settled(k->receiver, on_settled, k->w);
            fprintf(k->w->history, "o %" PRId64 " %s %s\n", clock_monotonic_us(), k->w->topics[0],
                    k->w->subscription);
            return true;
        }
        workload_note_error(k->w, err);
    }
    return false;
}

static void work(struct worker *k)
{
    struct ferry_delivery deliveries[DELIVERIES_MAX];
    while (!*k->w->stopped) {
        size_t count = 0;
        enum ferry_err err =
            ferry_receive(k->receiver, RECEIVE_TIMEOUT_MS, deliveries, DELIVERIES_MAX, &count);
        if (err != FERRY_OK && err != FERRY_ERR_TIMEOUT) {
            workload_note_error(k->w, err);
            (void)poll(NULL, 0, PAUSE_MS);
        }
        for (size_t i = 0; err == FERRY_OK && i < count; i++) {
            note_delivery(k->w, &deliveries[i]);
        }
        for (size_t i = 0; err == FERRY_OK && i < count; i++) {
            settle(k, &deliveries[i]);
        }
        (void)ferry_poll(k->client, 0);
    }
    (void)ferry_receiver_flush(k->receiver, CLOSE_WAIT_MS, NULL);
}

int worker_run(struct workload *w)
{
    struct worker k = {.w = w, .client = workload_open(w, NULL)};
    if (k.client == NULL || w->subscription == NULL) {
        return EXIT_FAILURE;
    }
    prng_init(&k.prng, w->seed);
    if (open_receiver(&k)) {
        work(&k);
    }
    ferry_receiver_close(&k.receiver, CLOSE_WAIT_MS);
    ferry_close(&k.client, 0);
    return EXIT_SUCCESS;
}
