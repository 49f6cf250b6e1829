/* publish: one batch stored on condition, all or nothing (ferry_publish, ferry_key_version).
 *
 * The batch is made once, with an id for each message, so that a try whose answer was lost is known
 * again. The partition is found once the topic is known: the one that is named, or the first key's,
 * or one that the first message's id gives, so that the same messages go to the same place. */
#ifndef FERRY_CLIENT_PUBLISH_H
#define FERRY_CLIENT_PUBLISH_H

#include "client/call.h"
#include "client/client.h"
#include "client/metadata.h"

/* Without waiting: begin, step until it is true, end, which frees it. Errors as ferry_publish. */
struct publishing;
MUST_CHECK enum ferry_err publishing_begin(struct ferry_client *c,
                                           const struct ferry_message *messages, size_t count,
                                           const uint64_t *versions, int timeout_ms,
                                           struct publishing **publishing);
bool publishing_step(struct publishing *p);
MUST_CHECK enum ferry_err publishing_end(struct publishing **publishing,
                                         struct ferry_publish_result *result);

#endif
