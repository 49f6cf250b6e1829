/* relay_urls: the databases that a relay serves, from a list, from files, one by one; and the one
 * that a command is about. No URL's password is in any message of this.
 *
 * A list's items are separated by commas; a comma belongs to the item before it unless what follows
 * (after blanks) begins like a URL, like @FILE, or is nothing. So paths and lists of hosts may have
 * commas. */
#ifndef FERRY_OUTBOX_RELAY_RELAY_URLS_H
#define FERRY_OUTBOX_RELAY_RELAY_URLS_H

#include "base/config.h"
#include "outbox/relay/admin.h"

#define RELAY_DATABASES_MAX 64
#define RELAY_URL_FILE_MAX  (64u << 10)

struct outbox_driver;

struct relay_url {
    const struct outbox_driver *driver;
    char url[OUTBOX_URL_MAX + 1];
    char shown[OUTBOX_NAME_MAX + 1]; /* For people: no password. */
};

struct relay_urls {
    struct relay_url *items; /* Owned; RELAY_DATABASES_MAX of them. */
    size_t count;
};

MUST_CHECK enum ferry_err relay_urls_init(struct relay_urls *u);
void relay_urls_fini(struct relay_urls *u); /* Accepts zeroed memory. Passwords are wiped. */

/* One URL or @FILE, its driver loaded and asked. What is wrong becomes a problem that begins with
 * `from`. One that is there already is added once. */
void relay_urls_add(struct relay_urls *u, const char *from, const char *text,
                    struct config_problems *problems);
void relay_urls_add_list(struct relay_urls *u, const char *from, const char *list,
                         struct config_problems *problems);

/* The URL that `text` is, or the only one in the file of @FILE (written as for a relay). Errors:
 * INVALID_ARGUMENT (no such file, none in it or several, too long). */
MUST_CHECK enum ferry_err relay_url_only(const char *text, char url[OUTBOX_URL_MAX + 1],
                                         struct err_text *e);

/* Overwrites the password in a URL, in place: for arguments, which others can see. */
void relay_url_hide(char *url);

#endif
