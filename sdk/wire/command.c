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
    TEXT(metadata_request, topic, NAME_MAX_BYTES),
};
ROWS(metadata_endpoint) = {
    VALUE(metadata_endpoint, node_id),
    VALUE(metadata_endpoint, shard),
    TEXT(metadata_endpoint, endpoint, ENDPOINT_MAX_BYTES),
};
ROWS(metadata_partition) = {
    VALUE(metadata_partition, group),
    VALUE(metadata_partition, endpoint),
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
};

ROWS(topic_create_request) = {
    TEXT(topic_create_request, name, NAME_MAX_BYTES),
    VALUE(topic_create_request, partitions),
    VALUE(topic_create_request, replicas),
    VALUE(topic_create_request, retention_ms),
    VALUE(topic_create_request, retention_bytes),
    VALUE(topic_create_request, dedupe_window_ms),
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
    VALUE(subscription_get_reply, mode),         VALUE(subscription_get_reply, position),
    VALUE(subscription_get_reply, start_offset), VALUE(subscription_get_reply, end_offset),
    VALUE(subscription_get_reply, lag_ms),
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

/* The longest lists fit a body, and their values the reader's count. */
_Static_assert(LIST_NAMES_MAX *(3 + NAME_MAX_BYTES) + 16 <= FRAME_BODY_MAX_BYTES, "names");
_Static_assert(PARTITIONS_MAX *(1 + 9 + 5) + ENDPOINTS_MAX * (1 + 5 + 5 + 3 + ENDPOINT_MAX_BYTES) +
                       128 <=
                   FRAME_BODY_MAX_BYTES,
               "metadata");
_Static_assert(3 * PARTITIONS_MAX + 4 * ENDPOINTS_MAX + 16 <= UNPACK_OBJECTS_MAX, "metadata");
_Static_assert(FETCH_ITEMS_MAX *(1 + 9 + 3 + 9 + 9 + 5) + 16 <= FRAME_BODY_MAX_BYTES, "fetch");

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
