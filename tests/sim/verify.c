/* What is verified of queues and delayed messages once the cluster is healed and everybody is gone:
 * all of it comes to an end, the numbers agree, and one that is paused or stuck delays no other. */
#include "sim/fiber.h"
#include "sim/workload.h"

#define ASK_MS       5000
#define WAIT_MS      40000 /* For what is delayed: longer than any delay. */
#define PROGRESS_MS  15000 /* One subscription, while others stand still. */
#define TAKE_MAX     16
#define SCHEDULE_MAX 50

static const char *topic_of(const struct session *s, const struct load_queue *q)
{
    return s->p->load->history.topics[q->deliveries.topic].name;
}

/* ---- Delayed messages ---- */

static bool list_waiting(struct session *s, const char *topic, struct ferry_scheduled **list,
                         size_t *count, uint64_t *total)
{
    struct ferry_schedule_id after = {0};
    bool more;
    enum ferry_err err = ferry_schedule_list(s->client, topic, &after, SCHEDULE_MAX, ASK_MS, list,
                                             count, &more, total);
    program_note(s->p, "schedule list", err);
    return err == FERRY_OK;
}

/* What is due too far ahead, for it was asked for by a clock that ran ahead, is cancelled. */
static void cancel_rest(struct session *s, const char *topic, const struct ferry_scheduled *list,
                        size_t count)
{
    struct history *h = &s->p->load->history;
    struct ferry_schedule_id ids[SCHEDULE_MAX];
    size_t done;
    for (uint64_t n = 1; n < h->count; n++) {
        bool it = h->messages[n].delayed && h->messages[n].offset < 0 &&
                  strcmp(h->topics[h->messages[n].topic].name, topic) == 0;
        h->messages[n].cancelling |= it;
    }
    for (size_t i = 0; i < count; i++) {
        ids[i] = list[i].schedule;
    }
    program_note(s->p, "cancel",
                 ferry_schedule_cancel(s->client, topic, ids, count, ASK_MS, &done));
}

static void wait_for_topic(struct session *s, const char *topic, int64_t until)
{
    uint64_t total = 1;
    while (total > 0 && !sim->ended) {
        struct ferry_scheduled *list;
        size_t count;
        if (list_waiting(s, topic, &list, &count, &total)) {
            sim_say("waiting in %s: %llu, listed %zu%s%llu", topic, (unsigned long long)total,
                    count, count > 0 ? ", the first until " : "",
                    count > 0 ? (unsigned long long)list[0].schedule.due_ms : 0ull);
            if (count > 0 && world_now() > until) {
                cancel_rest(s, topic, list, count);
            }
            ferry_scheduled_free(&list);
        }
        fiber_sleep(total > 0 ? 500 * SIM_MS : 0);
    }
}

void verify_schedules(struct session *s)
{
    const struct history *h = &s->p->load->history;
    int64_t until = world_now() + WAIT_MS * SIM_MS;
    for (uint32_t i = 0; i < h->topic_count && !sim->ended; i++) {
        if (!h->topics[i].loose) {
            sim_say("waits for what is delayed in %s", h->topics[i].name);
            wait_for_topic(s, h->topics[i].name, until);
        }
    }
}

/* What comes for ever would never let the cluster come to rest. */
void verify_no_recurring(struct session *s)
{
    const struct history *h = &s->p->load->history;
    for (uint32_t i = 0; i < h->topic_count; i++) {
        enum ferry_err err = FERRY_ERR_TIMEOUT;
        while (h->topics[i].loose && !sim->ended && ferry_err_class(err) == FERRY_CLASS_RETRIABLE) {
            err = ferry_recurring_remove(s->client, h->topics[i].name, "tick", ASK_MS);
            program_note(s->p, "recurring remove", err);
            fiber_sleep(100 * SIM_MS);
        }
    }
}

/* ---- Draining ---- */

struct drain {
    struct session *s;
    struct load_queue *queue;
    struct ferry_receiver *receiver;
    uint32_t number;
    int64_t opened_us;
};

static void on_settled(const struct ferry_settled *settled, void *arg)
{
    struct drain *d = arg;
    deliveries_told(&d->queue->deliveries, (uint32_t)(uintptr_t)settled->opaque, settled->err);
}

static void open_drain(struct drain *d, struct session *s, struct load_queue *q, bool extends)
{
    struct ferry_receiver_spec spec = {.no_extend = !extends};
    *d = (struct drain){.s = s, .queue = q, .number = ++s->p->load->next_worker};
    enum ferry_err err = FERRY_ERR_TIMEOUT;
    while (err != FERRY_OK && !sim->ended) {
        d->opened_us = world_now();
        err = ferry_receiver_open(&d->receiver, s->client, topic_of(s, q), q->name, &spec, ASK_MS);
        program_note(s->p, "receiver open", err);
        if (err != FERRY_OK) {
            fiber_sleep(200 * SIM_MS);
        }
    }
    if (err == FERRY_OK) {
        ferry_receiver_on_settled(d->receiver, on_settled, d);
    }
}

static void close_drain(struct drain *d)
{
    deliveries_let_go(&d->queue->deliveries, d->number);
    if (d->receiver != NULL) {
        ferry_receiver_close(&d->receiver, ASK_MS);
    }
}

/* Takes what there is; acks it, or keeps it. */
static size_t take_some(struct drain *d, bool acks, int timeout_ms)
{
    struct ferry_delivery got[TAKE_MAX];
    size_t count = 0;
    enum ferry_err err = ferry_receive(d->receiver, timeout_ms, got, TAKE_MAX, &count);
    program_note(d->s->p, "receive", err == FERRY_ERR_TIMEOUT ? FERRY_OK : err);
    for (size_t i = 0; i < count && err == FERRY_OK && !sim->ended; i++) {
        struct deliveries *all = &d->queue->deliveries;
        uint32_t hand_out = deliveries_got(all, d->number, d->opened_us, &got[i]);
        if (hand_out != 0 && acks) {
            deliveries_asked(all, hand_out, FERRY_ACK, -1);
            must(ferry_settle(d->receiver, &got[i], FERRY_ACK, -1, NULL,
                              (void *)(uintptr_t)hand_out) == FERRY_OK);
        }
    }
    program_note(d->s->p, "flush", ferry_receiver_flush(d->receiver, ASK_MS, NULL));
    return err == FERRY_OK ? count : 0;
}

/* Everything of it, from every partition; false: not all partitions answered. */
static bool ask_counts(struct session *s, const struct load_queue *q,
                       struct ferry_subscription_info **info, uint64_t *remaining)
{
    enum ferry_err err = ferry_subscription_info(s->client, topic_of(s, q), q->name, ASK_MS, info);
    program_note(s->p, "subscription info", err);
    *remaining = 0;
    bool all = err == FERRY_OK;
    for (size_t i = 0; err == FERRY_OK && i < (*info)->partition_count; i++) {
        const struct ferry_subscription_partition *p = &(*info)->partitions[i];
        all &= p->err == FERRY_OK;
        *remaining += p->ready + p->leased + p->waiting;
    }
    if (err == FERRY_OK && !all) {
        ferry_subscription_info_free(info);
    }
    return all;
}

static void drain(struct session *s, struct load_queue *q, int64_t until_us)
{
    struct drain d;
    uint64_t remaining = 1;
    open_drain(&d, s, q, true);
    while (remaining > 0 && !sim->ended) {
        struct ferry_subscription_info *info;
        if (take_some(&d, true, 500) == 0 && ask_counts(s, q, &info, &remaining)) {
            ferry_subscription_info_free(&info);
        }
        if (remaining > 0 && world_now() > until_us) {
            sim_fail(SIM_LIVENESS, "INV-P02: %s still has %llu messages, while others stand still",
                     q->name, (unsigned long long)remaining);
        }
    }
    close_drain(&d);
}

static void resume(struct session *s, const struct load_queue *q, bool pause)
{
    enum ferry_err err = FERRY_ERR_TIMEOUT;
    while (err != FERRY_OK && !sim->ended) {
        err = ferry_subscription_pause(s->client, topic_of(s, q), q->name, pause, ASK_MS);
        program_note(s->p, pause ? "pause" : "resume", err);
        if (err != FERRY_OK) {
            fiber_sleep(200 * SIM_MS);
        }
    }
}

static void end_quotas(struct session *s)
{
    const struct history *h = &s->p->load->history;
    for (uint32_t i = 0; i < h->topic_count; i++) {
        struct ferry_quota quota = {0};
        (void)snprintf(quota.topic, sizeof(quota.topic), "%s", h->topics[i].name);
        while (!sim->ended && ferry_quota_set(s->client, &quota, ASK_MS) != FERRY_OK) {
            fiber_sleep(200 * SIM_MS);
        }
    }
}

/* ---- Independence ---- */

/* A new message in each partition of the topic. */
static void add_messages(struct session *s, uint32_t topic)
{
    struct history *h = &s->p->load->history;
    for (uint32_t i = 0; i < h->topics[topic].partitions && !sim->ended; i++) {
        uint64_t number;
        do {
            number = history_new(h, topic, s->p->producer);
            session_send(s, number, (int32_t)i, false);
            while (s->outstanding > 0 && !sim->ended) {
                (void)ferry_poll(s->client, 1000);
            }
        } while (h->messages[number].state != HISTORY_STORED && !sim->ended);
    }
}

/* While one is paused, and then while one is stuck with all it can get, another is drained. */
static void check_independence(struct session *s, struct load_queue *a, struct load_queue *b)
{
    struct drain stuck;
    sim_say("%s is paused, %s goes on", a->name, b->name);
    resume(s, a, true);
    add_messages(s, b->deliveries.topic);
    drain(s, b, world_now() + PROGRESS_MS * SIM_MS);
    sim_say("%s is stuck, %s goes on", b->name, a->name);
    open_drain(&stuck, s, b, true);
    add_messages(s, b->deliveries.topic);
    while (!sim->ended && take_some(&stuck, false, 2000) > 0) {
    }
    resume(s, a, false);
    drain(s, a, world_now() + PROGRESS_MS * SIM_MS);
    close_drain(&stuck);
    s->p->load->counters.independent++;
}

/* ---- Dead letters ---- */

static bool list_page(struct session *s, struct load_queue *q, struct ferry_dead_place *place,
                      bool *more)
{
    struct ferry_dead *dead;
    size_t count;
    struct ferry_dead_place at = *place;
    enum ferry_err err = ferry_dead_list(s->client, topic_of(s, q), q->name, NULL, &at, TAKE_MAX,
                                         ASK_MS, &dead, &count, more);
    program_note(s->p, "dead list", err);
    if (err != FERRY_OK) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        deliveries_dead(&q->deliveries, &dead[i]);
    }
    ferry_dead_free(&dead);
    *place = at;
    return true;
}

static void list_dead(struct session *s, struct load_queue *q)
{
    struct ferry_dead_place place = {0};
    bool more = true;
    while (more && !sim->ended) {
        if (!list_page(s, q, &place, &more)) {
            fiber_sleep(200 * SIM_MS);
        }
    }
}

/* They read like a topic, whole, each at its number. */
static bool read_page(struct session *s, struct load_queue *q, struct ferry_consumer *consumer,
                      uint64_t *count)
{
    struct ferry_batch *batch;
    enum ferry_err err = ferry_consumer_fetch(consumer, 500, &batch);
    if (err != FERRY_OK) {
        program_note(s->p, "fetch", err);
        return err == FERRY_ERR_TIMEOUT;
    }
    for (size_t i = 0; i < ferry_batch_count(batch) && !sim->ended; i++) {
        struct ferry_record r;
        ferry_batch_record(batch, i, &r);
        uint64_t number = history_number(&s->p->load->history, r.payload, r.payload_bytes);
        deliveries_read_dead(&q->deliveries, r.partition, number);
        (*count)++;
    }
    ferry_batch_free(&batch);
    return true;
}

static bool read_dead(struct session *s, struct load_queue *q, uint64_t *count)
{
    struct ferry_consumer *consumer;
    char topic[80];
    bool ok = true;
    *count = 0;
    (void)snprintf(topic, sizeof(topic), "%s.dlq.%s", topic_of(s, q), q->name);
    enum ferry_err err =
        ferry_consumer_open(&consumer, s->client, topic, NULL, FERRY_FROM_START, ASK_MS);
    program_note(s->p, "open", err);
    if (err != FERRY_OK) {
        return false;
    }
    do {
        ok = read_page(s, q, consumer, count);
    } while (ok && !sim->ended && !ferry_consumer_at_end(consumer));
    ferry_consumer_close(&consumer);
    return ok;
}

static void check_dead(struct session *s, struct load_queue *q)
{
    uint64_t count = 0;
    list_dead(s, q);
    while (!sim->ended && !read_dead(s, q, &count)) {
        fiber_sleep(200 * SIM_MS);
    }
    if (!sim->ended && count != q->deliveries.dead) {
        sim_fail(SIM_INVARIANT, "INV-Q04: %llu dead letters of %s are listed, %llu are read",
                 (unsigned long long)q->deliveries.dead, q->name, (unsigned long long)count);
    }
}

static void check_counts(struct session *s, struct load_queue *q)
{
    struct ferry_subscription_info *info = NULL;
    uint64_t remaining;
    while (!sim->ended && !ask_counts(s, q, &info, &remaining)) {
        fiber_sleep(200 * SIM_MS);
    }
    for (size_t i = 0; info != NULL && i < info->partition_count && !sim->ended; i++) {
        deliveries_counted(&q->deliveries, &info->partitions[i]);
        s->p->load->counters.expired += info->partitions[i].expired;
    }
    ferry_subscription_info_free(&info);
}

void verify_drained(struct session *s)
{
    struct workload *w = s->p->load;
    if (w->queue_count == 0) {
        return;
    }
    end_quotas(s);
    for (uint32_t i = 0; i < w->queue_count && !sim->ended; i++) {
        sim_say("drains %s", w->queues[i].name);
        resume(s, &w->queues[i], false);
        drain(s, &w->queues[i], SIM_NEVER);
    }
    for (uint32_t i = 0; i + 1 < w->queue_count && !sim->ended; i++) {
        struct load_queue *a = &w->queues[i];
        struct load_queue *b = &w->queues[i + 1];
        if (a->deliveries.topic == b->deliveries.topic) {
            check_independence(s, a, b);
        }
    }
}

void verify_queues(struct session *s)
{
    struct workload *w = s->p->load;
    for (uint32_t i = 0; i < w->queue_count && !sim->ended; i++) {
        sim_say("counts %s", w->queues[i].name);
        drain(s, &w->queues[i], SIM_NEVER);
        check_dead(s, &w->queues[i]);
        if (!sim->ended) {
            check_counts(s, &w->queues[i]);
        }
    }
}
