#include "outbox/sqlite/relay_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LOCK_SUFFIX   "-ferry-relay"
#define LOCK_PATH_MAX 4096
#define WORD_FRESH_MS 3000 /* Three beats: whoever left it lives. */
#define WORD_BYTES    256  /* Always written whole, so that a reader sees one word or the other. */
#define WORD_FORMAT                                                                                \
    "ferry-relay 1\npid %" PRId64 "\nbeat_ms %" PRId64 "\npublished_id %" PRId64 "\nstate %s\n"

static bool lock_path(const char *database_path, char path[LOCK_PATH_MAX])
{
    int n = snprintf(path, LOCK_PATH_MAX, "%s" LOCK_SUFFIX, database_path);
    return n > 0 && n < LOCK_PATH_MAX;
}

enum ferry_err relay_lock_open(const char *database_path, int *fd, struct err_text *e)
{
    char path[LOCK_PATH_MAX];
    if (!lock_path(database_path, path)) {
        return err_set(e, FERRY_ERR_IO, "%.100s…: the path is too long", database_path);
    }
    int made = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (made < 0) {
        return err_set(e, FERRY_ERR_IO, "%s: cannot make the lock file: %s", path, strerror(errno));
    }
    *fd = made;
    return FERRY_OK;
}

bool relay_lock_try(int fd)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

void relay_lock_release(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

static bool read_word(int fd, struct source_word *word)
{
    char text[WORD_BYTES + 1] = {0};
    struct source_word read = {0};
    if (pread(fd, text, WORD_BYTES, 0) != WORD_BYTES ||
        sscanf(text,
               "ferry-relay 1\npid %" SCNd64 "\nbeat_ms %" SCNd64 "\npublished_id %" SCNd64
               "\nstate %31s\n",
               &read.pid, &read.beat_ms, &read.published_id, read.state) != 4) {
        return false;
    }
    *word = read;
    return true;
}

void relay_lock_write(int fd, const struct source_word *word)
{
    struct source_word there;
    if (!word->active && read_word(fd, &there) && there.pid != word->pid &&
        word->beat_ms - there.beat_ms < WORD_FRESH_MS) {
        return;
    }
    char text[WORD_BYTES];
    memset(text, ' ', sizeof(text));
    int n = snprintf(text, sizeof(text), WORD_FORMAT, word->pid, word->beat_ms, word->published_id,
                     word->state);
    must(n > 0 && (size_t)n < sizeof(text));
    text[n] = ' ';
    text[sizeof(text) - 1] = '\n';
    if (pwrite(fd, text, sizeof(text), 0) != (ssize_t)sizeof(text)) {
        return; /* A full disk: the word grows old, and its age is what status shows. */
    }
}

bool relay_lock_ask(const char *database_path, bool *held)
{
    char path[LOCK_PATH_MAX];
    if (!lock_path(database_path, path)) {
        return false;
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        *held = false;
        return errno == ENOENT; /* No relay was ever here. */
    }
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    bool known = fcntl(fd, F_OFD_GETLK, &lock) == 0;
    *held = known && lock.l_type != F_UNLCK;
    close(fd);
    return known;
}

bool relay_lock_read(const char *database_path, struct source_word *word)
{
    char path[LOCK_PATH_MAX];
    if (!lock_path(database_path, path)) {
        return false;
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    bool known = read_word(fd, word);
    close(fd);
    return known;
}
