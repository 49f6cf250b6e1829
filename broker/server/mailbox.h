/* mailbox: how one shard tells another something. Unbounded in type, bounded in use: a shard has at
 * most one message a partition on its way.
 *
 * The only lock of the broker, held for a pointer's time. Any thread may post; the owner takes. */
#ifndef FERRY_SERVER_MAILBOX_H
#define FERRY_SERVER_MAILBOX_H

#include <pthread.h>

#include "net/net.h"
#include "partition/partition.h"

enum mail_kind {
    MAIL_OPEN,  /* Serve this partition; answered by MAIL_OPENED. */
    MAIL_DROP,  /* The topic is deleted: stop serving, delete the data; answered by MAIL_DROPPED. */
    MAIL_SWEEP, /* All partitions that exist were told: data of any other is deleted. */
    MAIL_OPENED, /* To shard 0. */
    MAIL_DROPPED,
};

struct mail {
    struct list node;
    enum mail_kind kind;
    uint64_t group;
    struct ferry_id topic_id;
    int32_t partition;
    struct topic_settings settings;
    enum ferry_err err; /* OPENED. */
};

struct mailbox {
    pthread_mutex_t lock;
    struct list messages;
    struct net_wake wake;
};

MUST_CHECK enum ferry_err mailbox_init(struct mailbox *m);
void mailbox_fini(struct mailbox *m);
/* Copies the mail. Errors: NO_MEMORY. */
MUST_CHECK enum ferry_err mailbox_post(struct mailbox *m, const struct mail *mail);
struct mail *mailbox_take(struct mailbox *m); /* Free with mem_free; NULL when empty. */

#endif
