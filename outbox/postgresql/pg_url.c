#include "outbox/postgresql/pg_url.h"

#include <libpq-fe.h>
#include <stdio.h>
#include <string.h>

#define FORM "postgresql://USER@HOST:PORT/DATABASE?schema=ferry"

/* Copies the URL without `schema=…`, which is kept aside. */
static bool split(const char *text, struct pg_url *url)
{
    const char *query = strchr(text, '?');
    size_t size = query == NULL ? strlen(text) : (size_t)(query - text);
    snprintf(url->conninfo, sizeof(url->conninfo), "%.*s", (int)size, text);
    char separator = '?';
    while (query != NULL && *query != '\0') {
        const char *option = query + 1;
        size_t bytes = strcspn(option, "&");
        if (strncmp(option, "schema=", 7) == 0) {
            if (bytes - 7 >= sizeof(url->schema)) {
                return false;
            }
            snprintf(url->schema, sizeof(url->schema), "%.*s", (int)(bytes - 7), option + 7);
        } else if (bytes > 0) {
            size_t at = strlen(url->conninfo);
            snprintf(url->conninfo + at, sizeof(url->conninfo) - at, "%c%.*s", separator,
                     (int)bytes, option);
            separator = '&';
        }
        query = option[bytes] == '\0' ? NULL : option + bytes;
    }
    return true;
}

static void append(struct pg_url *url, const char *format, const char *value)
{
    size_t at = strlen(url->shown);
    int n = value == NULL || value[0] == '\0'
                ? 0
                : snprintf(url->shown + at, sizeof(url->shown) - at, format, value);
    if (n < 0) {
        url->shown[at] = '\0';
    }
}

static const char *value_of(const PQconninfoOption *options, const char *keyword)
{
    for (const PQconninfoOption *o = options; o->keyword != NULL; o++) {
        if (strcmp(o->keyword, keyword) == 0) {
            return o->val;
        }
    }
    return NULL;
}

/* A password with a '/' or '@' of its own ends too early, and the rest of it stands in a name. */
static bool holds_a_password(const PQconninfoOption *options)
{
    const char *host = value_of(options, "host");
    const char *database = value_of(options, "dbname");
    return (host != NULL && strchr(host, '@') != NULL) ||
           (database != NULL && strchr(database, '@') != NULL);
}

/* Of several hosts the library is to find the primary, whichever of them it is by then. */
static void want_primary(struct pg_url *url, const PQconninfoOption *options)
{
    const char *host = value_of(options, "host");
    const char *addresses = value_of(options, "hostaddr");
    bool several = (host != NULL && strchr(host, ',') != NULL) ||
                   (addresses != NULL && strchr(addresses, ',') != NULL);
    const char *given = value_of(options, "target_session_attrs");
    if (several && (given == NULL || strcmp(given, "any") == 0)) {
        size_t at = strlen(url->conninfo);
        snprintf(url->conninfo + at, sizeof(url->conninfo) - at, "%ctarget_session_attrs=primary",
                 strchr(url->conninfo, '?') == NULL ? '?' : '&');
    }
}

static void show(struct pg_url *url, const PQconninfoOption *options)
{
    const char *host = value_of(options, "host");
    bool is_folder = host != NULL && host[0] == '/';
    snprintf(url->shown, sizeof(url->shown), "postgresql://");
    append(url, "%s@", value_of(options, "user"));
    append(url, "%s", is_folder ? NULL : host);
    append(url, ":%s", is_folder ? NULL : value_of(options, "port"));
    append(url, "/%s", value_of(options, "dbname"));
    append(url, " in %s", is_folder ? host : NULL);
    if (strcmp(url->schema, SCHEMA_POSTGRESQL_DEFAULT) != 0) {
        append(url, " (schema %s)", url->schema);
    }
}

enum ferry_err pg_url_parse(const char *text, struct pg_url *url, struct err_text *e)
{
    *url = (struct pg_url){.schema = SCHEMA_POSTGRESQL_DEFAULT};
    if (strlen(text) > PG_URL_MAX) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT, "the URL is longer than %u bytes",
                       PG_URL_MAX);
    }
    if (strncmp(text, "postgresql://", 13) != 0 && strncmp(text, "postgres://", 11) != 0) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT, "not a PostgreSQL URL: write " FORM);
    }
    if (!split(text, url) || !schema_postgresql_name_is_valid(url->schema)) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT,
                       "schema=…: a name of a-z, 0-9 and _, at most %d bytes: write " FORM,
                       SCHEMA_POSTGRESQL_NAME_MAX);
    }
    /* The library's words may quote a password, so they are not shown. */
    char *words = NULL;
    PQconninfoOption *options = PQconninfoParse(url->conninfo, &words);
    PQfreemem(words);
    if (options == NULL) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT,
                       "the URL cannot be read (an unknown option, or a character that needs "
                       "%%XX): write " FORM);
    }
    bool good = !holds_a_password(options);
    if (good) {
        show(url, options);
        want_primary(url, options);
    }
    PQconninfoFree(options);
    return good ? FERRY_OK
                : err_set(e, FERRY_ERR_INVALID_ARGUMENT,
                          "the URL has a '/' or '@' too many: in a password write %%2F and %%40: "
                          "write " FORM);
}
