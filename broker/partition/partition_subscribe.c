/* Subscriptions of a partition: create, delete, commit, ask. */
#include "partition/partition_internal.h"

static int64_t resolve_from(const struct partition *p, int64_t from)
{
    if (from == FERRY_FROM_START || (from >= 0 && from < p->start_offset)) {
        return p->start_offset;
    }
    return from == FERRY_FROM_END || from > p->next_offset ? p->next_offset : from;
}

enum ferry_err partition_subscription_create(struct partition *p, struct bytes name, uint32_t mode,
                                             int64_t from, int64_t now_ms, int64_t now_us,
                                             struct partition_ticket *t)
{
    enum ferry_err err = partition_check_leader(p);
    if (err != FERRY_OK) {
        return err;
    }
    if (!name_is_valid(name)) {
        return FERRY_ERR_BAD_NAME;
    }
    if (mode != SUBSCRIPTION_STREAM || from < FERRY_FROM_START) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    const struct subscription *s = subscriptions_find(&p->subscriptions, name);
    if (s != NULL) {
        t->position = s->position;
        return s->mode == mode ? FERRY_OK : FERRY_ERR_SUBSCRIPTION_EXISTS;
    }
    if (p->subscriptions.count >= PARTITION_SUBSCRIPTIONS_MAX) {
        return FERRY_ERR_LIMIT_REACHED;
    }
    t->position = resolve_from(p, from);
    struct control c = {
        .kind = CONTROL_SUBSCRIPTION_CREATE, .name = name, .mode = mode, .position = t->position};
    return partition_propose_control(p, &c, now_ms, now_us, t);
}

enum ferry_err partition_subscription_delete(struct partition *p, struct bytes name, int64_t now_ms,
                                             int64_t now_us, struct partition_ticket *t)
{
    enum ferry_err err = partition_check_leader(p);
    if (err != FERRY_OK) {
        return err;
    }
    if (subscriptions_find(&p->subscriptions, name) == NULL) {
        return FERRY_ERR_UNKNOWN_SUBSCRIPTION;
    }
    struct control c = {.kind = CONTROL_SUBSCRIPTION_DELETE, .name = name};
    return partition_propose_control(p, &c, now_ms, now_us, t);
}

enum ferry_err partition_subscription_commit(struct partition *p, struct bytes name,
                                             int64_t position, int64_t now_ms, int64_t now_us,
                                             struct partition_ticket *t)
{
    enum ferry_err err = partition_check_leader(p);
    if (err != FERRY_OK) {
        return err;
    }
    const struct subscription *s = subscriptions_find(&p->subscriptions, name);
    if (s == NULL) {
        return FERRY_ERR_UNKNOWN_SUBSCRIPTION;
    }
    if (position < 0 || position > p->next_offset) {
        return FERRY_ERR_OFFSET_OUT_OF_RANGE;
    }
    t->position = position > s->position ? position : s->position;
    if (position <= s->position) {
        return FERRY_OK; /* Nothing would change: no entry. */
    }
    struct control c = {.kind = CONTROL_SUBSCRIPTION_COMMIT, .name = name, .position = position};
    return partition_propose_control(p, &c, now_ms, now_us, t);
}

enum ferry_err partition_subscription_get(struct partition *p, struct bytes name, int64_t now_ms,
                                          struct subscription_get_reply *reply)
{
    enum ferry_err err = partition_check_leader(p);
    if (err != FERRY_OK) {
        return err;
    }
    const struct subscription *s = subscriptions_find(&p->subscriptions, name);
    if (s == NULL) {
        return FERRY_ERR_UNKNOWN_SUBSCRIPTION;
    }
    *reply = (struct subscription_get_reply){.mode = s->mode,
                                             .position = s->position,
                                             .start_offset = p->start_offset,
                                             .end_offset = p->next_offset};
    if (s->position >= p->next_offset) {
        return FERRY_OK;
    }
    int64_t oldest = s->position > p->start_offset ? s->position : p->start_offset;
    int64_t time_ms = now_ms;
    err = partition_time_of(p, oldest, &time_ms);
    reply->lag_ms = now_ms > time_ms ? now_ms - time_ms : 0;
    return err;
}

void partition_subscription_list(const struct partition *p, struct bytes after,
                                 struct names_reply *reply)
{
    size_t at = subscriptions_after(&p->subscriptions, after);
    reply->count = 0;
    for (; at < p->subscriptions.count && reply->count < LIST_NAMES_MAX; at++) {
        const struct subscription *s = p->subscriptions.items[at];
        reply->names[reply->count++] = bytes_of(s->name, s->name_bytes);
    }
    reply->more = at < p->subscriptions.count;
}
