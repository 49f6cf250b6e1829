/* broker_deliver: requests of queue and keyed delivery over broker_fixture's raw frames. */
#ifndef FERRY_TEST_BROKER_DELIVER_H
#define FERRY_TEST_BROKER_DELIVER_H

#include "lib/broker_fixture.h"

#define WIRE_MESSAGES_MAX 1100u

/* What a receive was answered with. */
struct wire_delivery {
    struct receive_reply reply; /* Its texts are gone. */
    uint32_t count;             /* Messages in the attachment: */
    int64_t offsets[WIRE_MESSAGES_MAX];
    uint64_t contents[WIRE_MESSAGES_MAX];
};

/* With the defaults of all settings. */
enum ferry_err wire_subscribe(struct wire_client *c, uint64_t group, const char *name,
                              uint32_t mode);
enum ferry_err wire_subscribe_with(struct wire_client *c,
                                   const struct subscription_create_request *q);
struct receive_request wire_receive_of(uint64_t group, const char *subscription, const char *member,
                                       uint32_t max_messages, uint32_t max_wait_ms);
uint64_t wire_send_receive(struct wire_client *c, const struct receive_request *q);
/* The next reply is of a receive; its status. */
enum ferry_err wire_read_delivery(struct wire_client *c, struct wire_delivery *d);
/* Sends and reads. */
enum ferry_err wire_receive_now(struct wire_client *c, const struct receive_request *q,
                                struct wire_delivery *d);
/* One item of a delivery: `count` messages from `first` on. The item's outcome, or the request's
 * error. */
enum ferry_err wire_settle(struct wire_client *c, uint64_t group, const char *subscription,
                           const struct wire_delivery *d, uint32_t kind, int64_t first,
                           uint32_t count, int64_t delay_ms);
enum ferry_err wire_settle_items(struct wire_client *c, const struct settle_request *q,
                                 struct settle_reply *reply);
enum ferry_err wire_subscription(struct wire_client *c, uint64_t group, const char *name,
                                 struct subscription_get_reply *reply);

#endif
