/* The administrator: makes a topic and deletes it again while others use it, asks for things. */
#include "sim/fiber.h"
#include "sim/workload.h"

#define ADMIN_MS 5000

static void make_temp(struct session *s)
{
    struct ferry_topic_spec spec = {
        .name = "temp", .partitions = 1, .replicas = s->p->load->replicas, .retention_ms = -1};
    program_note(s->p, "create temp", ferry_topic_create(s->client, &spec, ADMIN_MS));
}

static void delete_temp(struct session *s)
{
    enum ferry_err err = ferry_topic_delete(s->client, "temp", ADMIN_MS);
    program_note(s->p, "delete temp", err);
    s->p->load->temp_deleted += err == FERRY_OK;
}

static void look_around(struct session *s)
{
    struct ferry_topic_info *info;
    char **names;
    size_t count;
    const struct history *h = &s->p->load->history;
    const struct history_topic *t = &h->topics[chance_below(h->topic_count)];
    enum ferry_err err = ferry_topic_info(s->client, t->name, ADMIN_MS, &info);
    program_note(s->p, "info", err);
    if (err == FERRY_OK) {
        ferry_topic_info_free(&info);
    }
    err = ferry_topic_list(s->client, ADMIN_MS, &names, &count);
    program_note(s->p, "list", err);
    if (err == FERRY_OK) {
        ferry_names_free(&names);
    }
}

/* ---- The cluster ---- */

static void drain_or_not(struct session *s)
{
    uint32_t node = 1 + (uint32_t)chance_below(s->p->load->nodes);
    enum ferry_node_change change = chance_permille(500) ? FERRY_NODE_DRAIN : FERRY_NODE_UNDRAIN;
    enum ferry_err err = ferry_node_change(s->client, node, change, 0, ADMIN_MS);
    program_note(s->p, "drain", err);
    s->p->load->drains += err == FERRY_OK && change == FERRY_NODE_DRAIN;
}

static void plan_and_apply(struct session *s)
{
    struct ferry_moves *plan = NULL;
    uint32_t moves = 0;
    enum ferry_err err = ferry_cluster_plan(s->client, ADMIN_MS, &plan);
    program_note(s->p, "plan", err);
    if (err == FERRY_OK) {
        err = ferry_cluster_apply(s->client, plan->plan_id, ADMIN_MS, &moves);
        program_note(s->p, "apply", err);
        ferry_moves_free(&plan);
    }
    s->p->load->moves += moves;
}

static void abort_moves(struct session *s)
{
    uint32_t dropped;
    uint32_t reverting;
    program_note(s->p, "abort", ferry_cluster_abort(s->client, ADMIN_MS, &dropped, &reverting));
}

static void transfer(struct session *s)
{
    const struct history *h = &s->p->load->history;
    const struct history_topic *t = &h->topics[chance_below(h->topic_count)];
    uint32_t node = 1 + (uint32_t)chance_below(s->p->load->nodes);
    program_note(s->p, "transfer",
                 ferry_partition_transfer(s->client, t->name, (int32_t)chance_below(t->partitions),
                                          node, ADMIN_MS));
}

/* A token is one holder's, and they rise: what was granted before this was asked for is less. */
static void take_lease(struct session *s)
{
    struct workload *w = s->p->load;
    struct ferry_lease lease;
    uint64_t known = w->lease_token;
    uint32_t holder = w->lease_holder;
    enum ferry_err err =
        ferry_lease_acquire(s->client, "lease", s->p->host->name, chance_between(500, 4000),
                            chance_between(0, 2000), ADMIN_MS, &lease);
    program_note(s->p, "lease", err);
    if (err != FERRY_OK) {
        return;
    }
    w->leases++;
    if (lease.token < known || (lease.token == known && holder != s->p->number)) {
        sim_fail(SIM_INVARIANT, "INV-Q02: a lease is granted with token %llu, after %llu was",
                 (unsigned long long)lease.token, (unsigned long long)known);
    }
    if (lease.token > w->lease_token) {
        w->lease_token = lease.token;
        w->lease_holder = s->p->number;
    }
    if (chance_permille(500)) {
        program_note(
            s->p, "release",
            ferry_lease_release(s->client, "lease", s->p->host->name, lease.token, ADMIN_MS));
    }
}

/* ---- A session ---- */

static void do_something(struct session *s)
{
    static void (*const steps[])(struct session *) = {
        make_temp,    delete_temp,    look_around, take_lease, take_lease,
        drain_or_not, plan_and_apply, transfer,    transfer,   abort_moves};
    steps[chance_below(sizeof(steps) / sizeof(steps[0]))](s);
}

void admin_session(struct program *p)
{
    struct session s;
    int64_t until = world_now() + chance_between(3, 30) * SIM_SECOND;
    if (!session_open(&s, p, NULL)) {
        return;
    }
    while (session_may_go_on(p, until)) {
        do_something(&s);
        p->done++;
        fiber_sleep(chance_between(100, 4000) * SIM_MS);
    }
    ferry_close(&s.client, 0);
}
