/* driver_sqlite: SQLite as a driver of the relay and the command line. */
#include <stdio.h>
#include <string.h>

#include "outbox/sqlite/admin_sqlite.h"
#include "outbox/sqlite/open_sqlite.h"

outbox_driver_fn ferry_outbox_driver_sqlite;

static const char sqlite_scheme[] = "sqlite:";

/* The path of the URL; NULL: it is none of ours. */
static const char *path_of(const char *url)
{
    size_t bytes = sizeof(sqlite_scheme) - 1;
    return url != NULL && strncmp(url, sqlite_scheme, bytes) == 0 ? url + bytes : NULL;
}

static enum ferry_err driver_url_check(const char *url, char *shown, size_t shown_bytes,
                                       struct err_text *e)
{
    const char *path = path_of(url);
    if (path == NULL || path[0] == '\0' || strlen(path) > OUTBOX_URL_MAX) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT,
                       "\"%.100s\": write sqlite:PATH, with a path of 1 to %d bytes",
                       url == NULL ? "" : url, OUTBOX_URL_MAX);
    }
    (void)snprintf(shown, shown_bytes, "%s", url);
    return FERRY_OK;
}

/* A file has one writer, so there is nothing to share out. */
static enum ferry_err driver_lanes(const char *url, uint32_t *lanes, struct err_text *e)
{
    (void)url;
    (void)e;
    *lanes = 1;
    return FERRY_OK;
}

static const struct outbox_driver driver = {
    .abi = OUTBOX_DRIVER_ABI,
    .scheme = "sqlite",
    .url_check = driver_url_check,
    .lanes = driver_lanes,
    .source_open = source_sqlite_open,
    .admin = &admin_sqlite_ops,
};

const struct outbox_driver *ferry_outbox_driver_sqlite(void)
{
    return &driver;
}
