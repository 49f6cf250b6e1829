/* admin_subscriptions: the calls of ferry.h about subscriptions. A subscription lives in every
 * partition of its topic, so each call asks all of them at the same time. */
#include <stdio.h>

#include "base/mem.h"
#include "client/admin_ask.h"
#include "client/admin_text.h"

#define BACKOFF_MAX_MS 31536000000LL /* The broker's bound of any delay. */

_Static_assert(BACKOFF_MAX_MS == DELAY_MAX_MS, "the protocol says the same");
_Static_assert((int)FERRY_MODE_STREAM == (int)SUBSCRIPTION_STREAM, "likewise");
_Static_assert((int)FERRY_MODE_QUEUE == (int)SUBSCRIPTION_QUEUE, "likewise");
_Static_assert((int)FERRY_MODE_KEYED == (int)SUBSCRIPTION_KEYED, "likewise");

/* What any of the calls asks. */
struct ask {
    struct bytes name;
    const struct ferry_subscription_spec *spec;
    uint32_t pause;    /* As of SUBSCRIPTION_ALTER. */
    const int64_t *to; /* Of a reset, by partition. */
    bool dry_run;
};

static enum ferry_err ask_all(struct ferry_client *c, const char *topic, const struct ask *ask,
                              enum command command, call_encode *encode, int timeout_ms,
                              struct admin_survey *s)
{
    if (!name_is_valid(ask->name)) {
        return FERRY_ERR_BAD_NAME;
    }
    return admin_survey_run(s, c, topic, command, encode, ask, admin_deadline_us(timeout_ms));
}

/* ---- Making and altering. */

/* The mode is not looked at when altering; 0 is the default of each. */
static bool spec_is_sane(const struct ferry_subscription_spec *spec)
{
    bool lease_ok =
        spec->lease_ms == 0 || (spec->lease_ms >= LEASE_MIN_MS && spec->lease_ms <= LEASE_MAX_MS);
    bool backoff_ok = spec->backoff_max_ms == 0 || spec->backoff_min_ms <= spec->backoff_max_ms;
    return lease_ok && backoff_ok && spec->mode <= FERRY_MODE_KEYED &&
           spec->key_policy <= FERRY_KEY_PARK;
}

/* On the wire 0 is an age, too: none, so that who waits longest goes first. */
static uint32_t age_or_default(const struct ferry_subscription_spec *spec)
{
    return spec->priority_age_ms != 0 ? spec->priority_age_ms : UINT32_MAX;
}

static void encode_create(struct buf *b, const struct call *call, uint64_t group)
{
    const struct ask *ask = call->request;
    const struct ferry_subscription_spec *spec = ask->spec;
    struct subscription_create_request request = {
        .group = group,
        .name = ask->name,
        .mode = spec->mode != 0 ? (uint32_t)spec->mode : SUBSCRIPTION_STREAM,
        .from = spec->from,
        .lease_ms = spec->lease_ms,
        .max_deliveries = spec->max_deliveries,
        .backoff_min_ms = spec->backoff_min_ms,
        .backoff_max_ms = spec->backoff_max_ms,
        .key_policy = spec->key_policy == FERRY_KEY_PARK ? KEY_POLICY_PARK : KEY_POLICY_WAIT,
        .inflight_max = spec->inflight_max,
        .priority_age_ms = age_or_default(spec)};
    subscription_create_request_encode(b, &request);
}

static void encode_alter(struct buf *b, const struct call *call, uint64_t group)
{
    const struct ask *ask = call->request;
    const struct ferry_subscription_spec *spec = ask->spec;
    struct subscription_alter_request request = {.group = group,
                                                 .name = ask->name,
                                                 .pause = ask->pause,
                                                 .lease_ms = spec->lease_ms,
                                                 .max_deliveries = spec->max_deliveries,
                                                 .backoff_min_ms = spec->backoff_min_ms,
                                                 .backoff_max_ms = spec->backoff_max_ms,
                                                 .inflight_max = spec->inflight_max,
                                                 .priority_age_ms = age_or_default(spec),
                                                 .key_policy = (uint32_t)spec->key_policy};
    subscription_alter_request_encode(b, &request);
}

/* Asks all, and all must have done it. */
static enum ferry_err change_all(struct ferry_client *c, const char *topic, const struct ask *ask,
                                 enum command command, call_encode *encode, int timeout_ms)
{
    struct admin_survey s;
    enum ferry_err err = ask_all(c, topic, ask, command, encode, timeout_ms, &s);
    if (err == FERRY_OK) {
        err = admin_survey_error(&s, FERRY_OK);
        admin_survey_free(&s);
    }
    return err;
}

enum ferry_err ferry_subscription_make(struct ferry_client *client, const char *topic,
                                       const char *name, const struct ferry_subscription_spec *spec,
                                       int timeout_ms)
{
    const struct ask ask = {.name = bytes_of_string(name), .spec = spec};
    if (spec->from < FERRY_FROM_START || !spec_is_sane(spec)) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    return change_all(client, topic, &ask, COMMAND_SUBSCRIPTION_CREATE, encode_create, timeout_ms);
}

enum ferry_err ferry_subscription_create(struct ferry_client *client, const char *topic,
                                         const char *name, int64_t from, int timeout_ms)
{
    const struct ferry_subscription_spec spec = {.mode = FERRY_MODE_STREAM, .from = from};
    return ferry_subscription_make(client, topic, name, &spec, timeout_ms);
}

enum ferry_err ferry_subscription_alter(struct ferry_client *client, const char *topic,
                                        const char *name,
                                        const struct ferry_subscription_spec *spec, int timeout_ms)
{
    const struct ask ask = {.name = bytes_of_string(name), .spec = spec};
    if (!spec_is_sane(spec)) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    return change_all(client, topic, &ask, COMMAND_SUBSCRIPTION_ALTER, encode_alter, timeout_ms);
}

enum ferry_err ferry_subscription_pause(struct ferry_client *client, const char *topic,
                                        const char *name, bool pause, int timeout_ms)
{
    enum { PAUSE = 1, RESUME = 2 };
    const struct ferry_subscription_spec as_it_is = {.mode = 0};
    const struct ask ask = {
        .name = bytes_of_string(name), .spec = &as_it_is, .pause = pause ? PAUSE : RESUME};
    return change_all(client, topic, &ask, COMMAND_SUBSCRIPTION_ALTER, encode_alter, timeout_ms);
}

/* ---- Deleting. */

static void encode_delete(struct buf *b, const struct call *call, uint64_t group)
{
    const struct ask *ask = call->request;
    struct subscription_delete_request request = {.group = group, .name = ask->name};
    subscription_delete_request_encode(b, &request);
}

enum ferry_err ferry_subscription_delete(struct ferry_client *client, const char *topic,
                                         const char *name, int timeout_ms)
{
    struct admin_survey s;
    const struct ask ask = {.name = bytes_of_string(name)};
    enum ferry_err err =
        ask_all(client, topic, &ask, COMMAND_SUBSCRIPTION_DELETE, encode_delete, timeout_ms, &s);
    if (err != FERRY_OK) {
        return err;
    }
    err = admin_survey_error(&s, FERRY_ERR_UNKNOWN_SUBSCRIPTION);
    for (int32_t i = 0; err == FERRY_ERR_UNKNOWN_SUBSCRIPTION && i < s.count; i++) {
        err = s.calls[i].doubtful ? FERRY_OK : err; /* Our own first try deleted it. */
    }
    admin_survey_free(&s);
    return err;
}

/* ---- How it is. */

static void encode_get(struct buf *b, const struct call *call, uint64_t group)
{
    const struct ask *ask = call->request;
    struct subscription_get_request request = {.group = group, .name = ask->name};
    subscription_get_request_encode(b, &request);
}

static void fill_partition(struct ferry_subscription_partition *p,
                           const struct subscription_get_reply *reply)
{
    int64_t first = reply->position > reply->start_offset ? reply->position : reply->start_offset;
    p->position = reply->position;
    p->end_offset = reply->end_offset;
    p->lag_ms = reply->lag_ms;
    p->ready = reply->ready;
    p->leased = reply->leased;
    p->waiting = reply->waiting;
    p->dead = reply->dead;
    p->acked = reply->acked;
    p->died = reply->died;
    p->expired = reply->expired;
    p->revived = reply->revived;
    p->handed_out = reply->handed_out;
    p->failed = reply->failed;
    p->released = reply->released;
    if (reply->mode == SUBSCRIPTION_STREAM) {
        p->lag_messages = reply->end_offset > first ? reply->end_offset - first : 0;
    } else {
        p->lag_messages = (int64_t)(reply->ready + reply->leased + reply->waiting);
    }
}

static void fill_spec(struct ferry_subscription_spec *spec,
                      const struct subscription_get_reply *reply)
{
    bool keyed = reply->mode == SUBSCRIPTION_KEYED;
    *spec = (struct ferry_subscription_spec){.mode = (enum ferry_mode)reply->mode,
                                             .from = reply->position,
                                             .lease_ms = reply->lease_ms,
                                             .max_deliveries = reply->max_deliveries,
                                             .backoff_min_ms = reply->backoff_min_ms,
                                             .backoff_max_ms = reply->backoff_max_ms,
                                             .inflight_max = reply->inflight_max,
                                             .priority_age_ms = reply->priority_age_ms};
    if (keyed) {
        spec->key_policy = reply->key_policy == KEY_POLICY_PARK ? FERRY_KEY_PARK : FERRY_KEY_WAIT;
    }
}

static const char *mode_name(uint32_t mode)
{
    static const char *const names[] = {[SUBSCRIPTION_STREAM] = "stream",
                                        [SUBSCRIPTION_QUEUE] = "queue",
                                        [SUBSCRIPTION_KEYED] = "keyed"};
    return mode >= SUBSCRIPTION_STREAM && mode <= SUBSCRIPTION_KEYED ? names[mode] : "unknown";
}

/* The first partition that answers tells the settings: they are alike on all, but for a change that
 * reached only some. */
static void take_partition(const struct call *call, struct ferry_subscription_info *info,
                           bool *has_spec)
{
    struct subscription_get_reply reply;
    struct ferry_subscription_partition *p = &info->partitions[call->partition];
    p->partition = call->partition;
    p->err = call->err;
    if (p->err == FERRY_OK) {
        p->err = subscription_get_reply_decode(call->frame.body, &reply);
    }
    if (p->err != FERRY_OK) {
        return;
    }
    fill_partition(p, &reply);
    info->paused = info->paused || reply.paused;
    if (!*has_spec) {
        fill_spec(&info->spec, &reply);
        (void)snprintf(info->mode, sizeof(info->mode), "%s", mode_name(reply.mode));
        *has_spec = true;
    }
}

static struct ferry_subscription_info *info_new(const char *name, int32_t count)
{
    struct ferry_subscription_info *info = mem_zalloc(1, sizeof(*info));
    if (info == NULL) {
        return NULL;
    }
    info->partitions = mem_zalloc((size_t)count, sizeof(*info->partitions));
    if (info->partitions == NULL) {
        mem_free(info);
        return NULL;
    }
    info->partition_count = (size_t)count;
    (void)snprintf(info->name, sizeof(info->name), "%s", name);
    (void)snprintf(info->mode, sizeof(info->mode), "unknown");
    return info;
}

enum ferry_err ferry_subscription_info(struct ferry_client *client, const char *topic,
                                       const char *name, int timeout_ms,
                                       struct ferry_subscription_info **info)
{
    struct admin_survey s;
    const struct ask ask = {.name = bytes_of_string(name)};
    struct ferry_subscription_info *made = NULL;
    bool has_spec = false;
    enum ferry_err err =
        ask_all(client, topic, &ask, COMMAND_SUBSCRIPTION_GET, encode_get, timeout_ms, &s);
    if (err != FERRY_OK) {
        return err;
    }
    if (admin_survey_error(&s, FERRY_ERR_UNKNOWN_SUBSCRIPTION) == FERRY_ERR_UNKNOWN_SUBSCRIPTION) {
        err = FERRY_ERR_UNKNOWN_SUBSCRIPTION;
        goto out;
    }
    made = info_new(name, s.count);
    if (made == NULL) {
        err = FERRY_ERR_NO_MEMORY;
        goto out;
    }
    for (int32_t i = 0; i < s.count; i++) {
        take_partition(&s.calls[i], made, &has_spec);
    }
    *info = made;
out:
    admin_survey_free(&s);
    return err;
}

void ferry_subscription_info_free(struct ferry_subscription_info **info)
{
    if (*info != NULL) {
        mem_free((*info)->partitions);
        mem_free(*info);
        *info = NULL;
    }
}

/* ---- Starting over. */

static void encode_reset(struct buf *b, const struct call *call, uint64_t group)
{
    const struct ask *ask = call->request;
    struct subscription_reset_request request = {
        .group = group, .name = ask->name, .to = ask->to[call->partition], .dry_run = ask->dry_run};
    subscription_reset_request_encode(b, &request);
}

static void encode_find(struct buf *b, const struct call *call, uint64_t group)
{
    struct offset_find_request request = {
        .group = group, .kind = OFFSET_TIME, .time_ms = *(const int64_t *)call->request};
    offset_find_request_encode(b, &request);
}

/* Where each partition is to start; all or none, for a reset of some only is no use. */
static enum ferry_err find_places(struct ferry_client *c, const char *topic, int64_t time_ms,
                                  int64_t deadline_us, int64_t *to)
{
    struct admin_survey s;
    enum ferry_err err =
        admin_survey_run(&s, c, topic, COMMAND_OFFSET_FIND, encode_find, &time_ms, deadline_us);
    if (err != FERRY_OK) {
        return err;
    }
    err = admin_survey_error(&s, FERRY_OK);
    for (int32_t i = 0; err == FERRY_OK && i < s.count; i++) {
        struct offset_find_reply reply;
        err = offset_find_reply_decode(s.calls[i].frame.body, &reply);
        to[i] = err == FERRY_OK ? reply.offset : 0;
    }
    admin_survey_free(&s);
    return err;
}

static void take_reset(const struct call *call, struct ferry_reset_partition *p)
{
    struct subscription_reset_reply reply;
    p->partition = call->partition;
    p->err = call->err;
    if (p->err == FERRY_OK) {
        p->err = subscription_reset_reply_decode(call->frame.body, &reply);
    }
    if (p->err == FERRY_OK) {
        p->from = reply.from;
        p->to = reply.to;
    }
}

/* Partition 0 comes last: with it members are given their partitions anew, and begin where those
 * are by then. */
static enum ferry_err reset_all(struct ferry_client *c, const char *topic, const struct ask *ask,
                                int64_t deadline_us, struct ferry_reset_partition **partitions,
                                size_t *count)
{
    struct admin_survey s;
    enum ferry_err err = admin_survey_run_0_last(&s, c, topic, COMMAND_SUBSCRIPTION_RESET,
                                                 encode_reset, ask, deadline_us);
    if (err != FERRY_OK) {
        return err;
    }
    struct ferry_reset_partition *made = NULL;
    if (admin_survey_error(&s, FERRY_ERR_UNKNOWN_SUBSCRIPTION) == FERRY_ERR_UNKNOWN_SUBSCRIPTION) {
        err = FERRY_ERR_UNKNOWN_SUBSCRIPTION;
    } else {
        made = mem_zalloc((size_t)s.count, sizeof(*made));
        err = made != NULL ? FERRY_OK : FERRY_ERR_NO_MEMORY;
    }
    for (int32_t i = 0; made != NULL && i < s.count; i++) {
        take_reset(&s.calls[i], &made[i]);
    }
    if (err == FERRY_OK) {
        *partitions = made;
        *count = (size_t)s.count;
    }
    admin_survey_free(&s);
    return err;
}

enum ferry_err ferry_subscription_reset(struct ferry_client *client, const char *topic,
                                        const char *name, int64_t to, int64_t time_ms, bool dry_run,
                                        int timeout_ms, struct ferry_reset_partition **partitions,
                                        size_t *count)
{
    int64_t deadline_us = admin_deadline_us(timeout_ms);
    int64_t places[PARTITIONS_MAX];
    const struct ask ask = {.name = bytes_of_string(name), .to = places, .dry_run = dry_run};
    enum ferry_err err = FERRY_OK;
    if (!name_is_valid(ask.name)) {
        return FERRY_ERR_BAD_NAME;
    }
    if (time_ms < 0 && to < FERRY_FROM_START) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    for (size_t i = 0; i < PARTITIONS_MAX; i++) {
        places[i] = to;
    }
    if (time_ms >= 0) {
        err = find_places(client, topic, time_ms, deadline_us, places);
    }
    return err != FERRY_OK ? err : reset_all(client, topic, &ask, deadline_us, partitions, count);
}

void ferry_reset_free(struct ferry_reset_partition **partitions)
{
    mem_free(*partitions);
    *partitions = NULL;
}

/* ---- Who takes part. */

static void encode_members(struct buf *b, const struct call *call, uint64_t group)
{
    const struct ask *ask = call->request;
    struct member_list_request request = {.group = group, .subscription = ask->name};
    member_list_request_encode(b, &request);
}

static enum ferry_err take_members(struct bytes body, struct ferry_member **members, size_t *count)
{
    struct member_list_reply *reply = mem_alloc(sizeof(*reply));
    if (reply == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    struct ferry_member *made = NULL;
    enum ferry_err err = member_list_reply_decode(body, reply);
    if (err == FERRY_OK) {
        made = mem_zalloc(reply->count + 1, sizeof(*made));
        err = made != NULL ? FERRY_OK : FERRY_ERR_NO_MEMORY;
    }
    for (uint32_t i = 0; err == FERRY_OK && i < reply->count; i++) {
        const struct member_list_item *item = &reply->items[i];
        made[i] = (struct ferry_member){.joined_ms = item->joined_ms,
                                        .session_ms = item->session_ms,
                                        .silent_ms = item->silent_ms,
                                        .assigned = item->assigned,
                                        .held = item->held};
        admin_copy_text(made[i].name, sizeof(made[i].name), item->member);
        admin_copy_text(made[i].zone, sizeof(made[i].zone), item->zone);
        admin_copy_text(made[i].client, sizeof(made[i].client), item->client);
    }
    if (err == FERRY_OK) {
        *members = made;
        *count = reply->count;
    }
    mem_free(reply);
    return err;
}

/* Partition 0 knows who takes part, and what has happened. */
static enum ferry_err find_coordinator(struct ferry_client *c, const char *topic, struct bytes name,
                                       int64_t deadline_us, struct topic **t)
{
    return name_is_valid(name) ? admin_topic(c, topic, admin_left_ms(deadline_us), t)
                               : FERRY_ERR_BAD_NAME;
}

enum ferry_err ferry_members_list(struct ferry_client *client, const char *topic, const char *name,
                                  int timeout_ms, struct ferry_member **members, size_t *count)
{
    struct call call;
    struct topic *t;
    int64_t deadline_us = admin_deadline_us(timeout_ms);
    const struct ask ask = {.name = bytes_of_string(name)};
    enum ferry_err err = find_coordinator(client, topic, ask.name, deadline_us, &t);
    if (err != FERRY_OK) {
        return err;
    }
    err = admin_ask_partition(client, &call, COMMAND_MEMBER_LIST, t, 0, encode_members, &ask,
                              deadline_us);
    if (err == FERRY_OK) {
        err = take_members(call.frame.body, members, count);
    }
    call_fini(&call);
    return err;
}

void ferry_members_free(struct ferry_member **members)
{
    mem_free(*members);
    *members = NULL;
}

/* ---- What has happened. */

struct events {
    struct bytes name;
    uint64_t after;
    struct ferry_event *items;
    size_t count, capacity;
};

static void encode_events(struct buf *b, const struct call *call, uint64_t group)
{
    const struct events *events = call->request;
    struct event_list_request request = {
        .group = group, .subscription = events->name, .after = events->after};
    event_list_request_encode(b, &request);
}

static enum ferry_err take_events(struct events *events, struct bytes body, bool *more)
{
    struct event_list_reply *page = mem_alloc(sizeof(*page));
    if (page == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    enum ferry_err err = event_list_reply_decode(body, page);
    if (err == FERRY_OK && !mem_grow((void **)&events->items, &events->capacity,
                                     events->count + page->count + 1, sizeof(*events->items))) {
        err = FERRY_ERR_NO_MEMORY;
    }
    for (uint32_t i = 0; err == FERRY_OK && i < page->count; i++) {
        const struct event_list_item *item = &page->items[i];
        struct ferry_event *event = &events->items[events->count++];
        *event = (struct ferry_event){
            .number = item->number, .time_ms = item->time_ms, .epoch = item->epoch};
        admin_copy_text(event->kind, sizeof(event->kind), item->kind);
        admin_copy_text(event->who, sizeof(event->who), item->who);
        admin_copy_text(event->why, sizeof(event->why), item->why);
        events->after = item->number > events->after ? item->number : events->after;
    }
    *more = err == FERRY_OK && page->more && page->count > 0;
    mem_free(page);
    return err;
}

enum ferry_err ferry_events_list(struct ferry_client *client, const char *topic, const char *name,
                                 uint64_t after, int timeout_ms, struct ferry_event **events,
                                 size_t *count)
{
    struct topic *t;
    int64_t deadline_us = admin_deadline_us(timeout_ms);
    struct events made = {.name = bytes_of_string(name), .after = after};
    enum ferry_err err = find_coordinator(client, topic, made.name, deadline_us, &t);
    bool more = true;
    for (int page = 0; err == FERRY_OK && more && page < ADMIN_PAGES_MAX; page++) {
        struct call call;
        err = admin_ask_partition(client, &call, COMMAND_EVENT_LIST, t, 0, encode_events, &made,
                                  deadline_us);
        if (err == FERRY_OK) {
            err = take_events(&made, call.frame.body, &more);
        }
        call_fini(&call);
    }
    if (err != FERRY_OK) {
        mem_free(made.items);
        return err;
    }
    *events = made.items;
    *count = made.count;
    return FERRY_OK;
}

void ferry_events_free(struct ferry_event **events)
{
    mem_free(*events);
    *events = NULL;
}
