#include "partition/subscription_entry.h"

#include "wire/pack.h"

#define LEASE_DEFAULT_MS        30000u
#define MAX_DELIVERIES_DEFAULT  10u
#define BACKOFF_MIN_DEFAULT_MS  1000u
#define BACKOFF_MAX_DEFAULT_MS  600000u
#define INFLIGHT_MAX_DEFAULT    1000u
#define PRIORITY_AGE_DEFAULT_MS 10000u
#define SETTINGS_FIELDS         7u

bool subscription_entry_is(enum control_kind kind)
{
    return kind == CONTROL_SUBSCRIPTION_CREATE || kind == CONTROL_SUBSCRIPTION_DELETE ||
           kind == CONTROL_SUBSCRIPTION_COMMIT || kind == CONTROL_SUBSCRIPTION_ALTER ||
           kind == CONTROL_SUBSCRIPTION_RESET || kind == CONTROL_SUBSCRIPTION_CLAIM;
}

/* ---- Layout ---- */

static void pack_settings(struct buf *b, const struct delivery_settings *s)
{
    pack_uint(b, s->lease_ms);
    pack_uint(b, s->max_deliveries);
    pack_uint(b, s->backoff_min_ms);
    pack_uint(b, s->backoff_max_ms);
    pack_uint(b, s->key_policy);
    pack_uint(b, s->inflight_max);
    pack_uint(b, s->priority_age_ms);
}

static void unpack_settings(struct unpack *u, struct delivery_settings *s)
{
    s->lease_ms = (uint32_t)unpack_uint(u, UINT32_MAX);
    s->max_deliveries = (uint32_t)unpack_uint(u, UINT32_MAX);
    s->backoff_min_ms = (uint32_t)unpack_uint(u, UINT32_MAX);
    s->backoff_max_ms = (uint32_t)unpack_uint(u, UINT32_MAX);
    s->key_policy = (uint32_t)unpack_uint(u, UINT32_MAX);
    s->inflight_max = (uint32_t)unpack_uint(u, UINT32_MAX);
    s->priority_age_ms = (uint32_t)unpack_uint(u, UINT32_MAX);
}

static void begin(struct buf *b, const struct subscription_entry *e, uint32_t fields)
{
    pack_array(b, fields);
    pack_uint(b, e->kind);
    pack_str(b, e->name);
}

void subscription_entry_encode(struct buf *b, const struct subscription_entry *e)
{
    switch (e->kind) {
    case CONTROL_SUBSCRIPTION_CREATE:
        begin(b, e, 5 + SETTINGS_FIELDS);
        pack_uint(b, e->mode);
        pack_int(b, e->position);
        pack_settings(b, &e->settings);
        pack_str(b, e->who);
        return;
    case CONTROL_SUBSCRIPTION_DELETE:
        begin(b, e, 2);
        return;
    case CONTROL_SUBSCRIPTION_COMMIT:
        begin(b, e, 4);
        pack_int(b, e->position);
        pack_uint(b, e->epoch);
        return;
    case CONTROL_SUBSCRIPTION_ALTER:
        begin(b, e, 4 + SETTINGS_FIELDS);
        pack_uint(b, e->pause);
        pack_settings(b, &e->settings);
        pack_str(b, e->who);
        return;
    case CONTROL_SUBSCRIPTION_RESET:
        begin(b, e, 4);
        pack_int(b, e->position);
        pack_str(b, e->who);
        return;
    default:
        must(e->kind == CONTROL_SUBSCRIPTION_CLAIM);
        begin(b, e, 4);
        pack_str(b, e->member);
        pack_uint(b, e->epoch);
    }
}

static void unpack_create(struct unpack *u, struct subscription_entry *e)
{
    e->mode = (uint32_t)unpack_uint(u, UINT32_MAX);
    e->position = unpack_int(u);
    e->has_settings = unpack_has_more(u);
    if (e->has_settings) {
        unpack_settings(u, &e->settings);
        e->who = unpack_str(u, NAME_MAX_BYTES);
    }
}

static void unpack_fields(struct unpack *u, struct subscription_entry *e)
{
    switch (e->kind) {
    case CONTROL_SUBSCRIPTION_CREATE:
        unpack_create(u, e);
        return;
    case CONTROL_SUBSCRIPTION_DELETE:
        return;
    case CONTROL_SUBSCRIPTION_COMMIT:
        e->position = unpack_int(u);
        e->epoch = unpack_has_more(u) ? unpack_uint(u, UINT64_MAX) : 0;
        return;
    case CONTROL_SUBSCRIPTION_ALTER:
        e->pause = (uint32_t)unpack_uint(u, UINT32_MAX);
        unpack_settings(u, &e->settings);
        e->who = unpack_str(u, NAME_MAX_BYTES);
        return;
    case CONTROL_SUBSCRIPTION_RESET:
        e->position = unpack_int(u);
        e->who = unpack_str(u, NAME_MAX_BYTES);
        return;
    case CONTROL_SUBSCRIPTION_CLAIM:
        e->member = unpack_str(u, NAME_MAX_BYTES);
        e->epoch = unpack_uint(u, UINT64_MAX);
        return;
    default:
        u->failed = true; /* Of other modules, or of none. */
    }
}

enum ferry_err subscription_entry_decode(struct bytes payload, struct subscription_entry *e)
{
    *e = (struct subscription_entry){0};
    struct unpack u;
    unpack_begin(&u, payload);
    e->kind = (enum control_kind)unpack_uint(&u, UINT8_MAX);
    e->name = unpack_str(&u, NAME_MAX_BYTES);
    unpack_fields(&u, e);
    return unpack_end(&u) == FERRY_OK && e->name.size > 0 ? FERRY_OK : FERRY_ERR_CORRUPT;
}

/* ---- Settings ---- */

static uint32_t or_default(uint32_t v, uint32_t fallback)
{
    return v != 0 ? v : fallback;
}

/* 0 is "not said" in all of these. */
static bool are_in_bounds(const struct delivery_settings *s)
{
    bool lease = s->lease_ms == 0 || (s->lease_ms >= LEASE_MIN_MS && s->lease_ms <= LEASE_MAX_MS);
    bool backoff =
        s->backoff_min_ms == 0 || s->backoff_max_ms == 0 || s->backoff_min_ms <= s->backoff_max_ms;
    return lease && backoff && s->max_deliveries <= MAX_DELIVERIES_MAX &&
           s->inflight_max <= INFLIGHT_MAX_MAX;
}

enum ferry_err subscription_settings_make(const struct subscription_create_request *q,
                                          struct delivery_settings *settings)
{
    *settings = (struct delivery_settings){0};
    if (q->mode == SUBSCRIPTION_STREAM) {
        return FERRY_OK;
    }
    struct delivery_settings asked = {.lease_ms = q->lease_ms,
                                      .max_deliveries = q->max_deliveries,
                                      .backoff_min_ms = q->backoff_min_ms,
                                      .backoff_max_ms = q->backoff_max_ms,
                                      .inflight_max = q->inflight_max};
    if (!are_in_bounds(&asked) || q->key_policy > KEY_POLICY_PARK) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    uint32_t least = or_default(q->backoff_min_ms, BACKOFF_MIN_DEFAULT_MS);
    uint32_t most = or_default(q->backoff_max_ms, BACKOFF_MAX_DEFAULT_MS);
    if (least > most) { /* Only one was said. */
        least = q->backoff_min_ms == 0 ? most : least;
        most = least > most ? least : most;
    }
    *settings = (struct delivery_settings){
        .lease_ms = or_default(q->lease_ms, LEASE_DEFAULT_MS),
        .max_deliveries = or_default(q->max_deliveries, MAX_DELIVERIES_DEFAULT),
        .backoff_min_ms = least,
        .backoff_max_ms = most,
        .key_policy = q->key_policy,
        .inflight_max = or_default(q->inflight_max, INFLIGHT_MAX_DEFAULT),
        .priority_age_ms =
            q->priority_age_ms == SETTING_AS_IS ? PRIORITY_AGE_DEFAULT_MS : q->priority_age_ms};
    return FERRY_OK;
}

enum ferry_err subscription_settings_ask(const struct subscription_alter_request *q,
                                         struct delivery_settings *asked)
{
    *asked = (struct delivery_settings){.lease_ms = q->lease_ms,
                                        .max_deliveries = q->max_deliveries,
                                        .backoff_min_ms = q->backoff_min_ms,
                                        .backoff_max_ms = q->backoff_max_ms,
                                        .key_policy = q->key_policy,
                                        .inflight_max = q->inflight_max,
                                        .priority_age_ms = q->priority_age_ms};
    bool policy = q->key_policy <= KEY_POLICY_PARK + 1;
    return are_in_bounds(asked) && policy ? FERRY_OK : FERRY_ERR_INVALID_ARGUMENT;
}

void subscription_settings_merge(struct delivery_settings *s, const struct delivery_settings *asked)
{
    s->lease_ms = or_default(asked->lease_ms, s->lease_ms);
    s->max_deliveries = or_default(asked->max_deliveries, s->max_deliveries);
    s->backoff_min_ms = or_default(asked->backoff_min_ms, s->backoff_min_ms);
    s->backoff_max_ms = or_default(asked->backoff_max_ms, s->backoff_max_ms);
    s->key_policy = asked->key_policy != 0 ? asked->key_policy - 1 : s->key_policy;
    s->inflight_max = or_default(asked->inflight_max, s->inflight_max);
    if (asked->priority_age_ms != SETTING_AS_IS) {
        s->priority_age_ms = asked->priority_age_ms;
    }
    if (s->backoff_max_ms < s->backoff_min_ms) {
        s->backoff_max_ms = s->backoff_min_ms;
    }
}
