/* effects: the consumer with an inbox that is killed. A process of its own: applies each record of
 * a topic to a SQLite database through ferry_consume_tx(), one row an effect. And what is to be
 * found there in the end: one effect for each message that was committed, none for any other. */
#ifndef FERRY_TESTS_CRASH_EFFECTS_H
#define FERRY_TESTS_CRASH_EFFECTS_H

#include <stdint.h>

#include "system/crash/check.h"

#define EFFECTS_GROUP "effects"

/* Never returns but on an error, as an exit code. */
int effects_run(const char *servers, const char *topic, const char *database);
/* Prints what is wrong and returns the number of findings; -1 when the database cannot be read. */
int64_t effects_check(const char *database, const struct traffic *t);

#endif
