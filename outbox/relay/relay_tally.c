#include "outbox/relay/relay_tally.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

#define US_PER_MS  1000
#define NAME_CHARS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"
#define OTHER_AT   0u

const int64_t relay_bucket_ms[RELAY_BUCKETS - 1] = {1,   2,   5,    10,   20,   50,   100,
                                                    200, 500, 1000, 2000, 5000, 10000};
const uint32_t relay_bucket_rows[RELAY_ROW_BUCKETS - 1] = {1, 4, 16, 64, 256, 1024, 4096};

struct relay_tally {
    pthread_mutex_t lock; /* Of all that follows but the memory of `other`. */
    atomic_size_t *room;
    size_t count; /* The other ones are the first. */
    struct relay_topic_figures *topics[1 + RELAY_METRIC_TOPICS_MAX];
    struct relay_topic_figures other;
};

void relay_times_add(struct relay_times *times, int64_t us)
{
    size_t bucket = 0;
    us = us < 0 ? 0 : us; /* A wall clock was set back. */
    while (bucket < RELAY_BUCKETS - 1 && us > relay_bucket_ms[bucket] * US_PER_MS) {
        bucket++;
    }
    times->counts[bucket]++;
    times->count++;
    times->sum_us += (uint64_t)us;
}

enum ferry_err relay_tally_new(struct relay_tally **tally, atomic_size_t *room)
{
    struct relay_tally *t = mem_zalloc(1, sizeof(*t));
    if (t == NULL || pthread_mutex_init(&t->lock, NULL) != 0) {
        mem_free(t);
        return FERRY_ERR_NO_MEMORY;
    }
    t->room = room;
    t->count = 1;
    t->topics[OTHER_AT] = &t->other;
    (void)snprintf(t->other.name, sizeof(t->other.name), "%s", RELAY_TALLY_OTHER);
    *tally = t;
    return FERRY_OK;
}

void relay_tally_free(struct relay_tally **tally)
{
    struct relay_tally *t = *tally;
    if (t != NULL) {
        for (size_t i = OTHER_AT + 1; i < t->count; i++) {
            mem_free(t->topics[i]);
        }
        pthread_mutex_destroy(&t->lock);
        mem_free(t);
    }
    *tally = NULL;
}

static bool take_room(atomic_size_t *room)
{
    size_t left = room == NULL ? 1 : atomic_load(room);
    while (room != NULL && left > 0 && !atomic_compare_exchange_weak(room, &left, left - 1)) {
    }
    return left > 0;
}

static bool is_topic_name(const char *name)
{
    size_t length = strlen(name);
    return length > 0 && length <= RELAY_TALLY_NAME_MAX && strspn(name, NAME_CHARS) == length;
}

/* Under the lock. */
static size_t topic_add(struct relay_tally *t, const char *name)
{
    if (t->count > RELAY_METRIC_TOPICS_MAX || !is_topic_name(name) || !take_room(t->room)) {
        return OTHER_AT;
    }
    struct relay_topic_figures *topic = mem_zalloc(1, sizeof(*topic));
    if (topic == NULL) {
        return OTHER_AT;
    }
    (void)snprintf(topic->name, sizeof(topic->name), "%s", name);
    t->topics[t->count] = topic;
    return t->count++;
}

size_t relay_tally_topic(struct relay_tally *t, const char *name)
{
    if (t == NULL) {
        return OTHER_AT;
    }
    size_t at = 0;
    pthread_mutex_lock(&t->lock);
    while (at < t->count && strcmp(t->topics[at]->name, name) != 0) {
        at++;
    }
    if (at == t->count) {
        at = topic_add(t, name);
    }
    pthread_mutex_unlock(&t->lock);
    return at;
}

void relay_tally_batch(struct relay_tally *t, size_t at, size_t rows, size_t delayed,
                       int64_t append_us, int64_t commit_us)
{
    size_t bucket = 0;
    if (t == NULL) {
        return;
    }
    while (bucket < RELAY_ROW_BUCKETS - 1 && rows > relay_bucket_rows[bucket]) {
        bucket++;
    }
    pthread_mutex_lock(&t->lock);
    must(at < t->count);
    struct relay_topic_figures *topic = t->topics[at];
    topic->published_rows += rows;
    topic->published_batches++;
    topic->delayed_rows += delayed;
    topic->batch_rows[bucket]++;
    relay_times_add(&topic->append_times, append_us);
    if (commit_us >= 0) {
        relay_times_add(&topic->commit_to_append, commit_us);
    }
    pthread_mutex_unlock(&t->lock);
}

void relay_tally_row(struct relay_tally *t, size_t at, enum relay_tally_kind kind)
{
    if (t == NULL) {
        return;
    }
    pthread_mutex_lock(&t->lock);
    must(at < t->count);
    struct relay_topic_figures *topic = t->topics[at];
    topic->refused_rows += kind == RELAY_TALLY_REFUSED;
    topic->dead_rows += kind == RELAY_TALLY_DEAD;
    topic->parked_rows += kind == RELAY_TALLY_PARKED;
    pthread_mutex_unlock(&t->lock);
}

size_t relay_tally_count(struct relay_tally *t)
{
    if (t == NULL) {
        return 0;
    }
    pthread_mutex_lock(&t->lock);
    size_t count = t->count;
    pthread_mutex_unlock(&t->lock);
    return count;
}

void relay_tally_copy(struct relay_tally *t, size_t at, struct relay_topic_figures *copy)
{
    pthread_mutex_lock(&t->lock);
    must(at < t->count);
    *copy = *t->topics[at];
    pthread_mutex_unlock(&t->lock);
}
