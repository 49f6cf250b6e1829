/* consumer: reads the partitions of one topic ahead of the application, within fetch.queue_bytes.
 *
 * The io thread keeps one FETCH out to each endpoint that leads some of the partitions, for all of
 * those, as long as there is room; what comes is checked there and queued as views. The application
 * takes views off the queue. A seek raises the partition's generation: what was fetched under an
 * older one is dropped wherever it is.
 *
 * Invariants: (1) views of one partition on the ready list are consecutive, the first begins at
 * `position`, and the last ends at `next_offset`; (2) queued_bytes is the sum of the ready views'
 * bytes; (3) queued_bytes plus what is asked for stays within fetch.queue_bytes, but for the one
 * batch that a broker may always send (and what is asked for when nothing is queued). */
#ifndef FERRY_CLIENT_CONSUMER_H
#define FERRY_CLIENT_CONSUMER_H

#include "client/batch_view.h"
#include "client/call.h"
#include "client/client.h"
#include "client/metadata.h"

#define CONSUMER_BEHIND_US     INT64_C(5000000) /* For a new leader to know what is committed. */
#define CONSUMER_CORRUPT_TRIES 3u               /* Fetches of a bad entry before CORRUPT is told. */

struct reader {
    /* Locked. */
    uint64_t generation;
    int64_t position;    /* Next to be handed out. */
    int64_t next_offset; /* Next to be fetched. */
    int64_t end_offset;  /* At the last answer; -1: none since the last seek. */
    uint32_t ready;      /* Views on the ready list. */
    /* Io. */
    bool asked; /* In a fetch that is out. */
    int64_t retry_at_us;
    unsigned attempts;
    unsigned corrupt_tries;
    bool reached;           /* `next_offset` was reached by reading: it is in the log. */
    int64_t above_since_us; /* It was said to be past the end, first then; 0: not said. */
    uint64_t group;         /* At open: another one means another topic of that name. */
};

struct group;

struct ferry_consumer {
    struct ferry_client *client;
    struct group *group; /* NULL: it reads all partitions, and for itself alone. */
    struct topic *topic;
    struct ferry_id topic_id;
    char subscription[NAME_MAX_BYTES + 1]; /* "": none. */
    int32_t partition_count;
    int32_t first_asked; /* Where the next fetch begins to name partitions. */
    struct reader *readers;
    pthread_cond_t changed;
    /* Locked. */
    struct list ready;
    size_t queued_bytes;
    bool starved;          /* The io thread waits for room. */
    enum ferry_err failed; /* For good: the topic is gone. */
    struct list work_node;
    uint64_t corrupt; /* Entries that failed their checks. */
    /* Io. */
    struct list node; /* In the client's consumers. */
    struct list fetchers;
    size_t fetcher_count;
    struct timer timer;
};

/* ---- Any thread but the io thread. */
struct ferry_consumer *consumer_new(struct ferry_client *c, struct topic *t,
                                    const char *subscription); /* NULL: no memory. */
void consumer_free(struct ferry_consumer *s);                  /* Not attached. */
MUST_CHECK enum ferry_err consumer_take_found(const struct call *call, int64_t *position);

/* Opening without waiting (opening.c): begin, step until it is true, end, which frees the opening.
 * Arguments and errors are those of ferry_consumer_open; between steps the client has its turns. */
struct consumer_opening;
MUST_CHECK enum ferry_err consumer_opening_begin(struct ferry_client *c, const char *topic,
                                                 const char *subscription, int64_t from,
                                                 int timeout_ms, struct consumer_opening **opening);
/* As ferry_consumer_join. */
MUST_CHECK enum ferry_err consumer_opening_begin_join(struct ferry_client *c, const char *topic,
                                                      const char *subscription, int64_t from,
                                                      const struct ferry_join_spec *spec,
                                                      int timeout_ms,
                                                      struct consumer_opening **opening);
bool consumer_opening_step(struct consumer_opening *opening);
MUST_CHECK enum ferry_err consumer_opening_end(struct consumer_opening **opening,
                                               struct ferry_consumer **consumer);
/* A commit without waiting: finished when call_all_finished(client, &commit->call, 1); then
 * commit->call.err says how it ended, and call_fini(&commit->call). A member's are finished before
 * it is closed. */
struct consumer_commit {
    struct call call;
    struct subscription_commit_request request;
};
MUST_CHECK enum ferry_err consumer_commit_begin(struct ferry_consumer *s, int32_t partition,
                                                int64_t offset, int timeout_ms,
                                                struct consumer_commit *commit);

/* Leaving its group without waiting: heartbeats end, and the call is begun. Afterwards
 * ferry_consumer_close, and member_leave_end once it is finished. */
struct member_leaving;
void consumer_leave_begin(struct ferry_consumer *s, int timeout_ms, struct member_leaving *leaving);

/* ---- With the lock: a member's partition comes and goes. */
void consumer_start_reading(struct ferry_consumer *s, int32_t partition, int64_t position);
void consumer_stop_reading(struct ferry_consumer *s, int32_t partition);

/* ---- The io thread. */
void consumer_pump(struct ferry_consumer *s); /* Sends what fetches can be sent. */
void consumers_metadata_changed(struct topic *t);
void consumers_suspect(struct ferry_client *c);
MUST_CHECK enum ferry_err consumer_attach(struct ferry_consumer *s);
void consumer_detach(struct ferry_consumer *s);

#endif
