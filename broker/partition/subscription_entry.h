/* subscription_entry: the log entries about subscriptions themselves, and what their settings may
 * be. Pure.
 *
 * Msgpack arrays; fields are only added at the end:
 *
 *   CREATE  [kind, name, mode, position, settings…, who]   before there were modes: no settings
 *   DELETE  [kind, name]
 *   COMMIT  [kind, name, position, epoch]                  before there were members: no epoch
 *   ALTER   [kind, name, pause, settings…, who]
 *   RESET   [kind, name, position, who]
 *   CLAIM   [kind, name, member, epoch]
 *   settings…  lease_ms, max_deliveries, backoff_min_ms, backoff_max_ms, key_policy, inflight_max,
 *              priority_age_ms
 *
 * CREATE has the settings as they will be; ALTER what was asked for, as in the request (0, of the
 * ageing SETTING_AS_IS: as it is; key_policy one more than enum key_policy), because two of them
 * may be on their way together. */
#ifndef FERRY_PARTITION_SUBSCRIPTION_ENTRY_H
#define FERRY_PARTITION_SUBSCRIPTION_ENTRY_H

#include "partition/control.h"
#include "partition/delivery.h"

#define SETTING_AS_IS      UINT32_MAX
#define MAX_DELIVERIES_MAX 1000000u
#define INFLIGHT_MAX_MAX   1000000u

struct subscription_entry {
    enum control_kind kind;
    struct bytes name;
    uint32_t mode;
    int64_t position;
    bool has_settings; /* CREATE: of this version, not one from before. */
    struct delivery_settings settings;
    uint32_t pause; /* As in subscription_alter_request. */
    uint64_t epoch;
    struct bytes member;
    struct bytes who; /* client.name of who asked; may be empty. */
};
bool subscription_entry_is(enum control_kind kind); /* One of the kinds above. */
void subscription_entry_encode(struct buf *b, const struct subscription_entry *e);
/* Texts point into the payload. Errors: CORRUPT. */
MUST_CHECK enum ferry_err subscription_entry_decode(struct bytes payload,
                                                    struct subscription_entry *e);

/* The settings of a creation, defaults filled in; all 0 for stream. Errors: INVALID_ARGUMENT. */
MUST_CHECK enum ferry_err subscription_settings_make(const struct subscription_create_request *q,
                                                     struct delivery_settings *settings);
/* What an ALTER asks for, as it is in the entry. Errors: INVALID_ARGUMENT. */
MUST_CHECK enum ferry_err subscription_settings_ask(const struct subscription_alter_request *q,
                                                    struct delivery_settings *asked);
/* Settings after an ALTER. A longest back-off below the shortest one is raised to it. */
void subscription_settings_merge(struct delivery_settings *settings,
                                 const struct delivery_settings *asked);

#endif
