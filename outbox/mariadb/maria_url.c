#include "outbox/mariadb/maria_url.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

static enum ferry_err bad(struct err_text *e, const char *what)
{
    return err_set(e, FERRY_ERR_INVALID_ARGUMENT,
                   "the URL %s: write mariadb://user:password@host:port/database, or "
                   "mariadb://user@/database?socket=/run/mysqld/mysqld.sock",
                   what);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Decodes `text` into `out`, which holds `max` bytes and the NUL. False: too long, a broken %xx, or
 * a NUL or control byte. */
static bool decode(struct bytes text, char *out, size_t max)
{
    size_t size = 0;
    for (size_t i = 0; i < text.size; i++) {
        char c = (char)text.data[i];
        if (c == '%') {
            int high = i + 2 < text.size ? hex_digit((char)text.data[i + 1]) : -1;
            int low = i + 2 < text.size ? hex_digit((char)text.data[i + 2]) : -1;
            if (high < 0 || low < 0) {
                return false;
            }
            c = (char)(high * 16 + low);
            i += 2;
        }
        if ((unsigned char)c < 0x20 || size == max) {
            return false;
        }
        out[size++] = c;
    }
    out[size] = '\0';
    return true;
}

/* Takes what is before the first `stop` off the front of `rest`; all of it when there is none. */
static struct bytes take(struct bytes *rest, char stop, bool *found)
{
    const uint8_t *at = rest->size == 0 ? NULL : memchr(rest->data, stop, rest->size);
    *found = at != NULL;
    struct bytes part = *rest;
    if (at != NULL) {
        part.size = (size_t)(at - rest->data);
        *rest = bytes_of(at + 1, rest->size - part.size - 1);
    } else {
        *rest = bytes_of(rest->data + rest->size, 0);
    }
    return part;
}

static bool parse_port(struct bytes text, unsigned *port)
{
    unsigned value = 0;
    if (text.size == 0 || text.size > 5) {
        return false;
    }
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] < '0' || text.data[i] > '9') {
            return false;
        }
        value = value * 10 + (text.data[i] - '0');
    }
    *port = value;
    return value >= 1 && value <= 65535;
}

static enum ferry_err parse_user(struct bytes text, struct maria_url *url, struct err_text *e)
{
    bool has_password = false;
    struct bytes user = take(&text, ':', &has_password);
    if (!decode(user, url->user, MARIA_URL_PART_MAX) ||
        (has_password && !decode(text, url->password, MARIA_URL_PART_MAX))) {
        return bad(e, "has a user or password that is too long, or whose %xx are wrong");
    }
    return FERRY_OK;
}

/* host, host:port or [v6 address]:port */
static enum ferry_err parse_host(struct bytes text, struct maria_url *url, struct err_text *e)
{
    bool found = false;
    struct bytes host = {0};
    if (text.size > 0 && text.data[0] == '[') {
        text = bytes_of(text.data + 1, text.size - 1);
        host = take(&text, ']', &found);
        if (!found || (text.size > 0 && text.data[0] != ':')) {
            return bad(e, "has an address in [ ] without its end");
        }
        found = text.size > 0;
        text = found ? bytes_of(text.data + 1, text.size - 1) : text;
    } else {
        host = take(&text, ':', &found);
    }
    if (!decode(host, url->host, MARIA_URL_PART_MAX)) {
        return bad(e, "has a host that is too long, or whose %xx are wrong");
    }
    return !found || parse_port(text, &url->port) ? FERRY_OK
                                                  : bad(e, "has a port not of 1 to 65535");
}

static bool parse_ssl(struct bytes value, enum maria_ssl *ssl)
{
    static const struct {
        const char *name;
        enum maria_ssl ssl;
    } known[] = {{"off", MARIA_SSL_OFF}, {"on", MARIA_SSL_ON}, {"verify", MARIA_SSL_VERIFY}};
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (bytes_equal(value, bytes_of_string(known[i].name))) {
            *ssl = known[i].ssl;
            return true;
        }
    }
    return false;
}

static enum ferry_err parse_option(struct bytes option, struct maria_url *url, struct err_text *e)
{
    bool found = false;
    struct bytes name = take(&option, '=', &found);
    if (bytes_equal(name, bytes_of_string("socket"))) {
        return decode(option, url->socket, MARIA_URL_SOCKET_MAX)
                   ? FERRY_OK
                   : bad(e, "has a socket= of more than 107 bytes");
    }
    if (bytes_equal(name, bytes_of_string("ssl_ca"))) {
        return decode(option, url->ssl_ca, MARIA_URL_PART_MAX)
                   ? FERRY_OK
                   : bad(e, "has an ssl_ca= that is too long");
    }
    if (bytes_equal(name, bytes_of_string("ssl"))) {
        return parse_ssl(option, &url->ssl) ? FERRY_OK
                                            : bad(e, "has an ssl= that is not off, on or verify");
    }
    return bad(e, "has an option that is not socket=, ssl= or ssl_ca=");
}

static void show(struct maria_url *url)
{
    const char *at = url->user[0] == '\0' ? "" : "@";
    char port[12] = "";
    if (url->port != 0) {
        snprintf(port, sizeof(port), ":%u", url->port);
    }
    bool v6 = strchr(url->host, ':') != NULL;
    snprintf(url->shown, sizeof(url->shown), "mariadb://%s%s%s%s%s%s/%s%s%s", url->user, at,
             v6 ? "[" : "", url->host, v6 ? "]" : "", port, url->database,
             url->socket[0] == '\0' ? "" : "?socket=", url->socket);
}

static enum ferry_err parse_parts(struct bytes rest, struct maria_url *url, struct err_text *e)
{
    bool found = false;
    struct bytes authority = take(&rest, '/', &found);
    if (!found) {
        return bad(e, "names no database");
    }
    /* A password may hold an @ that nobody encoded: the last one ends it. */
    const uint8_t *at = authority.size == 0 ? NULL : memrchr(authority.data, '@', authority.size);
    if (at != NULL) {
        enum ferry_err err =
            parse_user(bytes_of(authority.data, (size_t)(at - authority.data)), url, e);
        if (err != FERRY_OK) {
            return err;
        }
        authority = bytes_of(at + 1, authority.size - (size_t)(at - authority.data) - 1);
    }
    enum ferry_err err = parse_host(authority, url, e);
    if (err != FERRY_OK) {
        return err;
    }
    struct bytes database = take(&rest, '?', &found);
    if (database.size == 0 || !decode(database, url->database, MARIA_URL_PART_MAX)) {
        return bad(e, "names no database");
    }
    while (err == FERRY_OK && rest.size > 0) {
        err = parse_option(take(&rest, '&', &found), url, e);
    }
    return err;
}

enum ferry_err maria_url_parse(const char *text, struct maria_url *url, struct err_text *e)
{
    static const char *const schemes[] = {"mariadb://", "mysql://"};
    *url = (struct maria_url){0};
    for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
        size_t size = strlen(schemes[i]);
        if (strncmp(text, schemes[i], size) == 0) {
            enum ferry_err err = parse_parts(bytes_of_string(text + size), url, e);
            if (err == FERRY_OK) {
                show(url);
            }
            return err;
        }
    }
    return bad(e, "does not begin with mariadb://");
}
