/* The folder: its lock, its file, and what can be learnt of the file before LMDB maps it.
 *
 *   LOCK      flock, held while the store is open
 *   data.mdb  the LMDB environment; lock.mdb is LMDB's table of readers, made anew at every open
 *   data.new  a data.mdb that is being made; of no meaning, removed at the next open
 *
 * data.mdb comes into being by rename, complete, with its identity fsynced. So there is no
 * half-made data.mdb to tell from a damaged one: missing means new, and everything else that is
 * not whole (also an empty file) had data once and is refused. A node that forgot what it had
 * acked, and took part again as if it were new, could lose acked messages of the whole cluster. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/store_core.h"

#define LOCK_NAME "LOCK"
#define DATA_NAME "data.mdb"
#define NEW_NAME  "data.new"

#define RESTORE_REMEDY                                                                             \
    "restore the folder from a backup; in a replicated cluster remove this node and add it again " \
    "with an empty folder"

static enum ferry_err err_of_errno(int number)
{
    if (number == ENOSPC || number == EDQUOT) {
        return FERRY_ERR_STORAGE_FULL;
    }
    return number == ENOMEM ? FERRY_ERR_NO_MEMORY : FERRY_ERR_IO;
}

static enum ferry_err set_errno(struct err_text *e, const char *verb, const char *path)
{
    int number = errno;
    return err_set(e, err_of_errno(number), "cannot %s %s: %s", verb, path, strerror(number));
}

/* Errors: INVALID_ARGUMENT when it is longer than a path can be. */
static enum ferry_err join(char out[PATH_MAX], const char *path, const char *name,
                           struct err_text *e)
{
    int n = snprintf(out, PATH_MAX, "%s/%s", path, name);
    if (n < 0 || n >= PATH_MAX) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT, "the folder's path is too long: %.100s...",
                       path);
    }
    return FERRY_OK;
}

/* ---- The folder and its lock ---- */

enum ferry_err file_sync_folder(const char *path, struct err_text *e)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return set_errno(e, "open", path);
    }
    enum ferry_err err = FERRY_OK;
    if (fsync(fd) != 0) {
        err = set_errno(e, "fsync", path);
    }
    (void)close(fd);
    return err;
}

/* A new folder's name is durable only when its parent is. */
static enum ferry_err sync_parent(const char *path, struct err_text *e)
{
    char parent[PATH_MAX];
    enum ferry_err err = join(parent, path, "..", e);
    return err != FERRY_OK ? err : file_sync_folder(parent, e);
}

static enum ferry_err make_folder(const char *path, struct err_text *e)
{
    struct stat st;
    if (mkdir(path, 0700) == 0) {
        return FERRY_OK;
    }
    if (errno != EEXIST) {
        return set_errno(e, "make the folder", path);
    }
    if (stat(path, &st) != 0) {
        return set_errno(e, "look at", path);
    }
    if (!S_ISDIR(st.st_mode)) {
        return err_set(e, FERRY_ERR_IO, "%s is not a folder: name a folder for the data", path);
    }
    return FERRY_OK;
}

enum ferry_err file_lock_folder(const char *path, int *lock_fd, struct err_text *e)
{
    char name[PATH_MAX];
    enum ferry_err err = make_folder(path, e);
    if (err == FERRY_OK) {
        err = join(name, path, LOCK_NAME, e);
    }
    if (err != FERRY_OK) {
        return err;
    }
    int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        return set_errno(e, "open", name);
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        err = errno == EWOULDBLOCK
                  ? err_set(e, FERRY_ERR_LOCKED, "another ferryd uses %s: stop it first", path)
                  : set_errno(e, "lock", name);
        (void)close(fd);
        return err;
    }
    *lock_fd = fd;
    return FERRY_OK;
}

/* ---- What the file says of itself ---- */

/* The first bytes of an LMDB 0.9 page and of the meta record in it, as on 64-bit little-endian
 * machines; LMDB files are not portable to others anyway. */
#define META_MAGIC   0xBEEFC0DEu
#define META_VERSION 1u
#define META_BYTES   152u
#define META_FLAG    0x08u
#define META_COUNT   2u
enum meta_offset {
    META_AT_FLAGS = 10,
    META_AT_MAGIC = 16,
    META_AT_VERSION = 20,
    META_AT_PAGE_BYTES = 40,
    META_AT_LAST_PAGE = 136,
    META_AT_TXN = 144,
};
_Static_assert(META_AT_TXN + 8 == META_BYTES, "the transaction id ends the record");
#define PAGE_BYTES_MIN 512u
#define PAGE_BYTES_MAX 65536u

static enum ferry_err read_exactly(int fd, uint8_t *out, size_t bytes, off_t at, const char *name,
                                   struct err_text *e)
{
    ssize_t n = pread(fd, out, bytes, at);
    if (n < 0) {
        return set_errno(e, "read", name);
    }
    if ((size_t)n != bytes) {
        return err_set(e, FERRY_ERR_CORRUPT, "%s is cut short at byte %lld: " RESTORE_REMEDY, name,
                       (long long)at + n);
    }
    return FERRY_OK;
}

static enum ferry_err check_meta(const uint8_t *meta, const char *name, struct err_text *e)
{
    uint32_t page_bytes = get_le32(meta + META_AT_PAGE_BYTES);
    if (get_le32(meta + META_AT_MAGIC) != META_MAGIC ||
        (get_le16(meta + META_AT_FLAGS) & META_FLAG) == 0) {
        return err_set(e, FERRY_ERR_CORRUPT, "%s is not a Ferry data file: " RESTORE_REMEDY, name);
    }
    if (get_le32(meta + META_AT_VERSION) != META_VERSION) {
        return err_set(e, FERRY_ERR_CORRUPT,
                       "%s has LMDB format %u, this ferryd reads %u: " RESTORE_REMEDY, name,
                       get_le32(meta + META_AT_VERSION), META_VERSION);
    }
    if (page_bytes < PAGE_BYTES_MIN || page_bytes > PAGE_BYTES_MAX ||
        (page_bytes & (page_bytes - 1)) != 0) {
        return err_set(e, FERRY_ERR_CORRUPT, "%s has a bad page size of %u: " RESTORE_REMEDY, name,
                       page_bytes);
    }
    return FERRY_OK;
}

/* Reading a mapped page past the end of the file would be SIGBUS, so sizes are compared first. */
static enum ferry_err check_length(const uint8_t *meta, int64_t file_bytes, const char *name,
                                   struct err_text *e)
{
    uint64_t page_bytes = get_le32(meta + META_AT_PAGE_BYTES);
    uint64_t pages = (uint64_t)file_bytes / page_bytes;
    uint64_t last_page = get_le64(meta + META_AT_LAST_PAGE);
    if (last_page >= pages) {
        return err_set(e, FERRY_ERR_CORRUPT,
                       "%s is cut short: it has %llu pages and needs %llu: " RESTORE_REMEDY, name,
                       (unsigned long long)pages, (unsigned long long)last_page + 1);
    }
    return FERRY_OK;
}

static enum ferry_err check_metas(int fd, int64_t file_bytes, const char *name, struct err_text *e)
{
    uint8_t metas[META_COUNT][META_BYTES];
    off_t at = 0;
    for (size_t i = 0; i < META_COUNT; i++) {
        enum ferry_err err = read_exactly(fd, metas[i], META_BYTES, at, name, e);
        if (err == FERRY_OK) {
            err = check_meta(metas[i], name, e);
        }
        if (err == FERRY_OK) {
            err = check_length(metas[i], file_bytes, name, e);
        }
        if (err != FERRY_OK) {
            return err;
        }
        at = (off_t)get_le32(metas[0] + META_AT_PAGE_BYTES);
    }
    if (get_le32(metas[0] + META_AT_PAGE_BYTES) != get_le32(metas[1] + META_AT_PAGE_BYTES)) {
        return err_set(e, FERRY_ERR_CORRUPT, "%s has two page sizes: " RESTORE_REMEDY, name);
    }
    return FERRY_OK;
}

enum ferry_err file_check_data(const char *path, bool *exists, struct err_text *e)
{
    char name[PATH_MAX];
    struct stat st;
    enum ferry_err err = join(name, path, DATA_NAME, e);
    if (err != FERRY_OK) {
        return err;
    }
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) {
        *exists = false;
        return FERRY_OK;
    }
    if (fd < 0) {
        return set_errno(e, "open", name);
    }
    if (fstat(fd, &st) != 0) {
        err = set_errno(e, "look at", name);
    } else if (!S_ISREG(st.st_mode)) {
        err = err_set(e, FERRY_ERR_CORRUPT, "%s is not a file: " RESTORE_REMEDY, name);
    } else {
        err = check_metas(fd, st.st_size, name, e);
    }
    (void)close(fd);
    *exists = true;
    return err;
}

/* ---- Making the file ---- */

static enum ferry_err set_lmdb(struct err_text *e, int rc, const char *name)
{
    enum ferry_err err = rc > 0 ? err_of_errno(rc) : store_err_of(rc);
    return err_set(e, err, "cannot make %s: %s", name, mdb_strerror(rc));
}

/* Nobody but us sees data.new, so it needs no table of readers. */
static enum ferry_err write_identity(const char *name, const struct store_identity *id,
                                     struct err_text *e)
{
    MDB_env *env = NULL;
    MDB_txn *txn = NULL;
    MDB_dbi tables[STORE_TABLES];
    uint8_t row[STORE_IDENTITY_BYTES];
    layout_identity_encode(row, id);
    MDB_val key = store_val("identity", strlen("identity"));
    MDB_val value = store_val(row, sizeof(row));

    int rc = mdb_env_create(&env);
    if (rc != 0) {
        return set_lmdb(e, rc, name);
    }
    if ((rc = mdb_env_set_maxdbs(env, STORE_TABLES)) == 0 &&
        (rc = mdb_env_set_mapsize(env, STORE_FIRST_BYTES)) == 0 &&
        (rc = mdb_env_open(env, name, MDB_NOSUBDIR | MDB_NOLOCK | MDB_NOTLS, 0600)) == 0 &&
        (rc = mdb_txn_begin(env, NULL, 0, &txn)) == 0) {
        rc = store_open_tables(txn, MDB_CREATE, tables);
        if (rc == 0) {
            rc = mdb_put(txn, tables[STORE_TABLES - 1], &key, &value, 0);
        }
        if (rc == 0) {
            rc = mdb_txn_commit(txn);
        } else {
            mdb_txn_abort(txn);
        }
    }
    mdb_env_close(env);
    return rc == 0 ? FERRY_OK : set_lmdb(e, rc, name);
}

/* The first step of the file, with the reserve in it. */
static int64_t first_bytes(const struct store_config *c)
{
    int64_t least = STORE_FIRST_BYTES + c->reserve_bytes;
    int64_t steps = (least + c->grow_bytes - 1) / c->grow_bytes;
    int64_t bytes = steps * c->grow_bytes;
    bytes = bytes < c->max_bytes ? bytes : c->max_bytes;
    return bytes - bytes % STORE_GRAIN_BYTES;
}

static enum ferry_err allocate_new(const struct store_config *c, const char *name,
                                   struct err_text *e)
{
    int fd = open(name, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        return set_errno(e, "open", name);
    }
    struct stat st;
    enum ferry_err err = FERRY_OK;
    if (fstat(fd, &st) != 0) {
        err = set_errno(e, "look at", name);
    } else if (first_bytes(c) > st.st_size) {
        err = room_allocate(fd, st.st_size, first_bytes(c), e, name);
    }
    if (err == FERRY_OK && fsync(fd) != 0) {
        err = set_errno(e, "fsync", name);
    }
    (void)close(fd);
    return err;
}

enum ferry_err file_create_data(const struct store_config *config, const struct store_identity *id,
                                struct err_text *e)
{
    char fresh[PATH_MAX];
    char name[PATH_MAX];
    enum ferry_err err = join(fresh, config->path, NEW_NAME, e);
    if (err == FERRY_OK) {
        err = join(name, config->path, DATA_NAME, e);
    }
    if (err != FERRY_OK) {
        return err;
    }
    if (unlink(fresh) != 0 && errno != ENOENT) {
        return set_errno(e, "remove", fresh);
    }
    err = write_identity(fresh, id, e);
    if (err == FERRY_OK) {
        err = allocate_new(config, fresh, e);
    }
    if (err == FERRY_OK && rename(fresh, name) != 0) {
        err = set_errno(e, "rename", fresh);
    }
    if (err != FERRY_OK) {
        (void)unlink(fresh);
        return err;
    }
    return sync_parent(config->path, e);
}

enum ferry_err file_open_data(const char *path, int *fd, int64_t *bytes, struct err_text *e)
{
    char name[PATH_MAX];
    struct stat st;
    enum ferry_err err = join(name, path, DATA_NAME, e);
    if (err != FERRY_OK) {
        return err;
    }
    int opened = open(name, O_RDWR | O_CLOEXEC);
    if (opened < 0) {
        return set_errno(e, "open", name);
    }
    if (fstat(opened, &st) != 0) {
        err = set_errno(e, "look at", name);
        (void)close(opened);
        return err;
    }
    *fd = opened;
    *bytes = st.st_size;
    return FERRY_OK;
}
