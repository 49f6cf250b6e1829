#include "outbox/relay/relay_urls.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/mem.h"
#include "outbox/relay/driver.h"

enum ferry_err relay_urls_init(struct relay_urls *u)
{
    u->count = 0;
    u->items = mem_zalloc(RELAY_DATABASES_MAX, sizeof(*u->items));
    return u->items == NULL ? FERRY_ERR_NO_MEMORY : FERRY_OK;
}

void relay_urls_fini(struct relay_urls *u)
{
    if (u->items != NULL) {
        explicit_bzero(u->items, RELAY_DATABASES_MAX * sizeof(*u->items));
        mem_free(u->items);
    }
    *u = (struct relay_urls){0};
}

static bool is_there(const struct relay_urls *u, const char *url)
{
    for (size_t i = 0; i < u->count; i++) {
        if (strcmp(u->items[i].url, url) == 0) {
            return true;
        }
    }
    return false;
}

static void add_url(struct relay_urls *u, const char *from, const char *url,
                    struct config_problems *problems)
{
    struct err_text e = {{0}};
    if (is_there(u, url)) {
        return;
    }
    if (u->count == RELAY_DATABASES_MAX) {
        config_problem(problems, "%s: at most %d databases", from, RELAY_DATABASES_MAX);
        return;
    }
    struct relay_url *item = &u->items[u->count];
    if (strlen(url) > OUTBOX_URL_MAX) {
        config_problem(problems, "%s: a URL has at most %d bytes", from, OUTBOX_URL_MAX);
        return;
    }
    enum ferry_err err = outbox_driver_load(url, &item->driver, &e);
    if (err == FERRY_OK) {
        err = item->driver->url_check(url, item->shown, sizeof(item->shown), &e);
    }
    if (err != FERRY_OK) {
        config_problem(problems, "%s: %s", from, e.text[0] == '\0' ? ferry_err_text(err) : e.text);
        return;
    }
    (void)snprintf(item->url, sizeof(item->url), "%s", url);
    u->count++;
}

/* ---- Files. */

/* The file's text with a NUL, or NULL; *why: the reason, or NULL when memory is out. */
static char *read_text(const char *path, const char **why)
{
    char *text = mem_zalloc(1, RELAY_URL_FILE_MAX + 1);
    size_t used = 0;
    ssize_t bytes = 0;
    *why = "out of memory";
    if (text == NULL) {
        return NULL;
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && used < RELAY_URL_FILE_MAX &&
           (bytes = read(fd, text + used, RELAY_URL_FILE_MAX - used)) > 0) {
        used += (size_t)bytes;
    }
    bool failed = fd < 0 || bytes < 0;
    *why = failed ? strerror(errno) : used == RELAY_URL_FILE_MAX ? "too large" : NULL;
    if (fd >= 0) {
        (void)close(fd);
    }
    if (*why != NULL) {
        mem_free(text);
        return NULL;
    }
    return text;
}

static void trim_end(char *text)
{
    size_t bytes = strlen(text);
    while (bytes > 0 && strchr(" \t\r\n", text[bytes - 1]) != NULL) {
        text[--bytes] = '\0';
    }
}

/* The next line that is a URL, in place; NULL: no more. */
static char *next_url(char **rest)
{
    for (char *line = strsep(rest, "\n"); line != NULL; line = strsep(rest, "\n")) {
        line += strspn(line, " \t");
        trim_end(line);
        if (line[0] != '\0' && line[0] != '#') {
            return line;
        }
    }
    return NULL;
}

static void free_text(char *text)
{
    if (text != NULL) {
        explicit_bzero(text, RELAY_URL_FILE_MAX);
        mem_free(text);
    }
}

static void add_file(struct relay_urls *u, const char *from, const char *path,
                     struct config_problems *problems)
{
    const char *why = NULL;
    char where[200];
    char *text = read_text(path, &why);
    size_t found = 0;
    if (text == NULL) {
        config_problem(problems, "%s: %s: %s", from, path, why);
        return;
    }
    (void)snprintf(where, sizeof(where), "%s", path);
    char *rest = text;
    for (char *url = next_url(&rest); url != NULL; url = next_url(&rest)) {
        found++;
        add_url(u, where, url, problems);
    }
    if (found == 0) {
        config_problem(problems, "%s: %s has no URL", from, path);
    }
    free_text(text);
}

void relay_urls_add(struct relay_urls *u, const char *from, const char *text,
                    struct config_problems *problems)
{
    if (text[0] == '@') {
        add_file(u, from, text + 1, problems);
    } else {
        add_url(u, from, text, problems);
    }
}

/* The file's only URL. */
static enum ferry_err take_only(char *text, const char *path, char url[OUTBOX_URL_MAX + 1],
                                struct err_text *e)
{
    char *rest = text;
    const char *first = next_url(&rest);
    if (first == NULL) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT, "%s has no URL", path);
    }
    if (next_url(&rest) != NULL) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT, "%s has several URLs: leave one", path);
    }
    if (strlen(first) > OUTBOX_URL_MAX) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT, "%s: a URL has at most %d bytes", path,
                       OUTBOX_URL_MAX);
    }
    (void)snprintf(url, OUTBOX_URL_MAX + 1, "%s", first);
    return FERRY_OK;
}

enum ferry_err relay_url_only(const char *text, char url[OUTBOX_URL_MAX + 1], struct err_text *e)
{
    const char *why = NULL;
    if (text[0] != '@') {
        if (strlen(text) > OUTBOX_URL_MAX) {
            return err_set(e, FERRY_ERR_INVALID_ARGUMENT, "a URL has at most %d bytes",
                           OUTBOX_URL_MAX);
        }
        (void)snprintf(url, OUTBOX_URL_MAX + 1, "%s", text);
        return FERRY_OK;
    }
    char *file = read_text(text + 1, &why);
    if (file == NULL) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT, "%s: %s", text + 1, why);
    }
    enum ferry_err err = take_only(file, text + 1, url, e);
    free_text(file);
    return err;
}

/* ---- Lists. */

/* Where the item ends: at a comma that another item, or nothing, follows; or at the end. */
static size_t item_bytes(const char *list)
{
    for (size_t at = 0;; at++) {
        char scheme[OUTBOX_SCHEME_MAX + 1];
        if (list[at] == '\0') {
            return at;
        }
        if (list[at] != ',') {
            continue;
        }
        const char *next = list + at + 1 + strspn(list + at + 1, " \t");
        if (*next == '\0' || *next == ',' || *next == '@' ||
            outbox_url_scheme(next, scheme, NULL) == FERRY_OK) {
            return at;
        }
    }
}

void relay_urls_add_list(struct relay_urls *u, const char *from, const char *list,
                         struct config_problems *problems)
{
    char *copy = mem_strdup(list);
    if (copy == NULL) {
        config_problem(problems, "%s: out of memory", from);
        return;
    }
    for (char *at = copy; *at != '\0';) {
        at += strspn(at, " \t,");
        size_t bytes = item_bytes(at);
        bool last = at[bytes] == '\0';
        at[bytes] = '\0';
        trim_end(at);
        if (at[0] != '\0') {
            relay_urls_add(u, from, at, problems);
        }
        at += last ? strlen(at) : bytes + 1;
    }
    explicit_bzero(copy, strlen(list));
    mem_free(copy);
}

/* ---- Passwords. */

void relay_url_hide(char *url)
{
    char *host = strstr(url, "://");
    if (host == NULL) {
        return;
    }
    host += 3;
    char *at = strrchr(host, '@'); /* A password may have the characters that end a host. */
    char *colon = memchr(host, ':', at == NULL ? 0 : (size_t)(at - host));
    if (colon != NULL) {
        memset(colon + 1, '*', (size_t)(at - colon - 1));
    }
    for (char *word = strcasestr(host, "password="); word != NULL;
         word = strcasestr(word, "password=")) {
        word += strlen("password=");
        memset(word, '*', strcspn(word, "&#"));
    }
}
