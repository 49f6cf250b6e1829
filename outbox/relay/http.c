#include "outbox/relay/http.h"

#ifdef FERRY_HTTP

#include <microhttpd.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/mem.h"

#define HOST_MAX   200
#define STATUS_405 405u

struct http {
    struct MHD_Daemon *daemon;
    http_page_fn *page;
    void *arg;
    size_t body_max;
};

static const char method_text[] = "{\"error\":\"only GET and HEAD\"}\n";

/* ---- The address. */

/* "HOST:PORT" or "[HOST]:PORT". */
static bool address_split(const char *address, char host[HOST_MAX + 1], const char **port)
{
    const char *colon = strrchr(address, ':');
    size_t bytes = colon == NULL ? 0 : (size_t)(colon - address);
    const char *from = address;
    if (bytes > 2 && address[0] == '[' && colon[-1] == ']') {
        from++;
        bytes -= 2;
    } else if (memchr(address, ':', bytes) != NULL) {
        return false; /* An IPv6 address without brackets. */
    }
    if (bytes == 0 || bytes > HOST_MAX || colon[1] == '\0' ||
        strspn(colon + 1, "0123456789") != strlen(colon + 1)) {
        return false;
    }
    memcpy(host, from, bytes);
    host[bytes] = '\0';
    *port = colon + 1;
    return true;
}

static enum ferry_err address_find(const char *address, struct addrinfo **found, struct err_text *e)
{
    char host[HOST_MAX + 1];
    const char *port = NULL;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    if (!address_split(address, host, &port)) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT,
                       "\"%.100s\": say ADDRESS:PORT, as 127.0.0.1:7480 or [::1]:7480", address);
    }
    int code = getaddrinfo(host, port, &hints, found);
    if (code != 0) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT, "%.100s: %s", address, gai_strerror(code));
    }
    return FERRY_OK;
}

/* ---- Answers. */

static enum MHD_Result answer_with(struct MHD_Connection *connection, unsigned status,
                                   const char *content_type, struct MHD_Response *response)
{
    if (response == NULL) {
        return MHD_NO;
    }
    (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, content_type);
    (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    enum MHD_Result result = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return result;
}

static void free_body(void *body)
{
    mem_free(body);
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_bytes, void **request)
{
    static const char seen = 0;
    struct http *h = arg;
    struct buf body;
    const char *content_type = "text/plain";
    (void)version;
    (void)upload;
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0) {
        return answer_with(connection, STATUS_405, "application/json",
                           MHD_create_response_from_buffer(sizeof(method_text) - 1,
                                                           (void *)method_text,
                                                           MHD_RESPMEM_PERSISTENT));
    }
    if (*request == NULL) { /* The head is there: a first call for it alone. */
        *request = (void *)&seen;
        return MHD_YES;
    }
    if (*upload_bytes > 0) {
        return MHD_NO; /* Nobody has anything to say to us. */
    }
    buf_init(&body, h->body_max);
    int status = h->page(h->arg, url, &body, &content_type);
    size_t bytes = 0;
    uint8_t *data = buf_steal(&body, &bytes);
    struct MHD_Response *response =
        MHD_create_response_from_buffer_with_free_callback(bytes, data, free_body);
    if (response == NULL) {
        mem_free(data);
    }
    return answer_with(connection, (unsigned)status, content_type, response);
}

/* ---- Start and stop. */

static uint16_t port_of(struct MHD_Daemon *daemon)
{
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_BIND_PORT);
    return info == NULL ? 0 : info->port;
}

enum ferry_err http_start(struct http **http, const char *address, size_t body_max,
                          http_page_fn *page, void *arg, uint16_t *port, struct err_text *e)
{
    struct addrinfo *found = NULL;
    enum ferry_err err = address_find(address, &found, e);
    if (err != FERRY_OK) {
        return err;
    }
    must(found != NULL);
    struct http *h = mem_zalloc(1, sizeof(*h));
    if (h == NULL) {
        freeaddrinfo(found);
        return FERRY_ERR_NO_MEMORY;
    }
    *h = (struct http){.page = page, .arg = arg, .body_max = body_max};
    unsigned flags = MHD_USE_AUTO | MHD_USE_INTERNAL_POLLING_THREAD |
                     (found->ai_family == AF_INET6 ? (unsigned)MHD_USE_IPv6 : 0);
    h->daemon = MHD_start_daemon(flags, 0, NULL, NULL, on_request, h, MHD_OPTION_SOCK_ADDR,
                                 found->ai_addr, MHD_OPTION_CONNECTION_LIMIT, HTTP_CONNECTIONS_MAX,
                                 MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HTTP_REQUEST_MAX_BYTES,
                                 MHD_OPTION_CONNECTION_TIMEOUT, HTTP_IDLE_S,
                                 MHD_OPTION_LISTENING_ADDRESS_REUSE, 1u, MHD_OPTION_END);
    freeaddrinfo(found);
    if (h->daemon == NULL) {
        mem_free(h);
        return err_set(e, FERRY_ERR_IO,
                       "%.100s cannot be listened at: it is in use, or not of this machine",
                       address);
    }
    *port = port_of(h->daemon);
    *http = h;
    return FERRY_OK;
}

void http_stop(struct http **http)
{
    if (*http != NULL) {
        MHD_stop_daemon((*http)->daemon);
        mem_free(*http);
    }
    *http = NULL;
}

#else

enum ferry_err http_start(struct http **h, const char *address, size_t body_max, http_page_fn *page,
                          void *arg, uint16_t *port, struct err_text *e)
{
    (void)h;
    (void)address;
    (void)body_max;
    (void)page;
    (void)arg;
    (void)port;
    return err_set(e, FERRY_ERR_NOT_READY,
                   "this ferry-outbox was built without libmicrohttpd (Debian: libmicrohttpd-dev)");
}

void http_stop(struct http **h)
{
    *h = NULL;
}

#endif
