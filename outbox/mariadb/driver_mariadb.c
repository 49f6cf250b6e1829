/* What libferry_outbox_mariadb.so is to the relay and the command line. */
#include <stdio.h>

#include "outbox/mariadb/admin_mariadb.h"
#include "outbox/mariadb/source_mariadb.h"
#include "outbox/relay/driver.h"

static enum ferry_err driver_url_check(const char *url, char *shown, size_t shown_bytes,
                                       struct err_text *e)
{
    struct maria_url parts;
    enum ferry_err err = maria_url_parse(url, &parts, e);
    if (err == FERRY_OK) {
        snprintf(shown, shown_bytes, "%s", parts.shown);
    }
    return err;
}

outbox_driver_fn ferry_outbox_driver_mariadb;

const struct outbox_driver *ferry_outbox_driver_mariadb(void)
{
    static const struct outbox_driver driver = {
        .abi = OUTBOX_DRIVER_ABI,
        .scheme = "mariadb",
        .url_check = driver_url_check,
        .lanes = source_maria_lanes,
        .source_open = source_open_mariadb,
        .admin = &admin_mariadb_ops,
    };
    return &driver;
}
