#include "net/net_listen.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "net/net_inner.h"

/* ---- Endpoints ------------------------------------------------------------------------------- */

static enum ferry_err malformed(const char *text, struct err_text *e, const char *why)
{
    return err_set(e, FERRY_ERR_BAD_OPTION_VALUE,
                   "%.200s: %s; write tcp://HOST:PORT, ipc://PATH or inproc://NAME", text, why);
}

static bool port_is_valid(const char *port)
{
    size_t digits = strspn(port, "0123456789");
    if (digits == 0 || digits > 5 || port[digits] != '\0') {
        return false;
    }
    unsigned number = 0;
    for (const char *p = port; *p != '\0'; p++) {
        number = number * 10 + (unsigned)(*p - '0');
    }
    return number <= 65535;
}

/* "HOST:PORT", "[V6]:PORT"; `may_be_any` allows "*" for both. */
static enum ferry_err parse_tcp(const char *rest, bool may_be_any, struct net_endpoint *endpoint,
                                struct err_text *e)
{
    const char *colon = strrchr(rest, ':');
    if (colon == NULL || colon == rest) {
        return malformed(endpoint->text, e, "the host or the port is missing");
    }
    size_t bytes = (size_t)(colon - rest);
    bool bracketed = rest[0] == '[' && rest[bytes - 1] == ']' && bytes > 2;
    if (bracketed) {
        rest++;
        bytes -= 2;
    }
    memcpy(endpoint->host, rest, bytes);
    endpoint->host[bytes] = '\0';
    if (!bracketed && strchr(endpoint->host, ':') != NULL) {
        return malformed(endpoint->text, e, "an IPv6 address stands in [brackets]");
    }
    const char *port = colon + 1;
    bool any_port = may_be_any && strcmp(port, "*") == 0;
    if (!any_port && (!port_is_valid(port) || (!may_be_any && strtoul(port, NULL, 10) == 0))) {
        return malformed(endpoint->text, e, "the port is not a number from 1 to 65535");
    }
    if (!may_be_any && strcmp(endpoint->host, "*") == 0) {
        return malformed(endpoint->text, e, "one cannot connect to every host");
    }
    (void)snprintf(endpoint->port, sizeof(endpoint->port), "%s", any_port ? "0" : port);
    return FERRY_OK;
}

static enum ferry_err parse_name(const char *rest, size_t max, struct net_endpoint *endpoint,
                                 struct err_text *e)
{
    size_t bytes = strlen(rest);
    if (bytes == 0) {
        return malformed(endpoint->text, e, "the name is missing");
    }
    if (bytes > max) {
        return malformed(endpoint->text, e, "the path is too long for the system (107 bytes)");
    }
    memcpy(endpoint->host, rest, bytes + 1);
    return FERRY_OK;
}

enum ferry_err net_endpoint_parse(const char *text, bool may_be_any, struct net_endpoint *endpoint,
                                  struct err_text *e)
{
    *endpoint = (struct net_endpoint){.transport = NET_TCP};
    if (strlen(text) >= sizeof(endpoint->text)) {
        return malformed(text, e, "the endpoint is too long");
    }
    memcpy(endpoint->text, text, strlen(text) + 1);
    if (strncmp(text, "tcp://", 6) == 0) {
        return parse_tcp(text + 6, may_be_any, endpoint, e);
    }
    if (strncmp(text, "ipc://", 6) == 0) {
        endpoint->transport = NET_IPC;
        return parse_name(text + 6, NET_PATH_MAX_BYTES, endpoint, e);
    }
    if (strncmp(text, "inproc://", 9) == 0) {
        endpoint->transport = NET_INPROC;
        return parse_name(text + 9, sizeof(endpoint->host) - 1, endpoint, e);
    }
    return malformed(text, e, "the transport is unknown");
}

/* ---- Listening ------------------------------------------------------------------------------- */

static enum ferry_err listen_error(int error, const char *text, struct err_text *e)
{
    switch (error) {
    case EADDRINUSE:
        return err_set(e, FERRY_ERR_LOCKED,
                       "another process listens on %s: stop it or choose another listen.endpoint",
                       text);
    case EACCES:
    case EPERM:
        return err_set(e, FERRY_ERR_IO,
                       "no permission to listen on %s: choose a port above 1023, or a folder this "
                       "user may write",
                       text);
    case EADDRNOTAVAIL:
        return err_set(e, FERRY_ERR_BAD_OPTION_VALUE,
                       "%s is not an address of this machine: see `ip address`, or use "
                       "tcp://127.0.0.1:PORT",
                       text);
    case ENOENT:
    case ENOTDIR:
        return err_set(e, FERRY_ERR_IO, "the folder of %s does not exist: create it", text);
    case EMFILE:
    case ENFILE:
        return err_set(e, FERRY_ERR_IO,
                       "no file descriptor is left for %s: raise the limit (ulimit -n, "
                       "LimitNOFILE=)",
                       text);
    default:
        return err_set(e, FERRY_ERR_IO, "cannot listen on %s: %s", text, strerror(error));
    }
}

static int listening_socket(const struct sockaddr *address, socklen_t bytes)
{
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -1;
    }
    int one = 1;
    bool ready = true;
    if (address->sa_family == AF_UNIX) {
        ready = fchmod(fd, 0600) == 0; /* Before bind: the file is never open to others. */
    } else {
        ready = setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0;
    }
    if (ready && bind(fd, address, bytes) == 0 && listen(fd, NET_BACKLOG) == 0) {
        return fd;
    }
    int error = errno;
    (void)close(fd);
    errno = error;
    return -1;
}

static enum ferry_err resolve(const struct net_endpoint *endpoint, struct addrinfo **found,
                              struct err_text *e)
{
    bool any = strcmp(endpoint->host, "*") == 0;
    struct addrinfo hints = {
        .ai_family = strchr(endpoint->host, ':') != NULL ? AF_INET6 : AF_INET,
        .ai_socktype = SOCK_STREAM,
        .ai_flags = AI_PASSIVE | AI_NUMERICSERV,
    };
    int failed = getaddrinfo(any ? NULL : endpoint->host, endpoint->port, &hints, found);
    if (failed != 0) {
        return err_set(e, FERRY_ERR_BAD_OPTION_VALUE,
                       "%s: the host is unknown (%s): check its spelling or use an address",
                       endpoint->text, gai_strerror(failed));
    }
    return FERRY_OK;
}

static void describe_tcp(struct net_listener *listener)
{
    struct sockaddr_storage address;
    socklen_t bytes = sizeof(address);
    must(getsockname(listener->fd, (struct sockaddr *)&address, &bytes) == 0);
    char host[INET6_ADDRSTRLEN], port[8];
    must(getnameinfo((struct sockaddr *)&address, bytes, host, sizeof(host), port, sizeof(port),
                     NI_NUMERICHOST | NI_NUMERICSERV) == 0);
    (void)snprintf(listener->endpoint, sizeof(listener->endpoint),
                   address.ss_family == AF_INET6 ? "tcp://[%s]:%s" : "tcp://%s:%s", host, port);
}

static enum ferry_err open_tcp(const struct net_endpoint *endpoint, struct net_listener *listener,
                               struct err_text *e)
{
    struct addrinfo *found;
    enum ferry_err err = resolve(endpoint, &found, e);
    if (err != FERRY_OK) {
        return err;
    }
    listener->fd = listening_socket(found->ai_addr, found->ai_addrlen);
    int error = errno;
    freeaddrinfo(found);
    if (listener->fd < 0) {
        return listen_error(error, endpoint->text, e);
    }
    describe_tcp(listener);
    return FERRY_OK;
}

/* True when nobody listens behind the socket file any more: a process left it when it died. */
static bool path_is_stale(const struct sockaddr_un *address)
{
    struct stat st;
    if (lstat(address->sun_path, &st) != 0 || !S_ISSOCK(st.st_mode)) {
        return false;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return false;
    }
    int failed = connect(fd, (const struct sockaddr *)address, sizeof(*address));
    bool stale = failed != 0 && errno == ECONNREFUSED;
    (void)close(fd);
    return stale;
}

static enum ferry_err open_ipc(const struct net_endpoint *endpoint, struct net_listener *listener,
                               struct err_text *e)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, endpoint->host, strlen(endpoint->host) + 1);
    const struct sockaddr *any = (const struct sockaddr *)&address;
    listener->fd = listening_socket(any, sizeof(address));
    if (listener->fd < 0 && errno == EADDRINUSE && path_is_stale(&address)) {
        (void)unlink(address.sun_path);
        listener->fd = listening_socket(any, sizeof(address));
    }
    if (listener->fd < 0) {
        return listen_error(errno, endpoint->text, e);
    }
    memcpy(listener->path, endpoint->host, strlen(endpoint->host) + 1);
    memcpy(listener->endpoint, endpoint->text, sizeof(listener->endpoint));
    return FERRY_OK;
}

enum ferry_err net_listener_open(const struct net_endpoint *endpoint, struct net_listener *listener,
                                 struct err_text *e)
{
    must(endpoint->transport != NET_INPROC);
    *listener = (struct net_listener){.fd = -1};
    return endpoint->transport == NET_TCP ? open_tcp(endpoint, listener, e)
                                          : open_ipc(endpoint, listener, e);
}

void net_listener_close(struct net_listener *listener)
{
    if (listener->fd >= 0) {
        (void)close(listener->fd);
        listener->fd = -1;
    }
    if (listener->path[0] != '\0') {
        (void)unlink(listener->path);
        listener->path[0] = '\0';
    }
}
