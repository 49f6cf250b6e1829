/* admin_ask: what the calls of administration have in common: a topic asked for just now, one
 * question to one partition, one question to all of them at the same time, and batches of one
 * record that go with a question. Any thread but the io thread; each waits. */
#ifndef FERRY_CLIENT_ADMIN_ASK_H
#define FERRY_CLIENT_ADMIN_ASK_H

#include "client/call.h"
#include "client/metadata.h"

#define ADMIN_PAGES_MAX                                                                            \
    100000 /* A broker that never says it was the last page is not believed.                       \
            */

int64_t admin_deadline_us(int timeout_ms);
int admin_left_ms(int64_t deadline_us);

/* The topic, asked for just now. Errors: those of the answer. */
MUST_CHECK enum ferry_err admin_topic(struct ferry_client *c, const char *name, int timeout_ms,
                                      struct topic **topic);
int32_t admin_partition_count(struct topic *t);

/* Asks the leader of one partition; the call is the caller's to call_fini(), whatever it returns.
 */
MUST_CHECK enum ferry_err admin_ask_partition(struct ferry_client *c, struct call *call,
                                              enum command command, struct topic *t,
                                              int32_t partition, call_encode *encode,
                                              const void *request, int64_t deadline_us);

/* One call to each partition. */
struct admin_survey {
    struct ferry_client *client;
    struct topic *topic;
    int32_t count;
    struct call *calls; /* By partition. */
};

/* Finds the topic and asks all its partitions. On success the survey is the caller's to free; how
 * each call ended is in it. */
MUST_CHECK enum ferry_err admin_survey_run(struct admin_survey *s, struct ferry_client *c,
                                           const char *topic, enum command command,
                                           call_encode *encode, const void *request,
                                           int64_t deadline_us);
/* Asks partition 0 when all others have answered. */
MUST_CHECK enum ferry_err admin_survey_run_0_last(struct admin_survey *s, struct ferry_client *c,
                                                  const char *topic, enum command command,
                                                  call_encode *encode, const void *request,
                                                  int64_t deadline_us);
void admin_survey_free(struct admin_survey *s);
/* The first error but `but`; `but` itself when no partition answered anything else. What the broker
 * said of it is kept for ferry_error_detail. */
enum ferry_err admin_survey_error(struct admin_survey *s, enum ferry_err but);

/* The message as a batch of one record without producer id, in `w`, which the caller inits and
 * finis. Errors: TOO_LARGE, INVALID_ARGUMENT (a header), NO_MEMORY. */
MUST_CHECK enum ferry_err admin_batch_of(struct batch_writer *w, const struct ferry_message *m,
                                         struct bytes *batch);

#endif
