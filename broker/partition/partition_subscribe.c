/* Subscriptions of a partition: create, alter, reset, delete, claim, commit, ask. */
#include "partition/partition_internal.h"
#include "partition/subscription_entry.h"

static int64_t resolve_from(const struct partition *p, int64_t from)
{
    if (from == FERRY_FROM_START || (from >= 0 && from < p->start_offset)) {
        return p->start_offset;
    }
    return from == FERRY_FROM_END || from > p->next_offset ? p->next_offset : from;
}

static enum ferry_err propose(struct partition *p, const struct subscription_entry *e,
                              int64_t now_ms, int64_t now_us, struct partition_ticket *t)
{
    buf_clear(&t->payload);
    subscription_entry_encode(&t->payload, e);
    return partition_propose_payload(p, now_ms, now_us, t);
}

/* The leader's, by name. Errors: as partition_check_leader, UNKNOWN_SUBSCRIPTION. */
static enum ferry_err find(const struct partition *p, struct bytes name, struct subscription **s)
{
    enum ferry_err err = partition_check_leader(p);
    *s = NULL;
    if (err == FERRY_OK) {
        *s = subscriptions_find(&p->subscriptions, name);
        err = *s != NULL ? FERRY_OK : FERRY_ERR_UNKNOWN_SUBSCRIPTION;
    }
    return err;
}

/* ---- Requests ---- */

static enum ferry_err check_make(const struct subscription_create_request *q)
{
    if (!name_is_valid(q->name)) {
        return FERRY_ERR_BAD_NAME;
    }
    bool mode = q->mode >= SUBSCRIPTION_STREAM && q->mode <= SUBSCRIPTION_KEYED;
    return mode && q->from >= FERRY_FROM_START ? FERRY_OK : FERRY_ERR_INVALID_ARGUMENT;
}

enum ferry_err partition_subscription_make(struct partition *p,
                                           const struct subscription_create_request *q,
                                           struct bytes who, int64_t now_ms, int64_t now_us,
                                           struct partition_ticket *t)
{
    struct subscription_entry e = {
        .kind = CONTROL_SUBSCRIPTION_CREATE, .name = q->name, .mode = q->mode, .who = who};
    enum ferry_err err = partition_check_leader(p);
    if (err == FERRY_OK) {
        err = check_make(q);
    }
    if (err == FERRY_OK) {
        err = subscription_settings_make(q, &e.settings);
    }
    if (err != FERRY_OK) {
        return err;
    }
    const struct subscription *s = subscriptions_find(&p->subscriptions, q->name);
    if (s != NULL) {
        t->position = subscription_position(s);
        return s->mode == q->mode ? FERRY_OK : FERRY_ERR_SUBSCRIPTION_EXISTS;
    }
    if (p->subscriptions.count >= PARTITION_SUBSCRIPTIONS_MAX) {
        return FERRY_ERR_LIMIT_REACHED;
    }
    t->position = e.position = resolve_from(p, q->from);
    return propose(p, &e, now_ms, now_us, t);
}

enum ferry_err partition_subscription_create(struct partition *p, struct bytes name, uint32_t mode,
                                             int64_t from, int64_t now_ms, int64_t now_us,
                                             struct partition_ticket *t)
{
    struct subscription_create_request q = {
        .name = name, .mode = mode, .from = from, .priority_age_ms = SETTING_AS_IS};
    return partition_subscription_make(p, &q, bytes_of(NULL, 0), now_ms, now_us, t);
}

enum ferry_err partition_subscription_alter(struct partition *p,
                                            const struct subscription_alter_request *q,
                                            struct bytes who, int64_t now_ms, int64_t now_us,
                                            struct partition_ticket *t)
{
    struct subscription *s;
    struct subscription_entry e = {
        .kind = CONTROL_SUBSCRIPTION_ALTER, .name = q->name, .pause = q->pause, .who = who};
    enum ferry_err err = find(p, q->name, &s);
    if (err == FERRY_OK) {
        err = subscription_settings_ask(q, &e.settings);
    }
    if (err == FERRY_OK && q->pause > 2) {
        err = FERRY_ERR_INVALID_ARGUMENT;
    }
    return err == FERRY_OK ? propose(p, &e, now_ms, now_us, t) : err;
}

enum ferry_err partition_subscription_reset(struct partition *p,
                                            const struct subscription_reset_request *q,
                                            struct bytes who, int64_t now_ms, int64_t now_us,
                                            struct partition_ticket *t)
{
    struct subscription *s;
    enum ferry_err err = find(p, q->name, &s);
    if (err != FERRY_OK || q->to < FERRY_FROM_START) {
        return err != FERRY_OK ? err : FERRY_ERR_INVALID_ARGUMENT;
    }
    t->base_offset = subscription_position(s);
    t->position = resolve_from(p, q->to);
    if (q->dry_run) {
        return FERRY_OK;
    }
    struct subscription_entry e = {
        .kind = CONTROL_SUBSCRIPTION_RESET, .name = q->name, .position = t->position, .who = who};
    return propose(p, &e, now_ms, now_us, t);
}

enum ferry_err partition_subscription_delete(struct partition *p, struct bytes name, int64_t now_ms,
                                             int64_t now_us, struct partition_ticket *t)
{
    struct subscription *s;
    struct subscription_entry e = {.kind = CONTROL_SUBSCRIPTION_DELETE, .name = name};
    enum ferry_err err = find(p, name, &s);
    return err == FERRY_OK ? propose(p, &e, now_ms, now_us, t) : err;
}

/* ---- Claims and commits ---- */

static bool may_claim(const struct subscription *s, uint64_t epoch)
{
    return epoch >= s->epoch;
}

/* Who has not claimed since a reset may be telling of what was before it. */
static bool may_commit(const struct subscription *s, uint64_t epoch)
{
#ifdef MUT_76 /* a commit of an old epoch counts */
    return s != NULL && epoch <= UINT64_MAX;
#endif
    if (epoch == 0) {
        return !s->claimed;
    }
    return epoch > s->epoch || (epoch == s->epoch && s->claimed);
}

enum ferry_err partition_subscription_claim(struct partition *p,
                                            const struct subscription_claim_request *q,
                                            int64_t now_ms, int64_t now_us,
                                            struct partition_ticket *t)
{
    struct subscription *s;
    enum ferry_err err = find(p, q->name, &s);
    if (err != FERRY_OK) {
        return err;
    }
    if (!name_is_valid(q->member)) {
        return FERRY_ERR_BAD_NAME;
    }
    if (s->mode != SUBSCRIPTION_STREAM || q->epoch == 0) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    if (!may_claim(s, q->epoch)) {
        return FERRY_ERR_MEMBER_FENCED;
    }
    /* The entry comes behind what an older member has under way, so its commits count. */
    t->position = s->position;
    struct subscription_entry e = {.kind = CONTROL_SUBSCRIPTION_CLAIM,
                                   .name = q->name,
                                   .member = q->member,
                                   .epoch = q->epoch};
    return propose(p, &e, now_ms, now_us, t);
}

enum ferry_err partition_subscription_commit_as(struct partition *p, struct bytes name,
                                                int64_t position, uint64_t epoch, int64_t now_ms,
                                                int64_t now_us, struct partition_ticket *t)
{
    struct subscription *s;
    enum ferry_err err = find(p, name, &s);
    if (err != FERRY_OK) {
        return err;
    }
    if (s->mode != SUBSCRIPTION_STREAM) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    if (position < 0 || position > p->next_offset) {
        return FERRY_ERR_OFFSET_OUT_OF_RANGE;
    }
    if (!may_commit(s, epoch)) {
        return FERRY_ERR_MEMBER_FENCED;
    }
    t->position = position > s->position ? position : s->position;
    if (position <= s->position) {
        return FERRY_OK; /* Nothing would change: no entry. */
    }
    struct subscription_entry e = {
        .kind = CONTROL_SUBSCRIPTION_COMMIT, .name = name, .position = position, .epoch = epoch};
    return propose(p, &e, now_ms, now_us, t);
}

enum ferry_err partition_subscription_commit(struct partition *p, struct bytes name,
                                             int64_t position, int64_t now_ms, int64_t now_us,
                                             struct partition_ticket *t)
{
    return partition_subscription_commit_as(p, name, position, 0, now_ms, now_us, t);
}

/* ---- Applying. What a request was told when it was proposed may have changed by then: its answer
 * is how things are now. ---- */

static const char *mode_text(uint32_t mode)
{
    return mode == SUBSCRIPTION_STREAM  ? "mode stream"
           : mode == SUBSCRIPTION_QUEUE ? "mode queue"
                                        : "mode keyed";
}

static enum ferry_err apply_create(struct partition *p, uint64_t index, int64_t time_ms,
                                   const struct subscription_entry *e)
{
    if (e->mode < SUBSCRIPTION_STREAM || e->mode > SUBSCRIPTION_KEYED ||
        e->position > p->next_offset) {
        return FERRY_ERR_CORRUPT;
    }
    uint64_t number = e->has_settings ? index : subscription_old_number(e->name);
    enum ferry_err err = subscriptions_create(&p->subscriptions, e->name, number, e->mode,
                                              e->position, &e->settings);
    if (err != FERRY_OK || !e->has_settings) {
        return err;
    }
    return partition_note_event(p, subscriptions_find(&p->subscriptions, e->name),
                                MEMBER_EVENT_CREATED, time_ms, e->who,
                                bytes_of_string(mode_text(e->mode)));
}

/* Whether it was altered beside being paused or resumed. */
static bool asks_for_settings(const struct subscription_entry *e)
{
    const struct delivery_settings *s = &e->settings;
    return s->lease_ms != 0 || s->max_deliveries != 0 || s->backoff_min_ms != 0 ||
           s->backoff_max_ms != 0 || s->key_policy != 0 || s->inflight_max != 0 ||
           s->priority_age_ms != SETTING_AS_IS;
}

static enum ferry_err note_alter(struct partition *p, struct subscription *s, int64_t time_ms,
                                 const struct subscription_entry *e)
{
    struct bytes none = {0};
    enum ferry_err err = FERRY_OK;
    if (e->pause != 0) {
        err = partition_note_event(p, s, s->paused ? MEMBER_EVENT_PAUSED : MEMBER_EVENT_RESUMED,
                                   time_ms, e->who, none);
    }
    if (err == FERRY_OK && s->delivery != NULL && asks_for_settings(e)) {
        err = partition_note_event(p, s, MEMBER_EVENT_ALTERED, time_ms, e->who, none);
    }
    return err;
}

static void apply_alter(struct subscription *s, const struct subscription_entry *e)
{
    if (e->pause != 0) {
        s->paused = e->pause == 1;
    }
    if (s->delivery != NULL) {
        subscription_settings_merge(&s->settings, &e->settings);
        delivery_set_settings(s->delivery, &s->settings);
    }
    s->dirty = true;
}

static enum ferry_err note_reset(struct partition *p, struct subscription *s, int64_t time_ms,
                                 const struct subscription_entry *e, int64_t from, int64_t to)
{
    struct buf why;
    buf_init(&why, REASON_MAX_BYTES);
    buf_printf(&why, "partition 0: from %lld to %lld", (long long)from, (long long)to);
    enum ferry_err err =
        partition_note_event(p, s, MEMBER_EVENT_RESET, time_ms, e->who, buf_bytes(&why));
    buf_fini(&why);
    return err;
}

static enum ferry_err apply_reset(struct partition *p, struct subscription *s, int64_t time_ms,
                                  const struct subscription_entry *e, struct partition_ticket *t)
{
    int64_t from = subscription_position(s);
    int64_t to = resolve_from(p, e->position);
    if (t != NULL) {
        t->base_offset = from;
        t->position = to;
    }
    s->dirty = true;
    enum ferry_err err = note_reset(p, s, time_ms, e, from, to);
    if (err != FERRY_OK || s->delivery != NULL) {
        return err != FERRY_OK ? err : delivery_apply_reset(s->delivery, to);
    }
    s->position = to;
#ifndef MUT_77 /* a reset keeps the claim: what was read before it is committed over it */
    s->claimed = false;
#endif
    if (s->members != NULL) {
        members_give_anew(s->members);
    }
    return FERRY_OK;
}

static bool apply_claim(struct subscription *s, const struct subscription_entry *e)
{
    if (s->mode != SUBSCRIPTION_STREAM || !may_claim(s, e->epoch)) {
        return false;
    }
    s->epoch = e->epoch;
    s->claimed = true;
    s->dirty = true;
    return true;
}

static bool apply_commit(struct subscription *s, const struct subscription_entry *e)
{
    if (s->mode != SUBSCRIPTION_STREAM || !may_commit(s, e->epoch)) {
        return false;
    }
    if (e->epoch > s->epoch) {
        s->epoch = e->epoch;
        s->claimed = true;
        s->dirty = true;
    }
    if (e->position > s->position) {
        s->position = e->position;
        s->dirty = true;
    }
    return true;
}

/* Of one that is there. */
static enum ferry_err apply_change(struct partition *p, struct subscription *s, int64_t time_ms,
                                   const struct subscription_entry *e, struct partition_ticket *t)
{
    bool allowed = true;
    switch (e->kind) {
    case CONTROL_SUBSCRIPTION_CREATE: /* Two were under way: the first one made it. */
        if (s->mode != e->mode) {
            partition_refuse(p, t, FERRY_ERR_SUBSCRIPTION_EXISTS);
            return FERRY_OK;
        }
        break;
    case CONTROL_SUBSCRIPTION_DELETE:
        return subscriptions_remove(&p->subscriptions, e->name);
    case CONTROL_SUBSCRIPTION_ALTER:
        apply_alter(s, e);
        return note_alter(p, s, time_ms, e);
    case CONTROL_SUBSCRIPTION_RESET:
        return apply_reset(p, s, time_ms, e, t);
    case CONTROL_SUBSCRIPTION_CLAIM:
        allowed = apply_claim(s, e);
        break;
    default:
        allowed = apply_commit(s, e);
    }
    if (!allowed) {
        partition_refuse(p, t, FERRY_ERR_MEMBER_FENCED);
    } else if (t != NULL) {
        t->position = subscription_position(s);
    }
    return FERRY_OK;
}

enum ferry_err partition_apply_subscription(struct partition *p, uint64_t index,
                                            const struct store_entry *entry)
{
    struct subscription_entry e;
    struct partition_ticket *t = partition_waiting(p, index);
    enum ferry_err err = subscription_entry_decode(entry->payload, &e);
    if (err != FERRY_OK) {
        return err;
    }
    struct subscription *s = subscriptions_find(&p->subscriptions, e.name);
    if (s == NULL && e.kind == CONTROL_SUBSCRIPTION_CREATE) {
        return apply_create(p, index, entry->append_time_ms, &e);
    }
    if (s == NULL) {
        partition_refuse(p, t, FERRY_ERR_UNKNOWN_SUBSCRIPTION);
        return FERRY_OK;
    }
    return apply_change(p, s, entry->append_time_ms, &e, t);
}

/* ---- Asking ---- */

/* Messages that nobody was given yet, and those that came back and whose back-off is over. */
static uint64_t count_ready(const struct partition *p, const struct delivery *d, int64_t now_ms,
                            uint64_t *due)
{
    int64_t after = INT64_MIN;
    struct delivery_run run;
    uint64_t fresh = (uint64_t)(p->next_offset - delivery_floor(d));
    *due = 0;
    while (delivery_next_run(d, &after, &run)) {
        fresh -= run.first >= delivery_floor(d) ? run.count : 0;
        *due += run.state == DELIVERY_WAITING && run.due_ms <= now_ms ? run.count : 0;
    }
    return fresh + *due;
}

static void tell_delivery(const struct partition *p, const struct subscription *s, int64_t now_ms,
                          struct subscription_get_reply *reply)
{
    const struct delivery_counters *c = delivery_counters(s->delivery);
    uint64_t due = 0;
    reply->lease_ms = s->settings.lease_ms;
    reply->max_deliveries = s->settings.max_deliveries;
    reply->backoff_min_ms = s->settings.backoff_min_ms;
    reply->backoff_max_ms = s->settings.backoff_max_ms;
    reply->key_policy = s->settings.key_policy;
    reply->inflight_max = s->settings.inflight_max;
    reply->priority_age_ms = s->settings.priority_age_ms;
    reply->ready = count_ready(p, s->delivery, now_ms, &due);
    reply->leased = c->leased;
    reply->waiting = c->waiting - due;
    reply->dead = c->dead;
    reply->acked = c->acked;
    reply->died = c->died;
    reply->expired = c->expired;
    reply->revived = c->revived;
    reply->handed_out = c->handed_out;
    reply->failed = c->failed;
    reply->released = c->released;
}

enum ferry_err partition_subscription_get(struct partition *p, struct bytes name, int64_t now_ms,
                                          struct subscription_get_reply *reply)
{
    struct subscription *s;
    enum ferry_err err = find(p, name, &s);
    if (err != FERRY_OK) {
        return err;
    }
    int64_t position = subscription_position(s);
    *reply = (struct subscription_get_reply){.mode = s->mode,
                                             .position = position,
                                             .start_offset = p->start_offset,
                                             .end_offset = p->next_offset,
                                             .paused = s->paused,
                                             .number = s->number,
                                             .epoch = s->epoch};
    if (s->delivery != NULL) {
        tell_delivery(p, s, now_ms, reply);
    }
    if (position >= p->next_offset) {
        return FERRY_OK;
    }
    int64_t oldest = position > p->start_offset ? position : p->start_offset;
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
