/* schedule_text: the identity of a delayed message as one word, PARTITION/DUE/NUMBER with the due
 * time in Unix milliseconds, for people to copy. No I/O. */
#ifndef FERRY_CLI_SCHEDULE_TEXT_H
#define FERRY_CLI_SCHEDULE_TEXT_H

#include <stdbool.h>

#include "base/must.h"
#include "ferry.h"

#define SCHEDULE_TEXT_BYTES 64

void schedule_format(const struct ferry_schedule_id *id, char text[SCHEDULE_TEXT_BYTES]);
MUST_CHECK bool schedule_parse(const char *text, struct ferry_schedule_id *id);

#endif
