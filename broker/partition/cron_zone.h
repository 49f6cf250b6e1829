/* cron_zone: the offset of a time zone's wall clock, by name of the tz database.
 *
 * The only user of ICU, whose library brings the database. Reads no clock. ICU allocates by itself.
 * Threads: an open zone belongs to one at a time. */
#ifndef FERRY_PARTITION_CRON_ZONE_H
#define FERRY_PARTITION_CRON_ZONE_H

#include "base/bytes.h"
#include "base/err.h"

struct cron_zone;

/* Errors: INVALID_ARGUMENT (no such zone in the tz database; abbreviations that ICU would take for
 * something, too), NO_MEMORY. */
MUST_CHECK enum ferry_err cron_zone_open(struct bytes name, struct cron_zone **zone);
void cron_zone_close(struct cron_zone **zone);
/* What is to be added to UTC at that instant. */
int64_t cron_zone_offset_ms(struct cron_zone *z, int64_t utc_ms);

#endif
