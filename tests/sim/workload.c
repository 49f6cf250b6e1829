#include "sim/workload.h"

#include <stdlib.h>

#include "base/mem.h"
#include "sim/coverage.h"
#include "sim/fiber.h"
#include "sim/sim_net.h"

#define OPEN_MS   8000
#define BURST_MAX 12
#define REPEAT_OF 40 /* How far back a message is that is sent once more. */

void workload_init(struct workload *w, const char *servers, uint32_t replicas)
{
    *w = (struct workload){.replicas = replicas, .pause_us = 400 * SIM_MS};
    history_init(&w->history);
    group_init(&w->group, "group");
    chains_init(&w->versions, &w->history);
    (void)snprintf(w->servers, sizeof(w->servers), "%s", servers);
}

void workload_fini(struct workload *w)
{
    for (uint32_t i = 0; i < w->queue_count; i++) {
        deliveries_fini(&w->queues[i].deliveries);
    }
    group_fini(&w->group);
    chains_fini(&w->versions);
    history_fini(&w->history);
}

/* ---- A session's client ---- */

/* A delayed message waits; the latest ones may be cancelled. */
static void remember(struct workload *w, uint64_t number, const struct ferry_schedule_id *schedule)
{
    history_scheduled(&w->history, number, schedule->due_ms);
    w->waiting[w->waiting_count++ % WAITING_MAX] =
        (struct load_waiting){.message = number, .schedule = *schedule};
}

static void on_report(const struct ferry_report *r, void *arg)
{
    struct session *s = arg;
    uint64_t number = (uint64_t)(uintptr_t)r->opaque;
    s->outstanding--;
    s->p->done++;
    if (r->err != FERRY_OK) {
        s->p->last_err = r->err;
        sim_say("message %llu of %s/%d: %s", (unsigned long long)number, r->topic, r->partition,
                ferry_err_name(r->err));
    }
    history_outcome(&s->p->load->history, number, r->outcome, r->partition, r->offset,
                    r->duplicate);
    if (r->schedule.due_ms != 0) {
        remember(s->p->load, number, &r->schedule);
    }
}

static void set(struct ferry_conf *conf, const char *name, const char *value)
{
    char detail[200];
    if (ferry_conf_set(conf, name, value, detail, sizeof(detail)) != FERRY_OK) {
        (void)fprintf(stderr, "%s: %s\n", name, detail);
        must(false);
    }
}

void set_number(struct ferry_conf *conf, const char *name, int64_t number)
{
    char text[32];
    (void)snprintf(text, sizeof(text), "%lld", (long long)number);
    set(conf, name, text);
}

bool session_open(struct session *s, struct program *p, const char *producer_name)
{
    struct ferry_conf *conf;
    char detail[300];
    *s = (struct session){.p = p};
    must(ferry_conf_new(&conf) == FERRY_OK);
    set(conf, "servers", p->load->servers);
    set(conf, "client.name", p->host->name);
    set_number(conf, "delivery.timeout_ms", chance_between(2000, 40000));
    set_number(conf, "request.timeout_ms", chance_between(300, 4000));
    set_number(conf, "producer.linger_ms", chance_permille(300) ? chance_between(1, 50) : 0);
    set_number(conf, "producer.inflight", chance_between(1, 8));
    set_number(conf, "producer.batch_bytes", chance_between(1024, 16384));
    if (producer_name != NULL) {
        set(conf, "producer.name", producer_name);
    }
    ferry_conf_on_report(conf, on_report, s);
    p->producer = ++p->load->next_producer;
    enum ferry_err err = ferry_open(&s->client, &conf, detail, sizeof(detail));
    if (err != FERRY_OK) {
        sim_say("cannot open a client: %s", detail);
        ferry_conf_free(&conf);
        return false;
    }
    return true;
}

bool session_may_go_on(const struct program *p, int64_t until_us)
{
    return !p->load->stop && !sim->ended && world_now() < until_us;
}

/* ---- Producing ---- */

void session_id(uint64_t number, struct ferry_id *id)
{
    memset(id, 0, sizeof(*id));
    memcpy(id->bytes, &number, 8);
    id->bytes[15] = 1;
}

uint32_t session_key(uint64_t number, char *text, size_t bytes)
{
    uint32_t key = 1 + (uint32_t)(number % 13);
    (void)snprintf(text, bytes, "k%u", key);
    return key;
}

void session_send(struct session *s, uint64_t number, int32_t partition, bool with_id)
{
    struct history *h = &s->p->load->history;
    uint8_t payload[HISTORY_PAYLOAD_MAX];
    char key[16];
    struct ferry_message m = {.topic = h->topics[h->messages[number].topic].name,
                              .partition = partition,
                              .payload = payload,
                              .payload_bytes = history_payload(number, payload),
                              .opaque = (void *)(uintptr_t)number};
    if (partition == FERRY_PARTITION_ANY) {
        h->messages[number].key = session_key(number, key, sizeof(key));
        m.key = key;
        m.key_bytes = strlen(key);
    }
    m.priority = (uint32_t)(number / 3 % 8);
    m.delay_ms = h->messages[number].delayed ? chance_between(1, 15000) : 0;
    if (with_id) {
        h->messages[number].has_id = true;
        session_id(number, &m.id);
    }
    history_sending(h, number);
    enum ferry_err err = ferry_send(s->client, &m);
    if (err == FERRY_OK) {
        s->outstanding++;
        s->p->sent++;
    } else {
        history_outcome(h, number, FERRY_NOT_STORED, partition, -1, false);
    }
}

/* A message of this program's own with an id, once more: perhaps another session sent it. */
static void repeat(struct session *s)
{
    struct history *h = &s->p->load->history;
    for (uint64_t n = h->count; n-- > 1 && h->count - n < REPEAT_OF;) {
        const struct history_message *m = &h->messages[n];
        if (m->has_id && m->attempts > 0 && m->state != HISTORY_NOT_STORED &&
            m->topic != s->p->load->relay_topic && !h->topics[m->topic].loose) {
            session_send(s, n, FERRY_PARTITION_ANY, true);
            return;
        }
    }
}

static void burst(struct session *s, uint32_t topic)
{
    struct history *h = &s->p->load->history;
    uint64_t count = 1 + chance_below(BURST_MAX);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t number = history_new(h, topic, s->p->producer);
        /* Ids go with keys, so that a repeat goes to the same partition. */
        bool with_id = number % 4 == 0;
        bool keyed = with_id || chance_permille(500);
        if (s->p->load->delays && !with_id && chance_permille(100)) {
            history_delaying(h, number);
        }
        int32_t partition =
            keyed ? FERRY_PARTITION_ANY : (int32_t)chance_below(h->topics[topic].partitions);
        session_send(s, number, partition, with_id);
    }
    if (chance_permille(150)) {
        repeat(s);
    }
}

/* Not the relays': its messages come from a table. */
static uint32_t some_topic(const struct workload *w)
{
    uint32_t t = (uint32_t)chance_below(w->history.topic_count - 1);
    return t >= w->relay_topic ? t + 1 : t;
}

static void produce_session(struct program *p)
{
    struct session s;
    int64_t until = world_now() + chance_between(5, 40) * SIM_SECOND;
    char name[24];
    (void)snprintf(name, sizeof(name), "p%u", p->number);
    if (!session_open(&s, p, p->number % 2 == 0 ? name : NULL)) {
        return;
    }
    uint32_t topic = some_topic(p->load);
    while (session_may_go_on(p, until)) {
        burst(&s, topic);
        (void)ferry_poll(s.client, (int)chance_between(0, p->load->pause_us / SIM_MS));
        if (chance_permille(100)) {
            topic = some_topic(p->load);
        }
        fiber_sleep(chance_between(0, p->load->pause_us));
    }
    ferry_close(&s.client, chance_permille(300) ? 0 : 60000);
    must(s.outstanding == 0);
}

/* ---- Reading ---- */

static void take_batch(struct program *p, struct ferry_batch *batch,
                       struct history_session sessions[HISTORY_PARTITIONS_MAX])
{
    struct history_session *at = &sessions[ferry_batch_partition(batch)];
    for (size_t i = 0; i < ferry_batch_count(batch); i++) {
        struct ferry_record r;
        ferry_batch_record(batch, i, &r);
        uint64_t number = history_saw(&p->load->history, at, r.offset, r.payload, r.payload_bytes);
        history_appeared(&p->load->history, number, r.append_time_ms);
    }
}

static void begin_sessions(struct history_session sessions[HISTORY_PARTITIONS_MAX], uint32_t topic)
{
    for (int32_t i = 0; i < HISTORY_PARTITIONS_MAX; i++) {
        sessions[i] = (struct history_session){.topic = topic, .partition = i, .next = -1};
    }
}

void program_note(struct program *p, const char *what, enum ferry_err err)
{
    if (err != FERRY_OK) {
        sim_say("%s: %s", what, ferry_err_name(err));
    }
    p->last_err = err;
}

/* Reads until `until`; OFFSET_OUT_OF_RANGE is told and ends the claim of no gaps. */
static void read_on(struct program *p, struct ferry_consumer *consumer, uint32_t topic,
                    int64_t until, bool commits)
{
    struct history_session sessions[HISTORY_PARTITIONS_MAX];
    begin_sessions(sessions, topic);
    while (session_may_go_on(p, until)) {
        struct ferry_batch *batch;
        enum ferry_err err = ferry_consumer_fetch(consumer, (int)chance_between(1, 1000), &batch);
        if (err == FERRY_OK) {
            take_batch(p, batch, sessions);
            int32_t partition = ferry_batch_partition(batch);
            int64_t next = ferry_batch_next_offset(batch);
            ferry_batch_free(&batch);
            if (commits && chance_permille(300)) {
                struct subscription_state *state = &p->load->subscriptions[topic][partition];
                state->attempted = next > state->attempted ? next : state->attempted;
                err = ferry_consumer_commit(consumer, partition, next, 3000);
                if (err == FERRY_OK && next > state->acked) {
                    state->acked = next;
                }
                program_note(p, "commit", err);
            }
            p->done++;
        } else if (err == FERRY_ERR_OFFSET_OUT_OF_RANGE) {
            mark(MARK_L_TRIMMED);
            const struct history_topic *t = &p->load->history.topics[topic];
            if ((!t->retained && !t->loose) || (t->by_acks && commits)) {
                sim_fail(SIM_INVARIANT, "INV-L10: a reader of %s was told of dropped messages",
                         p->load->history.topics[topic].name);
            }
            begin_sessions(sessions, topic);
        } else {
            program_note(p, "fetch", err);
            if (err != FERRY_ERR_TIMEOUT) {
                return; /* As a program would: with another client. */
            }
        }
    }
}

/* A subscription resumes where it was committed to: not before what was acked, not after what was
 * asked for. */
static void check_position(struct program *p, const struct ferry_consumer *consumer, uint32_t topic,
                           const struct subscription_state acked[HISTORY_PARTITIONS_MAX])
{
    const struct history_topic *t = &p->load->history.topics[topic];
    for (int32_t i = 0; i < ferry_consumer_partitions(consumer) && !t->loose; i++) {
        int64_t at = ferry_consumer_position(consumer, i);
        const struct subscription_state *now = &p->load->subscriptions[topic][i];
        if (at >= 0 && (at < acked[i].acked || (at > now->attempted && !t->retained))) {
            sim_fail(SIM_INVARIANT,
                     "INV-P04: the subscription on %s/%d resumes at %lld; %lld was acked, %lld is "
                     "the most that was asked for",
                     t->name, i, (long long)at, (long long)acked[i].acked,
                     (long long)now->attempted);
        }
    }
}

static void read_session(struct program *p, bool subscribed)
{
    struct session s;
    struct ferry_consumer *consumer;
    int64_t until = world_now() + chance_between(3, 30) * SIM_SECOND;
    uint32_t topic = some_topic(p->load);
    struct subscription_state acked[HISTORY_PARTITIONS_MAX];
    memcpy(acked, p->load->subscriptions[topic], sizeof(acked));
    if (!session_open(&s, p, NULL)) {
        return;
    }
    enum ferry_err err = ferry_consumer_open(
        &consumer, s.client, p->load->history.topics[topic].name, subscribed ? "sub" : NULL,
        subscribed || chance_permille(700) ? FERRY_FROM_START : FERRY_FROM_END, OPEN_MS);
    if (err == FERRY_OK) {
        if (subscribed) {
            check_position(p, consumer, topic, acked);
        }
        read_on(p, consumer, topic, until, subscribed);
        ferry_consumer_close(&consumer);
    } else {
        program_note(p, "open", err);
        fiber_sleep(chance_between(0, SIM_SECOND));
    }
    ferry_close(&s.client, 0);
}

/* ---- Programs ---- */

static void run_program(void *arg)
{
    struct program *p = arg;
    fiber_sleep(chance_between(0, 2 * SIM_SECOND));
    while (!p->load->stop && !sim->ended) {
        switch (p->kind) {
        case PROGRAM_PRODUCER:
            produce_session(p);
            break;
        case PROGRAM_READER:
            read_session(p, false);
            break;
        case PROGRAM_SUBSCRIBER:
            read_session(p, true);
            break;
        case PROGRAM_RELAY:
            relay_session(p);
            break;
        case PROGRAM_WATCHER:
            watch_session(p);
            break;
        case PROGRAM_ADMIN:
            admin_session(p);
            break;
        case PROGRAM_WORKER:
            worker_session(p);
            break;
        case PROGRAM_MEMBER:
            member_session(p);
            break;
        case PROGRAM_PUBLISHER:
            publisher_session(p);
            break;
        case PROGRAM_STEWARD:
            steward_session(p);
            break;
        }
        fiber_sleep(chance_between(0, SIM_SECOND));
    }
}

static void wake(void *arg, uint64_t number)
{
    struct host *h = arg;
    (void)number;
    if (!h->dead) {
        host_pause(h, false);
    }
}

void program_pause(struct program *p, int64_t us)
{
    sim_say("%s stands still for %lld ms", p->host->name, (long long)(us / SIM_MS));
    world_at(world_now() + us, wake, p->host, 0);
    host_pause(p->host, true);
    fiber_sleep(1);
}

_Noreturn void program_die(struct program *p)
{
    struct workload *w = p->load;
    sim_say("%s dies by itself", p->host->name);
    p->host->dead = true;
    sim_net_host_died(p->host, sim->now_us);
    if (w->program_count + 1 < PROGRAMS_MAX) { /* The last place is the verifier's. */
        workload_start(w, p->kind);
    }
    while (true) {
        fiber_wait(SIM_NEVER);
    }
}

static struct program *add_program(struct workload *w, enum program_kind kind, const char *name,
                                   void (*run)(void *arg))
{
    must(w->program_count < PROGRAMS_MAX);
    struct program *p = &w->programs[w->program_count];
    *p = (struct program){.load = w, .kind = kind, .number = w->program_count++};
    char text[16];
    (void)snprintf(text, sizeof(text), "%s%u", name, p->number);
    p->host = world_host(text, false);
    p->task = fiber_start(p->host, text, run, p);
    return p;
}

void workload_start(struct workload *w, enum program_kind kind)
{
    static const char *const names[] = {"prod",  "read", "sub",    "relay", "watch",
                                        "admin", "work", "member", "publ",  "steward"};
    (void)add_program(w, kind, names[kind], run_program);
}

bool workload_is_over(const struct workload *w)
{
    for (uint32_t i = 0; i < w->program_count; i++) {
        if (!fiber_is_over(w->programs[i].task) && !w->programs[i].host->dead) {
            return false;
        }
    }
    return true;
}

/* ---- Topics ---- */

static void make_stream(struct session *s, const char *topic)
{
    enum ferry_err err;
    while ((err = ferry_subscription_create(s->client, topic, "sub", FERRY_FROM_START, 5000)) !=
               FERRY_OK &&
           !sim->ended) {
        program_note(s->p, "subscription create", err);
        fiber_sleep(200 * SIM_MS);
    }
}

/* Before anything is sent, so that each of them gets all. */
static void make_queues(struct session *s)
{
    struct workload *w = s->p->load;
    for (uint32_t i = 0; i < w->history.topic_count; i++) {
        if (w->history.topics[i].by_acks) {
            make_stream(s, w->history.topics[i].name);
        }
    }
    for (uint32_t i = 0; i < w->queue_count; i++) {
        const struct load_queue *q = &w->queues[i];
        const char *topic = w->history.topics[q->deliveries.topic].name;
        enum ferry_err err;
        while ((err = ferry_subscription_make(s->client, topic, q->name, &q->spec, 5000)) !=
                   FERRY_OK &&
               !sim->ended) {
            program_note(s->p, "subscription make", err);
            fiber_sleep(200 * SIM_MS);
        }
    }
}

static void make_topics(void *arg)
{
    struct program *p = arg;
    struct workload *w = p->load;
    struct session s;
    must(session_open(&s, p, NULL));
    for (uint32_t i = 0; i < w->history.topic_count; i++) {
        const struct history_topic *t = &w->history.topics[i];
        if (t->loose) {
            continue; /* The administrator's. */
        }
        struct ferry_topic_spec spec = {.name = t->name,
                                        .partitions = t->partitions,
                                        .replicas = w->replicas,
                                        .retention_ms = -1,
                                        .retention_acked = t->by_acks};
        bool small = t->retained && !t->by_acks;
        spec.retention_bytes = small ? chance_between(4000, 40000) : -1;
        enum ferry_err err;
        while ((err = ferry_topic_create(s.client, &spec, 5000)) != FERRY_OK && !sim->ended) {
            program_note(p, "topic create", err);
            fiber_sleep(200 * SIM_MS);
        }
    }
    make_queues(&s);
    ferry_close(&s.client, 0);
    w->topics_made = true;
}

void workload_make_topics(struct workload *w)
{
    (void)add_program(w, PROGRAM_ADMIN, "topics", make_topics);
}

/* ---- The verifier ---- */

/* One message to every partition: the cluster takes writes again, and the ends are past all. */
static void write_everywhere(struct session *s)
{
    struct history *h = &s->p->load->history;
    for (uint32_t t = 0; t < h->topic_count; t++) {
        for (uint32_t i = 0; i < h->topics[t].partitions && !h->topics[t].loose; i++) {
            uint64_t number;
            do {
                number = history_new(h, t, s->p->producer);
                session_send(s, number, (int32_t)i, false);
                while (s->outstanding > 0 && !sim->ended) {
                    (void)ferry_poll(s->client, 1000);
                }
            } while (h->messages[number].state != HISTORY_STORED && !sim->ended);
        }
    }
}

/* What has been read of each partition so far. */
struct reading {
    struct history_session sessions[HISTORY_PARTITIONS_MAX];
    int64_t first[HISTORY_PARTITIONS_MAX]; /* -1: nothing yet. */
};

/* Up to the end of all partitions. False: messages were dropped in between, so all anew. */
static bool read_up(struct session *s, struct ferry_consumer *consumer, uint32_t topic,
                    struct reading *r)
{
    begin_sessions(r->sessions, topic);
    memset(r->first, 0xff, sizeof(r->first));
    while (!sim->ended) {
        struct ferry_batch *batch;
        enum ferry_err err = ferry_consumer_fetch(consumer, 1000, &batch);
        if (err == FERRY_OK) {
            int64_t *first = &r->first[ferry_batch_partition(batch)];
            *first = *first < 0 ? ferry_batch_first_offset(batch) : *first;
            take_batch(s->p, batch, r->sessions);
            ferry_batch_free(&batch);
        } else if (err != FERRY_ERR_TIMEOUT) {
            program_note(s->p, "fetch", err);
            return false;
        }
        if (ferry_consumer_at_end(consumer)) {
            return true;
        }
    }
    return true;
}

/* Of a partition that keeps no message the position tells where it ends. */
static void note_empty(const struct ferry_consumer *consumer, struct reading *r)
{
    for (int32_t i = 0; i < ferry_consumer_partitions(consumer); i++) {
        if (r->first[i] < 0) {
            r->first[i] = ferry_consumer_position(consumer, i);
            r->sessions[i].next = r->first[i];
        }
    }
}

static void read_out(struct session *s, uint32_t topic)
{
    struct history *h = &s->p->load->history;
    struct reading r;
    bool done = false;
    while (!done && !sim->ended) {
        struct ferry_consumer *consumer;
        enum ferry_err err = ferry_consumer_open(&consumer, s->client, h->topics[topic].name, NULL,
                                                 FERRY_FROM_START, OPEN_MS);
        program_note(s->p, "open", err);
        if (err == FERRY_OK) {
            done = read_up(s, consumer, topic, &r);
            note_empty(consumer, &r);
            ferry_consumer_close(&consumer);
        }
        if (!done) {
            fiber_sleep(200 * SIM_MS);
        }
    }
    for (uint32_t i = 0; i < h->topics[topic].partitions && !sim->ended; i++) {
        history_read_out(h, topic, (int32_t)i, r.first[i], r.sessions[i].next);
    }
}

static void verify(void *arg)
{
    struct program *p = arg;
    struct session s;
    must(session_open(&s, p, NULL));
    verify_no_recurring(&s);
    if (p->load->delays) {
        verify_schedules(&s);
    }
    verify_drained(&s);
    sim_say("writes to every partition");
    write_everywhere(&s);
    for (uint32_t t = 0; t < p->load->history.topic_count && !sim->ended; t++) {
        sim_say("reads %s out", p->load->history.topics[t].name);
        if (!p->load->history.topics[t].loose) {
            read_out(&s, t);
        }
    }
    relay_verify(&s);
    verify_queues(&s);
    verify_group(&s);
    verify_versions(&s);
    ferry_close(&s.client, 0);
    p->load->verified = true;
}

void workload_verify(struct workload *w)
{
    (void)add_program(w, PROGRAM_ADMIN, "verify", verify);
}
