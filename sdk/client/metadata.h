/* metadata: which topics there are, their partitions and who leads them.
 *
 * The io thread asks; the answer is published under the lock, so that ferry_send finds partition
 * counts. A topic is known by name; when it is deleted and made again its id changes and its
 * partitions get new groups.
 *
 * Invariants: (1) topics and partitions live as long as the client, so pointers to them do;
 * (2) partitions are only ever added; (3) while `known` is false every message for the topic is
 * staged, and staged messages are routed before any later one. */
#ifndef FERRY_CLIENT_METADATA_H
#define FERRY_CLIENT_METADATA_H

#include "client/producer.h"

struct partition {
    struct topic *topic;
    int32_t index;
    uint64_t group;            /* Io. */
    struct connection *leader; /* Io. NULL: not known. */
    struct connection *before; /* Io. The last leader that was known. */
    int64_t moved_us;          /* Io. When another than the one before was found; 0: never. */
    unsigned hops;             /* Io. Hints followed since anything succeeded. */
    struct stream stream;      /* Producing; see producer.h. */
};

struct topic {
    struct ferry_client *client;
    char name[DEAD_NAME_MAX_BYTES + 1];
    size_t name_bytes;
    bool of_dead;          /* The name is TOPIC.dlq.SUBSCRIPTION: only to be read. */
    struct list bucket;    /* In the client's buckets. */
    struct list work_node; /* In work_topics. */
    /* Io, locked. */
    bool known;
    struct ferry_id id;
    int32_t partition_count;
    struct partition **partitions;
    uint32_t replicas;
    int64_t retention_ms, retention_bytes, dedupe_window_ms;
    char dead_of[NAME_MAX_BYTES + 1]; /* Of a virtual topic: the subscription. */
    bool retention_acked;
    /* Locked. */
    struct list staged; /* Parcels of messages that have no partition yet. */
    int32_t sticky;     /* The partition that keyless messages go to now. */
    size_t sticky_bytes;
    int64_t sticky_since_us;
    /* Io. */
    bool adopted; /* Has its timer. */
    bool wanted;  /* Somebody waits for an answer newer than the last. */
    struct request request;
    struct timer timer;
    unsigned attempts;
    unsigned hunts;   /* Answers in a row that lead nowhere: to a suspect, or in vain. */
    bool in_vain;     /* The last answer names a leader that was just asked in vain. */
    unsigned denials; /* Answers in a row, not of the controller, that there is no such topic. */
    struct connection *asked;  /* Where the request is out, or was last. */
    struct connection *hinted; /* Where to ask next; NULL: whom one will. */
    int64_t fetched_us;        /* When the last answer came; 0: never. */
    int64_t deadline_us;       /* Of the oldest staged message; INT64_MAX: none. */
    enum ferry_err err;        /* Of the last answer. */
    struct list calls;         /* Calls that wait for the answer. */
};

/* With the lock: the topic of that name, made when it is new. Errors: BAD_NAME, NO_MEMORY,
 * QUEUE_FULL (CLIENT_TOPICS_MAX). */
MUST_CHECK enum ferry_err topic_get(struct ferry_client *c, const char *name, struct topic **topic);
/* Any thread but the io thread: waits until the topic was asked for. Errors: those of the answer;
 * UNREACHABLE, TIMEOUT. Fresh: asks even if it is known. */
MUST_CHECK enum ferry_err topic_await(struct topic *topic, bool fresh, int timeout_ms);
void topic_forget_leader(struct topic *topic); /* The next question asks for metadata first. */
void topics_free(struct ferry_client *c);      /* After the io thread has ended. */

/* ---- The io thread. */
/* Wants the topic's metadata, newer than the present; at most one request is out, with back-off
 * between. When it has come: streams, calls and consumers of the topic go on. */
void metadata_want(struct topic *topic);
void metadata_adopt(struct topic *topic); /* From work_topics. */
/* `k` has become suspect: questions to it go elsewhere, and who leads what it led is asked. */
void metadata_suspect(struct ferry_client *c, const struct connection *k);
/* The partition is led there, says metadata or a hint. */
void partition_set_leader(struct partition *p, struct connection *leader);
/* Follows the hint of a NOT_LEADER, unless too many were followed in vain. False: it cannot be. */
bool partition_follow(struct partition *p, struct bytes hint);
/* True when the last answer is recent enough to be believed. Starts a refresh in the background
 * when it has aged. */
void metadata_age(struct topic *topic, int64_t now_us);

#endif
