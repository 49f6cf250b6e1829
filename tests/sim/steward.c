/* The steward of subscriptions: pauses and resumes them, starts one over, replays and drops dead
 * letters, changes settings and quotas, cancels what waits. */
#include "sim/fiber.h"
#include "sim/workload.h"

#define STEWARD_MS 5000
#define PAGE       10

static struct load_queue *some_queue(const struct session *s)
{
    struct workload *w = s->p->load;
    return &w->queues[chance_below(w->queue_count)];
}

static const char *topic_of(const struct session *s, const struct load_queue *q)
{
    return s->p->load->history.topics[q->deliveries.topic].name;
}

static void pause_or_resume(struct session *s)
{
    const struct load_queue *q = some_queue(s);
    bool pause = chance_permille(400);
    enum ferry_err err =
        ferry_subscription_pause(s->client, topic_of(s, q), q->name, pause, STEWARD_MS);
    program_note(s->p, pause ? "pause" : "resume", err);
    s->p->load->counters.pauses += pause && err == FERRY_OK;
}

static void start_over(struct session *s)
{
    struct load_queue *q = some_queue(s);
    struct ferry_reset_partition *partitions;
    size_t count;
    bool dry_run = chance_permille(300);
    if (!q->resets) {
        return;
    }
    if (!dry_run) {
        deliveries_resetting(&q->deliveries, true);
    }
    enum ferry_err err =
        ferry_subscription_reset(s->client, topic_of(s, q), q->name, FERRY_FROM_START, -1, dry_run,
                                 STEWARD_MS, &partitions, &count);
    program_note(s->p, "reset", err);
    if (err == FERRY_OK) {
        ferry_reset_free(&partitions);
        s->p->load->counters.resets += !dry_run;
    }
}

/* The group's, when all that it did is known at the end: a partial one would loosen the checks. */
static void start_group_over(struct session *s)
{
    struct workload *w = s->p->load;
    struct ferry_reset_partition *partitions;
    size_t count;
    int64_t asked_us = world_now();
    if (w->group.members == 0) {
        return;
    }
    group_resetting(&w->group);
    enum ferry_err err =
        ferry_subscription_reset(s->client, w->history.topics[w->group_topic].name, w->group.name,
                                 FERRY_FROM_START, -1, false, STEWARD_MS, &partitions, &count);
    program_note(s->p, "reset group", err);
    bool all = err == FERRY_OK && count == w->history.topics[w->group_topic].partitions;
    for (size_t i = 0; err == FERRY_OK && i < count; i++) {
        all &= partitions[i].err == FERRY_OK;
    }
    for (size_t i = 0; all && i < count; i++) {
        group_reset(&w->group, partitions[i].partition, asked_us, partitions[i].to);
    }
    if (err == FERRY_OK) {
        ferry_reset_free(&partitions);
    }
}

static void alter(struct session *s)
{
    const struct load_queue *q = some_queue(s);
    struct ferry_subscription_spec spec = {.inflight_max = (uint32_t)chance_between(5, 100),
                                           .priority_age_ms = (uint32_t)chance_between(100, 5000)};
    program_note(s->p, "alter",
                 ferry_subscription_alter(s->client, topic_of(s, q), q->name, &spec, STEWARD_MS));
}

/* Some of the dead letters: they are told to the checks before anything is asked for. */
static void raise_or_bury(struct session *s, struct load_queue *q, const struct ferry_dead *dead,
                          size_t count)
{
    struct load_counters *c = &s->p->load->counters;
    struct ferry_dead_place places[PAGE];
    size_t chosen = 0;
    size_t done = 0;
    bool replay = chance_permille(600);
    for (size_t i = 0; i < count && i < PAGE; i++) {
        bool known =
            chance_permille(500) &&
            (replay ? deliveries_replaying(&q->deliveries, dead[i].partition, dead[i].offset)
                    : deliveries_dropping(&q->deliveries, dead[i].partition, dead[i].offset));
        if (known) {
            places[chosen++] = (struct ferry_dead_place){dead[i].partition, dead[i].number};
        }
    }
    if (chosen == 0) {
        return;
    }
    enum ferry_err err = replay ? ferry_dead_replay(s->client, topic_of(s, q), q->name, places,
                                                    chosen, NULL, STEWARD_MS, &done)
                                : ferry_dead_drop(s->client, topic_of(s, q), q->name, places,
                                                  chosen, STEWARD_MS, &done);
    program_note(s->p, replay ? "replay" : "drop", err);
    *(replay ? &c->replayed : &c->dropped) += err == FERRY_OK ? done : 0;
}

static void look_at_the_dead(struct session *s)
{
    struct load_queue *q = some_queue(s);
    struct ferry_dead_place place = {0};
    struct ferry_dead *dead;
    size_t count;
    bool more;
    enum ferry_err err = ferry_dead_list(s->client, topic_of(s, q), q->name, NULL, &place, PAGE,
                                         STEWARD_MS, &dead, &count, &more);
    program_note(s->p, "dead list", err);
    if (err == FERRY_OK) {
        raise_or_bury(s, q, dead, count);
        ferry_dead_free(&dead);
    }
}

/* Of those that wait, the one that is due next; NULL: none is due soon. */
static const struct load_waiting *next_due(const struct session *s, int64_t now_ms)
{
    const struct workload *w = s->p->load;
    const struct load_waiting *next = NULL;
    uint32_t known = w->waiting_count < WAITING_MAX ? w->waiting_count : WAITING_MAX;
    for (uint32_t i = 0; i < known; i++) {
        int64_t left_ms = w->waiting[i].schedule.due_ms - now_ms;
        bool soon = left_ms > 25 && left_ms < 4000;
        if (soon && (next == NULL || w->waiting[i].schedule.due_ms < next->schedule.due_ms)) {
            next = &w->waiting[i];
        }
    }
    return next;
}

/* What is cancelled never comes; what was not there any more came, or was cancelled before. */
static void cancel_one(struct session *s, const struct load_waiting *one)
{
    struct workload *w = s->p->load;
    const char *topic = w->history.topics[w->history.messages[one->message].topic].name;
    size_t done = 0;
    history_cancelling(&w->history, one->message);
    enum ferry_err err =
        ferry_schedule_cancel(s->client, topic, &one->schedule, 1, STEWARD_MS, &done);
    program_note(s->p, "cancel", err);
    if (err == FERRY_OK && done == 1) {
        history_cancelled(&w->history, one->message);
        w->counters.cancelled++;
    }
}

/* Any, or some just before they are due. */
static void cancel(struct session *s)
{
    const struct workload *w = s->p->load;
    uint32_t known = w->waiting_count < WAITING_MAX ? w->waiting_count : WAITING_MAX;
    if (known == 0) {
        return;
    }
    if (chance_permille(300)) {
        struct load_waiting any = w->waiting[chance_below(known)];
        cancel_one(s, &any);
        return;
    }
    for (int i = 0; i < 4 && !sim->ended; i++) {
        int64_t now_ms = host_wall_ms(s->p->host, world_now());
        const struct load_waiting *next = next_due(s, now_ms);
        if (next == NULL) {
            return;
        }
        struct load_waiting one = *next;
        fiber_sleep((one.schedule.due_ms - now_ms - chance_between(0, 20)) * SIM_MS);
        cancel_one(s, &one);
    }
}

static void ration(struct session *s)
{
    struct workload *w = s->p->load;
    struct ferry_quota quota = {.messages_per_second =
                                    chance_permille(500) ? (uint64_t)chance_between(20, 300) : 0};
    (void)snprintf(quota.topic, sizeof(quota.topic), "%s",
                   w->history.topics[chance_below(w->history.topic_count)].name);
    enum ferry_err err = ferry_quota_set(s->client, &quota, STEWARD_MS);
    program_note(s->p, "quota", err);
    w->counters.quotas += err == FERRY_OK && quota.messages_per_second > 0;
}

static void look_around(struct session *s)
{
    const struct load_queue *q = some_queue(s);
    struct ferry_member *members;
    struct ferry_event *events;
    size_t count;
    enum ferry_err err =
        ferry_members_list(s->client, topic_of(s, q), q->name, STEWARD_MS, &members, &count);
    program_note(s->p, "members", err);
    if (err == FERRY_OK) {
        ferry_members_free(&members);
    }
    err = ferry_events_list(s->client, topic_of(s, q), q->name, 0, STEWARD_MS, &events, &count);
    program_note(s->p, "events", err);
    if (err == FERRY_OK) {
        ferry_events_free(&events);
    }
}

/* A message that comes again and again, into the topic of which nothing is asked at the end. */
static void recur(struct session *s)
{
    struct history *h = &s->p->load->history;
    uint32_t topic = 0;
    while (!h->topics[topic].loose) {
        topic++;
    }
    if (chance_permille(300)) {
        program_note(s->p, "recurring remove",
                     ferry_recurring_remove(s->client, h->topics[topic].name, "tick", STEWARD_MS));
        return;
    }
    uint8_t payload[HISTORY_PAYLOAD_MAX];
    uint64_t number = history_new(h, topic, 0);
    struct ferry_message m = {.topic = h->topics[topic].name,
                              .partition = 0,
                              .payload = payload,
                              .payload_bytes = history_payload(number, payload)};
    char spec[24];
    (void)snprintf(spec, sizeof(spec), "@every %us", 1 + (unsigned)chance_below(3));
    enum ferry_err err = ferry_recurring_set(s->client, "tick", spec, "", &m, STEWARD_MS);
    program_note(s->p, "recurring set", err);
    s->p->load->counters.recurring += err == FERRY_OK;
}

/* A message with an id that was acked, and is kept. 0: none was found. */
static uint64_t some_with_id(const struct history *h)
{
    for (int tries = 0; tries < 40; tries++) {
        uint64_t n = 1 + chance_below(h->count);
        const struct history_message *m = n < h->count ? &h->messages[n] : NULL;
        if (m != NULL && m->has_id && m->state == HISTORY_STORED && m->offset >= 0 &&
            !h->topics[m->topic].retained && !h->topics[m->topic].loose) {
            return n;
        }
    }
    return 0;
}

static void find_and_trace(struct session *s)
{
    const struct history *h = &s->p->load->history;
    uint64_t number = some_with_id(h);
    if (number == 0) {
        return;
    }
    struct ferry_id id;
    struct history_message m = h->messages[number];
    const char *topic = h->topics[m.topic].name;
    int32_t partition = -1;
    int64_t offset = -1;
    session_id(number, &id);
    enum ferry_err err = ferry_message_find(s->client, topic, &id, STEWARD_MS, &partition, &offset);
    program_note(s->p, "message find", err);
    if (err == FERRY_ERR_UNKNOWN_MESSAGE ||
        (err == FERRY_OK && (partition != m.partition || offset != m.offset))) {
        sim_fail(SIM_INVARIANT, "INV-I02: message %llu at %s/%d/%lld is found at %d/%lld",
                 (unsigned long long)number, topic, m.partition, (long long)m.offset, partition,
                 (long long)offset);
    }
    struct ferry_trace_event *events;
    uint64_t next = 0;
    uint64_t end;
    size_t count;
    err = ferry_trace(s->client, topic, m.partition, m.offset, STEWARD_MS, &next, &end, &events,
                      &count);
    program_note(s->p, "trace", err);
    if (err == FERRY_OK) {
        s->p->load->counters.traced += count > 0;
        ferry_trace_free(&events);
    }
}

void steward_session(struct program *p)
{
    static void (*const steps[])(struct session *) = {
        pause_or_resume, pause_or_resume,  start_over,       start_group_over,
        alter,           look_at_the_dead, look_at_the_dead, cancel,
        cancel,          ration,           look_around,      recur,
        find_and_trace,  find_and_trace};
    struct session s;
    int64_t until = world_now() + chance_between(3, 30) * SIM_SECOND;
    if (!session_open(&s, p, NULL)) {
        return;
    }
    while (session_may_go_on(p, until)) {
        steps[chance_below(sizeof(steps) / sizeof(steps[0]))](&s);
        p->done++;
        fiber_sleep(chance_between(100, 3000) * SIM_MS);
    }
    ferry_close(&s.client, 0);
}
