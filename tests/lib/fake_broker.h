/* fake_broker: a broker in memory that does as it is told, to test the client against.
 *
 * One topic "t", deliberately simple and honest: it keeps batches byte for byte, checks sequences,
 * cursors and subscriptions by the protocol's rules. Rules make it misbehave: each is met by the
 * requests of one command, in order, and says what happens to them.
 *
 * Runs on a thread of its own; every function here may be called from the test's thread. */
#ifndef FERRY_TESTS_FAKE_BROKER_H
#define FERRY_TESTS_FAKE_BROKER_H

#include "client/conf.h"
#include "net/net.h"
#include "wire/batch.h"
#include "wire/command.h"

#define FAKE_TOPIC          "t"
#define FAKE_PARTITIONS_MAX 16
#define FAKE_DEAD_OF        "work" /* Its dead letters are topic t.dlq.work: all that is stored, */
#define FAKE_DEAD_GAP       3      /* each with its offset times this for a number. */
#define FAKE_NODES_MAX      4
#define FAKE_GROUP          100u /* Of partition 0; the others follow. */

enum fake_action {
    FAKE_DROP_REQUEST, /* As if it had been lost on the way. */
    FAKE_DROP_REPLY,   /* Carried out, but nobody hears of it. */
    FAKE_DELAY,        /* Carried out; answered `value` ms later. */
    FAKE_REFUSE,       /* Not carried out; answered with error `value`. */
    FAKE_DUPLICATE,    /* Answered twice. */
    FAKE_HOLD,         /* Carried out; answered after the next reply of the same command. */
    FAKE_GARBAGE,      /* Answered with `value` random bytes. */
    FAKE_GARBLE,       /* Answered with a well-formed frame around a random body. */
    FAKE_FLIP          /* Answered with one bit of the attachment flipped. */
};

struct fake_broker;

struct fake_broker *fake_broker_start(int partitions, struct ferry_context *context,
                                      const char *endpoint);
/* Another broker of the same cluster: the same logs, another endpoint, the next node number (the
 * first is 0). Node 0 leads everything until told otherwise. Stop the first one last. */
struct fake_broker *fake_broker_join(struct fake_broker *first);
void fake_broker_stop(struct fake_broker **broker);
const char *fake_broker_endpoint(const struct fake_broker *broker);
/* The socket goes away (connections break) and comes back at the same place; the logs stay. */
void fake_broker_kill(struct fake_broker *broker);
void fake_broker_revive(struct fake_broker *broker);

/* As by SIGSTOP: connections stay, nothing is read or said. */
void fake_broker_freeze(struct fake_broker *broker, bool frozen);
/* Who leads the partition (all: -1 for the partition), and whom METADATA names; a node of -1:
 * nobody (METADATA then names node 0). */
void fake_lead(struct fake_broker *any, int partition, int node, int told);
void fake_control(struct fake_broker *any, int node); /* Who leads the metadata group. */
/* What NOT_LEADER hints at: NULL: the leader, "": nobody, else that endpoint. */
void fake_hint(struct fake_broker *any, const char *endpoint);
/* So many records of every partition are not yet said to be committed. */
void fake_lag(struct fake_broker *any, int64_t records);

/* From the `skip`-th such request from now on, the next `count` get the action. Rules of one
 * command are used in the order they were given. */
void fake_rule(struct fake_broker *broker, enum command command, int skip, int count,
               enum fake_action action, int value);
/* What this broker answers to the command from now on: that body, whatever is asked. Several are
 * given in turn, the last one for ever. */
void fake_can(struct fake_broker *broker, enum command command, struct bytes body);
void fake_rules_clear(struct fake_broker *broker);
void fake_forget_producers(struct fake_broker *broker);
void fake_drop_topic(struct fake_broker *broker); /* METADATA answers UNKNOWN_TOPIC. */
void fake_trim(struct fake_broker *broker,
               int64_t records); /* Of every partition: the log start. */

int fake_requests(struct fake_broker *broker, enum command command); /* Received so far. */
/* Body and attachment of the n-th such request, counted from 0; they live as long as the broker.
 * Not of HELLO, METADATA, PRODUCE and FETCH. Fails the test when there was none. */
struct bytes fake_asked(struct fake_broker *broker, enum command command, int n);
struct bytes fake_asked_attachment(struct fake_broker *broker, enum command command, int n);
int fake_retries_that_differ(
    struct fake_broker *broker); /* Same sequence, other bytes: must be 0. */
int64_t fake_end(struct fake_broker *broker, int partition); /* End offset. */
/* Visits every stored record in order. */
void fake_each_record(struct fake_broker *broker, int partition,
                      void (*visit)(const struct batch_record *record, int64_t offset, void *arg),
                      void *arg);
/* Stores a batch as if a producer had sent it. */
void fake_store(struct fake_broker *broker, int partition, struct bytes batch);
int64_t fake_committed(struct fake_broker *broker, int partition);

/* Queues: the one subscription, of the mode, on all partitions; 0: none. */
enum fake_queue_state { FAKE_READY, FAKE_LEASED, FAKE_ACKED, FAKE_DEAD };
void fake_subscribe(struct fake_broker *broker, uint32_t mode);
int fake_queue_count(struct fake_broker *broker, int partition, enum fake_queue_state state);
/* Leases of these messages end. */
void fake_expire(struct fake_broker *broker, int partition, int64_t first, int64_t count);
int fake_items_settled(struct fake_broker *broker); /* Items of SETTLE so far, repeats included. */
/* The next items of SETTLE are not carried out, and have this result. */
void fake_refuse_items(struct fake_broker *broker, int count, enum ferry_err err);
/* Rejects of more messages in one item are refused, as when their dead letters are too large. */
void fake_reject_max(struct fake_broker *broker, int partition, uint32_t max);
int fake_extended(struct fake_broker *broker, int partition);
/* Members of the group. */
void fake_usurp(struct fake_broker *broker,
                const char *member); /* Another instance has the name. */
void fake_pause(struct fake_broker *broker, bool paused);
int fake_members(struct fake_broker *broker);

int fake_delayed(struct fake_broker *broker, int partition); /* Messages that wait. */

/* A configuration that points at it, with short time-outs. */
struct ferry_conf *fake_conf(struct fake_broker *broker);
void fake_set(struct ferry_conf *conf, const char *name, const char *value);

#endif
