/* broker_fixture: a broker in this process, and clients that speak raw frames to it: what the SDK
 * would never send can be sent. */
#ifndef FERRY_TEST_BROKER_FIXTURE_H
#define FERRY_TEST_BROKER_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "server/broker.h"
#include "wire/batch.h"
#include "wire/command.h"
#include "wire/frame.h"

#define LINKS_MAX 16
#define ANSWER_MS 10000 /* Longer than any answer may take; a test that works never waits it. */

struct broker_fixture {
    char root[256];
    struct broker_options options;
    struct broker *broker;
    struct err_text detail;
    struct net_link *links[LINKS_MAX]; /* Open ones: a test that fails leaves them to teardown. */
};

/* A connection of its own, to any endpoint. */
struct wire_client {
    struct net_link *link;
    struct net_link **slot; /* In the fixture. */
    uint64_t next_id;
};

struct wire_reply {
    struct net_message message;
    struct frame frame;
    enum ferry_err status;
    struct error_reply error; /* When status is not FERRY_OK. */
};

int broker_setup(void **state); /* Options for inproc, one shard; not started. */
int broker_teardown(void **state);
#define broker_test(name) cmocka_unit_test_setup_teardown(name, broker_setup, broker_teardown)

void broker_set(struct broker_fixture *f, const char *option, const char *value);
void broker_up(struct broker_fixture *f); /* Must start. */
void broker_down(struct broker_fixture *f);

void wire_connect(struct broker_fixture *f, struct wire_client *c, const char *endpoint);
void wire_close(struct wire_client *c);
/* Sends a request; returns its id. `b` was begun with wire_begin and holds the body. */
void wire_begin(struct wire_client *c, struct buf *b, enum command command);
uint64_t wire_send(struct wire_client *c, struct buf *b, struct bytes attachment);
void wire_send_raw(struct wire_client *c, const void *bytes, size_t size);
/* The next reply. Fails when there is none in time. */
void wire_receive(struct wire_client *c, struct wire_reply *r);
bool wire_receive_within(struct wire_client *c, struct wire_reply *r, int ms);
void wire_reply_close(struct wire_reply *r);
/* Waits for the answer of this request alone; its status. The reply stays open when `r` is given.
 */
enum ferry_err wire_call(struct wire_client *c, struct buf *b, struct bytes attachment,
                         struct wire_reply *r);

/* ---- Requests ---- */

/* Says who it is; a test's client is nobody until then. */
void wire_hello(struct wire_client *c, const char *name);
/* Limits 0, 0, 0: the row goes. */
enum ferry_err wire_quota_set(struct wire_client *c, const char *client, const char *topic,
                              uint64_t bytes, uint64_t messages, uint64_t requests);

enum ferry_err wire_topic_create(struct wire_client *c, const char *name, uint32_t partitions,
                                 struct ferry_id *id);
enum ferry_err wire_topic_delete(struct wire_client *c, const char *name);
struct wire_topic {
    struct ferry_id id;
    uint32_t partition_count;
    uint64_t groups[16];
    uint32_t endpoint[16];
    char endpoints[4][ENDPOINT_MAX_BYTES + 1];
};
enum ferry_err wire_metadata(struct wire_client *c, const char *name, struct wire_topic *t);
/* Makes the topic; gives the group of its partition 0. */
uint64_t wire_new_topic(struct wire_client *c, const char *name);

/* A batch of `count` records whose payloads begin with content, content + 1, …; freed with
 * buf_fini. */
void wire_batch(struct buf *b, uint64_t producer, uint64_t sequence, uint32_t count,
                size_t payload_bytes, uint64_t content);
uint64_t wire_send_produce(struct wire_client *c, uint64_t group, struct bytes batch);
enum ferry_err wire_produce(struct wire_client *c, uint64_t group, uint32_t count, uint64_t content,
                            int64_t *base_offset);
uint64_t wire_send_fetch(struct wire_client *c, const struct fetch_request *q);
struct fetch_request wire_fetch_of(uint64_t group, int64_t offset, uint32_t max_wait_ms);
/* The payload numbers of an item's data, in order. */
size_t wire_contents(const struct wire_reply *r, uint32_t item, uint64_t *contents, size_t max);
void wire_fetch_reply(const struct wire_reply *r, struct fetch_reply *reply);

#endif
