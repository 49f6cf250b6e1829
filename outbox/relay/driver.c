#include "outbox/relay/driver.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FOLDERS_MAX     4u
#define SCHEME_TEXT_MAX 40 /* Of a wrong URL, so much is shown: what follows may be a password. */

/* What a URL may begin with. */
struct scheme {
    const char *word;   /* Before the colon. */
    const char *driver; /* The name of its library. */
    const char *rest;   /* What the URL has behind the word; the beginning of every right one. */
    const char *client; /* What the driver's library needs, for people. */
};

static const struct scheme schemes[] = {
    {"sqlite", "sqlite", ":", "SQLite's library (Debian: libsqlite3-0)"},
    {"postgresql", "postgresql", "://", "PostgreSQL's client library (Debian: libpq5)"},
    {"postgres", "postgresql", "://", "PostgreSQL's client library (Debian: libpq5)"},
    {"mariadb", "mariadb", "://", "MariaDB's client library (Debian: libmariadb3)"},
    {"mysql", "mariadb", "://", "MariaDB's client library (Debian: libmariadb3)"},
};

static const struct scheme *scheme_find(const char *url)
{
    for (size_t i = 0; url != NULL && i < sizeof(schemes) / sizeof(schemes[0]); i++) {
        size_t bytes = strlen(schemes[i].word);
        if (strncmp(url, schemes[i].word, bytes) == 0 &&
            strncmp(url + bytes, schemes[i].rest, strlen(schemes[i].rest)) == 0) {
            return &schemes[i];
        }
    }
    return NULL;
}

static enum ferry_err no_such_scheme(const char *url, struct err_text *e)
{
    const char *text = url == NULL ? "" : url;
    int bytes =
        (int)strcspn(text, ":@/ ="); /* Of `host=… password=…` no more than the first word. */
    bool all = text[bytes] == '\0';
    return err_set(e, FERRY_ERR_INVALID_ARGUMENT,
                   "\"%.*s%s\" is not the URL of a database: write sqlite:PATH, "
                   "postgresql://USER@HOST/DATABASE or mariadb://USER@HOST/DATABASE",
                   bytes < SCHEME_TEXT_MAX ? bytes : SCHEME_TEXT_MAX, text, all ? "" : "…");
}

enum ferry_err outbox_url_scheme(const char *url, char scheme[OUTBOX_SCHEME_MAX + 1],
                                 struct err_text *e)
{
    const struct scheme *found = scheme_find(url);
    if (found == NULL) {
        return no_such_scheme(url, e);
    }
    (void)snprintf(scheme, OUTBOX_SCHEME_MAX + 1, "%s", found->driver);
    return FERRY_OK;
}

/* ---- The library. */

struct folders {
    char paths[FOLDERS_MAX][PATH_MAX];
    size_t count;
};

static void folders_add(struct folders *f, const char *path)
{
    if (path != NULL && path[0] != '\0') {
        (void)snprintf(f->paths[f->count++], PATH_MAX, "%s", path);
    }
}

/* Where this code is: libferry_relay's folder; of a program, its own once more or nothing. */
static void folders_add_own(struct folders *f)
{
    Dl_info own;
    char path[PATH_MAX];
    static const char here = 0;
    if (dladdr(&here, &own) == 0 || own.dli_fname == NULL ||
        realpath(own.dli_fname, path) == NULL) {
        return;
    }
    char *slash = strrchr(path, '/');
    if (slash != NULL) {
        *slash = '\0';
        folders_add(f, path);
    }
}

static void folders_find(struct folders *f)
{
    char program[PATH_MAX];
    f->count = 0;
    folders_add(f, secure_getenv("FERRY_DRIVERS"));
    ssize_t bytes = readlink("/proc/self/exe", program, sizeof(program) - 1);
    if (bytes > 0) {
        program[bytes] = '\0';
        char *slash = strrchr(program, '/');
        if (slash != NULL) {
            *slash = '\0';
            folders_add(f, program);
        }
    }
    folders_add_own(f);
    folders_add(f, FERRY_LIBRARY_FOLDER);
}

/* Where the library is; false: in none of the folders. */
static bool library_find(const struct folders *f, const struct scheme *scheme, char *path,
                         size_t bytes)
{
    for (size_t i = 0; i < f->count; i++) {
        int n = snprintf(path, bytes, "%s/libferry_outbox_%s.so", f->paths[i], scheme->driver);
        if (n > 0 && (size_t)n < bytes && access(path, R_OK) == 0) {
            return true;
        }
    }
    return false;
}

static enum ferry_err library_missing(const struct folders *f, const struct scheme *scheme,
                                      struct err_text *e)
{
    char where[ERR_TEXT_MAX] = "";
    size_t used = 0;
    for (size_t i = 0; i < f->count && used < sizeof(where); i++) {
        int n =
            snprintf(where + used, sizeof(where) - used, "%s%s", i == 0 ? "" : ", ", f->paths[i]);
        used += n < 0 ? 0 : (size_t)n;
    }
    return err_set(e, FERRY_ERR_NOT_READY,
                   "no driver for %s: libferry_outbox_%s.so is not in %.240s. Build Ferry with %s "
                   "and its headers, or name the folder in FERRY_DRIVERS",
                   scheme->driver, scheme->driver, where, scheme->client);
}

static enum ferry_err library_check(const struct scheme *scheme, const char *path,
                                    const struct outbox_driver *driver, struct err_text *e)
{
    if (driver == NULL || driver->abi != OUTBOX_DRIVER_ABI) {
        return err_set(e, FERRY_ERR_NEWER_FORMAT,
                       "%.300s is of another version of Ferry (its interface is %u, ours %u): "
                       "install both from one build",
                       path, driver == NULL ? 0 : (unsigned)driver->abi, OUTBOX_DRIVER_ABI);
    }
    if (driver->scheme == NULL || strcmp(driver->scheme, scheme->driver) != 0) {
        return err_set(e, FERRY_ERR_NEWER_FORMAT, "%.300s is not the driver for %s", path,
                       scheme->driver);
    }
    return FERRY_OK;
}

static enum ferry_err library_load(const struct scheme *scheme, const char *path,
                                   const struct outbox_driver **driver, struct err_text *e)
{
    char symbol[64];
    outbox_driver_fn *entry = NULL;
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (library == NULL) {
        const char *why = dlerror();
        return err_set(e, FERRY_ERR_NOT_READY,
                       "the driver for %s cannot be loaded: install %s. The loader says: %.300s",
                       scheme->driver, scheme->client, why == NULL ? "nothing" : why);
    }
    (void)snprintf(symbol, sizeof(symbol), "ferry_outbox_driver_%s", scheme->driver);
    void *address = dlsym(library, symbol);
    _Static_assert(sizeof(entry) == sizeof(address), "POSIX: a function's address fits a pointer");
    memcpy(&entry, &address, sizeof(entry));
    const struct outbox_driver *loaded = entry == NULL ? NULL : entry();
    enum ferry_err err = library_check(scheme, path, loaded, e);
    if (err != FERRY_OK) {
        (void)dlclose(library); /* What was loaded before stays: this only counts down. */
        return err;
    }
    *driver = loaded;
    return FERRY_OK;
}

enum ferry_err outbox_driver_load(const char *url, const struct outbox_driver **driver,
                                  struct err_text *e)
{
    const struct scheme *scheme = scheme_find(url);
    struct folders folders;
    char path[PATH_MAX + 64];
    if (scheme == NULL) {
        return no_such_scheme(url, e);
    }
    folders_find(&folders);
    if (!library_find(&folders, scheme, path, sizeof(path))) {
        return library_missing(&folders, scheme, e);
    }
    return library_load(scheme, path, driver, e);
}
