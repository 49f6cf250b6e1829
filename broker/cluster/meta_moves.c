/* Moves: planning them with what is in force, carrying them out a few at a time, taking them back.
 */
#include "base/mem.h"
#include "cluster/meta_internal.h"
#include "wire/pack.h"

#define ACTIVATE_MAX 256u /* In one entry. */

/* ---- In memory ---- */

static size_t lower_bound(const struct meta *m, uint64_t group)
{
    size_t low = 0, high = m->move_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (m->moves[middle].move.step.group < group) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

struct move_row *meta_move_row(const struct meta *m, uint64_t group)
{
    size_t at = lower_bound(m, group);
    return at < m->move_count && m->moves[at].move.step.group == group ? &m->moves[at] : NULL;
}

const struct meta_move *meta_move_of(const struct meta *m, uint64_t group)
{
    const struct move_row *row = meta_move_row(m, group);
    return row != NULL ? &row->move : NULL;
}

size_t meta_move_count(const struct meta *m)
{
    return m->move_count;
}

const struct meta_move *meta_move_at(const struct meta *m, size_t i)
{
    return i < m->move_count ? &m->moves[i].move : NULL;
}

size_t meta_move_after(const struct meta *m, uint64_t after)
{
    return after < UINT64_MAX ? lower_bound(m, after + 1) : m->move_count;
}

uint64_t meta_moves_done(const struct meta *m)
{
    return m->moves_done;
}

enum ferry_err meta_move_insert(struct meta *m, const struct move_row *row)
{
    if (!mem_grow((void **)&m->moves, &m->move_capacity, m->move_count + 1, sizeof(*m->moves))) {
        return FERRY_ERR_NO_MEMORY;
    }
    size_t at = lower_bound(m, row->move.step.group);
    memmove(m->moves + at + 1, m->moves + at, (m->move_count - at) * sizeof(*m->moves));
    m->moves[at] = *row;
    m->move_count++;
    return FERRY_OK;
}

static enum ferry_err kill_row(struct meta *m, uint64_t group)
{
    uint8_t key[8];
    put_be64(key, group);
    return meta_kill_row(m, META_TABLE_MOVES, bytes_of(key, sizeof(key)));
}

static enum ferry_err remove_move(struct meta *m, uint64_t group)
{
    size_t at = lower_bound(m, group);
    must(m->moves[at].move.step.group == group);
    memmove(m->moves + at, m->moves + at + 1, (m->move_count - at - 1) * sizeof(*m->moves));
    m->move_count--;
    m->must_look = true;
    return kill_row(m, group);
}

enum ferry_err meta_moves_forget(struct meta *m, uint64_t first_group, uint32_t count)
{
    enum ferry_err err = FERRY_OK;
    for (uint32_t p = 0; p < count && err == FERRY_OK && m->move_count > 0; p++) {
        if (meta_move_row(m, first_group + p) != NULL) {
            err = remove_move(m, first_group + p);
        }
    }
    return err;
}

static bool is_among(const uint32_t *nodes, uint32_t count, uint32_t node)
{
    for (uint32_t k = 0; k < count; k++) {
        if (nodes[k] == node) {
            return true;
        }
    }
    return false;
}

bool meta_moves_name(const struct meta *m, uint32_t node)
{
    for (size_t i = 0; i < m->move_count; i++) {
        const struct plan_step *s = &m->moves[i].move.step;
        if (is_among(s->from, s->replicas, node) || is_among(s->to, s->replicas, node)) {
            return true;
        }
    }
    return false;
}

/* Invariants 7 and 8. */
void meta_moves_check(const struct meta *m)
{
    for (size_t i = 0; i < m->move_count; i++) {
        const struct plan_step *s = &m->moves[i].move.step;
        uint32_t nodes[RING_REPLICAS_MAX];
        must(i == 0 || m->moves[i - 1].move.step.group < s->group);
        must(meta_placement(m, s->group, nodes) == s->replicas);
        must(memcmp(nodes, s->from, s->replicas * sizeof(*nodes)) == 0);
        must(meta_ids_are_nodes(m, s->to, s->replicas));
    }
}

/* ---- Adding ---- */

static void encode_add(struct buf *b, uint32_t draining, const struct plan *plan)
{
    pack_array(b, 3);
    pack_uint(b, META_MOVES_ADD);
    pack_uint(b, draining);
    pack_array(b, (uint32_t)plan->count);
    for (size_t i = 0; i < plan->count; i++) {
        const struct plan_step *step = &plan->steps[i];
        pack_array(b, step->replicas + 1);
        pack_uint(b, step->group);
        for (uint32_t k = 0; k < step->replicas; k++) {
            pack_uint(b, step->to[k]);
        }
    }
}

enum ferry_err meta_apply_plan(struct meta *m, uint64_t plan_id, int64_t now_ms, int64_t now_us,
                               struct meta_ticket *t)
{
    if (!replica_is_ready(m->replica)) {
        return replica_check_leader(m->replica);
    }
    if (m->move_count > 0) {
        return FERRY_ERR_MOVES_RUNNING;
    }
    struct plan plan;
    plan_init(&plan);
    enum ferry_err err = meta_plan(m, &plan);
    if (err == FERRY_OK && plan.id != plan_id) {
        err = FERRY_ERR_PLAN_CHANGED;
    }
    if (err == FERRY_OK && plan.count > 0) {
        encode_add(&t->payload, 0, &plan);
        err = meta_propose(m, t, now_ms, now_us);
    }
    plan_fini(&plan);
    return err;
}

/* Every topic of which the node has a replica must find enough others. */
static enum ferry_err check_drain(const struct meta *m, uint32_t id, struct err_text *e)
{
    struct plan_node nodes[META_NODES_MAX];
    size_t count = meta_plan_nodes(m, nodes);
    for (size_t i = 0; i < count; i++) {
        nodes[i].draining = nodes[i].draining || nodes[i].id == id;
    }
    size_t usable = plan_usable(nodes, count);
    for (size_t i = 0; i < m->topic_count; i++) {
        const struct meta_topic *t = &m->topics[i]->topic;
        if (t->replicas > usable && is_among(t->placement, t->partitions * t->replicas, id)) {
            return err_set(
                e, FERRY_ERR_INVALID_ARGUMENT,
                "topic %s has %u replicas, and %zu nodes would be left: add a node first", t->name,
                t->replicas, usable);
        }
    }
    return FERRY_OK;
}

enum ferry_err meta_drain(struct meta *m, struct node_row *row, int64_t now_ms, int64_t now_us,
                          struct meta_ticket *t, struct err_text *e)
{
    struct plan plan;
    plan_init(&plan);
    enum ferry_err err = check_drain(m, row->node.id, e);
    if (err == FERRY_OK && m->move_count == 0) {
        err = meta_plan_emptying(m, row->node.id, &plan);
    }
    if (err == FERRY_OK) {
        encode_add(&t->payload, row->node.id, &plan);
        err = meta_propose(m, t, now_ms, now_us);
    }
    plan_fini(&plan);
    return err;
}

static void read_step(struct unpack *u, struct plan_step *step)
{
    uint32_t elements = unpack_array(u, 1 + RING_REPLICAS_MAX);
    step->group = unpack_uint(u, UINT64_MAX);
    step->replicas = elements > 0 ? elements - 1 : 0;
    for (uint32_t k = 0; k < step->replicas; k++) {
        step->to[k] = (uint32_t)unpack_uint(u, META_NODE_ID_MAX);
    }
    unpack_array_end(u);
}

/* Steps of groups that are gone are left out. */
static void read_steps(const struct meta *m, struct unpack *u, struct plan *plan)
{
    uint32_t count = unpack_array(u, PLAN_STEPS_MAX);
    for (uint32_t i = 0; i < count && !u->failed; i++) {
        struct plan_step step = {0};
        read_step(u, &step);
        if (meta_placement(m, step.group, step.from) == step.replicas && step.replicas > 0) {
            plan->steps[plan->count++] = step;
        }
    }
    unpack_array_end(u);
}

static bool may_add(const struct meta *m, const struct plan *plan)
{
    bool known = true;
    for (size_t i = 0; i < plan->count; i++) {
        known = known && meta_ids_are_nodes(m, plan->steps[i].to, plan->steps[i].replicas) &&
                meta_move_row(m, plan->steps[i].group) == NULL;
    }
    return known;
}

static enum ferry_err add_moves(struct meta *m, const struct plan *plan)
{
    enum ferry_err err = FERRY_OK;
    for (size_t i = 0; i < plan->count && err == FERRY_OK; i++) {
        struct move_row row = {.move = {.state = META_MOVE_PLANNED, .step = plan->steps[i]},
                               .dirty = true};
        err = meta_move_insert(m, &row);
    }
    m->moves_done = 0;
    if (m->asker != NULL) {
        m->asker->moves = (uint32_t)plan->count;
    }
    return err;
}

/* The mark is set whether or not the moves still fit; if not, meta_moves_tick plans others. */
static enum ferry_err mark_draining(struct meta *m, uint32_t id)
{
    struct node_row *row = meta_node_row(m, id);
    if (row == NULL) {
        return meta_refuse(m, FERRY_ERR_UNKNOWN_NODE);
    }
    row->node.draining = row->emptying = row->dirty = true;
    return meta_push_change(m, META_NODE_CHANGED, NULL, 0, id);
}

static enum ferry_err take_plan(struct meta *m, uint32_t draining, const struct plan *plan)
{
    enum ferry_err err = draining != 0 ? mark_draining(m, draining) : FERRY_OK;
    m->must_look = true;
    if (err != FERRY_OK || m->refusal != FERRY_OK) {
        return err;
    }
    if (m->move_count > 0 && plan->count > 0) {
        return draining != 0 ? FERRY_OK : meta_refuse(m, FERRY_ERR_MOVES_RUNNING);
    }
    if (!may_add(m, plan)) {
        return draining != 0 ? FERRY_OK : meta_refuse(m, FERRY_ERR_PLAN_CHANGED);
    }
    return add_moves(m, plan);
}

enum ferry_err meta_apply_moves_add(struct meta *m, struct unpack *u)
{
    struct plan plan;
    plan_init(&plan);
    uint32_t draining = (uint32_t)unpack_uint(u, META_NODE_ID_MAX);
    plan.steps = mem_zalloc(PLAN_STEPS_MAX, sizeof(*plan.steps));
    if (plan.steps == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    read_steps(m, u, &plan);
    enum ferry_err err =
        unpack_end(u) == FERRY_OK ? take_plan(m, draining, &plan) : FERRY_ERR_CORRUPT;
    plan_fini(&plan);
    return err;
}

/* ---- What a leader does by itself ---- */

/* Nodes that a move fills or empties: of both sets those that are not in the other. */
static uint32_t touched(const struct plan_step *s, uint32_t nodes[2 * RING_REPLICAS_MAX])
{
    uint32_t count = 0;
    for (uint32_t k = 0; k < s->replicas; k++) {
        if (!is_among(s->from, s->replicas, s->to[k])) {
            nodes[count++] = s->to[k];
        }
        if (!is_among(s->to, s->replicas, s->from[k])) {
            nodes[count++] = s->from[k];
        }
    }
    return count;
}

/* Moves that touch each node, by node id. */
struct throttle {
    uint16_t active[META_NODE_ID_MAX + 1];
};

static bool may_start(const struct throttle *th, const struct plan_step *s)
{
    uint32_t nodes[2 * RING_REPLICAS_MAX];
    uint32_t count = touched(s, nodes);
    for (uint32_t k = 0; k < count; k++) {
        if (th->active[nodes[k]] >= META_ACTIVE_MOVES_NODE) {
            return false;
        }
    }
    return true;
}

static void count_move(struct throttle *th, const struct plan_step *s)
{
    uint32_t nodes[2 * RING_REPLICAS_MAX];
    uint32_t count = touched(s, nodes);
    for (uint32_t k = 0; k < count; k++) {
        th->active[nodes[k]]++;
    }
}

static uint32_t choose_moves(const struct meta *m, uint64_t groups[ACTIVATE_MAX])
{
    struct throttle th = {{0}};
    uint32_t count = 0;
    for (size_t i = 0; i < m->move_count; i++) {
        if (m->moves[i].move.state != META_MOVE_PLANNED) {
            count_move(&th, &m->moves[i].move.step);
        }
    }
    for (size_t i = 0; i < m->move_count && count < ACTIVATE_MAX; i++) {
        const struct meta_move *move = &m->moves[i].move;
        if (move->state == META_MOVE_PLANNED && may_start(&th, &move->step)) {
            count_move(&th, &move->step);
            groups[count++] = move->step.group;
        }
    }
    return count;
}

static void encode_activate(struct buf *b, const uint64_t *groups, uint32_t count)
{
    pack_array(b, 2);
    pack_uint(b, META_MOVES_ACTIVATE);
    pack_array(b, count);
    for (uint32_t i = 0; i < count; i++) {
        pack_uint(b, groups[i]);
    }
}

static bool is_emptying(const struct meta *m)
{
    bool emptying = false;
    for (size_t i = 0; i < m->node_count; i++) {
        emptying = emptying || m->nodes[i]->emptying;
    }
    return emptying;
}

/* A drain that met other moves, or was larger than one plan, or whose node got something since. */
static bool encode_rest(const struct meta *m, struct buf *b)
{
    struct plan plan;
    plan_init(&plan);
    enum ferry_err err = meta_plan_emptying(m, 0, &plan);
    bool any = err == FERRY_OK && plan.count > 0;
    if (any) {
        encode_add(b, 0, &plan);
    }
    plan_fini(&plan);
    return any;
}

void meta_moves_tick(struct meta *m, int64_t now_ms, int64_t now_us)
{
    struct buf *b = m->must_look && now_us >= m->look_us ? meta_decision(m) : NULL;
    if (b == NULL) {
        return;
    }
    uint64_t groups[ACTIVATE_MAX];
    uint32_t count = choose_moves(m, groups);
    bool decides = count > 0;
    if (count > 0) {
        encode_activate(b, groups, count);
    } else if (m->move_count == 0 && is_emptying(m)) {
        decides = encode_rest(m, b);
    }
    m->must_look = decides && !meta_decide(m, now_ms, now_us);
    m->look_us = m->must_look ? now_us + META_RETRY_US : 0;
}

enum ferry_err meta_apply_activate(struct meta *m, struct unpack *u)
{
    enum ferry_err err = FERRY_OK;
    uint32_t count = unpack_array(u, ACTIVATE_MAX);
    for (uint32_t i = 0; i < count && err == FERRY_OK && !u->failed; i++) {
        struct move_row *row = meta_move_row(m, unpack_uint(u, UINT64_MAX));
        if (row != NULL && row->move.state == META_MOVE_PLANNED) {
            row->move.state = META_MOVE_ACTIVE;
            row->dirty = true;
            err = meta_push_change(m, META_PLACEMENT_CHANGED, NULL, row->move.step.group, 0);
        }
    }
    unpack_array_end(u);
    m->must_look = true;
    return err == FERRY_OK && unpack_end(u) != FERRY_OK ? FERRY_ERR_CORRUPT : err;
}

/* ---- Taking back ---- */

static enum ferry_err take_back(struct meta *m, uint64_t group)
{
    struct move_row *row = meta_move_row(m, group);
    if (row->move.state == META_MOVE_PLANNED) {
        if (m->asker != NULL) {
            m->asker->dropped++;
        }
        return remove_move(m, group);
    }
    if (row->move.state == META_MOVE_REVERTING) {
        return FERRY_OK;
    }
    if (m->asker != NULL) {
        m->asker->reverting++;
    }
    row->move.state = META_MOVE_REVERTING;
    row->dirty = true;
    return meta_push_change(m, META_PLACEMENT_CHANGED, NULL, group, 0);
}

/* All of them, or those that take replicas off `node`. */
static enum ferry_err take_back_all(struct meta *m, uint32_t node)
{
    enum ferry_err err = FERRY_OK;
    for (size_t i = m->move_count; i > 0 && err == FERRY_OK; i--) {
        const struct plan_step *s = &m->moves[i - 1].move.step;
        bool leaves = is_among(s->from, s->replicas, node) && !is_among(s->to, s->replicas, node);
        if (node == 0 || leaves) {
            err = take_back(m, s->group);
        }
    }
    m->must_look = true;
    return err;
}

enum ferry_err meta_moves_undrain(struct meta *m, uint32_t node)
{
    return take_back_all(m, node);
}

enum ferry_err meta_abort_moves(struct meta *m, int64_t now_ms, int64_t now_us,
                                struct meta_ticket *t)
{
    if (!replica_is_ready(m->replica)) {
        return replica_check_leader(m->replica);
    }
    if (m->move_count == 0 && !is_emptying(m)) {
        return FERRY_OK;
    }
    pack_array(&t->payload, 1);
    pack_uint(&t->payload, META_MOVES_ABORT);
    return meta_propose(m, t, now_ms, now_us);
}

enum ferry_err meta_apply_abort(struct meta *m, struct unpack *u)
{
    if (unpack_end(u) != FERRY_OK) {
        return FERRY_ERR_CORRUPT;
    }
    for (size_t i = 0; i < m->node_count; i++) {
        m->nodes[i]->dirty = m->nodes[i]->dirty || m->nodes[i]->emptying;
        m->nodes[i]->emptying = false;
    }
    return take_back_all(m, 0);
}

/* ---- Done ---- */

static bool is_same_set(const uint32_t *a, const uint32_t *b, uint32_t count)
{
    bool same = true;
    for (uint32_t k = 0; k < count; k++) {
        same = same && is_among(b, count, a[k]) && is_among(a, count, b[k]);
    }
    return same;
}

/* Are these the nodes that the group is to be on now? */
static bool is_reached(const struct meta_move *move, const uint32_t *nodes, uint32_t count)
{
#ifdef MUT_54 /* a late report of an order that was taken back counts */
    return move->state != META_MOVE_PLANNED;
#endif
    if (move->state == META_MOVE_PLANNED || count != move->step.replicas) {
        return false;
    }
    bool reverting = move->state == META_MOVE_REVERTING;
    return is_same_set(reverting ? move->step.from : move->step.to, nodes, count);
}

enum ferry_err meta_move_done(struct meta *m, uint64_t group, const uint32_t *nodes, uint32_t count,
                              int64_t now_ms, int64_t now_us, struct meta_ticket *t)
{
    if (!replica_is_ready(m->replica)) {
        return replica_check_leader(m->replica);
    }
    const struct meta_move *move = meta_move_of(m, group);
    if (move == NULL || !is_reached(move, nodes, count)) {
        return FERRY_OK;
    }
    pack_array(&t->payload, 3);
    pack_uint(&t->payload, META_MOVE_DONE);
    pack_uint(&t->payload, group);
    pack_array(&t->payload, count);
    for (uint32_t k = 0; k < count; k++) {
        pack_uint(&t->payload, nodes[k]);
    }
    return meta_propose(m, t, now_ms, now_us);
}

static enum ferry_err finish(struct meta *m, const struct meta_move *move)
{
    const struct plan_step step = move->step;
    uint32_t partition = 0;
    if (move->state == META_MOVE_ACTIVE) {
        struct topic_row *row = meta_topic_row_of(m, step.group, &partition);
        memcpy(row->nodes + (size_t)partition * step.replicas, step.to,
               step.replicas * sizeof(*step.to));
        row->dirty = true;
        m->moves_done++;
    }
    enum ferry_err err = remove_move(m, step.group);
    return err != FERRY_OK ? err : meta_push_change(m, META_PLACEMENT_CHANGED, NULL, step.group, 0);
}

enum ferry_err meta_apply_move_done(struct meta *m, struct unpack *u)
{
    uint32_t nodes[RING_REPLICAS_MAX] = {0};
    uint64_t group = unpack_uint(u, UINT64_MAX);
    uint32_t count = unpack_array(u, RING_REPLICAS_MAX);
    for (uint32_t k = 0; k < count; k++) {
        nodes[k] = (uint32_t)unpack_uint(u, META_NODE_ID_MAX);
    }
    unpack_array_end(u);
    if (unpack_end(u) != FERRY_OK) {
        return FERRY_ERR_CORRUPT;
    }
    const struct meta_move *move = meta_move_of(m, group);
    return move != NULL && is_reached(move, nodes, count) ? finish(m, move) : FERRY_OK;
}
