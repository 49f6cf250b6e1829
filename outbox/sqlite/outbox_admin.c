#include "outbox/sqlite/outbox_admin.h"

#include <string.h>

#include "outbox/sqlite/admin_sqlite.h"

static const char sqlite_scheme[] = "sqlite:";

enum ferry_err outbox_url_parse(const char *text, struct outbox_url *url, struct err_text *e)
{
    size_t scheme_bytes = sizeof(sqlite_scheme) - 1;
    if (text == NULL || strncmp(text, sqlite_scheme, scheme_bytes) != 0) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT,
                       "\"%.100s\" is not the URL of a database: write sqlite:PATH",
                       text == NULL ? "" : text);
    }
    const char *path = text + scheme_bytes;
    size_t path_bytes = strlen(path);
    if (path_bytes == 0 || path_bytes > OUTBOX_PATH_MAX) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT,
                       "\"%.100s\": the path must have 1 to %d bytes", text, OUTBOX_PATH_MAX);
    }
    *url = (struct outbox_url){.kind = OUTBOX_URL_SQLITE};
    memcpy(url->path, path, path_bytes + 1);
    return FERRY_OK;
}

enum ferry_err outbox_admin_status(const char *url, struct outbox_status *status,
                                   struct err_text *e)
{
    struct outbox_url parsed;
    enum ferry_err err = outbox_url_parse(url, &parsed, e);
    return err == FERRY_OK ? admin_sqlite_status(parsed.path, status, e) : err;
}

enum ferry_err inbox_admin_status(const char *url, inbox_status_cb *callback, void *arg,
                                  struct err_text *e)
{
    struct outbox_url parsed;
    enum ferry_err err = outbox_url_parse(url, &parsed, e);
    return err == FERRY_OK ? admin_sqlite_inbox(parsed.path, callback, arg, e) : err;
}

enum ferry_err outbox_admin_init(const char *url, bool *created, struct err_text *e)
{
    struct outbox_url parsed;
    enum ferry_err err = outbox_url_parse(url, &parsed, e);
    return err == FERRY_OK ? admin_sqlite_init(parsed.path, created, e) : err;
}

enum ferry_err outbox_admin_ids(const char *url, const char *sql, outbox_ids_cb *callback,
                                void *arg, struct err_text *e)
{
    struct outbox_url parsed;
    enum ferry_err err = outbox_url_parse(url, &parsed, e);
    return err == FERRY_OK ? admin_sqlite_ids(parsed.path, sql, callback, arg, e) : err;
}
