/* hand_fixture: queue and keyed delivery on a partition_fixture: receive, settle, look. */
#ifndef FERRY_TEST_HAND_FIXTURE_H
#define FERRY_TEST_HAND_FIXTURE_H

#include "lib/partition_fixture.h"

#define HAND_MAX 1000

/* A message that was handed out. */
struct hand_message {
    int64_t offset;
    uint64_t content;
    uint32_t handed, failed; /* 1 and 0 when the answer does not name it. */
};
struct hand {
    enum receive_answer answer;
    uint64_t lease;
    struct ferry_id token;
    uint32_t lease_ms;
    uint32_t count; /* As told; what was read is the same (asserted). */
    struct hand_message messages[HAND_MAX];
};

/* Settings that are 0 are the defaults. */
void hand_make(struct part_fixture *f, const char *name, uint32_t mode,
               const struct subscription_create_request *settings);
/* Proposes, turns, reads. Lives until the test ends. */
struct hand *hand_receive(struct part_fixture *f, const char *name, const char *member,
                          uint32_t max_messages);
struct hand *hand_receive_with(struct part_fixture *f, const struct receive *r);
/* Fails unless so many came. */
struct hand *hand_take(struct part_fixture *f, const char *name, const char *member,
                       uint32_t messages);
void hand_nothing(struct part_fixture *f, const char *name, const char *member);
enum ferry_err hand_receive_error(struct part_fixture *f, const struct receive *r);

/* The outcome of one item. Names, reason "why". */
enum ferry_err hand_settle(struct part_fixture *f, const char *name, const struct hand *h,
                           uint32_t kind, int64_t first, uint32_t count, int64_t delay_ms);
/* Of all that was handed out, one item a run of offsets; FERRY_OK or fails. */
void hand_settle_all(struct part_fixture *f, const char *name, const struct hand *h, uint32_t kind);
/* Proposed and not turned yet; the ticket lives until the test ends. */
struct partition_ticket *hand_propose(struct part_fixture *f, const char *name,
                                      const struct settle_item *items, uint32_t count);
uint16_t hand_status(const struct partition_ticket *t, uint32_t item);
struct settle_item hand_item(const struct hand *h, uint32_t kind, int64_t first, uint32_t count,
                             int64_t delay_ms);

struct subscription_get_reply hand_get(struct part_fixture *f, const char *name);
/* Conservation: enqueued = acked + died - revived + expired + ready + leased + waiting, where
 * enqueued counts from `from`. */
void hand_conserves(struct part_fixture *f, const char *name, int64_t from);

/* Dead letters, all; `texts` keeps what they point at. */
uint32_t hand_dead(struct part_fixture *f, const char *name, struct dead_item *items, uint32_t max);
uint32_t hand_dead_change(struct part_fixture *f, const char *name, uint32_t kind, uint64_t number,
                          struct bytes record);
/* As a topic: numbers and contents. */
uint32_t hand_read_dead(struct part_fixture *f, const char *name, struct part_record *records,
                        uint32_t max);

/* A batch of records with keys ("" none) and priorities (NULL: 0), produced. The contents count on
 * from `content`. */
struct keyed_of {
    uint32_t count;
    const char *const *keys;
    const uint32_t *priorities;
    uint64_t content;
    size_t payload_bytes;
};
void hand_produce(struct part_fixture *f, const struct keyed_of *b);

#endif
