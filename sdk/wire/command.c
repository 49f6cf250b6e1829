#include "wire/command.h"

#include "wire/command_layouts.h"
#include "wire/frame.h"

/* ---- Names ---- */

const char *command_name(uint16_t command)
{
    switch (command) {
#define COMMAND_CASE(name, number)                                                                 \
    case number:                                                                                   \
        return #name;
        COMMAND_MAP(COMMAND_CASE)
#undef COMMAND_CASE
    default:
        return "?";
    }
}

static bool is_alphanumeric(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool name_is_valid(struct bytes name)
{
    if (name.size == 0 || name.size > NAME_MAX_BYTES || !is_alphanumeric(name.data[0])) {
        return false;
    }
    for (size_t i = 1; i < name.size; i++) {
        uint8_t c = name.data[i];
        if (!is_alphanumeric(c) && c != '.' && c != '_' && c != '-') {
            return false;
        }
    }
    return true;
}

bool dead_name_split(struct bytes name, size_t from, struct bytes *topic,
                     struct bytes *subscription, size_t *next)
{
    const size_t mark = sizeof(DEAD_NAME_MARK) - 1;
    for (size_t at = from; at + mark <= name.size; at++) {
        if (memcmp(name.data + at, DEAD_NAME_MARK, mark) == 0) {
            *topic = bytes_of(name.data, at);
            *subscription = bytes_of(name.data + at + mark, name.size - at - mark);
            *next = at + 1; /* Marks may overlap: a.dlq.dlq.b has two. */
            return true;
        }
    }
    return false;
}

bool name_is_of_dead(struct bytes name)
{
    struct bytes topic, subscription;
    size_t next;
    return dead_name_split(name, 0, &topic, &subscription, &next);
}

/* ---- Layouts: the elements of each struct in the order of the wire ---- */

#define ROWS(type) static const struct layout_row type##_rows[]
#define VALUE(type, member)                                                                        \
    {                                                                                              \
        LAYOUT_VALUE(type, member)                                                                 \
    }
#define TEXT(type, member, max)                                                                    \
    {                                                                                              \
        LAYOUT_RUN(type, member, LAYOUT_TEXT, max)                                                 \
    }
#define BLOB(type, member, max)                                                                    \
    {                                                                                              \
        LAYOUT_RUN(type, member, LAYOUT_BLOB, max)                                                 \
    }
#define LIST(type, member, n, item)                                                                \
    {                                                                                              \
        LAYOUT_ARRAY(type, member, LAYOUT_LIST, n), ITEM(item)                                     \
    }
#define NUMBERS(type, member, n)                                                                   \
    {                                                                                              \
        LAYOUT_ARRAY(type, member, LAYOUT_U32S, n)                                                 \
    }
#define ITEM(type)                                                                                 \
    .item = &(const struct layout)                                                                 \
    {                                                                                              \
        .name = #type, .bytes = sizeof(struct type), .rows = type##_rows,                          \
        .count = sizeof(type##_rows) / sizeof(type##_rows[0])                                      \
    }

ROWS(error_reply) = {
    TEXT(error_reply, detail, DETAIL_MAX_BYTES),
    VALUE(error_reply, retry_after_ms),
};

ROWS(hello_request) = {
    TEXT(hello_request, client_name, NAME_MAX_BYTES),
    TEXT(hello_request, client_version, NAME_MAX_BYTES),
};
ROWS(hello_reply) = {
    TEXT(hello_reply, broker_version, NAME_MAX_BYTES),
    VALUE(hello_reply, node_id),
    VALUE(hello_reply, cluster_id),
    VALUE(hello_reply, message_max_bytes),
    VALUE(hello_reply, batch_max_bytes),
    VALUE(hello_reply, fetch_max_bytes),
    VALUE(hello_reply, inflight_max),
};

ROWS(metadata_request) = {
    TEXT(metadata_request, topic, DEAD_NAME_MAX_BYTES),
};
ROWS(metadata_endpoint) = {
    VALUE(metadata_endpoint, node_id),
    VALUE(metadata_endpoint, shard),
    TEXT(metadata_endpoint, endpoint, ENDPOINT_MAX_BYTES),
};
ROWS(metadata_partition) = {
    VALUE(metadata_partition, group),
    VALUE(metadata_partition, endpoint),
    {LAYOUT_ARRAY(metadata_partition, replicas, LAYOUT_U32S, replica_count), LAYOUT_ADDED(0)},
};
ROWS(metadata_reply) = {
    VALUE(metadata_reply, cluster_id),
    LIST(metadata_reply, endpoints, endpoint_count, metadata_endpoint),
    VALUE(metadata_reply, topic_id),
    VALUE(metadata_reply, replicas),
    VALUE(metadata_reply, retention_ms),
    VALUE(metadata_reply, retention_bytes),
    VALUE(metadata_reply, dedupe_window_ms),
    LIST(metadata_reply, partitions, partition_count, metadata_partition),
    {LAYOUT_VALUE(metadata_reply, retention_acked), LAYOUT_ADDED(0)},
    {LAYOUT_RUN(metadata_reply, dead_of, LAYOUT_TEXT, NAME_MAX_BYTES), LAYOUT_ADDED(0)},
};

ROWS(topic_create_request) = {
    TEXT(topic_create_request, name, NAME_MAX_BYTES),
    VALUE(topic_create_request, partitions),
    VALUE(topic_create_request, replicas),
    VALUE(topic_create_request, retention_ms),
    VALUE(topic_create_request, retention_bytes),
    VALUE(topic_create_request, dedupe_window_ms),
    {LAYOUT_VALUE(topic_create_request, retention_acked), LAYOUT_ADDED(0)},
};
ROWS(topic_create_reply) = {
    VALUE(topic_create_reply, topic_id),
};
ROWS(topic_delete_request) = {
    TEXT(topic_delete_request, name, NAME_MAX_BYTES),
};
ROWS(topic_list_request) = {
    TEXT(topic_list_request, after, NAME_MAX_BYTES),
};
ROWS(names_reply) = {
    VALUE(names_reply, more),
    {LAYOUT_ARRAY(names_reply, names, LAYOUT_TEXTS, count), .max = NAME_MAX_BYTES},
};

ROWS(producer_init_request) = {
    TEXT(producer_init_request, name, NAME_MAX_BYTES),
};
ROWS(producer_init_reply) = {
    VALUE(producer_init_reply, producer_id),
    VALUE(producer_init_reply, epoch),
};
ROWS(produce_request) = {
    VALUE(produce_request, group),
};
ROWS(produce_reply) = {
    VALUE(produce_reply, base_offset),
    VALUE(produce_reply, duplicate),
    VALUE(produce_reply, duplicate_count),
    {LAYOUT_VALUE(produce_reply, scheduled), LAYOUT_ADDED(0)},
};

ROWS(append_cas_request) = {
    VALUE(append_cas_request, group),          VALUE(append_cas_request, source),
    VALUE(append_cas_request, lane),           VALUE(append_cas_request, epoch),
    VALUE(append_cas_request, expect_version), BLOB(append_cas_request, cursor, CURSOR_MAX_BYTES),
};
ROWS(append_cas_reply) = {
    VALUE(append_cas_reply, version),
    VALUE(append_cas_reply, base_offset),
};
/* Begins as an error_reply does, and is read from a plain one too: then it tells of no cursor. */
ROWS(append_cas_refusal) = {
    TEXT(append_cas_refusal, error.detail, DETAIL_MAX_BYTES),
    VALUE(append_cas_refusal, error.retry_after_ms),
    {LAYOUT_VALUE(append_cas_refusal, version), LAYOUT_ADDED(0)},
    {LAYOUT_VALUE(append_cas_refusal, epoch), LAYOUT_ADDED(0)},
    {LAYOUT_RUN(append_cas_refusal, cursor, LAYOUT_BLOB, CURSOR_MAX_BYTES), LAYOUT_ADDED(0)},
    {LAYOUT_VALUE(append_cas_refusal, refused_index), LAYOUT_ADDED(-1)},
};
ROWS(source_fence_request) = {
    VALUE(source_fence_request, group),
    VALUE(source_fence_request, source),
    VALUE(source_fence_request, lane),
    VALUE(source_fence_request, epoch),
    {LAYOUT_VALUE(source_fence_request, version), LAYOUT_ADDED(0)},
};
ROWS(cursor_get_request) = {
    VALUE(cursor_get_request, group),
    VALUE(cursor_get_request, source),
    VALUE(cursor_get_request, lane),
};
ROWS(cursor_get_reply) = {
    VALUE(cursor_get_reply, version),
    VALUE(cursor_get_reply, epoch),
    BLOB(cursor_get_reply, cursor, CURSOR_MAX_BYTES),
};

ROWS(fetch_item) = {
    VALUE(fetch_item, group),
    VALUE(fetch_item, offset),
    {LAYOUT_RUN(fetch_item, dead_of, LAYOUT_TEXT, NAME_MAX_BYTES), LAYOUT_ADDED(0)},
};
ROWS(fetch_request) = {
    VALUE(fetch_request, max_wait_ms),
    VALUE(fetch_request, min_bytes),
    VALUE(fetch_request, max_bytes),
    LIST(fetch_request, items, count, fetch_item),
};
ROWS(fetch_reply_item) = {
    VALUE(fetch_reply_item, group),        VALUE(fetch_reply_item, status),
    VALUE(fetch_reply_item, start_offset), VALUE(fetch_reply_item, end_offset),
    VALUE(fetch_reply_item, data_bytes),
};
ROWS(fetch_reply) = {
    LIST(fetch_reply, items, count, fetch_reply_item),
};
ROWS(offset_find_request) = {
    VALUE(offset_find_request, group),
    VALUE(offset_find_request, kind),
    VALUE(offset_find_request, time_ms),
};
ROWS(offset_find_reply) = {
    VALUE(offset_find_reply, offset),
    VALUE(offset_find_reply, start_offset),
    VALUE(offset_find_reply, end_offset),
};

ROWS(subscription_create_request) = {
    VALUE(subscription_create_request, group),
    TEXT(subscription_create_request, name, NAME_MAX_BYTES),
    VALUE(subscription_create_request, mode),
    VALUE(subscription_create_request, from),
    {LAYOUT_VALUE(subscription_create_request, lease_ms), LAYOUT_ADDED(0)},
    {LAYOUT_VALUE(subscription_create_request, max_deliveries), LAYOUT_ADDED(0)},
    {LAYOUT_VALUE(subscription_create_request, backoff_min_ms), LAYOUT_ADDED(0)},
    {LAYOUT_VALUE(subscription_create_request, backoff_max_ms), LAYOUT_ADDED(0)},
    {LAYOUT_VALUE(subscription_create_request, key_policy), LAYOUT_ADDED(0)},
    {LAYOUT_VALUE(subscription_create_request, inflight_max), LAYOUT_ADDED(0)},
    {LAYOUT_VALUE(subscription_create_request, priority_age_ms), LAYOUT_ADDED(0)},
};
ROWS(subscription_create_reply) = {
    VALUE(subscription_create_reply, position),
};
ROWS(subscription_delete_request) = {
    VALUE(subscription_delete_request, group),
    TEXT(subscription_delete_request, name, NAME_MAX_BYTES),
};
ROWS(subscription_commit_request) = {
    VALUE(subscription_commit_request, group),
    TEXT(subscription_commit_request, name, NAME_MAX_BYTES),
    VALUE(subscription_commit_request, position),
    VALUE(subscription_commit_request, epoch),
};
ROWS(subscription_commit_reply) = {
    VALUE(subscription_commit_reply, position),
};
ROWS(subscription_get_request) = {
    VALUE(subscription_get_request, group),
    TEXT(subscription_get_request, name, NAME_MAX_BYTES),
};
ROWS(subscription_get_reply) = {
    VALUE(subscription_get_reply, mode),
    VALUE(subscription_get_reply, position),
    VALUE(subscription_get_reply, start_offset),
    VALUE(subscription_get_reply, end_offset),
    VALUE(subscription_get_reply, lag_ms),
    {LAYOUT_VALUE(subscription_get_reply, paused), LAYOUT_ADDED(0)},
    {LAYOUT_VALUE(subscription_get_reply, lease_ms), LAYOUT_ADDED(0)},
    {LAYOUT_VALUE(subscription_get_reply, max_deliveries), LAYOUT_ADDED(0)},
    {LAYOUT_VALUE(subscription_get_reply, backoff_min_ms), LAYOUT_ADDED(0)},
    {LAYOUT_VALUE(subscription_get_reply, backoff_max_ms), LAYOUT_ADDED(0)},
    {LAYOUT_VALUE(subscription_get_reply, key_policy), LAYOUT_ADDED(0)},
    {LAYOUT_VALUE(subscription_get_reply, inflight_max), LAYOUT_ADDED(0)},
    {LAYOUT_VALUE(subscription_get_reply, priority_age_ms), LAYOUT_ADDED(0)},
    {LAYOUT_VALUE(subscription_get_reply, ready), LAYOUT_ADDED(0)},
    {LAYOUT_VALUE(subscription_get_reply, leased), LAYOUT_ADDED(0)},
    {LAYOUT_VALUE(subscription_get_reply, waiting), LAYOUT_ADDED(0)},
    {LAYOUT_VALUE(subscription_get_reply, dead), LAYOUT_ADDED(0)},
    {LAYOUT_VALUE(subscription_get_reply, acked), LAYOUT_ADDED(0)},
    {LAYOUT_VALUE(subscription_get_reply, died), LAYOUT_ADDED(0)},
    {LAYOUT_VALUE(subscription_get_reply, expired), LAYOUT_ADDED(0)},
    {LAYOUT_VALUE(subscription_get_reply, revived), LAYOUT_ADDED(0)},
    {LAYOUT_VALUE(subscription_get_reply, handed_out), LAYOUT_ADDED(0)},
    {LAYOUT_VALUE(subscription_get_reply, failed), LAYOUT_ADDED(0)},
    {LAYOUT_VALUE(subscription_get_reply, released), LAYOUT_ADDED(0)},
    {LAYOUT_VALUE(subscription_get_reply, number), LAYOUT_ADDED(0)},
    {LAYOUT_VALUE(subscription_get_reply, epoch), LAYOUT_ADDED(0)},
};
ROWS(subscription_list_request) = {
    VALUE(subscription_list_request, group),
    TEXT(subscription_list_request, after, NAME_MAX_BYTES),
};
ROWS(partition_info_request) = {
    VALUE(partition_info_request, group),
};
ROWS(partition_info_reply) = {
    VALUE(partition_info_reply, leader_node),  VALUE(partition_info_reply, term),
    VALUE(partition_info_reply, commit_index), VALUE(partition_info_reply, start_offset),
    VALUE(partition_info_reply, end_offset),   VALUE(partition_info_reply, size_bytes),
};

ROWS(source_elect_request) = {
    VALUE(source_elect_request, source),
    VALUE(source_elect_request, lane),
    TEXT(source_elect_request, holder, NAME_MAX_BYTES),
    VALUE(source_elect_request, ttl_ms),
    VALUE(source_elect_request, epoch),
};
ROWS(source_elect_reply) = {
    VALUE(source_elect_reply, granted),
    VALUE(source_elect_reply, epoch),
    VALUE(source_elect_reply, retry_ms),
    BLOB(source_elect_reply, checkpoint, CHECKPOINT_MAX_BYTES),
    TEXT(source_elect_reply, holder, NAME_MAX_BYTES),
};
ROWS(source_show_request) = {
    VALUE(source_show_request, source),
    VALUE(source_show_request, lane),
};
ROWS(source_resign_request) = {
    VALUE(source_resign_request, source),
    VALUE(source_resign_request, lane),
    VALUE(source_resign_request, epoch),
};
ROWS(source_checkpoint_request) = {
    VALUE(source_checkpoint_request, source),
    VALUE(source_checkpoint_request, lane),
    VALUE(source_checkpoint_request, epoch),
    BLOB(source_checkpoint_request, checkpoint, CHECKPOINT_MAX_BYTES),
};
ROWS(broker_status_reply) = {
    TEXT(broker_status_reply, json, STATUS_JSON_MAX_BYTES),
};

ROWS(node_list_item) = {
    VALUE(node_list_item, node_id),
    VALUE(node_list_item, member),
    TEXT(node_list_item, zone, ZONE_MAX_BYTES),
    VALUE(node_list_item, weight),
    VALUE(node_list_item, state),
    VALUE(node_list_item, draining),
    VALUE(node_list_item, metadata_role),
    VALUE(node_list_item, shards),
    TEXT(node_list_item, endpoint, ENDPOINT_MAX_BYTES),
    VALUE(node_list_item, replicas),
    VALUE(node_list_item, leaders),
    VALUE(node_list_item, ring_permille),
    VALUE(node_list_item, silent_ms),
};
ROWS(node_list_reply) = {
    VALUE(node_list_reply, cluster_id),
    VALUE(node_list_reply, leader_node),
    LIST(node_list_reply, items, count, node_list_item),
};
ROWS(node_change_request) = {
    VALUE(node_change_request, node_id),
    VALUE(node_change_request, kind),
    VALUE(node_change_request, weight),
};

ROWS(cluster_plan_request) = {
    VALUE(cluster_plan_request, after),
};
ROWS(plan_move) = {
    VALUE(plan_move, group),          TEXT(plan_move, topic, NAME_MAX_BYTES),
    VALUE(plan_move, partition),      NUMBERS(plan_move, from, from_count),
    NUMBERS(plan_move, to, to_count), VALUE(plan_move, bytes),
};
ROWS(cluster_plan_reply) = {
    VALUE(cluster_plan_reply, plan_id),
    VALUE(cluster_plan_reply, total),
    VALUE(cluster_plan_reply, total_bytes),
    LIST(cluster_plan_reply, moves, count, plan_move),
};
ROWS(cluster_apply_request) = {
    VALUE(cluster_apply_request, plan_id),
};
ROWS(cluster_apply_reply) = {
    VALUE(cluster_apply_reply, moves),
};
ROWS(cluster_abort_reply) = {
    VALUE(cluster_abort_reply, dropped),
    VALUE(cluster_abort_reply, reverting),
};
ROWS(move_list_request) = {
    VALUE(move_list_request, after_group),
};
ROWS(move_list_item) = {
    VALUE(move_list_item, move.group),
    TEXT(move_list_item, move.topic, NAME_MAX_BYTES),
    VALUE(move_list_item, move.partition),
    NUMBERS(move_list_item, move.from, move.from_count),
    NUMBERS(move_list_item, move.to, move.to_count),
    VALUE(move_list_item, move.bytes),
    VALUE(move_list_item, state),
};
ROWS(move_list_reply) = {
    VALUE(move_list_reply, total),
    VALUE(move_list_reply, done_since_apply),
    VALUE(move_list_reply, more),
    LIST(move_list_reply, items, count, move_list_item),
};

ROWS(group_list_request) = {
    VALUE(group_list_request, after),
    VALUE(group_list_request, include_metadata),
};
ROWS(group_member) = {
    VALUE(group_member, node_id), VALUE(group_member, member),    VALUE(group_member, kind),
    VALUE(group_member, match),   VALUE(group_member, silent_ms), VALUE(group_member, snapshotting),
};
ROWS(group_list_item) = {
    VALUE(group_list_item, group),
    TEXT(group_list_item, topic, NAME_MAX_BYTES),
    VALUE(group_list_item, partition),
    VALUE(group_list_item, state),
    VALUE(group_list_item, term),
    VALUE(group_list_item, commit),
    VALUE(group_list_item, applied),
    VALUE(group_list_item, last),
    VALUE(group_list_item, leader_node),
    VALUE(group_list_item, start_offset),
    VALUE(group_list_item, end_offset),
    VALUE(group_list_item, size_bytes),
    VALUE(group_list_item, quiet),
    VALUE(group_list_item, copied_bytes),
    VALUE(group_list_item, copy_total_bytes),
    LIST(group_list_item, members, member_count, group_member),
};
ROWS(group_list_reply) = {
    VALUE(group_list_reply, node_id),
    VALUE(group_list_reply, shard),
    VALUE(group_list_reply, more),
    LIST(group_list_reply, items, count, group_list_item),
};
ROWS(partition_transfer_request) = {
    VALUE(partition_transfer_request, group),
    VALUE(partition_transfer_request, to_node),
};

ROWS(lease_acquire_request) = {
    TEXT(lease_acquire_request, name, NAME_MAX_BYTES),
    TEXT(lease_acquire_request, holder, NAME_MAX_BYTES),
    VALUE(lease_acquire_request, ttl_ms),
    VALUE(lease_acquire_request, wait_ms),
};
ROWS(lease_reply) = {
    VALUE(lease_reply, granted), VALUE(lease_reply, token),
    VALUE(lease_reply, ttl_ms),  TEXT(lease_reply, holder, NAME_MAX_BYTES),
    VALUE(lease_reply, left_ms), VALUE(lease_reply, waiting),
};
ROWS(lease_renew_request) = {
    TEXT(lease_renew_request, name, NAME_MAX_BYTES),
    TEXT(lease_renew_request, holder, NAME_MAX_BYTES),
    VALUE(lease_renew_request, token),
    VALUE(lease_renew_request, ttl_ms),
};
ROWS(lease_release_request) = {
    TEXT(lease_release_request, name, NAME_MAX_BYTES),
    TEXT(lease_release_request, holder, NAME_MAX_BYTES),
    VALUE(lease_release_request, token),
};
ROWS(lease_list_request) = {
    TEXT(lease_list_request, after, NAME_MAX_BYTES),
};
ROWS(lease_list_item) = {
    TEXT(lease_list_item, name, NAME_MAX_BYTES),
    TEXT(lease_list_item, holder, NAME_MAX_BYTES),
    VALUE(lease_list_item, token),
    VALUE(lease_list_item, ttl_ms),
    VALUE(lease_list_item, left_ms),
    VALUE(lease_list_item, waiting),
};
ROWS(lease_list_reply) = {
    VALUE(lease_list_reply, more),
    LIST(lease_list_reply, items, count, lease_list_item),
};
ROWS(worker_id_request) = {
    TEXT(worker_id_request, holder, NAME_MAX_BYTES),
    VALUE(worker_id_request, ttl_ms),
};
ROWS(worker_id_reply) = {
    VALUE(worker_id_reply, worker_id),
    VALUE(worker_id_reply, ttl_ms),
};

ROWS(subscription_alter_request) = {
    VALUE(subscription_alter_request, group),
    TEXT(subscription_alter_request, name, NAME_MAX_BYTES),
    VALUE(subscription_alter_request, pause),
    VALUE(subscription_alter_request, lease_ms),
    VALUE(subscription_alter_request, max_deliveries),
    VALUE(subscription_alter_request, backoff_min_ms),
    VALUE(subscription_alter_request, backoff_max_ms),
    VALUE(subscription_alter_request, inflight_max),
    VALUE(subscription_alter_request, priority_age_ms),
    VALUE(subscription_alter_request, key_policy),
};
ROWS(subscription_reset_request) = {
    VALUE(subscription_reset_request, group),
    TEXT(subscription_reset_request, name, NAME_MAX_BYTES),
    VALUE(subscription_reset_request, to),
    VALUE(subscription_reset_request, dry_run),
};
ROWS(subscription_reset_reply) = {
    VALUE(subscription_reset_reply, from),
    VALUE(subscription_reset_reply, to),
};
ROWS(subscription_claim_request) = {
    VALUE(subscription_claim_request, group),
    TEXT(subscription_claim_request, name, NAME_MAX_BYTES),
    TEXT(subscription_claim_request, member, NAME_MAX_BYTES),
    VALUE(subscription_claim_request, epoch),
};
ROWS(subscription_claim_reply) = {
    VALUE(subscription_claim_reply, position),
};
ROWS(receive_item) = {
    VALUE(receive_item, group),
};
ROWS(receive_request) = {
    TEXT(receive_request, subscription, NAME_MAX_BYTES),
    TEXT(receive_request, member, NAME_MAX_BYTES),
    VALUE(receive_request, max_messages),
    VALUE(receive_request, max_bytes),
    VALUE(receive_request, max_wait_ms),
    VALUE(receive_request, lease_ms),
    LIST(receive_request, items, count, receive_item),
};
ROWS(receive_refusal) = {
    VALUE(receive_refusal, group),
    VALUE(receive_refusal, status),
};
ROWS(receive_reply) = {
    VALUE(receive_reply, group),
    VALUE(receive_reply, lease),
    VALUE(receive_reply, token),
    VALUE(receive_reply, lease_ms),
    VALUE(receive_reply, count),
    BLOB(receive_reply, repeats, RECEIVE_MESSAGES_MAX *DELIVERY_REPEAT_BYTES),
    LIST(receive_reply, refused, refused_count, receive_refusal),
};
ROWS(settle_item) = {
    VALUE(settle_item, lease),
    VALUE(settle_item, token),
    VALUE(settle_item, kind),
    VALUE(settle_item, first),
    VALUE(settle_item, count),
    VALUE(settle_item, delay_ms),
    TEXT(settle_item, reason, REASON_MAX_BYTES),
};
ROWS(settle_request) = {
    VALUE(settle_request, group),
    TEXT(settle_request, subscription, NAME_MAX_BYTES),
    TEXT(settle_request, member, NAME_MAX_BYTES),
    LIST(settle_request, items, count, settle_item),
};
ROWS(settle_result) = {
    VALUE(settle_result, status),
};
ROWS(settle_reply) = {
    LIST(settle_reply, results, count, settle_result),
};
ROWS(assigned_partition) = {
    VALUE(assigned_partition, partition),
    VALUE(assigned_partition, epoch),
};
ROWS(member_heartbeat_request) = {
    VALUE(member_heartbeat_request, group),
    TEXT(member_heartbeat_request, subscription, NAME_MAX_BYTES),
    TEXT(member_heartbeat_request, member, NAME_MAX_BYTES),
    VALUE(member_heartbeat_request, instance),
    TEXT(member_heartbeat_request, zone, ZONE_MAX_BYTES),
    VALUE(member_heartbeat_request, session_ms),
    VALUE(member_heartbeat_request, partitions),
    LIST(member_heartbeat_request, held, held_count, assigned_partition),
    TEXT(member_heartbeat_request, zones, ZONES_MAX_BYTES),
};
ROWS(member_heartbeat_reply) = {
    VALUE(member_heartbeat_reply, epoch),
    VALUE(member_heartbeat_reply, heartbeat_ms),
    LIST(member_heartbeat_reply, assigned, count, assigned_partition),
    VALUE(member_heartbeat_reply, paused),
};
ROWS(member_leave_request) = {
    VALUE(member_leave_request, group),
    TEXT(member_leave_request, subscription, NAME_MAX_BYTES),
    TEXT(member_leave_request, member, NAME_MAX_BYTES),
    VALUE(member_leave_request, instance),
    TEXT(member_leave_request, reason, REASON_MAX_BYTES),
};
ROWS(member_list_request) = {
    VALUE(member_list_request, group),
    TEXT(member_list_request, subscription, NAME_MAX_BYTES),
};
ROWS(member_list_item) = {
    TEXT(member_list_item, member, NAME_MAX_BYTES),
    TEXT(member_list_item, zone, ZONE_MAX_BYTES),
    TEXT(member_list_item, client, NAME_MAX_BYTES),
    VALUE(member_list_item, joined_ms),
    VALUE(member_list_item, session_ms),
    VALUE(member_list_item, silent_ms),
    VALUE(member_list_item, assigned),
    VALUE(member_list_item, held),
};
ROWS(member_list_reply) = {
    VALUE(member_list_reply, epoch),
    LIST(member_list_reply, items, count, member_list_item),
};
ROWS(event_list_request) = {
    VALUE(event_list_request, group),
    TEXT(event_list_request, subscription, NAME_MAX_BYTES),
    VALUE(event_list_request, after),
};
ROWS(event_list_item) = {
    VALUE(event_list_item, number),
    VALUE(event_list_item, time_ms),
    TEXT(event_list_item, kind, NAME_MAX_BYTES),
    TEXT(event_list_item, who, NAME_MAX_BYTES),
    TEXT(event_list_item, why, REASON_MAX_BYTES),
    VALUE(event_list_item, epoch),
};
ROWS(event_list_reply) = {
    VALUE(event_list_reply, more),
    LIST(event_list_reply, items, count, event_list_item),
};
ROWS(dead_list_request) = {
    VALUE(dead_list_request, group),        TEXT(dead_list_request, subscription, NAME_MAX_BYTES),
    VALUE(dead_list_request, from),         VALUE(dead_list_request, count_max),
    VALUE(dead_list_request, with_history), TEXT(dead_list_request, reason, REASON_MAX_BYTES),
};
ROWS(failure) = {
    VALUE(failure, time_ms),
    VALUE(failure, kind),
    TEXT(failure, member, NAME_MAX_BYTES),
    TEXT(failure, reason, REASON_MAX_BYTES),
};
ROWS(dead_item) = {
    VALUE(dead_item, number),
    VALUE(dead_item, offset),
    VALUE(dead_item, append_time_ms),
    VALUE(dead_item, died_ms),
    VALUE(dead_item, handed_out),
    VALUE(dead_item, failed),
    VALUE(dead_item, record_bytes),
    VALUE(dead_item, id),
    TEXT(dead_item, reason, REASON_MAX_BYTES),
    VALUE(dead_item, revived),
    LIST(dead_item, failures, failure_count, failure),
};
ROWS(dead_list_reply) = {
    VALUE(dead_list_reply, next),
    VALUE(dead_list_reply, total),
    LIST(dead_list_reply, items, count, dead_item),
};
ROWS(dead_change_item) = {
    VALUE(dead_change_item, number),
};
ROWS(dead_change_request) = {
    VALUE(dead_change_request, group),
    TEXT(dead_change_request, subscription, NAME_MAX_BYTES),
    VALUE(dead_change_request, kind),
    LIST(dead_change_request, items, count, dead_change_item),
};
ROWS(dead_change_reply) = {
    VALUE(dead_change_reply, done),
};
ROWS(schedule_list_request) = {
    VALUE(schedule_list_request, group),
    VALUE(schedule_list_request, after_due_ms),
    VALUE(schedule_list_request, after_number),
};
ROWS(schedule_item) = {
    VALUE(schedule_item, due_ms),
    VALUE(schedule_item, number),
    VALUE(schedule_item, added_ms),
    VALUE(schedule_item, id),
    BLOB(schedule_item, key, REASON_MAX_BYTES),
    VALUE(schedule_item, record_bytes),
};
ROWS(schedule_list_reply) = {
    VALUE(schedule_list_reply, total),
    VALUE(schedule_list_reply, more),
    LIST(schedule_list_reply, items, count, schedule_item),
};
ROWS(schedule_cancel_item) = {
    VALUE(schedule_cancel_item, due_ms),
    VALUE(schedule_cancel_item, number),
};
ROWS(schedule_cancel_request) = {
    VALUE(schedule_cancel_request, group),
    LIST(schedule_cancel_request, items, count, schedule_cancel_item),
};
ROWS(schedule_cancel_reply) = {
    VALUE(schedule_cancel_reply, done),
};
ROWS(recurring_set_request) = {
    VALUE(recurring_set_request, group),
    TEXT(recurring_set_request, name, NAME_MAX_BYTES),
    TEXT(recurring_set_request, spec, RECURRING_SPEC_MAX_BYTES),
    TEXT(recurring_set_request, zone, NAME_MAX_BYTES),
};
ROWS(recurring_list_request) = {
    VALUE(recurring_list_request, group),
};
ROWS(recurring_item) = {
    TEXT(recurring_item, name, NAME_MAX_BYTES),
    TEXT(recurring_item, spec, RECURRING_SPEC_MAX_BYTES),
    TEXT(recurring_item, zone, NAME_MAX_BYTES),
    VALUE(recurring_item, next_ms),
    VALUE(recurring_item, fired),
};
ROWS(recurring_list_reply) = {
    LIST(recurring_list_reply, items, count, recurring_item),
};
ROWS(publish_expect) = {
    VALUE(publish_expect, record),
    VALUE(publish_expect, version),
};
ROWS(publish_request) = {
    VALUE(publish_request, group),
    LIST(publish_request, expect, count, publish_expect),
};
ROWS(publish_reply) = {
    VALUE(publish_reply, base_offset),
    VALUE(publish_reply, duplicate_count),
    VALUE(publish_reply, append_time_ms),
};
ROWS(publish_refusal) = {
    TEXT(publish_refusal, error.detail, DETAIL_MAX_BYTES),
    VALUE(publish_refusal, error.retry_after_ms),
    {LAYOUT_VALUE(publish_refusal, record), LAYOUT_ADDED(-1)},
    {LAYOUT_VALUE(publish_refusal, version), LAYOUT_ADDED(0)},
};
ROWS(key_version_request) = {
    VALUE(key_version_request, group),
    BLOB(key_version_request, key, VERSION_KEY_MAX_BYTES),
};
ROWS(key_version_reply) = {
    VALUE(key_version_reply, version),
};
ROWS(message_find_request) = {
    VALUE(message_find_request, group),
    VALUE(message_find_request, id),
};
ROWS(message_find_reply) = {
    VALUE(message_find_reply, found),
    VALUE(message_find_reply, offset),
};
ROWS(trace_request) = {
    VALUE(trace_request, group),
    VALUE(trace_request, offset),
    VALUE(trace_request, after),
};
ROWS(trace_event) = {
    VALUE(trace_event, index),
    VALUE(trace_event, kind),
    VALUE(trace_event, time_ms),
    VALUE(trace_event, node),
    TEXT(trace_event, subscription, NAME_MAX_BYTES),
    TEXT(trace_event, member, NAME_MAX_BYTES),
    TEXT(trace_event, reason, REASON_MAX_BYTES),
    VALUE(trace_event, lease),
    VALUE(trace_event, due_ms),
};
ROWS(trace_reply) = {
    VALUE(trace_reply, next),
    VALUE(trace_reply, end),
    LIST(trace_reply, events, count, trace_event),
};
ROWS(quota_set_request) = {
    TEXT(quota_set_request, quota.client, NAME_MAX_BYTES),
    TEXT(quota_set_request, quota.topic, NAME_MAX_BYTES),
    VALUE(quota_set_request, quota.bytes_per_second),
    VALUE(quota_set_request, quota.messages_per_second),
    VALUE(quota_set_request, quota.requests_per_second),
};
ROWS(quota_list_request) = {
    TEXT(quota_list_request, after_client, NAME_MAX_BYTES),
    TEXT(quota_list_request, after_topic, NAME_MAX_BYTES),
};
ROWS(quota) = {
    TEXT(quota, client, NAME_MAX_BYTES), TEXT(quota, topic, NAME_MAX_BYTES),
    VALUE(quota, bytes_per_second),      VALUE(quota, messages_per_second),
    VALUE(quota, requests_per_second),
};
ROWS(quota_list_reply) = {
    VALUE(quota_list_reply, more),
    LIST(quota_list_reply, items, count, quota),
};

/* The longest lists fit a body, and their values the reader's count. */
_Static_assert(LIST_NAMES_MAX *(3 + NAME_MAX_BYTES) + 16 <= FRAME_BODY_MAX_BYTES, "names");
_Static_assert(PARTITIONS_MAX *(1 + 9 + 5 + 1 + 5 * REPLICAS_MAX) +
                       ENDPOINTS_MAX * (1 + 5 + 5 + 3 + ENDPOINT_MAX_BYTES) + 128 <=
                   FRAME_BODY_MAX_BYTES,
               "metadata");
_Static_assert((4 + REPLICAS_MAX) * PARTITIONS_MAX + 4 * ENDPOINTS_MAX + 16 <= UNPACK_OBJECTS_MAX,
               "metadata");
_Static_assert(FETCH_ITEMS_MAX *(1 + 9 + 3 + 9 + 9 + 5) + 16 <= FRAME_BODY_MAX_BYTES, "fetch");
#define MOVE_BYTES (3 + 9 + 2 + NAME_MAX_BYTES + 5 + 2 * (1 + 5 * REPLICAS_MAX) + 9 + 5)
_Static_assert(NODES_MAX *(1 + 8 * 5 + 2 * 9 + 1 + 2 + ZONE_MAX_BYTES + 3 + ENDPOINT_MAX_BYTES) +
                       64 <=
                   FRAME_BODY_MAX_BYTES,
               "nodes");
_Static_assert(MOVE_LIST_MAX *MOVE_BYTES + 64 <= FRAME_BODY_MAX_BYTES, "moves");
_Static_assert(GROUP_LIST_MAX *(3 + 2 + NAME_MAX_BYTES + 10 * 9 + 3 * 5 + 1 + 1 +
                                GROUP_MEMBERS_MAX * (1 + 2 * 5 + 3 * 9 + 1)) +
                       64 <=
                   FRAME_BODY_MAX_BYTES,
               "groups");
_Static_assert(GROUP_LIST_MAX *(18 + 7 * GROUP_MEMBERS_MAX) + 16 <= UNPACK_OBJECTS_MAX, "groups");
_Static_assert(LEASE_LIST_MAX *(1 + 2 * (2 + NAME_MAX_BYTES) + 9 + 3 * 5) + 16 <=
                   FRAME_BODY_MAX_BYTES,
               "leases");
#define NAME_BYTES   (2 + NAME_MAX_BYTES)
#define REASON_BYTES (2 + REASON_MAX_BYTES)
_Static_assert(FETCH_ITEMS_MAX *(1 + 9 + 5) + RECEIVE_MESSAGES_MAX * DELIVERY_REPEAT_BYTES + 64 <=
                   FRAME_BODY_MAX_BYTES,
               "receive");
_Static_assert(SETTLE_ITEMS_MAX *(1 + 9 + 18 + 5 + 9 + 5 + 9 + REASON_BYTES) + 2 * NAME_BYTES +
                       64 <=
                   FRAME_BODY_MAX_BYTES,
               "settle");
_Static_assert(MEMBERS_MAX *(1 + 2 * NAME_BYTES + 2 + ZONE_MAX_BYTES + 2 * 9 + 3 * 5) + 64 <=
                   FRAME_BODY_MAX_BYTES,
               "members");
_Static_assert(PARTITIONS_MAX *(1 + 5 + 9) + ZONES_MAX_BYTES + 3 * NAME_BYTES + 128 <=
                   FRAME_BODY_MAX_BYTES,
               "heartbeat");
_Static_assert(EVENT_LIST_MAX *(1 + 3 * 9 + 2 * NAME_BYTES + REASON_BYTES) + 64 <=
                   FRAME_BODY_MAX_BYTES,
               "events");
_Static_assert(DEAD_LIST_MAX *(1 + 4 * 9 + 3 * 5 + 18 + REASON_BYTES + 1 + 1 +
                               HISTORY_MAX * (1 + 9 + 5 + NAME_BYTES + REASON_BYTES)) +
                       64 <=
                   FRAME_BODY_MAX_BYTES,
               "dead letters");
_Static_assert(SCHEDULE_LIST_MAX *(1 + 3 * 9 + 18 + REASON_BYTES + 5) + 64 <= FRAME_BODY_MAX_BYTES,
               "schedules");
_Static_assert(RECURRING_MAX *(1 + 2 * NAME_BYTES + 2 + RECURRING_SPEC_MAX_BYTES + 2 * 9) + 64 <=
                   FRAME_BODY_MAX_BYTES,
               "recurring messages");
_Static_assert(TRACE_EVENTS_MAX *(1 + 4 * 9 + 2 * 5 + 2 * NAME_BYTES + REASON_BYTES) + 64 <=
                   FRAME_BODY_MAX_BYTES,
               "trace");
_Static_assert(QUOTA_LIST_MAX *(1 + 2 * NAME_BYTES + 3 * 9) + 64 <= FRAME_BODY_MAX_BYTES, "quotas");

/* ---- Checks that no row can say ---- */

/* A client uses the place as an index, so a place that is not there is refused here, once. */
static bool metadata_reply_check(const void *v)
{
    const struct metadata_reply *reply = v;
    for (uint32_t i = 0; i < reply->partition_count; i++) {
        if (reply->partitions[i].endpoint >= reply->endpoint_count) {
            return false;
        }
    }
    return true;
}

/* ---- The functions of command.h ---- */

const struct layout command_layouts[COMMAND_STRUCTS] = {
#define LAYOUT(type)                                                                               \
    [COMMAND_STRUCT_##type] = {.name = #type,                                                      \
                               .bytes = sizeof(struct type),                                       \
                               .rows = type##_rows,                                                \
                               .count = sizeof(type##_rows) / sizeof(type##_rows[0]),              \
                               .check = COMMAND_STRUCT_##type == COMMAND_STRUCT_metadata_reply     \
                                            ? metadata_reply_check                                 \
                                            : NULL},
    COMMAND_STRUCT_MAP(LAYOUT)
#undef LAYOUT
};

#define COMMAND_DEFINE(name)                                                                       \
    void name##_encode(struct buf *b, const struct name *v)                                        \
    {                                                                                              \
        layout_encode(b, &command_layouts[COMMAND_STRUCT_##name], v);                              \
    }                                                                                              \
    enum ferry_err name##_decode(struct bytes body, struct name *v)                                \
    {                                                                                              \
        return layout_decode(body, &command_layouts[COMMAND_STRUCT_##name], v);                    \
    }
COMMAND_STRUCT_MAP(COMMAND_DEFINE)
#undef COMMAND_DEFINE

void empty_encode(struct buf *b)
{
    pack_array(b, 0);
}

enum ferry_err empty_decode(struct bytes body)
{
    struct unpack u;
    unpack_begin(&u, body);
    return unpack_end(&u);
}
