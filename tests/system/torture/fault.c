/* torture_fault.so: for LD_PRELOAD. Steps a process's clock, and breaks the path by which commits
 * wake relays, from the outside and at any moment.
 *
 *   FERRY_TORTURE_FAULTS=FILE LD_PRELOAD=torture_fault.so PROGRAM …
 *
 * FILE holds two 64-bit numbers, mapped and read at each call: the seconds by which the time of day
 * is off, and whether datagrams to unix sockets are swallowed. The monotonic clock is never
 * touched. */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct faults {
    _Atomic int64_t step_s;
    _Atomic int64_t deaf;
};

static const struct faults *faults; /* Written before main. */

__attribute__((constructor)) static void open_faults(void)
{
    const char *path = getenv("FERRY_TORTURE_FAULTS");
    int fd = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return;
    }
    void *map = mmap(NULL, sizeof(struct faults), PROT_READ, MAP_SHARED, fd, 0);
    faults = map == MAP_FAILED ? NULL : map;
    close(fd);
}

static int64_t step_s(void)
{
    return faults == NULL ? 0 : atomic_load_explicit(&faults->step_s, memory_order_relaxed);
}

static bool is_deaf(int fd)
{
    int type = 0, domain = 0;
    socklen_t bytes = sizeof(type);
    return faults != NULL && atomic_load_explicit(&faults->deaf, memory_order_relaxed) != 0 &&
           getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &bytes) == 0 && type == SOCK_DGRAM &&
           getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &bytes) == 0 && domain == AF_UNIX;
}

static bool is_time_of_day(clockid_t clock)
{
    return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    typedef int function(clockid_t, struct timespec *);
    static _Atomic(function *) real;
    function *f = atomic_load_explicit(&real, memory_order_relaxed);
    if (f == NULL) {
        *(void **)&f = dlsym(RTLD_NEXT, "clock_gettime");
        atomic_store_explicit(&real, f, memory_order_relaxed);
    }
    int result = f(clock, now);
    if (result == 0 && is_time_of_day(clock)) {
        now->tv_sec += step_s();
    }
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec time;
    (void)zone;
    int result = clock_gettime(CLOCK_REALTIME, &time);
    if (result == 0) {
        *now = (struct timeval){.tv_sec = time.tv_sec, .tv_usec = time.tv_nsec / 1000};
    }
    return result;
}

time_t time(time_t *where)
{
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_REALTIME, &now);
    if (where != NULL) {
        *where = now.tv_sec;
    }
    return now.tv_sec;
}

ssize_t send(int fd, const void *data, size_t bytes, int flags)
{
    return is_deaf(fd) ? (ssize_t)bytes
                       : syscall(SYS_sendto, fd, data, bytes, flags, NULL, (socklen_t)0);
}
