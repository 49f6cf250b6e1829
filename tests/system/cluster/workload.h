/* workload.h: the roles of the workload program, and the lines of the history they write.
 *
 * One history file a process, appended to, one line an event, fields parted by a blank, each line
 * written at once so that a killed process leaves whole lines. TIME is the machine's monotonic
 * clock in microseconds, the same for all processes. Of a producer:
 *
 *   s TIME SEQ TOPIC KEY KEYSEQ SUM     about to send
 *   + TIME SEQ PARTITION OFFSET DUP     stored (DUP 1: the broker had it already)
 *   - TIME SEQ ERR                      not stored and never will be
 *   ? TIME SEQ ERR                      unknown
 *
 * Of a consumer:
 *
 *   o TIME TOPIC SUBSCRIPTION           opened; SUBSCRIPTION is - for none
 *   r TIME PARTITION OFFSET PRODUCER SEQ KEY KEYSEQ SUM GOOD
 *   c TIME PARTITION OFFSET             the commit of that position was acked
 *   e TIME ERR                          what fetching answered that is no record and no time-out
 *   z TIME                              at the end of all partitions, and asked to stop there
 *
 * Of a worker (queue, keyed). HANDED and FAILED are as the delivery told them; KIND is ack, nack,
 * release or reject; a settlement is named by the HANDED of its delivery:
 *
 *   o TIME TOPIC SUBSCRIPTION
 *   h TIME PARTITION OFFSET HANDED FAILED PRODUCER SEQ KEY KEYSEQ SUM GOOD     it was handed out
 *   b TIME PARTITION OFFSET HANDED KIND                                        about to settle
 *   d TIME PARTITION OFFSET HANDED KIND ERR                                    settled; ERR is OK
 *   e TIME ERR
 *
 * Of a member of a group (stream):
 *
 *   o TIME TOPIC SUBSCRIPTION
 *   g TIME PARTITION                    the partition is given to it
 *   x TIME PARTITION                    ... and is to go, once this line's successor is committed
 *   r, c, e as of a consumer; before each commit:
 *   b TIME PARTITION OFFSET             about to commit
 *
 * All go on until SIGTERM. A producer then flushes; a consumer reads to the end; a worker and a
 * member settle or commit what they have, and leave. */
#ifndef FERRY_SYSTEM_CLUSTER_WORKLOAD_H
#define FERRY_SYSTEM_CLUSTER_WORKLOAD_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "ferry.h"

#define TOPICS_MAX 8

struct workload {
    const char *name;    /* Of this process in the history. */
    const char *servers; /* Where the cluster is asked for first. */
    const char *topics[TOPICS_MAX];
    size_t topic_count;
    const char *subscription; /* NULL: the consumer keeps its own position. */
    uint64_t seed;
    uint64_t rate;           /* Messages a second. */
    uint64_t keys;           /* Distinct ones. */
    uint64_t bytes;          /* Of a payload, at most. */
    const char *delivery_ms; /* Of a message, until it is given up. */
    bool stop_at_end;        /* The consumer needs no signal to stop at the end. */
    uint64_t lease_ms;       /* A worker's; 0: the subscription's. */
    bool no_extend;          /* A worker's leases are not extended. */
    bool faithful;           /* A worker acks all it gets. */
    uint64_t session_ms;     /* A member's. */
    FILE *history;
    const volatile sig_atomic_t *stopped;
};

/* The process's exit status. */
int producer_run(struct workload *w);
int consumer_run(struct workload *w);
int worker_run(struct workload *w);
int member_run(struct workload *w);

/* The `r` line of a record, or with `before` another line that ends with what it holds. */
void workload_note_record(const struct workload *w, const char *before,
                          const struct ferry_record *r);
void workload_note_error(const struct workload *w, enum ferry_err err);

/* A client with the workload's options; complains and answers NULL when that fails. Reports go to
 * `report`, which may be NULL, with `w`. */
struct ferry_client *workload_open(struct workload *w, ferry_report_cb *report);

#endif
