/* Groups under trouble: members that come, go, stall and are replaced, slow and lost answers,
 * leaders that are cut off, crash and come back; from many seeds, with a clock that only the test
 * moves.
 *
 * What must hold at every step (INV-P03): a member that is in the group and was given a partition,
 * and has not let go of it, is the one that the group's state says has it; so no two have it. A
 * commit with an epoch older than a claim that was acked before it was sent is refused. And when
 * the trouble ends (INV-P05), everything is soon somebody's. */
#include "lib/replica_cluster.h"

#include <stdio.h>
#include <stdlib.h>

#include "partition/partition_internal.h"

#define CLIENTS       8
#define PARTITIONS    12u
#define SESSION_MS    2000u
#define STEP_MS       5
#define TIMEOUT_US    400000
#define TROUBLE_MS    15000
#define HEALED_MS     20000
#define GROUP_NAME    "s"
#define SEEDS         6u
#define RECORDS       1000u
#define STOP_MAX_US   300000
#define ANSWER_MAX_MS 40u

enum request_kind { REQUEST_NONE, REQUEST_BEAT, REQUEST_CLAIM, REQUEST_COMMIT };

/* One request at a time: what comes after its timeout is not looked at. */
struct request {
    enum request_kind kind;
    int node;
    struct partition_ticket *ticket; /* NULL: answered. */
    bool answered;
    int64_t sent_us, arrives_us;
    enum ferry_err err;
    uint64_t epoch, claimed_before;
    int64_t joined_ms;
    struct member_heartbeat_reply reply;
};

struct held {
    bool has;
    bool claimed;
    uint64_t epoch;
    int64_t joined_ms; /* Of the membership it was given to. */
    int64_t stops_us;  /* 0: it goes on with it. */
};

struct client {
    bool runs;
    char name[16];
    uint64_t instance;
    int64_t beat_us, silent_until_us;
    uint64_t epoch; /* The greatest seen: an older answer is of a leader that was deposed. */
    struct held held[PARTITIONS];
    struct request request;
};

struct world {
    struct cluster *c;
    struct client clients[CLIENTS];
    uint64_t instances;
    uint64_t claim_acked; /* The greatest epoch of a claim that was acked. */
    uint64_t beats, claims, commits, fenced_commits, fenced_members;
};

static uint64_t draw(struct world *w, uint64_t bound)
{
    return prng_below(&w->c->prng, bound);
}

static struct ferry_id instance_of(uint64_t n)
{
    struct ferry_id id = {{0}};
    put_le64(id.bytes, n);
    return id;
}

/* ---- What the group's state says, as of the replica that has applied most ---- */

static const struct partition *newest(const struct world *w)
{
    const struct partition *best = NULL;
    for (int i = 0; i < w->c->count; i++) {
        const struct partition *p = w->c->nodes[i].p;
        if (p != NULL && replica_state(p->replica) != REPLICA_INSTALLING &&
            (best == NULL || replica_applied(p->replica) > replica_applied(best->replica))) {
            best = p;
        }
    }
    return best;
}

static const struct members *group_of(const struct partition *p)
{
    const struct subscription *s =
        p != NULL ? subscriptions_find(&p->subscriptions, bytes_of_string(GROUP_NAME)) : NULL;
    return s != NULL ? s->members : NULL;
}

static const struct member *member_of_client(const struct members *m, const struct client *c)
{
    const struct member *member = m != NULL ? members_find(m, bytes_of_string(c->name)) : NULL;
    struct ferry_id instance = instance_of(c->instance);
    bool same = member != NULL && memcmp(&member->instance, &instance, sizeof(instance)) == 0;
    return same ? member : NULL;
}

static void check_holders(const struct world *w)
{
    const struct members *m = group_of(newest(w));
    for (int i = 0; i < CLIENTS && m != NULL; i++) {
        const struct client *c = &w->clients[i];
        const struct member *member = c->runs ? member_of_client(m, c) : NULL;
        for (uint32_t p = 0; p < PARTITIONS && member != NULL; p++) {
            const struct held *h = &c->held[p];
            bool its = h->has && h->joined_ms == member->joined_ms;
            if (its && (p >= m->partitions || m->shares[p].holder != member)) {
                fail_msg("seed %llu: %s has partition %u, which was given to another",
                         (unsigned long long)w->c->seed, c->name, p);
            }
        }
    }
}

/* ---- Clients ---- */

static void start_client(struct world *w, struct client *c)
{
    char name[sizeof(c->name)];
    memcpy(name, c->name, sizeof(name));
    *c = (struct client){.runs = true, .instance = ++w->instances, .beat_us = w->c->now_us};
    memcpy(c->name, name, sizeof(name));
}

static int pick_node(struct world *w)
{
    int leader = replicas_leader(w->c);
    return leader >= 0 && draw(w, 4) != 0 ? leader : (int)draw(w, (uint64_t)w->c->count);
}

static bool begin_request(struct world *w, struct client *c, enum request_kind kind)
{
    int node = pick_node(w);
    if (w->c->nodes[node].p == NULL) {
        return false;
    }
    c->request = (struct request){.kind = kind,
                                  .node = node,
                                  .ticket = replicas_ticket(w->c, node),
                                  .sent_us = w->c->now_us,
                                  .claimed_before = w->claim_acked};
    return true;
}

static void fill_beat(struct client *c, struct member_heartbeat_request *q)
{
    *q = (struct member_heartbeat_request){.subscription = bytes_of_string(GROUP_NAME),
                                           .member = bytes_of_string(c->name),
                                           .instance = instance_of(c->instance),
                                           .session_ms = SESSION_MS,
                                           .partitions = PARTITIONS};
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        if (c->held[p].has) {
            q->held[q->held_count++] =
                (struct assigned_partition){.partition = p, .epoch = c->held[p].epoch};
        }
    }
}

static void send_beat(struct world *w, struct client *c)
{
    static struct member_heartbeat_request q;
    if (!begin_request(w, c, REQUEST_BEAT)) {
        return;
    }
    w->beats++;
    fill_beat(c, &q);
    c->request.err =
        partition_member_heartbeat(w->c->nodes[c->request.node].p, &q, bytes_of_string("random"),
                                   w->c->now_ms, w->c->now_us, c->request.ticket);
}

/* Partition 0 is the one whose replicas there are: it is claimed and committed. */
static void send_claim(struct world *w, struct client *c)
{
    if (!begin_request(w, c, REQUEST_CLAIM)) {
        return;
    }
    c->request.epoch = c->held[0].epoch;
    struct subscription_claim_request q = {.name = bytes_of_string(GROUP_NAME),
                                           .member = bytes_of_string(c->name),
                                           .epoch = c->held[0].epoch};
    c->request.err = partition_subscription_claim(w->c->nodes[c->request.node].p, &q, w->c->now_ms,
                                                  w->c->now_us, c->request.ticket);
}

static void send_commit(struct world *w, struct client *c)
{
    if (!begin_request(w, c, REQUEST_COMMIT)) {
        return;
    }
    struct partition *p = w->c->nodes[c->request.node].p;
    const struct subscription *s =
        subscriptions_find(&p->subscriptions, bytes_of_string(GROUP_NAME));
    int64_t position = s != NULL ? s->position + 1 : 0;
    c->request.epoch = c->held[0].epoch;
    c->request.err =
        partition_subscription_commit_as(p, bytes_of_string(GROUP_NAME), position, c->held[0].epoch,
                                         w->c->now_ms, w->c->now_us, c->request.ticket);
}

/* ---- Answers ---- */

/* It leaves the node now, and arrives after a while, or never. */
static void answer(struct world *w, struct client *c)
{
    struct request *r = &c->request;
    struct ferry_id instance = instance_of(c->instance);
    if (r->ticket != NULL && r->err == FERRY_OK && !list_is_empty(&r->ticket->base.node)) {
        return; /* It waits. */
    }
    r->err = r->err == FERRY_OK ? r->ticket->base.err : r->err;
    r->ticket = NULL;
    r->answered = true;
    r->arrives_us = w->c->now_us + (int64_t)draw(w, ANSWER_MAX_MS) * 1000;
    if (r->kind == REQUEST_BEAT && r->err == FERRY_OK) {
        struct partition *p = w->c->nodes[r->node].p;
        r->err = partition_member_assignment(p, bytes_of_string(GROUP_NAME),
                                             bytes_of_string(c->name), &instance, &r->reply);
        const struct member *member = member_of_client(group_of(p), c);
        r->joined_ms = member != NULL ? member->joined_ms : 0;
    }
    if (draw(w, 100) < w->c->loss_percent) {
        r->arrives_us = INT64_MAX;
    }
}

static void take_assignment(struct world *w, struct client *c, const struct request *r)
{
    if (r->reply.epoch < c->epoch) {
        return;
    }
    c->epoch = r->reply.epoch;
    bool named[PARTITIONS] = {false};
    for (uint32_t i = 0; i < r->reply.count; i++) {
        uint32_t p = r->reply.assigned[i].partition;
        assert_true(p < PARTITIONS);
        named[p] = true;
        struct held *h = &c->held[p];
        bool same = h->has && h->epoch == r->reply.assigned[i].epoch;
        *h = (struct held){.has = true,
                           .claimed = same && h->claimed,
                           .epoch = r->reply.assigned[i].epoch,
                           .joined_ms = r->joined_ms};
    }
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        struct held *h = &c->held[p];
        if (h->has && !named[p] && h->stops_us == 0) {
            h->stops_us = w->c->now_us + 1 + (int64_t)draw(w, STOP_MAX_US);
        }
    }
    uint32_t most_ms = r->reply.heartbeat_ms;
    c->beat_us = w->c->now_us + (int64_t)most_ms * 1000;
}

static void take_beat(struct world *w, struct client *c, const struct request *r)
{
    if (r->err == FERRY_ERR_MEMBER_FENCED) {
        w->fenced_members++;
        c->runs = false;
    } else if (r->err == FERRY_OK) {
        take_assignment(w, c, r);
    } else {
        c->beat_us = w->c->now_us + 50000;
    }
}

static void take_claim(struct world *w, struct client *c, const struct request *r)
{
    if (r->err == FERRY_OK) {
        w->claims++;
        c->held[0].claimed = c->held[0].has && c->held[0].epoch == r->epoch;
        w->claim_acked = r->epoch > w->claim_acked ? r->epoch : w->claim_acked;
    }
}

static void take_commit(struct world *w, const struct request *r)
{
    w->fenced_commits += r->err == FERRY_ERR_MEMBER_FENCED ? 1 : 0;
    if (r->err != FERRY_OK) {
        return;
    }
    w->commits++;
    if (r->epoch < r->claimed_before) {
        fail_msg("seed %llu: a commit of epoch %llu counts after a claim of %llu",
                 (unsigned long long)w->c->seed, (unsigned long long)r->epoch,
                 (unsigned long long)r->claimed_before);
    }
}

static void take_answer(struct world *w, struct client *c)
{
    struct request r = c->request;
    c->request.kind = REQUEST_NONE;
    if (r.kind == REQUEST_BEAT) {
        take_beat(w, c, &r);
    } else if (r.kind == REQUEST_CLAIM) {
        take_claim(w, c, &r);
    } else {
        take_commit(w, &r);
    }
}

static void run_request(struct world *w, struct client *c)
{
    struct request *r = &c->request;
    if (!r->answered) {
        answer(w, c);
    }
    if (r->answered && r->arrives_us <= w->c->now_us) {
        take_answer(w, c);
    } else if (r->sent_us + TIMEOUT_US <= w->c->now_us) {
        r->kind = REQUEST_NONE;
    }
}

/* A partition may be worked on, and committed, by one who stalls and does not know better. */
static void run_client(struct world *w, struct client *c)
{
    if (!c->runs) {
        return;
    }
    if (c->request.kind != REQUEST_NONE) {
        run_request(w, c);
        return;
    }
    if (c->silent_until_us > w->c->now_us) {
        return;
    }
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        if (c->held[p].has && c->held[p].stops_us != 0 && c->held[p].stops_us <= w->c->now_us) {
            c->held[p].has = false;
        }
    }
    if (c->held[0].has && c->held[0].claimed && draw(w, 4) == 0) {
        send_commit(w, c);
    } else if (c->beat_us <= w->c->now_us) {
        send_beat(w, c);
    } else if (c->held[0].has && !c->held[0].claimed) {
        send_claim(w, c);
    }
}

/* ---- Trouble ---- */

/* What it was asked and has not answered is lost. */
static void lose_requests(struct world *w, int node)
{
    for (int i = 0; i < CLIENTS; i++) {
        struct request *r = &w->clients[i].request;
        if (r->kind != REQUEST_NONE && r->node == node && !r->answered) {
            r->ticket = NULL;
            r->answered = true;
            r->arrives_us = INT64_MAX;
        }
    }
}

static void trouble_nodes(struct world *w)
{
    int node = (int)draw(w, (uint64_t)w->c->count);
    bool up = w->c->nodes[node].p != NULL;
    int others_up = 0;
    for (int i = 0; i < w->c->count; i++) {
        others_up += i != node && w->c->nodes[i].p != NULL ? 1 : 0;
    }
    switch (draw(w, 4)) {
    case 0:
        replicas_isolate(w->c, node, true);
        return;
    case 1:
        if (up && others_up == w->c->count - 1) {
            lose_requests(w, node);
            replicas_crash(w->c, node);
        }
        return;
    default:
        replicas_isolate(w->c, node, false);
        if (!up) {
            replicas_start(w->c, node);
        }
    }
}

static void leave(struct world *w, struct client *c)
{
    int leader = replicas_leader(w->c);
    struct member_leave_request q = {.subscription = bytes_of_string(GROUP_NAME),
                                     .member = bytes_of_string(c->name),
                                     .instance = instance_of(c->instance),
                                     .reason = bytes_of_string("enough")};
    if (leader >= 0) {
        (void)!partition_member_leave(w->c->nodes[leader].p, &q, w->c->now_ms, w->c->now_us,
                                      replicas_ticket(w->c, leader));
    }
    c->runs = false;
}

static void trouble_clients(struct world *w)
{
    struct client *c = &w->clients[draw(w, CLIENTS)];
    switch (draw(w, 6)) {
    case 0:
        c->silent_until_us = w->c->now_us + (int64_t)draw(w, 2 * SESSION_MS) * 1000;
        return;
    case 1:
        if (c->request.kind == REQUEST_NONE && c->runs) {
            leave(w, c);
        }
        return;
    case 2:
        c->runs = false; /* Without a word. */
        return;
    default:
        if (c->request.kind == REQUEST_NONE || !c->runs) {
            start_client(w, c); /* Another process of that name. */
        }
    }
}

static void step(struct world *w)
{
    for (int i = 0; i < CLIENTS; i++) {
        run_client(w, &w->clients[i]);
    }
    replicas_run_ms(w->c, STEP_MS);
    check_holders(w);
}

static void run_trouble(struct world *w)
{
    w->c->loss_percent = 5;
    for (int ms = 0; ms < TROUBLE_MS; ms += STEP_MS) {
        if (draw(w, 100) == 0) {
            trouble_nodes(w);
        }
        if (draw(w, 60) == 0) {
            trouble_clients(w);
        }
        step(w);
    }
}

static bool is_shared_out(const struct world *w)
{
    const struct members *m = group_of(newest(w));
    uint32_t owners[PARTITIONS] = {0}, running = 0, least = PARTITIONS, most = 0;
    for (int i = 0; i < CLIENTS; i++) {
        running += w->clients[i].runs ? 1 : 0;
        uint32_t has = 0;
        for (uint32_t p = 0; p < PARTITIONS; p++) {
            bool its = w->clients[i].runs && w->clients[i].held[p].has;
            owners[p] += its ? 1 : 0;
            has += its ? 1 : 0;
        }
        if (w->clients[i].runs) {
            least = has < least ? has : least;
            most = has > most ? has : most;
        }
    }
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        if (owners[p] != 1) {
            return false;
        }
    }
    return m != NULL && m->count == running && most - least <= 1;
}

static void heal(struct world *w)
{
    w->c->loss_percent = 0;
    for (int i = 0; i < w->c->count; i++) {
        replicas_isolate(w->c, i, false);
        if (w->c->nodes[i].p == NULL) {
            replicas_start(w->c, i);
        }
    }
    for (int i = 0; i < CLIENTS; i++) {
        struct client *c = &w->clients[i];
        c->silent_until_us = 0;
        if (!c->runs && i % 2 == 0) {
            c->request.kind = REQUEST_NONE;
            start_client(w, c);
        }
    }
    for (int ms = 0; ms < HEALED_MS; ms += STEP_MS) {
        step(w);
        if (ms > 2 * (int)SESSION_MS && is_shared_out(w)) {
            return;
        }
    }
    fail_msg("seed %llu: the partitions are not shared out", (unsigned long long)w->c->seed);
}

static void make_group(struct world *w)
{
    replicas_produce(w->c, &(struct cluster_batch){.count = RECORDS});
    int leader = replicas_wait_leader(w->c);
    assert_int_equal(partition_subscription_create(w->c->nodes[leader].p,
                                                   bytes_of_string(GROUP_NAME), SUBSCRIPTION_STREAM,
                                                   FERRY_FROM_START, w->c->now_ms, w->c->now_us,
                                                   replicas_ticket(w->c, leader)),
                     FERRY_OK);
    replicas_run_ms(w->c, 500);
}

static uint64_t run_seed(uint64_t seed)
{
    struct world *w = test_calloc(1, sizeof(*w));
    w->c = replicas_new(3, seed);
    for (int i = 0; i < w->c->count; i++) {
        replicas_start(w->c, i);
    }
    make_group(w);
    for (int i = 0; i < CLIENTS; i++) {
        (void)snprintf(w->clients[i].name, sizeof(w->clients[i].name), "m%d", i);
        start_client(w, &w->clients[i]);
    }
    run_trouble(w);
    heal(w);
    assert_true(w->beats > 100 && w->claims > 0 && w->commits > 0);
    replicas_settle(w->c);
    replicas_compare(w->c);
    replicas_free(w->c);
    uint64_t fenced = w->fenced_commits;
    test_free(w);
    return fenced;
}

static void
nobody_shares_a_partition_whatever_happens_and_in_the_end_all_are_somebodys(void **state)
{
    (void)state;
    uint64_t fenced = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        fenced += run_seed(seed);
    }
    assert_true(fenced > 0); /* It came to that. */
}

int main(int argc, char **argv)
{
    if (argc > 1) { /* A seed, to look at it again. */
        (void)run_seed(strtoull(argv[1], NULL, 10));
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            nobody_shares_a_partition_whatever_happens_and_in_the_end_all_are_somebodys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
