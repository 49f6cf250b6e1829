#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "net/net.h"

enum ferry_err net_wake_init(struct net_wake *w)
{
    w->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return w->fd < 0 ? FERRY_ERR_IO : FERRY_OK;
}

void net_wake_fini(struct net_wake *w)
{
    if (w->fd >= 0) {
        (void)close(w->fd);
        w->fd = -1;
    }
}

void net_wake_signal(struct net_wake *w)
{
    int saved = errno; /* A signal handler must leave errno as it was. */
    uint64_t one = 1;
    ssize_t written = write(w->fd, &one, sizeof(one));
    (void)written; /* Full means already signalled. */
    errno = saved;
}

void net_wake_clear(struct net_wake *w)
{
    uint64_t count;
    ssize_t got = read(w->fd, &count, sizeof(count));
    (void)got; /* Nothing to read means already clear. */
}
