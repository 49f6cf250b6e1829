/* source: appends of a relay, each with the move of its cursor, in order by partition.
 *
 * An append is compare-and-set, so it may be sent again without harm: a second try of one that was
 * stored is refused with CURSOR_CONFLICT and the cursor that the first one wrote.
 *
 * A chain is one source's way into one partition. Appends go out in the order they were given,
 * CHAIN_INFLIGHT_MAX at a time. A conflict told to an append while an earlier one is not settled
 * proves nothing (the earlier may have been lost on the way): it is asked again when it is the
 * oldest. When an earlier one fails, those behind it conflict by themselves.
 *
 * Invariants: (1) an append is on the wire only when all before it in its chain are; (2) an append
 * that was accepted is told once. Chains are the io thread's; a source is one application
 * thread's. */
#ifndef FERRY_CLIENT_SOURCE_H
#define FERRY_CLIENT_SOURCE_H

#include "client/due.h"
#include "client/metadata.h"

#define CHAIN_INFLIGHT_MAX 8u

struct ferry_source {
    struct ferry_client *client;
    struct ferry_id id;
    uint32_t lane;
    char holder[NAME_MAX_BYTES + 1];
    uint64_t epoch;        /* Of the last election won; 0: none. */
    struct buf checkpoint; /* What the last grant pointed to. */
};

struct append {
    struct list node; /* In work_appends, then in its chain. */
    struct due due;
    struct ferry_client *client;
    const struct ferry_source
        *source; /* Identity of the chain; not looked into by the io thread. */
    struct ferry_id source_id;
    uint32_t lane;
    uint64_t epoch;
    struct topic *topic;
    int32_t partition;
    uint64_t expect_version;
    struct batch_writer writer;
    struct bytes bytes;
    size_t message_count;
    size_t cost_bytes;
    int64_t deadline_us;
    ferry_append_cb *callback;
    void *arg;
    size_t cursor_bytes;
    uint8_t cursor[FERRY_CURSOR_MAX_BYTES];
    /* Io. */
    struct chain *chain;
    struct request request;
    bool out;
    enum ferry_err last_err;
    /* The outcome. */
    struct ferry_append_result result;
    struct ferry_cursor conflict;
    struct err_text detail;
};

struct chain {
    struct list node; /* In the client's chains. */
    struct ferry_client *client;
    const struct ferry_source *source;
    struct topic *topic;
    int32_t partition;
    struct list appends; /* In order: those out or to be sent again, then the rest. */
    unsigned in_flight;
    int64_t retry_at_us;
    unsigned attempts;
    unsigned misplaced; /* Answers in a row that there is no such partition. */
    struct timer timer;
};

/* ---- The io thread (chain.c). */
void append_start(struct append *a);
void append_free(struct append *a);
void append_on_reply(struct request *r, const struct reply *reply);
void chains_close(struct ferry_client *c, const struct ferry_source *source); /* Ends all CLOSED. */
void sources_metadata_changed(struct topic *t);
void sources_suspect(struct ferry_client *c);

#endif
