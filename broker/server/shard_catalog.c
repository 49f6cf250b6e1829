/* Topics rolled out to the shards of this node: what the metadata says is here is opened, what is
 * not is closed and deleted; and those who asked for a topic are answered when it is there. */
#include "base/log.h"
#include "base/mem.h"
#include "server/shard_internal.h"

#define ROLLOUT_MS 30000 /* When the asker does not say how long it waits. */

/* ---- Rollouts ---- */

struct rollout *shard_find_rollout(const struct shard *s, const struct ferry_id *topic_id)
{
    for (const struct list *n = s->rollouts.next; n != &s->rollouts; n = n->next) {
        struct rollout *r = list_entry(n, struct rollout, node);
        if (id_equal(&r->topic_id, topic_id)) {
            return r;
        }
    }
    return NULL;
}

static void finish_rollout(struct shard *s, struct rollout *rollout)
{
    list_remove(&rollout->node);
    if (rollout->request != NULL) {
        shard_finish_topic(s, rollout->request, rollout->err, &rollout->topic_id);
    }
    mem_free(rollout);
}

static struct rollout *begin_rollout(struct shard *s, const struct meta_topic *topic, bool created,
                                     uint32_t remaining)
{
    struct rollout *rollout = mem_zalloc(1, sizeof(*rollout));
    if (rollout == NULL) {
        shard_fail_store(s, FERRY_ERR_NO_MEMORY);
        return NULL;
    }
    list_init(&rollout->node);
    rollout->topic_id = topic->id;
    rollout->created = created;
    rollout->first_group = topic->first_group;
    rollout->partitions = topic->partitions;
    rollout->remaining = remaining;
    rollout->until_us = s->now_us + (int64_t)ROLLOUT_MS * 1000;
    list_push_back(&s->rollouts, &rollout->node);
    return rollout;
}

struct rollout *shard_roll_out_again(struct shard *s, const struct ferry_id *topic_id)
{
    const struct meta_topic *topic;
    for (size_t i = 0; (topic = meta_topic_at(s->meta, i)) != NULL; i++) {
        if (!id_equal(&topic->id, topic_id)) {
            continue;
        }
        uint32_t without = 0;
        for (uint32_t p = 0; p < topic->partitions; p++) {
            without += shard_leader_of(s, topic->first_group + p) == 0 ? 1 : 0;
        }
        return without > 0 ? begin_rollout(s, topic, true, without) : NULL;
    }
    return NULL;
}

void shard_await_rollout(struct shard *s, struct request *r)
{
    struct rollout *rollout = shard_find_rollout(s, &r->meta_ticket.topic_id);
    if (rollout == NULL && r->command == COMMAND_TOPIC_DELETE) {
        shard_reply_empty(s, r); /* Nothing of it was here. */
    } else if (rollout == NULL) {
        /* Another request made or deleted it in the same turn. */
        shard_reply_error(s, r, FERRY_ERR_NOT_READY, "the topic was just changed: ask again");
    } else if (rollout->request != NULL) {
        shard_reply_error(s, r, FERRY_ERR_NOT_READY, "the topic is being changed: ask again");
    } else {
        rollout->request = r;
        if (r->timeout_ms > 0 && r->timeout_ms < ROLLOUT_MS) {
            rollout->until_us = s->now_us + (int64_t)r->timeout_ms * 1000;
        }
    }
}

static void count_down(struct shard *s, struct rollout *rollout)
{
    must(rollout->remaining > 0);
    if (--rollout->remaining == 0) {
        finish_rollout(s, rollout);
    }
}

void shard_count_led(struct shard *s, uint64_t group)
{
    for (struct list *n = s->rollouts.next; n != &s->rollouts; n = n->next) {
        struct rollout *r = list_entry(n, struct rollout, node);
        if (r->created && group >= r->first_group && group - r->first_group < r->partitions) {
            count_down(s, r);
            return;
        }
    }
}

/* Those whose time is over, or all: this node no longer leads the metadata, or ends. */
void shard_expire_rollouts(struct shard *s, bool all)
{
    for (struct list *n = s->rollouts.next; n != &s->rollouts;) {
        struct rollout *r = list_entry(n, struct rollout, node);
        n = n->next;
        if (!all && s->now_us < r->until_us) {
            continue;
        }
        list_remove(&r->node);
        if (r->request != NULL && all) {
            shard_reply_error(s, r->request, FERRY_ERR_NOT_LEADER, "");
        } else if (r->request != NULL) {
            shard_reply_error(s, r->request, FERRY_ERR_NOT_READY,
                              "the topic is logged; not all its partitions have a leader yet: see "
                              "`ferry cluster status`");
        }
        mem_free(r);
    }
}

void shard_forget_rollouts(struct shard *s)
{
    for (struct list *n; (n = list_pop_front(&s->rollouts)) != NULL;) {
        mem_free(list_entry(n, struct rollout, node));
    }
}

/* ---- Mail that waits for the metadata's rows ---- */

/* What deletes data must not be ahead of the rows that say so: a node that starts again with older
 * ones would open the group anew, empty, as a founder that votes, while others still have it. */
struct unflushed {
    struct list node;
    uint64_t index; /* Of the metadata, that the mail follows from. */
    struct mail mail;
};

/* `index` 0: at once, but not past what waits. */
static void post_after(struct shard *s, struct mail *mail, uint64_t index)
{
    bool waits = index > replica_flushed(s->meta_seat->replica) || !list_is_empty(&s->unflushed);
    if (!waits) {
        shard_post(s, mail);
        return;
    }
    struct unflushed *u = mem_zalloc(1, sizeof(*u));
    if (u == NULL) {
        shard_fail_store(s, FERRY_ERR_NO_MEMORY);
        return;
    }
    list_init(&u->node);
    u->index = index;
    u->mail = *mail;
    list_push_back(&s->unflushed, &u->node);
    replica_ask_flush(s->meta_seat->replica);
    shard_touch(s, s->meta_seat);
}

static void post_when_flushed(struct shard *s, struct mail *mail)
{
    post_after(s, mail, replica_applied(s->meta_seat->replica));
}

void shard_post_flushed(struct shard *s)
{
    while (!list_is_empty(&s->unflushed)) {
        struct unflushed *u = list_entry(s->unflushed.next, struct unflushed, node);
        if (u->index > replica_flushed(s->meta_seat->replica)) {
            return;
        }
        list_remove(&u->node);
        shard_post(s, &u->mail);
        mem_free(u);
    }
}

void shard_forget_unflushed(struct shard *s)
{
    for (struct list *n; (n = list_pop_front(&s->unflushed)) != NULL;) {
        mem_free(list_entry(n, struct unflushed, node));
    }
}

/* ---- What a shard is told of a partition ---- */

/* Who founded the group: the members that its nodes had when the topic was made. Where one of them
 * has another life now, that is not known here; then the replica waits to be fed, which is always
 * right, for a group that has committed anything has others that know. */
static void fill_founders(const struct shard *s, const struct meta_topic *topic, uint32_t partition,
                          struct mail *mail)
{
    const uint32_t *nodes = topic->placement + (size_t)partition * topic->replicas;
    mail->initial_count = 0;
    bool here = false;
    for (uint32_t i = 0; i < topic->replicas && i < REPLICAS_MAX; i++) {
        const struct meta_node *n = meta_node_find(s->meta, nodes[i]);
        /* A topic from before there were nodes is of the node that it is on. */
        if (n == NULL || (topic->created_index != 0 && n->member_index > topic->created_index)) {
            mail->initial_count = 0;
            return;
        }
        mail->initial[mail->initial_count++] = n->member;
        here = here || n->member == s->self;
    }
    mail->initial_count = here ? mail->initial_count : 0;
}

static void fill_target(const struct shard *s, struct mail *mail)
{
    uint32_t nodes[RING_REPLICAS_MAX];
    uint32_t count = meta_target(s->meta, mail->group, nodes);
    const struct meta_move *move = meta_move_of(s->meta, mail->group);
    mail->target_count = count < REPLICAS_MAX ? count : REPLICAS_MAX;
    memcpy(mail->target, nodes, mail->target_count * sizeof(nodes[0]));
    mail->moving = move != NULL && move->state != META_MOVE_PLANNED;
}

/* True when the partition is to be here. */
static bool post_partition(struct shard *s, const struct meta_topic *topic, uint32_t partition,
                           bool just_made)
{
    uint64_t group = topic->first_group + partition;
    uint32_t self = node_of_member(s->self);
    if (!meta_holds(s->meta, group, self)) {
        return false;
    }
    struct mail mail = {.kind = MAIL_OPEN,
                        .group = group,
                        .topic_id = topic->id,
                        .partition = (int32_t)partition,
                        .generation = s->generation,
                        .settings = topic->settings};
    memcpy(mail.topic, topic->name, sizeof(mail.topic));
    fill_founders(s, topic, partition, &mail);
    fill_target(s, &mail);
    mail.campaign = just_made && mail.target_count > 0 && mail.target[0] == self;
    post_after(s, &mail, 0);
    return true;
}

/* ---- The whole catalog ---- */

/* Every partition that is placed here is opened. With `sweep` the copy of the metadata is complete:
 * what it does not name is closed and deleted. */
void shard_send_catalog(struct shard *s, bool sweep)
{
    const struct meta_topic *topic;
    s->generation++;
    s->catalog_sent = true;
    s->swept = s->swept || sweep;
    for (size_t i = 0; (topic = meta_topic_at(s->meta, i)) != NULL; i++) {
        for (uint32_t p = 0; p < topic->partitions; p++) {
            bool here = post_partition(s, topic, p, false);
            s->opening += here && s->generation == 1 ? 1 : 0;
        }
    }
    shard_send_quotas(s);
    for (uint32_t i = 0; i < s->peer_count; i++) {
        struct mail keep = {
            .kind = MAIL_KEEP, .group = i, .generation = s->generation, .sweep = sweep};
        post_after(s, &keep, sweep ? replica_applied(s->meta_seat->replica) : 0);
    }
}

/* ---- Quotas ---- */

/* All of them to each shard: they are few, and change seldom. */
void shard_send_quotas(struct shard *s)
{
    for (uint32_t i = 0; i < s->peer_count; i++) {
        struct mail mail = {.kind = MAIL_QUOTAS, .group = i};
        const struct meta_quota *q;
        buf_init(&mail.text, QUOTAS_MAX * sizeof(*q));
        for (size_t k = 0; (q = meta_quota_at(s->meta, k)) != NULL; k++) {
            buf_append(&mail.text, q, sizeof(*q));
        }
        shard_post(s, &mail);
    }
}

void shard_take_opened(struct shard *s, const struct mail *mail)
{
    struct rollout *rollout = shard_find_rollout(s, &mail->topic_id);
    if (mail->kind == MAIL_DROPPED) {
        uint32_t partition;
        if (meta_topic_of_group(s->meta, mail->group, &partition) == NULL) {
            shard_forget_leader(s, mail->group);
        }
        if (rollout != NULL && !rollout->created) {
            count_down(s, rollout);
        }
        return;
    }
    if (rollout != NULL && rollout->created && mail->err != FERRY_OK && s->node_count <= 1) {
        rollout->err = mail->err; /* Nobody else could lead it. */
        count_down(s, rollout);
    }
    if (s->opening > 0) {
        s->opening--;
        (void)atomic_fetch_add(&s->unserved, mail->err != FERRY_OK ? 1 : 0);
    }
}

void shard_take_found(struct shard *s, uint64_t group)
{
    uint32_t partition;
    const struct meta_topic *topic = meta_topic_of_group(s->meta, group, &partition);
    if (topic == NULL || !meta_holds(s->meta, group, node_of_member(s->self))) {
        struct mail mail = {.kind = MAIL_DROP, .group = group, .is_over = topic == NULL};
        post_when_flushed(s, &mail);
    }
}

/* ---- Changes ---- */

static void take_created(struct shard *s, const struct meta_topic *topic)
{
    /* Tables may be ahead of the change: only what is still there is rolled out. */
    if (meta_topic_find(s->meta, bytes_of_string(topic->name)) == NULL) {
        return;
    }
    if (s->meta_leads && begin_rollout(s, topic, true, topic->partitions) == NULL) {
        return;
    }
    for (uint32_t p = 0; p < topic->partitions; p++) {
        (void)post_partition(s, topic, p, true);
    }
}

static void take_deleted(struct shard *s, const struct meta_topic *topic)
{
    struct rollout *made = shard_find_rollout(s, &topic->id);
    if (made != NULL) {
        made->err = FERRY_ERR_UNKNOWN_TOPIC;
        finish_rollout(s, made);
    }
    if (s->meta_leads && begin_rollout(s, topic, false, topic->partitions) == NULL) {
        return;
    }
    /* All of them: a move may have had one here that the placement does not name. */
    for (uint32_t p = 0; p < topic->partitions; p++) {
        struct mail mail = {.kind = MAIL_DROP,
                            .group = topic->first_group + p,
                            .topic_id = topic->id,
                            .is_over = true};
        post_when_flushed(s, &mail);
    }
}

static void take_placement(struct shard *s, uint64_t group)
{
    uint32_t partition;
    const struct meta_topic *topic = meta_topic_of_group(s->meta, group, &partition);
    if (topic != NULL && !post_partition(s, topic, partition, false)) {
        struct mail mail = {.kind = MAIL_DROP, .group = group, .topic_id = topic->id};
        post_when_flushed(s, &mail);
    }
}

static void take_node(struct shard *s, uint32_t id)
{
    const struct meta_node *n = meta_node_find(s->meta, id);
    bool self = id == node_of_member(s->self);
    if (self && (n == NULL || n->member != s->self) && meta_member_is_gone(s->meta, s->self)) {
        shard_end(s, FERRY_ERR_NODE_REPLACED, "");
        return;
    }
    if (n == NULL) {
        shard_unlearn_node(s, id);
    } else {
        struct node_record r = shard_record_of(n);
        shard_learn_node(s, &r);
    }
    if (s->meta_seat != NULL && s->meta_leads) {
        shard_look_at_members(s, s->meta_seat);
    }
}

static void take_all(struct shard *s)
{
    const struct meta_node *n;
    for (size_t i = 0; (n = meta_node_at(s->meta, i)) != NULL; i++) {
        take_node(s, n->id);
    }
    for (size_t i = s->node_count; i > 0; i--) {
        uint32_t id = s->nodes[i - 1]->id;
        if (meta_node_find(s->meta, id) == NULL && meta_node_count(s->meta) > 0 &&
            id != node_of_member(s->self) &&
            meta_member_is_gone(s->meta, s->nodes[i - 1]->member)) {
            shard_unlearn_node(s, id);
        }
    }
    if (s->catalog_sent) {
        shard_send_catalog(s, s->swept);
    }
}

void shard_take_change(struct shard *s, const struct meta_change *change)
{
    if (change->kind == META_NODE_CHANGED) {
        take_node(s, change->node_id);
        return;
    }
    if (change->kind == META_ALL_CHANGED) {
        take_all(s);
        return;
    }
    if (!s->catalog_sent) {
        return; /* It is replayed: the catalog has it. */
    }
    if (change->kind == META_QUOTAS_CHANGED) {
        shard_send_quotas(s);
    } else if (change->kind == META_TOPIC_CREATED) {
        take_created(s, &change->topic);
    } else if (change->kind == META_TOPIC_DELETED) {
        take_deleted(s, &change->topic);
    } else {
        take_placement(s, change->group);
    }
}
