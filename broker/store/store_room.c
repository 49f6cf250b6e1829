/* Room: the file grows ahead of use, so that a full disk is met here and not inside a commit.
 *
 * The map is exactly as large as the file, and the file's blocks are allocated, so LMDB refuses
 * (MDB_MAP_FULL) before it could write where the disk has nothing. The last page in use never
 * moves back; once the file cannot grow, new entries live on pages that trims have freed. */
#include <errno.h>
#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "store/store_core.h"

#define ROOM_SPARE_PAGES 64 /* Of branches, table roots and free lists that a commit rewrites. */

void room_refresh(struct store *s)
{
    MDB_envinfo info;
    MDB_stat stat;
    must(mdb_env_info(s->env, &info) == 0);
    must(mdb_env_stat(s->env, &stat) == 0);
    s->room.page_bytes = (int64_t)stat.ms_psize;
    s->room.used_bytes = (int64_t)(info.me_last_pgno + 1) * s->room.page_bytes;
    must(s->room.used_bytes <= (int64_t)info.me_mapsize);
}

static int64_t tail_bytes(const struct store *s)
{
    return s->room.file_bytes - s->room.used_bytes;
}

static int64_t round_up(int64_t bytes, int64_t step)
{
    return (bytes + step - 1) / step * step;
}

/* Pages are filled to four fifths or better, except by entries of two to three KiB, which the
 * reserve bears for a turn: sizes are read again after every commit. */
static int64_t room_for(size_t bytes)
{
    return (int64_t)(bytes + bytes / 4);
}

/* ---- Growing the file ---- */

/* Asked first, because a fallocate that fails has taken all there was for a moment. */
static bool disk_has(int fd, int64_t bytes)
{
    struct statvfs disk;
    if (fstatvfs(fd, &disk) != 0) {
        return true; /* fallocate will tell. */
    }
    return disk.f_bavail >= (uint64_t)bytes / disk.f_frsize;
}

static int allocate_blocks(int fd, int64_t from, int64_t to)
{
    int rc;
    do {
        rc = fallocate(fd, 0, from, to - from);
    } while (rc != 0 && errno == EINTR);
    if (rc != 0 && errno == EOPNOTSUPP) {
        /* This file system cannot promise blocks; a full disk may then fail a commit. */
        rc = ftruncate(fd, to);
    }
    return rc;
}

enum ferry_err room_allocate(int fd, int64_t from, int64_t to, struct err_text *e, const char *path)
{
    must(from < to);
    if (!disk_has(fd, to - from)) {
        return err_set(e, FERRY_ERR_STORAGE_FULL,
                       "no room for %s to grow to %lld bytes: free space on its disk", path,
                       (long long)to);
    }
    if (allocate_blocks(fd, from, to) == 0) {
        return FERRY_OK;
    }
    int number = errno;
    /* What was given before the disk was full is given back: others may need it more. */
    if (ftruncate(fd, from) != 0) {
        log_line(LOG_WARN, "store", "%s: cannot give space back: %s", path, strerror(errno));
    }
    if (number == ENOSPC || number == EDQUOT || number == EFBIG) {
        return err_set(e, FERRY_ERR_STORAGE_FULL,
                       "no room for %s to grow to %lld bytes (%s): free space on its disk", path,
                       (long long)to, strerror(number));
    }
    return err_set(e, FERRY_ERR_IO, "cannot allocate %s: %s", path, strerror(number));
}

static bool grow_to(struct store *s, int64_t bytes)
{
    if (room_allocate(s->data_fd, s->room.file_bytes, bytes, NULL, s->path) != FERRY_OK) {
        return false;
    }
    int rc = mdb_env_set_mapsize(s->env, (size_t)bytes);
    if (rc != 0) {
        /* LMDB has unmapped the old map by now: there is nothing to go on with. */
        (void)store_latch(s, store_err_of(rc), "mapping a larger file", mdb_strerror(rc));
        return false;
    }
    s->room.file_bytes = bytes;
    room_refresh(s);
    read_find_map(s);
    return true;
}

void room_claim(struct store *s)
{
    must(s->write == NULL);
    if (tail_bytes(s) > 0 &&
        allocate_blocks(s->data_fd, s->room.used_bytes, s->room.file_bytes) != 0) {
        log_line(LOG_WARN, "store",
                 "%s/data.mdb has holes that the disk cannot fill (%s): free space on it, a commit "
                 "may fail",
                 s->path, strerror(errno));
    }
}

/* What the disk has just refused is not asked again at once; a smaller wish is. */
static bool try_grow(struct store *s, int64_t bytes)
{
    int64_t now = clock_monotonic_us();
    if (now >= s->room.refused_until_us) {
        s->room.refused_bytes = INT64_MAX;
    }
    if (bytes >= s->room.refused_bytes) {
        return false;
    }
    if (grow_to(s, bytes)) {
        return true;
    }
    s->room.refused_bytes = bytes;
    s->room.refused_until_us = now + STORE_ROOM_RETRY_US;
    return false;
}

bool room_ensure(struct store *s, int64_t tail)
{
    if (tail_bytes(s) >= tail) {
        return true;
    }
    if (s->failed || s->viewing || s->write != NULL) {
        return false;
    }
    int64_t limit = s->max_bytes - s->max_bytes % STORE_GRAIN_BYTES;
    int64_t least = round_up(s->room.used_bytes + tail, STORE_GRAIN_BYTES);
    int64_t step = round_up(round_up(s->room.used_bytes + tail, s->grow_bytes), STORE_GRAIN_BYTES);
    least = least < limit ? least : limit;
    step = step < limit ? step : limit;
    if (step <= s->room.file_bytes) {
        return false;
    }
    if (!try_grow(s, step) && !s->failed && least > s->room.file_bytes) {
        (void)try_grow(s, least);
    }
    return tail_bytes(s) >= tail;
}

/* ---- Free pages ---- */

/* Each record of LMDB's free list is a count and that many page numbers. */
static enum ferry_err count_free_pages(struct store *s, uint64_t *pages)
{
    MDB_txn *txn;
    MDB_cursor *cursor;
    MDB_val key;
    MDB_val value;
    *pages = 0;
    int rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn);
    if (rc != 0) {
        return store_err_of(rc);
    }
    rc = mdb_cursor_open(txn, 0, &cursor);
    if (rc == 0) {
        while ((rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
            *pages += value.mv_size >= sizeof(uint64_t) ? get_le64(value.mv_data) : 0;
        }
        mdb_cursor_close(cursor);
    }
    mdb_txn_abort(txn);
    return rc == MDB_NOTFOUND ? FERRY_OK : store_err_of(rc);
}

static void refresh_free_count(struct store *s, int64_t lives_us)
{
    int64_t now = clock_monotonic_us();
    uint64_t pages = 0;
    if (s->room.counted_us != 0 && now - s->room.counted_us < lives_us) {
        return;
    }
    if (count_free_pages(s, &pages) == FERRY_OK) {
        s->room.free_bytes = (int64_t)pages * s->room.page_bytes;
        s->room.counted_us = now;
    }
}

void room_used(struct store *s, size_t bytes)
{
    int64_t used = room_for(bytes);
    s->room.free_bytes = s->room.free_bytes > used ? s->room.free_bytes - used : 0;
}

/* Free pages are good for what is to come only when there are many more than needed: an entry
 * wants pages side by side, and what one commit frees serves from the next but one on. The reserve
 * stays at the file's end, unless half the file is free, where rows find pages anyway. */
static bool free_pages_suffice(const struct store *s, int64_t need)
{
    return s->room.free_bytes >= 4 * need + s->reserve_bytes &&
           (tail_bytes(s) >= s->reserve_bytes / 2 || s->room.free_bytes >= s->room.used_bytes / 2);
}

static bool free_pages_hold(struct store *s, int64_t need)
{
    refresh_free_count(s, STORE_FREE_COUNT_US);
    if (!free_pages_suffice(s, need)) {
        refresh_free_count(s, STORE_FREE_RECOUNT_US);
    }
    return free_pages_suffice(s, need);
}

bool store_has_room(struct store *store, size_t bytes)
{
    struct store *s = store;
    must(s->write == NULL);
    if (s->failed) {
        return false;
    }
    int64_t need = room_for(bytes) + ROOM_SPARE_PAGES * s->room.page_bytes;
    return room_ensure(s, need + s->reserve_bytes) || (!s->failed && free_pages_hold(s, need));
}
