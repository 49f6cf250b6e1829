/* mailbox: how one shard tells another something. Unbounded in type, bounded in use: a shard has at
 * most a few messages a partition and a node on their way.
 *
 * The only lock of the broker, held for a pointer's time. Any thread may post; the owner takes. */
#ifndef FERRY_SERVER_MAILBOX_H
#define FERRY_SERVER_MAILBOX_H

#include <pthread.h>

#include "net/net.h"
#include "partition/partition.h"
#include "wire/command.h"

enum mail_kind {
    /* To the shard of a group. */
    MAIL_OPEN,    /* Serve this partition, or go on with what the mail says of it; MAIL_OPENED. */
    MAIL_DROP,    /* No longer here: stop serving, delete the data; answered by MAIL_DROPPED. */
    MAIL_KEEP,    /* All partitions of this generation were told: the others are closed and, when
                     `sweep`, their data is deleted. */
    MAIL_CLUSTER, /* The cluster that the node belongs to now. */
    MAIL_NODE,    /* A node is known, or has changed: `text` holds its record. */
    MAIL_NODE_GONE,
    MAIL_QUOTAS, /* `text` holds all of them: struct meta_quota, one after another. */
    /* To shard 0. */
    MAIL_OPENED,
    MAIL_DROPPED,
    MAIL_FOUND, /* Data of a group that the catalog did not name; MAIL_DROP, unless it is named now.
                 */
    MAIL_LED,   /* A replica here leads its group and is ready. */
    MAIL_MOVED, /* The group's members are what they should be. */
};

struct mail {
    struct list node;
    enum mail_kind kind;
    uint64_t group;
    struct ferry_id topic_id;       /* Or cluster id. */
    char topic[NAME_MAX_BYTES + 1]; /* OPEN. */
    int32_t partition;
    uint32_t generation;
    struct topic_settings settings;
    enum ferry_err err; /* OPENED. */
    bool sweep;         /* KEEP. */
    bool is_over;       /* DROP: the topic is gone everywhere. */
    bool campaign;      /* OPEN: just made, and this node is to lead it. */
    bool moving;        /* OPEN: somebody waits to be told that the target is reached. */
    raft_term term;     /* LED, */
    uint64_t bytes;     /* and how much there is. */
    uint32_t node_id;   /* NODE_GONE. */
    uint32_t target_count;
    uint32_t target[REPLICAS_MAX]; /* OPEN: nodes that the group should be on; MOVED: is on. */
    uint32_t initial_count;
    raft_id initial[REPLICAS_MAX]; /* OPEN: members that found the group; none: it is to be fed. */
    struct buf text;               /* Owned by the mail. */
};

struct mailbox {
    pthread_mutex_t lock;
    struct list messages;
    struct net_wake wake;
};

MUST_CHECK enum ferry_err mailbox_init(struct mailbox *m);
void mailbox_fini(struct mailbox *m);
/* Copies the mail, and takes its text (left empty) on success. Errors: NO_MEMORY. */
MUST_CHECK enum ferry_err mailbox_post(struct mailbox *m, struct mail *mail);
struct mail *mailbox_take(struct mailbox *m); /* NULL when empty. */
void mail_free(struct mail *mail);

#endif
