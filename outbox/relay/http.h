/* http: answers GET on one address, with libmicrohttpd on a thread of its own.
 *
 * Bounded: HTTP_CONNECTIONS_MAX connections at a time, HTTP_REQUEST_MAX_BYTES of a request's head,
 * HTTP_IDLE_S seconds without a byte; bodies of requests are not read. */
#ifndef FERRY_OUTBOX_RELAY_HTTP_H
#define FERRY_OUTBOX_RELAY_HTTP_H

#include "base/buf.h"
#include "base/err.h"

#define HTTP_CONNECTIONS_MAX   16u
#define HTTP_REQUEST_MAX_BYTES (16u << 10)
#define HTTP_IDLE_S            5u

struct http;

/* The page of a path, on the server's thread: writes its body, returns the HTTP status.
 * `content_type` is static. */
typedef int http_page_fn(void *arg, const char *path, struct buf *body, const char **content_type);

/* `address`: "127.0.0.1:7480", "[::1]:7480", "localhost:7480"; port 0: a free one. *port: the one
 * that it listens at. Errors: INVALID_ARGUMENT (address), IO (in use, not allowed), NOT_READY
 * (built without libmicrohttpd). */
MUST_CHECK enum ferry_err http_start(struct http **h, const char *address, size_t body_max,
                                     http_page_fn *page, void *arg, uint16_t *port,
                                     struct err_text *e);
void http_stop(struct http **h); /* Accepts NULL in *h. */

#endif
