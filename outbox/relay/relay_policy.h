/* relay_policy: relay.poison of single topics. Pure. */
#ifndef FERRY_OUTBOX_RELAY_POLICY_H
#define FERRY_OUTBOX_RELAY_POLICY_H

#include "base/bytes.h"
#include "base/err.h"
#include "outbox/relay/relay_options.h"

/* The policy for a topic's refused rows: of relay.poison_topics, else relay.poison. */
enum relay_poison relay_policy_of(const struct relay_options *options, const char *topic);
/* Whether relay.poison_topics makes sense. Errors: INVALID_ARGUMENT, with a detail. */
MUST_CHECK enum ferry_err relay_policy_check(const struct relay_options *options,
                                             struct err_text *e);

/* The topics that relay.poison_topics names, one a call: `at` begins at the text. False: there are
 * no more. */
MUST_CHECK bool relay_policy_next_topic(const char **at, struct bytes *topic);

#endif
