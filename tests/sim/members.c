/* Members of a group: consumers that share the partitions of a topic. They come and go, commit what
 * they read, stand still past their session and commit when they wake, and die. */
#include "sim/fiber.h"
#include "sim/workload.h"

#define OPEN_MS   8000
#define COMMIT_MS 3000

struct reader {
    struct session s;
    uint32_t number; /* Of this consumer. */
    int64_t joined_us;
    int session_ms;
    uint32_t ownership[HISTORY_PARTITIONS_MAX]; /* 0: none. */
    int64_t done[HISTORY_PARTITIONS_MAX];       /* Up to here it is read. */
    struct history_session sessions[HISTORY_PARTITIONS_MAX];
};

static enum ferry_err commit(struct reader *r, struct ferry_consumer *consumer, int32_t partition)
{
    struct group *g = &r->s.p->load->group;
    uint32_t ownership = r->ownership[partition];
    int64_t offset = r->done[partition];
    int64_t asked_us = world_now();
    if (ownership == 0 || offset < 0) {
        return FERRY_OK;
    }
    group_asked(g, ownership, offset);
    enum ferry_err err = ferry_consumer_commit(consumer, partition, offset, COMMIT_MS);
    group_told(g, ownership, asked_us, offset, err);
    program_note(r->s.p, "commit", err);
    return err;
}

static void on_assignment(struct ferry_consumer *consumer, int32_t partition, bool given, void *arg)
{
    struct reader *r = arg;
    struct group *g = &r->s.p->load->group;
    if (!given) {
        if (chance_permille(700)) {
            (void)commit(r, consumer, partition);
        }
        if (r->ownership[partition] != 0) {
            group_taken(g, r->ownership[partition]);
        }
        r->ownership[partition] = 0;
        return;
    }
    int64_t position = ferry_consumer_position(consumer, partition);
    sim_say("has partition %d from %lld", partition, (long long)position);
    r->ownership[partition] = group_given(g, r->number, r->joined_us, partition, position);
    r->done[partition] = -1;
    r->sessions[partition].next = position;
}

static void take_batch(struct reader *r, struct ferry_batch *batch)
{
    int32_t partition = ferry_batch_partition(batch);
    struct history *h = &r->s.p->load->history;
    if (r->ownership[partition] == 0) {
        sim_fail(SIM_INVARIANT, "INV-P03: a member reads partition %d, which it was not given",
                 partition);
    }
    for (size_t i = 0; i < ferry_batch_count(batch); i++) {
        struct ferry_record record;
        ferry_batch_record(batch, i, &record);
        uint64_t number = history_saw(h, &r->sessions[partition], record.offset, record.payload,
                                      record.payload_bytes);
        history_appeared(h, number, record.append_time_ms);
    }
    r->done[partition] = ferry_batch_next_offset(batch);
}

/* Stands still, perhaps past its session; what it had may be another's when it wakes. */
static void stand_still(struct reader *r, struct ferry_consumer *consumer)
{
    struct program *p = r->s.p;
    program_pause(p, chance_between(100, 3 * r->session_ms) * SIM_MS);
    for (int32_t i = 0; i < HISTORY_PARTITIONS_MAX && !sim->ended; i++) {
        if (r->ownership[i] != 0) {
            p->load->counters.zombie_commits += commit(r, consumer, i) == FERRY_ERR_MEMBER_FENCED;
        }
    }
}

/* False: another consumer is needed. */
static bool read_some(struct reader *r, struct ferry_consumer *consumer)
{
    struct program *p = r->s.p;
    struct ferry_batch *batch;
    enum ferry_err err = ferry_consumer_fetch(consumer, (int)chance_between(1, 1000), &batch);
    if (err == FERRY_OK) {
        int32_t partition = ferry_batch_partition(batch);
        take_batch(r, batch);
        ferry_batch_free(&batch);
        p->done++;
        return !chance_permille(300) || commit(r, consumer, partition) != FERRY_ERR_MEMBER_FENCED;
    }
    if (err != FERRY_ERR_TIMEOUT) {
        program_note(p, "fetch", err);
    }
    return err == FERRY_ERR_TIMEOUT;
}

static bool join(struct reader *r, struct ferry_consumer **consumer, const char *name)
{
    struct program *p = r->s.p;
    const struct workload *w = p->load;
    struct ferry_join_spec spec = {.member = name, .session_ms = r->session_ms};
    memset(r->done, 0xff, sizeof(r->done));
    for (int32_t i = 0; i < HISTORY_PARTITIONS_MAX; i++) {
        r->sessions[i] =
            (struct history_session){.topic = w->group_topic, .partition = i, .next = -1};
    }
    r->number = group_joins(&p->load->group);
    r->joined_us = world_now();
    enum ferry_err err =
        ferry_consumer_join(consumer, r->s.client, w->history.topics[w->group_topic].name,
                            w->group.name, FERRY_FROM_START, &spec, OPEN_MS);
    program_note(p, "join", err);
    if (err == FERRY_OK) {
        ferry_consumer_on_assignment(*consumer, on_assignment, r);
    }
    return err == FERRY_OK;
}

void member_session(struct program *p)
{
    struct reader r = {.session_ms = (int)chance_between(1500, 6000)};
    struct ferry_consumer *consumer;
    int64_t until = world_now() + chance_between(3, 30) * SIM_SECOND;
    if (!session_open(&r.s, p, NULL)) {
        return;
    }
    static const char *const shared = "member"; /* A newer instance takes the name. */
    const char *name = chance_permille(200) ? shared : p->number % 2 == 0 ? p->host->name : NULL;
    if (join(&r, &consumer, name)) {
        while (session_may_go_on(p, until) && read_some(&r, consumer)) {
            if (chance_permille(15)) {
                stand_still(&r, consumer);
            } else if (chance_permille(4)) {
                program_die(p);
            }
            fiber_sleep(chance_between(0, p->load->pause_us / 4));
        }
        ferry_consumer_close(&consumer);
    }
    ferry_close(&r.s.client, 0);
}

/* ---- The end ---- */

#define OWNED_MS 25000 /* A session of the longest, an election, and time to hand over. */

static bool has_all(const struct reader *r, const struct ferry_consumer *consumer)
{
    for (int32_t i = 0; i < ferry_consumer_partitions(consumer); i++) {
        if (r->ownership[i] == 0) {
            return false;
        }
    }
    return true;
}

static void read_to_end(struct reader *r, struct ferry_consumer *consumer)
{
    int64_t until = world_now() + OWNED_MS * SIM_MS;
    while (!sim->ended && !(has_all(r, consumer) && ferry_consumer_at_end(consumer))) {
        (void)read_some(r, consumer);
        if (!has_all(r, consumer) && world_now() > until) {
            sim_fail(SIM_LIVENESS,
                     "INV-P05: after %d ms the only member does not have all partitions", OWNED_MS);
        }
    }
    for (int32_t i = 0; i < ferry_consumer_partitions(consumer) && !sim->ended; i++) {
        while (commit(r, consumer, i) != FERRY_OK && !sim->ended) {
            fiber_sleep(200 * SIM_MS);
        }
    }
}

static void check_positions(struct session *s)
{
    const struct workload *w = s->p->load;
    struct ferry_subscription_info *info;
    while (!sim->ended && ferry_subscription_info(s->client, w->history.topics[w->group_topic].name,
                                                  w->group.name, 5000, &info) != FERRY_OK) {
        fiber_sleep(200 * SIM_MS);
    }
    for (size_t i = 0; info != NULL && i < info->partition_count && !sim->ended; i++) {
        group_check_position(&w->group, info->partitions[i].partition,
                             info->partitions[i].position);
    }
    ferry_subscription_info_free(&info);
}

static bool has_any(const struct reader *r, const struct ferry_consumer *consumer)
{
    bool any = false;
    for (int32_t i = 0; i < ferry_consumer_partitions(consumer); i++) {
        any |= r->ownership[i] != 0;
    }
    return any;
}

static struct ferry_consumer *join_surely(struct reader *r, struct session *s, const char *name)
{
    struct ferry_consumer *consumer = NULL;
    *r = (struct reader){.s = *s, .session_ms = 3000};
    while (!sim->ended && !join(r, &consumer, name)) {
        fiber_sleep(200 * SIM_MS);
    }
    return sim->ended ? NULL : consumer;
}

/* Partitions pass to one that joins without costing anybody a commit, and back when it leaves. */
static void check_hand_over(struct session *s, struct reader *r, struct ferry_consumer *consumer)
{
    static struct reader second;
    const struct group *g = &s->p->load->group;
    uint64_t fenced = g->fenced;
    int64_t until = world_now() + OWNED_MS * SIM_MS;
    struct ferry_consumer *other = join_surely(&second, s, NULL);
    while (!sim->ended && !has_any(&second, other)) {
        (void)read_some(r, consumer);
        (void)read_some(&second, other);
        if (world_now() > until) {
            sim_fail(SIM_LIVENESS, "INV-P05: after %d ms a second member has nothing", OWNED_MS);
        }
    }
    if (!sim->ended && g->fenced > fenced) {
        sim_fail(SIM_INVARIANT, "INV-P03: a member lost a partition before it let go of it");
    }
    if (other != NULL) {
        ferry_consumer_close(&other);
    }
    if (!sim->ended) {
        read_to_end(r, consumer);
    }
}

/* A change of leaders is no reason to take a partition from a member that lives. */
static void check_leader_change(struct session *s, struct reader *r,
                                struct ferry_consumer *consumer)
{
    const struct workload *w = s->p->load;
    const char *topic = w->history.topics[w->group_topic].name;
    uint64_t given = w->group.given;
    uint64_t fenced = w->group.fenced;
    for (uint32_t node = 1; node <= w->nodes && !sim->ended; node++) {
        program_note(s->p, "transfer", ferry_partition_transfer(s->client, topic, 0, node, 3000));
    }
    int64_t until = world_now() + 4 * SIM_SECOND;
    while (!sim->ended && world_now() < until) {
        (void)read_some(r, consumer);
    }
    if (!sim->ended && (w->group.given > given || w->group.fenced > fenced)) {
        sim_fail(SIM_INVARIANT, "INV-P05: a change of leaders took partitions from a live member");
    }
}

/* A newer instance of the name has it for good. */
static void check_newer_instance(struct session *s, struct reader *r,
                                 struct ferry_consumer *consumer, const char *name)
{
    static struct reader newer;
    struct ferry_consumer *other = join_surely(&newer, s, name);
    if (other == NULL) {
        return;
    }
    read_to_end(&newer, other);
    int64_t until = world_now() + 5 * SIM_SECOND;
    while (!sim->ended && world_now() < until) {
        (void)read_some(r, consumer);
        (void)read_some(&newer, other);
    }
    if (!sim->ended && !has_all(&newer, other)) {
        sim_fail(SIM_INVARIANT, "INV-P03: an older instance of a name took it back");
    }
    ferry_consumer_close(&other);
}

void verify_group(struct session *s)
{
    static struct reader r;
    static const char *const name = "verify";
    if (s->p->load->group.members == 0) {
        return;
    }
    sim_say("joins the group alone");
    struct ferry_consumer *consumer = join_surely(&r, s, name);
    if (consumer == NULL) {
        return;
    }
    read_to_end(&r, consumer);
    if (!sim->ended && ferry_consumer_partitions(consumer) > 1) {
        sim_say("is joined by another");
        check_hand_over(s, &r, consumer);
    }
    if (!sim->ended) {
        sim_say("sees the leader change");
        check_leader_change(s, &r, consumer);
    }
    if (!sim->ended) {
        sim_say("is succeeded by another of its name");
        check_newer_instance(s, &r, consumer, name);
    }
    ferry_consumer_close(&consumer);
    if (!sim->ended) {
        check_positions(s);
    }
}
