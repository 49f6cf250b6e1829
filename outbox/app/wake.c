#include "outbox/app/wake.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/checksum.h"

#define WAKE_SUFFIX     "-ferry-wake"
#define WAKE_NAME_MAX   80u /* With "/proc/self/fd/N/" before it a path fits an address. */
#define WAKE_DRAIN_MAX  64  /* Datagrams taken in one go. */
#define WAKE_FOLDER_MAX 4096u

/* An address, and the folder that must stay open while it is used. */
struct place {
    struct sockaddr_un address;
    socklen_t size; /* Of the address. */
    int folder_fd;  /* -1 when the path fits as it is. */
};

static void place_close(struct place *p)
{
    if (p->folder_fd >= 0) {
        close(p->folder_fd);
        p->folder_fd = -1;
    }
}

static int open_folder(const char *path, size_t folder_bytes)
{
    char folder[WAKE_FOLDER_MAX];
    if (folder_bytes == 0) {
        return open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    }
    if (folder_bytes >= sizeof(folder)) {
        return -1;
    }
    memcpy(folder, path, folder_bytes);
    folder[folder_bytes] = '\0';
    return open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

static bool place_through_folder(struct place *p, const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash == NULL ? path : slash + 1;
    size_t name_bytes = strlen(name);
    p->folder_fd = open_folder(path, (size_t)(name - path));
    if (p->folder_fd < 0) {
        return false;
    }
    char *at = p->address.sun_path;
    size_t room = sizeof(p->address.sun_path);
    int n = name_bytes + strlen(WAKE_SUFFIX) <= WAKE_NAME_MAX
                ? snprintf(at, room, "/proc/self/fd/%d/%s" WAKE_SUFFIX, p->folder_fd, name)
                : snprintf(at, room, "/proc/self/fd/%d/.ferry-wake-%016llx", p->folder_fd,
                           (unsigned long long)checksum_of(name, name_bytes));
    return n > 0 && (size_t)n < room;
}

/* An abstract address begins with a NUL and has no end but its size. */
static void place_by_name(struct place *p, const char *name)
{
    char *at = p->address.sun_path + 1;
    int n = snprintf(at, sizeof(p->address.sun_path) - 1, "ferry-wake-%016llx",
                     (unsigned long long)checksum_of(name, strlen(name)));
    p->size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

static bool place_of(struct place *p, const char *path)
{
    memset(p, 0, sizeof(*p));
    p->folder_fd = -1;
    p->address.sun_family = AF_UNIX;
    p->size = sizeof(p->address);
    if (path[0] == '@') {
        place_by_name(p, path + 1);
        return true;
    }
    size_t room = sizeof(p->address.sun_path);
    int n = snprintf(p->address.sun_path, room, "%s" WAKE_SUFFIX, path);
    if (n > 0 && (size_t)n < room) {
        return true;
    }
    if (!place_through_folder(p, path)) {
        place_close(p);
        return false;
    }
    return true;
}

void wake_sender_init(struct wake_sender *s)
{
    s->fd = -1;
    s->pid = 0;
}

void wake_sender_fini(struct wake_sender *s)
{
    if (s->fd >= 0) {
        close(s->fd);
    }
    wake_sender_init(s);
}

static void sender_connect(struct wake_sender *s, const char *path)
{
    struct place place;
    if (!place_of(&place, path)) {
        return;
    }
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&place.address, place.size) != 0) {
        close(fd); /* No relay here now. */
        fd = -1;
    }
    s->fd = fd;
    s->pid = getpid();
    place_close(&place);
}

void wake_sender_send(struct wake_sender *s, const char *database_path)
{
    const char byte = 1;
    /* Twice at most: a relay that was restarted has another socket at the same place. */
    for (int attempt = 0; attempt < 2; attempt++) {
        if (s->fd >= 0 && s->pid != getpid()) {
            wake_sender_fini(s);
        }
        if (s->fd < 0) {
            sender_connect(s, database_path);
        }
        if (s->fd < 0) {
            return;
        }
        if (send(s->fd, &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1 || errno == EAGAIN) {
            return; /* EAGAIN: its queue is full of wakes. */
        }
        wake_sender_fini(s);
    }
}

/* Whoever may write the database may wake its relay. */
static void share_like_database(const char *socket_path, const char *database_path)
{
    struct stat st;
    if (stat(database_path, &st) == 0 && chmod(socket_path, st.st_mode & 0666) != 0) {
        return; /* Then only this user wakes it; the poll serves the others. */
    }
}

enum ferry_err wake_listen(const char *database_path, int *fd, struct err_text *e)
{
    struct place place;
    if (!place_of(&place, database_path)) {
        return err_set(e, FERRY_ERR_IO, "%s: no place for the wake socket beside it: %s",
                       database_path, strerror(errno));
    }
    int made = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (made < 0) {
        place_close(&place);
        return err_set(e, FERRY_ERR_IO, "socket: %s", strerror(errno));
    }
    /* The lock of the database is held: a socket that is there was left by a dead relay. */
    if (place.address.sun_path[0] != '\0') {
        unlink(place.address.sun_path);
    }
    if (bind(made, (const struct sockaddr *)&place.address, place.size) != 0) {
        enum ferry_err err =
            err_set(e, FERRY_ERR_IO, "%s" WAKE_SUFFIX ": cannot make the wake socket: %s",
                    database_path, strerror(errno));
        close(made);
        place_close(&place);
        return err;
    }
    if (place.address.sun_path[0] != '\0') {
        share_like_database(place.address.sun_path, database_path);
    }
    place_close(&place);
    *fd = made;
    return FERRY_OK;
}

void wake_drain(int fd)
{
    char bytes[16];
    for (int i = 0; i < WAKE_DRAIN_MAX; i++) {
        if (recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT) < 0) {
            return;
        }
    }
}

void wake_close(const char *database_path, int *fd)
{
    if (*fd < 0) {
        return;
    }
    struct place place;
    if (database_path[0] != '@' && place_of(&place, database_path)) {
        unlink(place.address.sun_path);
        place_close(&place);
    }
    close(*fd);
    *fd = -1;
}
