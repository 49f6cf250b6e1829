#include "outbox/relay/relay_place.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/checksum.h"

#define BOOT_ID_BYTES 36u

int relay_place_take(const char *name, uint32_t lane)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    /* An abstract address begins with a NUL and has no end but its size. */
    int n = snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "ferry-relay-%016" PRIx64,
                     checksum_of_two(name, strlen(name), &lane, sizeof(lane)));
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && bind(fd, (const struct sockaddr *)&address, size) != 0) {
        close(fd);
        fd = -1;
    }
    return fd;
}

/* Of this start of the machine's system: names of hosts may be equal. */
static int read_boot_id(char text[BOOT_ID_BYTES + 1])
{
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, BOOT_ID_BYTES);
    if (fd >= 0) {
        close(fd);
    }
    text[n > 0 ? n : 0] = '\0';
    return n == (ssize_t)BOOT_ID_BYTES ? 0 : -1;
}

void relay_place_text(int fd, const char *name, char *text, size_t bytes)
{
    char boot_id[BOOT_ID_BYTES + 1];
    struct stat network;
    text[0] = '\0';
    if (fd < 0 || read_boot_id(boot_id) != 0 || stat("/proc/self/ns/net", &network) != 0) {
        return;
    }
    int n = snprintf(text, bytes, "%s.%" PRIx64 ".%016" PRIx64, boot_id, (uint64_t)network.st_ino,
                     checksum_of(name, strlen(name)));
    if (n < 0 || (size_t)n >= bytes) {
        text[0] = '\0';
    }
}
