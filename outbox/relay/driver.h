/* driver: a database's part of Ferry, loaded when its URL is used.
 *
 * A driver is one shared library, libferry_outbox_SCHEME.so: it has the source for the relay, the
 * questions and decisions of people, and ferry_db_SCHEME() for applications. It is looked for in
 * $FERRY_DRIVERS, beside the program, beside libferry_relay, and in the library folder that Ferry
 * was installed to, in this order; so neither the relay nor the command line needs the client
 * library of a database that is not used. A loaded driver stays loaded. */
#ifndef FERRY_OUTBOX_RELAY_DRIVER_H
#define FERRY_OUTBOX_RELAY_DRIVER_H

#include "outbox/relay/admin.h"
#include "outbox/relay/source.h"

#define OUTBOX_DRIVER_ABI 2u

struct outbox_driver {
    uint32_t abi; /* OUTBOX_DRIVER_ABI of its build. */
    const char *scheme;
    /* Whether the rest of the URL makes sense, and how it is shown to people (no password).
     * Errors: INVALID_ARGUMENT, with a detail that shows the right form. */
    enum ferry_err (*url_check)(const char *url, char *shown, size_t shown_bytes,
                                struct err_text *e);
    /* How many lanes the outbox has: each is a source of its own with the same id. */
    enum ferry_err (*lanes)(const char *url, uint32_t *lanes, struct err_text *e);
    /* Errors: as source.h, and IO (nobody answers: tried again by the caller), LOCKED (another
     * relay is here, and stand_by is not set). */
    enum ferry_err (*source_open)(struct source *source, const char *url,
                                  const struct source_options *options, struct err_text *e);
    const struct outbox_admin_ops *admin;
};

/* What the library exports, as ferry_outbox_driver_SCHEME. */
typedef const struct outbox_driver *outbox_driver_fn(void);

#define OUTBOX_SCHEME_MAX 15

/* "sqlite" of "sqlite:PATH"; "postgres" and "mysql" are told as "postgresql" and "mariadb". Errors:
 * INVALID_ARGUMENT, with a detail that shows the right forms. */
MUST_CHECK enum ferry_err outbox_url_scheme(const char *url, char scheme[OUTBOX_SCHEME_MAX + 1],
                                            struct err_text *e);
/* The driver of the URL's scheme. Errors: INVALID_ARGUMENT (no such scheme), NOT_READY (its library
 * is not there, or its client library is not: the detail says what to install), NEWER_FORMAT (of
 * another build). */
MUST_CHECK enum ferry_err outbox_driver_load(const char *url, const struct outbox_driver **driver,
                                             struct err_text *e);

#endif
