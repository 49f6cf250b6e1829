/* The PostgreSQL driver's entry. */
#include <stdio.h>

#include "base/clock.h"
#include "outbox/postgresql/admin_pg.h"
#include "outbox/postgresql/source_postgresql.h"
#include "outbox/relay/driver.h"

#define LANES_TIMEOUT_MS 5000

static enum ferry_err driver_url_check(const char *url, char *shown, size_t shown_bytes,
                                       struct err_text *e)
{
    struct pg_url parsed;
    enum ferry_err err = pg_url_parse(url, &parsed, e);
    if (err == FERRY_OK) {
        snprintf(shown, shown_bytes, "%s", parsed.shown);
    }
    return err;
}

static enum ferry_err driver_lanes(const char *url, uint32_t *lanes, struct err_text *e)
{
    struct pg_url parsed;
    struct pg_link link;
    PGresult *result = NULL;
    enum ferry_err err = pg_url_parse(url, &parsed, e);
    if (err != FERRY_OK) {
        return err;
    }
    struct pg_target target = {parsed.conninfo, parsed.shown, parsed.schema, LANES_TIMEOUT_MS,
                               LANES_TIMEOUT_MS};
    pg_link_init(&link, &target, source_pg_statements, "lanes");
    err = pg_link_up(&link, clock_monotonic_us() + (int64_t)LANES_TIMEOUT_MS * 1000, e);
    if (err == FERRY_ERR_DB_RETRY) {
        err = FERRY_ERR_IO; /* Nobody answers. */
    }
    if (err == FERRY_OK) {
        err = pg_link_ask(&link, PG_LANES, NULL, 0, &result, e);
    }
    if (err == FERRY_OK) {
        *lanes = PQntuples(result) > 0 ? (uint32_t)pg_int(result, 0, 0) : 1;
    }
    PQclear(result);
    pg_link_fini(&link);
    return err;
}

const struct outbox_driver *ferry_outbox_driver_postgresql(void);

const struct outbox_driver *ferry_outbox_driver_postgresql(void)
{
    static const struct outbox_driver driver = {.abi = OUTBOX_DRIVER_ABI,
                                                .scheme = "postgresql",
                                                .url_check = driver_url_check,
                                                .lanes = driver_lanes,
                                                .source_open = source_pg_open,
                                                .admin = &admin_pg_ops};
    return &driver;
}
