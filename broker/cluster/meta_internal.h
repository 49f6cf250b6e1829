/* The metadata group's struct, for its own files: meta.c (opening, applying, topics),
 * meta_rows.c (rows on disk), meta_sources.c (producers and sources). */
#ifndef FERRY_CLUSTER_META_INTERNAL_H
#define FERRY_CLUSTER_META_INTERNAL_H

#include "base/map.h"
#include "cluster/meta.h"

enum meta_table {
    META_TABLE_BASE = 1,      /* "" -> [applied, next group, next producer, last time] */
    META_TABLE_TOPICS = 2,    /* name -> [id, partitions, replicas, settings ×3, first group] */
    META_TABLE_PRODUCERS = 3, /* name -> [producer id, epoch] */
    META_TABLE_SOURCES = 4,   /* source id, u32 lane -> [epoch, holder, ttl, checkpoint] */
};

enum meta_kind {
    META_TOPIC_CREATE = 1,      /* name, id, partitions, replicas, settings ×3, first group */
    META_TOPIC_DELETE = 2,      /* name */
    META_PRODUCER_INIT = 3,     /* name, producer id, epoch */
    META_SOURCE_ELECT = 4,      /* source, lane, epoch, holder, ttl */
    META_SOURCE_CHECKPOINT = 5, /* source, lane, checkpoint */
};

struct meta_producer {
    char name[NAME_MAX_BYTES + 1];
    uint64_t id;
    uint32_t epoch; /* Applied. */
    uint32_t proposed_epoch;
    bool dirty;
};

struct meta_source {
    struct ferry_id source;
    uint32_t lane;
    uint64_t epoch; /* Applied. */
    uint64_t proposed_epoch;
    uint32_t ttl_ms;
    int64_t lease_until_us; /* Leader only, volatile. */
    uint32_t holder_bytes, checkpoint_bytes;
    bool dirty;
    char holder[NAME_MAX_BYTES];
    uint8_t checkpoint[CHECKPOINT_MAX_BYTES];
};

struct meta {
    struct meta_config config;
    struct replica *replica;
    struct ticket_queue tickets;
    struct list changes;
    int64_t last_time_ms;
    int64_t opened_us;

    struct meta_topic **topics; /* Sorted by name. */
    size_t topic_count, topic_capacity;
    struct map producers; /* By name. */
    struct map sources;   /* By source and lane. */
    uint64_t next_group, proposed_next_group;
    uint64_t next_producer, proposed_next_producer;

    struct list dirty_topics; /* struct topic_row_change: rows to write or delete, in order. */
};

struct topic_row_change {
    struct list node;
    bool deleted;
    struct meta_topic topic;
};

struct meta_producer *meta_producer_find(const struct meta *m, struct bytes name);
enum ferry_err meta_producer_reserve(struct meta *m, struct bytes name, struct meta_producer **p);
struct meta_source *meta_source_find(const struct meta *m, const struct ferry_id *source,
                                     uint32_t lane);
enum ferry_err meta_source_reserve(struct meta *m, const struct ferry_id *source, uint32_t lane,
                                   struct meta_source **s);
void meta_source_set_holder(struct meta_source *s, struct bytes holder);
enum ferry_err meta_add_topic(struct meta *m, const struct meta_topic *topic);
enum ferry_err meta_propose(struct meta *m, struct meta_ticket *t, int64_t now_ms, int64_t now_us);

enum ferry_err meta_rows_flush(struct meta *m, struct store *store);
/* Fills the empty tables, within a view; *applied is what they stand for. */
enum ferry_err meta_rows_load(struct meta *m, uint64_t *applied);

/* Application of producer and source entries (meta_sources.c). */
struct unpack;
enum ferry_err meta_apply_producer(struct meta *m, struct unpack *u);
enum ferry_err meta_apply_elect(struct meta *m, struct unpack *u);
enum ferry_err meta_apply_checkpoint(struct meta *m, struct unpack *u);

#endif
