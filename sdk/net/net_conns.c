#include "net/net_conns.h"

#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"

bool net_conns_init(struct net_conns *conns, size_t peers_max)
{
    *conns = (struct net_conns){0};
    size_t slots = 16;
    while (slots < 2 * peers_max) { /* Half empty, so that probes stay short. */
        slots *= 2;
    }
    conns->peers = mem_zalloc(slots, sizeof(*conns->peers));
    if (conns->peers == NULL) {
        return false;
    }
    conns->peers_mask = slots - 1;
    for (size_t i = 0; i < slots; i++) {
        conns->peers[i].fd = -1;
    }
    return true;
}

void net_conns_fini(struct net_conns *conns)
{
    mem_free(conns->by_fd);
    mem_free(conns->peers);
    *conns = (struct net_conns){0};
}

/* ---- Peers ----------------------------------------------------------------------------------- */

/* The library counts its ids up, so their low bits spread as well as any hash would. */
static size_t slot_of(const struct net_conns *conns, uint32_t peer)
{
    size_t at = peer & conns->peers_mask;
    while (conns->peers[at].fd >= 0 && conns->peers[at].peer != peer) {
        at = (at + 1) & conns->peers_mask;
    }
    return at;
}

int net_conns_fd_of_peer(const struct net_conns *conns, uint32_t peer)
{
    return conns->peers[slot_of(conns, peer)].fd;
}

/* Removes by moving later entries of the run back, so that there are no tombstones. */
static void forget_peer(struct net_conns *conns, uint32_t peer)
{
    size_t hole = slot_of(conns, peer);
    must(conns->peers[hole].fd >= 0);
    size_t mask = conns->peers_mask;
    for (size_t at = (hole + 1) & mask; conns->peers[at].fd >= 0; at = (at + 1) & mask) {
        size_t home = conns->peers[at].peer & mask;
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            conns->peers[hole] = conns->peers[at];
            hole = at;
        }
    }
    conns->peers[hole].fd = -1;
    conns->peers_count--;
}

bool net_conns_bind(struct net_conns *conns, int fd, uint32_t peer)
{
    struct net_conn *conn = net_conns_of_fd(conns, fd);
    must(conn != NULL);
    if (conn->has_peer) {
        forget_peer(conns, conn->peer);
        conn->has_peer = false;
    }
    size_t at = slot_of(conns, peer);
    must(conns->peers[at].fd < 0);
    if (conns->peers_count > conns->peers_mask / 2) {
        return false;
    }
    conns->peers[at] = (struct net_peer_slot){.peer = peer, .fd = fd};
    conns->peers_count++;
    conn->peer = peer;
    conn->has_peer = true;
    return true;
}

/* ---- Connections ----------------------------------------------------------------------------- */

static bool reserve_fd(struct net_conns *conns, int fd)
{
    size_t before = conns->capacity;
    void *items = conns->by_fd;
    if (!mem_grow(&items, &conns->capacity, (size_t)fd + 1, sizeof(*conns->by_fd))) {
        return false;
    }
    conns->by_fd = items;
    memset(conns->by_fd + before, 0, (conns->capacity - before) * sizeof(*conns->by_fd));
    return true;
}

struct net_conn *net_conns_open(struct net_conns *conns, int fd, int64_t now_us)
{
    must(fd >= 0);
    if (!reserve_fd(conns, fd)) {
        return NULL;
    }
    net_conns_close(conns, fd);
    struct stat st = {0};
    (void)fstat(fd, &st); /* Already closed: the DISCONNECTED event is on its way. */
    conns->by_fd[fd] = (struct net_conn){.open = true, .inode = st.st_ino, .accepted_us = now_us};
    conns->count++;
    return &conns->by_fd[fd];
}

void net_conns_close(struct net_conns *conns, int fd)
{
    struct net_conn *conn = net_conns_of_fd(conns, fd);
    if (conn == NULL) {
        return;
    }
    if (conn->has_peer) {
        forget_peer(conns, conn->peer);
    }
    *conn = (struct net_conn){0};
    must(conns->count > 0);
    conns->count--;
}

struct net_conn *net_conns_of_fd(struct net_conns *conns, int fd)
{
    if (fd < 0 || (size_t)fd >= conns->capacity || !conns->by_fd[fd].open) {
        return NULL;
    }
    return &conns->by_fd[fd];
}

void net_conns_check(const struct net_conns *conns)
{
    size_t open = 0, peers = 0;
    for (size_t fd = 0; fd < conns->capacity; fd++) {
        const struct net_conn *conn = &conns->by_fd[fd];
        open += conn->open;
        must(conn->open || !conn->has_peer);
        if (conn->has_peer) {
            peers++;
            must(net_conns_fd_of_peer(conns, conn->peer) == (int)fd);
        }
    }
    must(open == conns->count);
    must(peers == conns->peers_count);
}
