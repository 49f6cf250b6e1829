/* disk_fault.so: for LD_PRELOAD. Makes the disk under a process stall, fail or be full, from the
 * outside and at any moment.
 *
 *   FERRY_DISK_FAULT=FILE LD_PRELOAD=disk_fault.so ferryd …
 *
 * The first bytes of FILE say what is wrong, and are read again at each call:
 *
 *   stall   a sync waits until FILE says something else; what is written is written
 *   sync    a sync answers EIO, and nothing more is known about what was written before it
 *   write   a write answers EIO
 *   full    a write that would make the file longer, and every allocation of room, answers ENOSPC
 *
 * Anything else, or no FILE, is a good disk. Only regular files are meant: sockets, pipes and what
 * the process prints are left alone. Stateless, so it may be called from any thread; the calls go
 * straight to the kernel. LMDB 0.9 uses pwrite and writev for pages, fdatasync, and pwrite on a
 * descriptor with O_DSYNC for its meta page, which is a sync as well. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define LOOK_NS 2000000 /* Between two looks at the file while a sync stalls. */

enum fault { FAULT_NONE, FAULT_STALL, FAULT_SYNC, FAULT_WRITE, FAULT_FULL };

static enum fault fault_now(void)
{
    static const char words[][6] = {"", "stall", "sync", "write", "full"};
    char text[16] = "";
    const char *path = getenv("FERRY_DISK_FAULT");
    int fd = path == NULL ? -1 : (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return FAULT_NONE;
    }
    (void)syscall(SYS_read, fd, text, sizeof(text) - 1);
    (void)syscall(SYS_close, fd);
    for (int i = FAULT_STALL; i <= FAULT_FULL; i++) {
        if (strncmp(text, words[i], strlen(words[i])) == 0) {
            return (enum fault)i;
        }
    }
    return FAULT_NONE;
}

static bool is_file(int fd)
{
    struct stat status;
    return fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
}

static bool is_at_end(int fd, off_t end)
{
    struct stat status;
    return fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && end > status.st_size;
}

static int fail(int err)
{
    errno = err;
    return -1;
}

/* Waits out a stall; true when the sync is to fail. */
static bool sync_fails(int fd)
{
    const struct timespec look = {.tv_nsec = LOOK_NS};
    if (!is_file(fd)) {
        return false;
    }
    enum fault fault = fault_now();
    while (fault == FAULT_STALL) {
        (void)nanosleep(&look, NULL);
        fault = fault_now();
    }
    return fault == FAULT_SYNC;
}

/* 0, or the error that a write up to `end` answers. */
static int write_fault(int fd, off_t end)
{
    enum fault fault = is_file(fd) ? fault_now() : FAULT_NONE;
    if (fault == FAULT_WRITE) {
        return EIO;
    }
    if (fault == FAULT_FULL && is_at_end(fd, end)) {
        return ENOSPC;
    }
    int flags = fault == FAULT_NONE ? 0 : fcntl(fd, F_GETFL);
    return (flags & O_DSYNC) != 0 && sync_fails(fd) ? EIO : 0;
}

int fdatasync(int fd)
{
    return sync_fails(fd) ? fail(EIO) : (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
    return sync_fails(fd) ? fail(EIO) : (int)syscall(SYS_fsync, fd);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at)
{
    int err = write_fault(fd, at + (off_t)count);
    return err != 0 ? fail(err) : syscall(SYS_pwrite64, fd, bytes, count, at);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at)
{
    return pwrite64(fd, bytes, count, at);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    off_t end = 0;
    for (int i = 0; i < count; i++) {
        end += (off_t)parts[i].iov_len;
    }
    int err = is_file(fd) ? write_fault(fd, lseek(fd, 0, SEEK_CUR) + end) : 0;
    return err != 0 ? fail(err) : syscall(SYS_writev, fd, parts, count);
}

int fallocate64(int fd, int mode, off64_t at, off64_t count)
{
    return fault_now() == FAULT_FULL ? fail(ENOSPC)
                                     : (int)syscall(SYS_fallocate, fd, mode, at, count);
}

int fallocate(int fd, int mode, off_t at, off_t count)
{
    return fallocate64(fd, mode, at, count);
}

int posix_fallocate64(int fd, off64_t at, off64_t count)
{
    return fallocate64(fd, 0, at, count) == 0 ? 0 : errno;
}

int posix_fallocate(int fd, off_t at, off_t count)
{
    return posix_fallocate64(fd, at, count);
}
