#include "partition/cron_zone.h"

#include <unicode/ucal.h>
#include <unicode/ustring.h>

#include "base/mem.h"
#include "base/must.h"

#define ZONE_NAME_MAX 64u

struct cron_zone {
    UCalendar *calendar;
};

/* Of three letters the tz database has these; ICU has more, and what they mean there is no common
 * knowledge: BST is Bangladesh. */
static bool is_short_name(struct bytes name)
{
    static const char *const names[] = {"UTC", "GMT", "UCT", "EST", "MST", "HST", "WET",
                                        "CET", "MET", "EET", "PRC", "ROC", "ROK"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (bytes_equal(name, bytes_of_string(names[i]))) {
            return true;
        }
    }
    return false;
}

static bool begins_with(struct bytes name, const char *prefix)
{
    size_t size = strlen(prefix);
    return name.size >= size && memcmp(name.data, prefix, size) == 0;
}

static bool may_be_a_zone(struct bytes name)
{
    for (size_t i = 0; i < name.size; i++) {
        if (name.data[i] <= ' ' || name.data[i] > '~') {
            return false;
        }
    }
    return name.size > 0 && name.size < ZONE_NAME_MAX && (name.size != 3 || is_short_name(name)) &&
           !begins_with(name, "SystemV/") && !bytes_equal(name, bytes_of_string("Etc/Unknown"));
}

enum ferry_err cron_zone_open(struct bytes name, struct cron_zone **zone)
{
    UChar id[ZONE_NAME_MAX], canonical[ZONE_NAME_MAX];
    UErrorCode status = U_ZERO_ERROR;
    UBool is_system = 0;
    if (!may_be_a_zone(name)) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    u_charsToUChars((const char *)name.data, id, (int32_t)name.size);
    (void)ucal_getCanonicalTimeZoneID(id, (int32_t)name.size, canonical, ZONE_NAME_MAX, &is_system,
                                      &status);
    if (U_FAILURE(status) || !is_system) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    struct cron_zone *z = mem_zalloc(1, sizeof(*z));
    if (z == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    z->calendar = ucal_open(id, (int32_t)name.size, "en", UCAL_GREGORIAN, &status);
    if (U_FAILURE(status)) {
        cron_zone_close(&z);
        return status == U_MEMORY_ALLOCATION_ERROR ? FERRY_ERR_NO_MEMORY
                                                   : FERRY_ERR_INVALID_ARGUMENT;
    }
    *zone = z;
    return FERRY_OK;
}

void cron_zone_close(struct cron_zone **zone)
{
    struct cron_zone *z = *zone;
    if (z != NULL && z->calendar != NULL) {
        ucal_close(z->calendar);
    }
    mem_free(z);
    *zone = NULL;
}

int64_t cron_zone_offset_ms(struct cron_zone *z, int64_t utc_ms)
{
    UErrorCode status = U_ZERO_ERROR;
    ucal_setMillis(z->calendar, (UDate)utc_ms, &status);
    int32_t offset = ucal_get(z->calendar, UCAL_ZONE_OFFSET, &status);
    offset += ucal_get(z->calendar, UCAL_DST_OFFSET, &status);
    return U_FAILURE(status) ? 0 : offset;
}
