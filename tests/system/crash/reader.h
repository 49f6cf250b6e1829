/* reader: the consumer that is killed. A process of its own: reads a topic with a subscription,
 * writes what it saw to a file, then commits the position. Seen before committed: so over all its
 * lives it may see a record twice and must not miss one. */
#ifndef FERRY_TESTS_CRASH_READER_H
#define FERRY_TESTS_CRASH_READER_H

#include <stdint.h>

#include "ferry.h"

/* One record in the file. A life may end in the middle of a write: the next one cuts what is not
 * whole. */
struct sight {
    int64_t partition;
    int64_t offset;
    int64_t number; /* -1: not one of ours. */
    uint64_t sum;
};

#define READER_GROUP "reader"

/* A client and a consumer of `topic` with a subscription, as each of the killed processes has. */
enum ferry_err reader_open(struct ferry_client **client, struct ferry_consumer **consumer,
                           const char *servers, const char *topic, const char *group);
/* Never returns but on an error, as an exit code. */
int reader_run(const char *server, const char *topic, const char *file);

#endif
