/* history: what clients did and saw, and what that must never be (reliability.md INV-L, INV-I).
 *
 * Knows messages by a number that is in their payload, and logs by (topic, partition, offset).
 * Checked at once: one offset has one message for all readers and all time (L02), a message is at
 * one offset (I01), nobody reads what was never sent or was told to be not stored (L05, L06),
 * payloads are whole (L05), a session reads without gaps and repeats (L04). Checked at the end,
 * when everything has been read from the start: what was acked is there (L01, L07), offsets are
 * dense, a producer's order is the log's (L03), and what was acked before another was sent comes
 * before it (L09, and that nobody answers from the past). Delayed messages are in no order with
 * others; they come once, not before they are due by the log's time, and never once cancelled. */
#ifndef FERRY_SIM_HISTORY_H
#define FERRY_SIM_HISTORY_H

#include "ferry.h"
#include "sim/world.h"

#define HISTORY_TOPICS_MAX     16
#define HISTORY_PARTITIONS_MAX 4
#define HISTORY_PAYLOAD_MIN    24
#define HISTORY_PAYLOAD_MAX    6000

enum history_state { HISTORY_PENDING, HISTORY_STORED, HISTORY_NOT_STORED, HISTORY_UNKNOWN };

struct history_message {
    uint32_t topic, producer;
    int32_t partition; /* -1: not known. */
    enum history_state state;
    int64_t offset;                /* -1: not known. */
    uint32_t attempts, not_stored; /* A message with an id may be sent again. */
    int64_t sent_us, acked_us;     /* The first attempt; the first ack, or SIM_NEVER. */
    uint32_t key;                  /* 0: none. */
    bool has_id;                   /* Sent again, it is the same one. */
    bool delayed;                  /* Kept aside until it is due: in no order with others. */
    int64_t due_ms;                /* As the broker told; 0: it did not. */
    bool cancelling, cancelled;    /* It was asked for; it was confirmed. */
};

struct history_log {
    uint64_t *at; /* Message by offset; 0: not seen. */
    size_t size, capacity;
    bool finally_read; /* From first_kept to end, at the end of the run. */
    int64_t first_kept, end;
};

struct history_topic {
    char name[32];
    uint32_t partitions;
    bool loose;    /* Deleted and made again: nothing is asked of it at the end. */
    bool retained; /* May drop old messages, */
    bool by_acks;  /*   but only what all its subscriptions are done with. */
    struct history_log logs[HISTORY_PARTITIONS_MAX];
};

/* A lie planted for the canary: what the history is told is not what was. */
enum history_lie {
    LIE_NONE,
    LIE_LOST,      /* An ack for a place behind the end. */
    LIE_MOVED,     /* An ack for another place. */
    LIE_FORGED,    /* A changed payload. */
    LIE_REORDERED, /* A message is said to be older than it is. */
    LIE_UNSAID,    /* A stored message is told to be not stored. */
    LIE_AGAIN,     /* A hand-out is told with the number of the one before. */
    LIE_UNDONE,    /* A nack is told as an ack. */
};

struct history {
    enum history_lie lie; /* Told once, when there is something to lie about. */
    struct history_topic topics[HISTORY_TOPICS_MAX];
    uint32_t topic_count;
    struct history_message *messages; /* By number; 0 is not used. */
    size_t count, capacity;
    uint64_t acked, unknown, not_stored, read, duplicates;
};

/* True once, of the first thing that the lie can be about. */
bool history_lies(struct history *h, enum history_lie lie);

void history_init(struct history *h);
void history_fini(struct history *h);
uint32_t history_add_topic(struct history *h, const char *name, uint32_t partitions);
/* A new message's number; the payload for it is history_payload's. */
uint64_t history_new(struct history *h, uint32_t topic, uint32_t producer);
size_t history_payload(uint64_t number, uint8_t out[HISTORY_PAYLOAD_MAX]);
void history_sending(struct history *h, uint64_t number); /* An attempt begins. */
void history_outcome(struct history *h, uint64_t number, enum ferry_outcome outcome,
                     int32_t partition, int64_t offset, bool duplicate);

/* A reader's walk through one partition. */
struct history_session {
    uint32_t topic;
    int32_t partition;
    int64_t next; /* -1: anywhere. */
};
/* Returns the message; 0: it is not what anybody sent. */
uint64_t history_saw(struct history *h, struct history_session *s, int64_t offset,
                     const void *payload, size_t bytes);
/* A record that somebody has of a log, whole and where it belongs. Returns the message; 0: it is
 * not.
 */
uint64_t history_look(struct history *h, uint32_t topic, int32_t partition, int64_t offset,
                      const void *payload, size_t bytes);
/* The number that a payload tells; 0: it is not whole. */
uint64_t history_number(const struct history *h, const void *payload, size_t bytes);
/* Delayed messages: it is sent as one; it is stored until due; it was put into the log at that time
 * of the log; it is asked to be cancelled, and was still there when it was. */
void history_delaying(struct history *h, uint64_t number);
void history_scheduled(struct history *h, uint64_t number, int64_t due_ms);
void history_appeared(const struct history *h, uint64_t number, int64_t append_time_ms);
void history_cancelling(struct history *h, uint64_t number);
void history_cancelled(struct history *h, uint64_t number);

/* A log was read from its first offset kept up to its end, by a session that saw no error. */
void history_read_out(struct history *h, uint32_t topic, int32_t partition, int64_t first_kept,
                      int64_t end);
/* All logs have been read out. */
void history_check_end(struct history *h);

#endif
