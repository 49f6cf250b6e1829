/* broker_samples: one good request of each command to a partition: of subscription s (queue), of
 * `stream` (stream) where it is of that mode, of member m. */
#ifndef FERRY_TEST_BROKER_SAMPLES_H
#define FERRY_TEST_BROKER_SAMPLES_H

#include "lib/broker_deliver.h"

struct wire_sample {
    enum command command;
    void (*encode)(struct buf *b, uint64_t group);
    bool with_batch;
};
extern const struct wire_sample wire_samples[];
extern const size_t wire_sample_count;

const struct wire_sample *wire_sample_of(enum command command);
/* What it is answered with; of a receive, what became of its only partition. */
enum ferry_err wire_ask_sample(struct wire_client *c, const struct wire_sample *s, uint64_t group);

#endif
