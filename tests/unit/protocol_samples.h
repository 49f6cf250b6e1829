/* protocol_samples: the values of the test vectors in sdk/wire/vectors. One or more for each struct
 * that travels, in the order of the conversation; included by protocol_vectors_test.c alone. */
#ifndef FERRY_TESTS_PROTOCOL_SAMPLES_H
#define FERRY_TESTS_PROTOCOL_SAMPLES_H

#include "wire/batch.h"
#include "wire/command_layouts.h"
#include "wire/frame.h"

#define TEXT(text)                                                                                 \
    {                                                                                              \
        .data = (const uint8_t *)(text), .size = sizeof(text) - 1                                  \
    }
#define STRUCT(s) .which = COMMAND_STRUCT_##s, .value = &(const struct s)
#define CLUSTER_ID                                                                                 \
    {                                                                                              \
        {                                                                                          \
            0x01, 0x90, 0x11, 0x22, 0x33, 0x44, 0x70, 0x01, 0x80, 1, 2, 3, 4, 5, 6, 7              \
        }                                                                                          \
    }
#define TOPIC_ID                                                                                   \
    {                                                                                              \
        {                                                                                          \
            0x01, 0x90, 0x55, 0x66, 0x77, 0x88, 0x70, 0x02, 0x80, 7, 6, 5, 4, 3, 2, 1              \
        }                                                                                          \
    }
#define SOURCE_ID                                                                                  \
    {                                                                                              \
        {                                                                                          \
            0x0f, 0x0e, 0x0d, 0x0c, 0x0b, 0x0a, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0xff                    \
        }                                                                                          \
    }
#define EMPTY COMMAND_STRUCTS /* No struct: an empty array. */

enum attachment { NOTHING, BATCH, ENTRIES, DUPLICATES };

struct sample {
    const char *what;
    uint16_t command;
    enum ferry_err status; /* Of a reply. */
    bool is_reply;
    enum attachment attachment;
    enum command_struct which;
    const void *value;
};

static const struct sample samples[] = {
    {.what = "request",
     .command = COMMAND_HELLO,
     STRUCT(hello_request){TEXT("libferry"), TEXT("0.1.0")}},
    {.what = "reply",
     .command = COMMAND_HELLO,
     .is_reply = true,
     STRUCT(hello_reply){TEXT("0.1.0"), 1, CLUSTER_ID, 1 << 20, 4 << 20, 8 << 20, 1024}},
    {.what = "the version is not spoken",
     .command = COMMAND_HELLO,
     .is_reply = true,
     .status = FERRY_ERR_BAD_VERSION,
     STRUCT(error_reply){TEXT("a frame of protocol version 2, this side speaks 1"), 0}},

    {.what = "request for a topic",
     .command = COMMAND_METADATA,
     STRUCT(metadata_request){TEXT("orders")}},
    {.what = "request for endpoints alone",
     .command = COMMAND_METADATA,
     STRUCT(metadata_request){TEXT("")}},
    {.what = "reply: two shards, three partitions",
     .command = COMMAND_METADATA,
     .is_reply = true,
     STRUCT(metadata_reply){
         .cluster_id = CLUSTER_ID,
         .endpoint_count = 2,
         .endpoints = {{1, 0, TEXT("tcp://127.0.0.1:7400")}, {1, 1, TEXT("tcp://127.0.0.1:7401")}},
         .topic_id = TOPIC_ID,
         .replicas = 1,
         .retention_ms = 604800000,
         .retention_bytes = -1,
         .dedupe_window_ms = 86400000,
         .partition_count = 3,
         .partitions = {{17, 0}, {18, 1}, {19, 0}}}},
    {.what = "reply: endpoints alone",
     .command = COMMAND_METADATA,
     .is_reply = true,
     STRUCT(metadata_reply){.cluster_id = CLUSTER_ID,
                            .endpoint_count = 1,
                            .endpoints = {{1, 0, TEXT("tcp://127.0.0.1:7400")}}}},
    {.what = "no such topic",
     .command = COMMAND_METADATA,
     .is_reply = true,
     .status = FERRY_ERR_UNKNOWN_TOPIC,
     STRUCT(error_reply){TEXT("no topic \"orders\""), 0}},

    {.what = "request",
     .command = COMMAND_TOPIC_CREATE,
     STRUCT(topic_create_request){TEXT("orders"), 3, 1, 604800000, -1, 0}},
    {.what = "reply",
     .command = COMMAND_TOPIC_CREATE,
     .is_reply = true,
     STRUCT(topic_create_reply){TOPIC_ID}},
    {.what = "request",
     .command = COMMAND_TOPIC_DELETE,
     STRUCT(topic_delete_request){TEXT("orders")}},
    {.what = "reply", .command = COMMAND_TOPIC_DELETE, .is_reply = true, .which = EMPTY},
    {.what = "request for the second page",
     .command = COMMAND_TOPIC_LIST,
     STRUCT(topic_list_request){TEXT("orders")}},
    {.what = "reply",
     .command = COMMAND_TOPIC_LIST,
     .is_reply = true,
     STRUCT(names_reply){false, 2, {TEXT("payments"), TEXT("refunds-2026.q1")}}},

    {.what = "request with a name",
     .command = COMMAND_PRODUCER_INIT,
     STRUCT(producer_init_request){TEXT("billing-7")}},
    {.what = "request without",
     .command = COMMAND_PRODUCER_INIT,
     STRUCT(producer_init_request){TEXT("")}},
    {.what = "reply",
     .command = COMMAND_PRODUCER_INIT,
     .is_reply = true,
     STRUCT(producer_init_reply){4711, 2}},
    {.what = "request",
     .command = COMMAND_PRODUCE,
     .attachment = BATCH,
     STRUCT(produce_request){17}},
    {.what = "reply",
     .command = COMMAND_PRODUCE,
     .is_reply = true,
     STRUCT(produce_reply){1000, false, 0}},
    {.what = "reply to a repeat",
     .command = COMMAND_PRODUCE,
     .is_reply = true,
     STRUCT(produce_reply){1000, true, 0}},
    {.what = "reply: two records dropped by id",
     .command = COMMAND_PRODUCE,
     .is_reply = true,
     .attachment = DUPLICATES,
     STRUCT(produce_reply){1000, false, 2}},
    {.what = "come again later",
     .command = COMMAND_PRODUCE,
     .is_reply = true,
     .status = FERRY_ERR_THROTTLED,
     STRUCT(error_reply){TEXT("too many bytes in flight"), 250}},

    {.what = "request",
     .command = COMMAND_APPEND_CAS,
     .attachment = BATCH,
     STRUCT(append_cas_request){17, SOURCE_ID, 0, 5, 41, TEXT("\x82\x01\xff cursor")}},
    {.what = "reply",
     .command = COMMAND_APPEND_CAS,
     .is_reply = true,
     STRUCT(append_cas_reply){42, 1003}},
    {.what = "the cursor has moved",
     .command = COMMAND_APPEND_CAS,
     .is_reply = true,
     .status = FERRY_ERR_CURSOR_CONFLICT,
     STRUCT(append_cas_refusal){{TEXT("the cursor is at version 42"), 0}, 42, 5, TEXT("now"), -1}},
    {.what = "record 1 is refused",
     .command = COMMAND_APPEND_CAS,
     .is_reply = true,
     .status = FERRY_ERR_TOO_LARGE,
     STRUCT(append_cas_refusal){{TEXT("record 1 is too large"), 0}, 41, 5, TEXT("now"), 1}},
    {.what = "request",
     .command = COMMAND_CURSOR_GET,
     STRUCT(cursor_get_request){17, SOURCE_ID, 0}},
    {.what = "reply",
     .command = COMMAND_CURSOR_GET,
     .is_reply = true,
     STRUCT(cursor_get_reply){42, 5, TEXT("now")}},
    {.what = "reply: none yet",
     .command = COMMAND_CURSOR_GET,
     .is_reply = true,
     STRUCT(cursor_get_reply){0, 0, TEXT("")}},

    {.what = "request for two partitions",
     .command = COMMAND_FETCH,
     STRUCT(fetch_request){500, 1, 1 << 20, 2, {{17, 1000}, {18, 0}}}},
    {.what = "reply: entries of the first, an error for the second",
     .command = COMMAND_FETCH,
     .is_reply = true,
     .attachment = ENTRIES,
     STRUCT(fetch_reply){2,
                         {{17, 0, 0, 1005, 0}, {18, FERRY_ERR_OFFSET_OUT_OF_RANGE, 100, 200, 0}}}},
    {.what = "request by time",
     .command = COMMAND_OFFSET_FIND,
     STRUCT(offset_find_request){17, OFFSET_TIME, 1700000000000}},
    {.what = "reply",
     .command = COMMAND_OFFSET_FIND,
     .is_reply = true,
     STRUCT(offset_find_reply){900, 0, 1005}},

    {.what = "request",
     .command = COMMAND_SUBSCRIPTION_CREATE,
     STRUCT(subscription_create_request){17, TEXT("ledger"), SUBSCRIPTION_STREAM, -2}},
    {.what = "reply",
     .command = COMMAND_SUBSCRIPTION_CREATE,
     .is_reply = true,
     STRUCT(subscription_create_reply){0}},
    {.what = "request",
     .command = COMMAND_SUBSCRIPTION_DELETE,
     STRUCT(subscription_delete_request){17, TEXT("ledger")}},
    {.what = "reply", .command = COMMAND_SUBSCRIPTION_DELETE, .is_reply = true, .which = EMPTY},
    {.what = "request",
     .command = COMMAND_SUBSCRIPTION_COMMIT,
     STRUCT(subscription_commit_request){17, TEXT("ledger"), 1003, 0}},
    {.what = "reply",
     .command = COMMAND_SUBSCRIPTION_COMMIT,
     .is_reply = true,
     STRUCT(subscription_commit_reply){1003}},
    {.what = "request",
     .command = COMMAND_SUBSCRIPTION_GET,
     STRUCT(subscription_get_request){17, TEXT("ledger")}},
    {.what = "reply",
     .command = COMMAND_SUBSCRIPTION_GET,
     .is_reply = true,
     STRUCT(subscription_get_reply){SUBSCRIPTION_STREAM, 1003, 0, 1005, 1500}},
    {.what = "request",
     .command = COMMAND_SUBSCRIPTION_LIST,
     STRUCT(subscription_list_request){17, TEXT("")}},
    {.what = "reply: more follow",
     .command = COMMAND_SUBSCRIPTION_LIST,
     .is_reply = true,
     STRUCT(names_reply){true, 1, {TEXT("ledger")}}},
    {.what = "request", .command = COMMAND_PARTITION_INFO, STRUCT(partition_info_request){17}},
    {.what = "reply",
     .command = COMMAND_PARTITION_INFO,
     .is_reply = true,
     STRUCT(partition_info_reply){1, 3, 77, 0, 1005, INT64_MAX}},

    {.what = "request",
     .command = COMMAND_SOURCE_ELECT,
     STRUCT(source_elect_request){SOURCE_ID, 0, TEXT("relay-host-1"), 5000, 0}},
    {.what = "reply: granted",
     .command = COMMAND_SOURCE_ELECT,
     .is_reply = true,
     STRUCT(source_elect_reply){true, 5, 0, TEXT("kept"), TEXT("relay-host-1")}},
    {.what = "reply: another holds it",
     .command = COMMAND_SOURCE_ELECT,
     .is_reply = true,
     STRUCT(source_elect_reply){false, 4, 3200, TEXT(""), TEXT("relay-host-2")}},
    {.what = "request",
     .command = COMMAND_SOURCE_RESIGN,
     STRUCT(source_resign_request){SOURCE_ID, 0, 5}},
    {.what = "reply", .command = COMMAND_SOURCE_RESIGN, .is_reply = true, .which = EMPTY},
    {.what = "request",
     .command = COMMAND_SOURCE_CHECKPOINT,
     STRUCT(source_checkpoint_request){SOURCE_ID, 0, 5, TEXT("kept")}},
    {.what = "reply", .command = COMMAND_SOURCE_CHECKPOINT, .is_reply = true, .which = EMPTY},
    {.what = "request", .command = COMMAND_BROKER_STATUS, .which = EMPTY},
    {.what = "reply",
     .command = COMMAND_BROKER_STATUS,
     .is_reply = true,
     STRUCT(broker_status_reply){TEXT("{\"version\":\"0.1.0\"}")}},
};

/* {traceparent: "00-0af7", ce_type: "order"}; values as bin. */
#define HEADERS                                                                                    \
    "\x82\xab"                                                                                     \
    "traceparent"                                                                                  \
    "\xc4\x07"                                                                                     \
    "00-0af7"                                                                                      \
    "\xa7"                                                                                         \
    "ce_type"                                                                                      \
    "\xc4\x05"                                                                                     \
    "order"

static const struct batch_record plain_records[] = {
    {.timestamp_ms = 1700000000000, .payload = TEXT("one record, no key, no id")},
};
static const struct batch_record mixed_records[] = {
    {.timestamp_ms = 1700000000000,
     .has_key = true,
     .key = TEXT("order-1"),
     .payload = TEXT("{\"total\":10}"),
     .id = {{0x01, 0x8b, 0xcf, 0xe5, 0x68, [15] = 1}}},
    {.timestamp_ms = 1700000000200,
     .has_key = true,
     .key = TEXT(""),
     .headers = TEXT(HEADERS),
     .payload = TEXT("an empty key is a key; this one has headers and no id")},
    {.timestamp_ms = 1699999999999,
     .payload = TEXT(""),
     .id = {{0x01, 0x8b, 0xcf, 0xe5, 0x68, [15] = 2}}},
};

/* Frames and batches that must be refused: a change to a good one, which is signed again or not. */
struct refusal {
    const char *what;
    const char *decoder; /* "frame", "batch" or "fetch_entry". */
    size_t at;
    uint8_t size;
    uint64_t value; /* Put there, little-endian, `size` bytes. */
    bool sign;      /* The checksum is made right after the change. */
    int cut;        /* Bytes taken off the end (added, when negative). */
};

static const struct refusal refusals[] = {
    {"another magic", "frame", 0, 2, 0x4659, true, 0},
    {"another version", "frame", 2, 1, 2, true, 0},
    {"a kind that does not exist", "frame", 3, 1, 3, true, 0},
    {"a request with a status", "frame", 6, 2, 1, true, 0},
    {"a body longer than the frame", "frame", 16, 4, 0xffffffff, false, 0},
    {"an attachment longer than the frame", "frame", 20, 4, 0xffffffff, false, 0},
    {"a wrong checksum", "frame", 28, 4, 0, false, 0},
    {"a byte is missing", "frame", 0, 0, 0, false, 1},
    {"a byte too much", "frame", 0, 0, 0, false, -1},
    {"another magic", "batch", 0, 4, 0, true, 0},
    {"more bytes than there are", "batch", 4, 4, 0xffffffff, true, 0},
    {"a wrong checksum", "batch", 8, 8, 0, false, 0},
    {"a flag that does not exist", "batch", 16, 2, 3, true, 0},
    {"a reserved field that is not 0", "batch", 18, 2, 1, true, 0},
    {"no record", "batch", 20, 4, 0, true, 0},
    {"one record more than there is", "batch", 20, 4, 4, true, 0},
    {"one record fewer than there are", "batch", 20, 4, 2, true, 0},
    {"records shorter than the batch", "batch", 44, 4, 1, true, 0},
    {"a record longer than the records", "batch", 64, 1, 0x7f, true, 0},
    {"a record of no bytes", "batch", 64, 1, 0, true, 0},
    {"a record length in more bytes than it needs", "batch", 64, 2, 0x0080, true, 0},
    {"a byte is missing", "batch", 0, 0, 0, false, 1},
    {"a skip that is no record", "fetch_entry", 32, 4, 3, true, 0},
    {"a base offset below 0", "fetch_entry", 0, 8, UINT64_MAX, true, 0},
    {"more skips than there are bytes", "fetch_entry", 16, 4, 0xffffffff, false, 0},
    {"a wrong checksum", "fetch_entry", 24, 8, 0, false, 0},
    {"a byte is missing", "fetch_entry", 0, 0, 0, false, 1},
};

#endif
