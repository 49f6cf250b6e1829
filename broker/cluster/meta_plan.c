/* What the planner is asked: topics and nodes as the metadata has them. */
#include "base/mem.h"
#include "cluster/meta_internal.h"

/* All topics as they will be when the moves that run are done. */
struct wanted_topics {
    struct plan_topic *topics;
    uint32_t **copies; /* Placements with moves in them; the others are the topics' own. */
    size_t count;
};

static void free_topics(struct wanted_topics *w)
{
    for (size_t i = 0; i < w->count && w->copies != NULL; i++) {
        mem_free(w->copies[i]);
    }
    mem_free((void *)w->copies);
    mem_free(w->topics);
}

static enum ferry_err take_topic(const struct meta *m, struct wanted_topics *w, size_t i)
{
    const struct meta_topic *t = &m->groups[i]->topic;
    w->topics[i] = (struct plan_topic){.id = t->id,
                                       .first_group = t->first_group,
                                       .partitions = t->partitions,
                                       .replicas = t->replicas,
                                       .placement = t->placement};
    size_t at = meta_move_after(m, t->first_group - 1);
    if (at >= m->move_count || m->moves[at].move.step.group >= t->first_group + t->partitions) {
        return FERRY_OK;
    }
    size_t nodes = (size_t)t->partitions * t->replicas;
    w->copies[i] = mem_dup(t->placement, nodes * sizeof(*t->placement));
    if (w->copies[i] == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    w->topics[i].placement = w->copies[i];
    for (; at < m->move_count; at++) {
        const struct meta_move *move = &m->moves[at].move;
        uint64_t p = move->step.group - t->first_group;
        if (p < t->partitions && move->state != META_MOVE_REVERTING) {
            memcpy(w->copies[i] + p * t->replicas, move->step.to, t->replicas * sizeof(uint32_t));
        }
    }
    return FERRY_OK;
}

static enum ferry_err take_topics(const struct meta *m, struct wanted_topics *w)
{
    *w = (struct wanted_topics){.count = m->topic_count};
    w->topics = mem_zalloc(m->topic_count + 1, sizeof(*w->topics));
    w->copies = mem_zalloc(m->topic_count + 1, sizeof(uint32_t *));
    enum ferry_err err = w->topics != NULL && w->copies != NULL ? FERRY_OK : FERRY_ERR_NO_MEMORY;
    for (size_t i = 0; i < m->topic_count && err == FERRY_OK; i++) {
        err = take_topic(m, w, i);
    }
    return err;
}

enum ferry_err meta_plan(const struct meta *m, struct plan *plan)
{
    struct plan_node nodes[META_NODES_MAX];
    struct wanted_topics w;
    enum ferry_err err = take_topics(m, &w);
    if (err == FERRY_OK) {
        err = plan_balance(nodes, meta_plan_nodes(m, nodes), w.topics, w.count, plan);
    }
    free_topics(&w);
    return err;
}

enum ferry_err meta_plan_emptying(const struct meta *m, uint32_t draining, struct plan *plan)
{
    struct plan_node nodes[META_NODES_MAX];
    struct wanted_topics w;
    size_t count = meta_plan_nodes(m, nodes);
    for (size_t i = 0; i < count; i++) {
        nodes[i].draining = nodes[i].draining || nodes[i].id == draining;
    }
    enum ferry_err err = take_topics(m, &w);
    if (err == FERRY_OK) {
        err = plan_evacuate(nodes, count, w.topics, w.count, plan);
    }
    free_topics(&w);
    return err;
}
