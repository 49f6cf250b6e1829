/* Opening, identity, the failure latch, closing. */
#include "store/store.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/id.h"
#include "base/log.h"
#include "base/mem.h"
#include "store/store_core.h"

/* No MDB_NORDAHEAD: tail reads hit the page cache, where read-ahead costs nothing, and a cold
 * catch-up reads the file nearly in the order it was written, page fault by page fault; without
 * read-ahead each 4 KiB would be a disk access of its own on the shard's thread.
 * MDB_NOTLS: the view belongs to the store, not to the thread's table of readers. */
#define ENV_FLAGS        MDB_NOTLS
#define ENV_UNSAFE_FLAGS ((unsigned)(MDB_NOSYNC | MDB_NOMETASYNC | MDB_MAPASYNC | MDB_WRITEMAP))

enum ferry_err store_err_of(int rc)
{
    switch (rc) {
    case 0:
        return FERRY_OK;
    case MDB_MAP_FULL:
        return FERRY_ERR_STORAGE_FULL;
    case ENOMEM:
        return FERRY_ERR_NO_MEMORY;
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
    case MDB_VERSION_MISMATCH:
    case MDB_INCOMPATIBLE:
    case MDB_NOTFOUND: /* Of something that must be there, */
    case MDB_KEYEXIST: /*   or must not. */
        return FERRY_ERR_CORRUPT;
    default:
        return FERRY_ERR_IO;
    }
}

enum ferry_err store_latch(struct store *s, enum ferry_err err, const char *what, const char *why)
{
    if (!s->failed) {
        s->failed = true;
        (void)err_set(&s->failure, err,
                      "%s: %s failed: %s; nothing more is written or acknowledged: check the disk, "
                      "then restart ferryd",
                      s->path, what, why);
        log_line(LOG_ERROR, "store", "%s", s->failure.text);
    }
    return err;
}

enum ferry_err store_failure(const struct store *store, struct err_text *e)
{
    if (!store->failed) {
        return FERRY_OK;
    }
    return err_set(e, FERRY_ERR_STORE_FAILED, "%s", store->failure.text);
}

struct ferry_id store_cluster_id(const struct store *store)
{
    return store->identity.cluster_id;
}

uint32_t store_incarnation(const struct store *store)
{
    return store->identity.incarnation;
}

const char *store_library_version(void)
{
    return mdb_version(NULL, NULL, NULL);
}

void store_stats(const struct store *store, struct store_stats *stats)
{
    *stats = (struct store_stats){
        .file_bytes = store->room.file_bytes,
        .used_bytes = store->room.used_bytes,
        .free_page_bytes = store->room.free_bytes,
        .commits = store->commits,
        .commit_us_total = store->commit_us_total,
        .commit_us_max = store->commit_us_max,
        .written_bytes = store->written_bytes,
    };
}

void store_check(const struct store *store)
{
    const struct store *s = store;
    unsigned flags = 0;
    struct stat st;
    must(mdb_env_get_flags(s->env, &flags) == 0);
    must((flags & ENV_UNSAFE_FLAGS) == 0);
    must((s->write == NULL) == (s->write_log == NULL));
    must(s->lock_fd >= 0);
    must(s->room.used_bytes <= s->room.file_bytes);
    must(fstat(s->data_fd, &st) == 0);
    must(st.st_size >= s->room.file_bytes);
    must(s->tails.count <= s->tails.capacity);
    must(!s->failed || s->failure.text[0] != '\0');
}

/* ---- Identity ---- */

/* A cluster id is made once, by the first node, and must not repeat anywhere; an incarnation must
 * not repeat among the lives of one node. */
static enum ferry_err choose_identity(const struct store_config *c, struct store_identity *id,
                                      struct err_text *e)
{
    *id = (struct store_identity){
        .format = STORE_FORMAT,
        .cluster_id = c->cluster_id,
        .node_id = c->node_id,
        .shard = c->shard,
        .shards = c->shards,
        .incarnation = c->incarnation,
    };
    bool needs_cluster = id_is_zero(&c->cluster_id) && !c->no_cluster;
    if (!needs_cluster && c->incarnation != 0) {
        return FERRY_OK;
    }
    struct id_gen g;
    enum ferry_err err = id_gen_init(&g, 0);
    if (err != FERRY_OK) {
        return err_set(e, err, "%s: the system gives no random bytes for a new folder", c->path);
    }
    if (needs_cluster) {
        id->cluster_id = id_random(&g);
    }
    if (id->incarnation == 0) {
        id->incarnation = (uint32_t)(1 + prng_below(&g.prng, UINT32_MAX));
    }
    return FERRY_OK;
}

static enum ferry_err check_owner(const struct store_config *c, const struct store_identity *id,
                                  struct err_text *e)
{
    if (id->node_id != c->node_id || id->shard != c->shard || id->shards != c->shards) {
        return err_set(e, FERRY_ERR_WRONG_NODE,
                       "%s belongs to node %u, shard %u of %u, but node %u, shard %u of %u was to "
                       "use it: start the node with its own folder, id and number of shards",
                       c->path, id->node_id, id->shard, id->shards, c->node_id, c->shard,
                       c->shards);
    }
    if (c->incarnation != 0 && c->incarnation != id->incarnation) {
        return err_set(e, FERRY_ERR_WRONG_NODE,
                       "%s is of another life of node %u (%08x) than its other shards (%08x): "
                       "restore the missing folders, or empty all of them and add the node again",
                       c->path, id->node_id, id->incarnation, c->incarnation);
    }
    if (!id_is_zero(&c->cluster_id) && !id_equal(&id->cluster_id, &c->cluster_id)) {
        char has[ID_TEXT_BYTES];
        char wants[ID_TEXT_BYTES];
        id_format(&id->cluster_id, has);
        id_format(&c->cluster_id, wants);
        return err_set(
            e, FERRY_ERR_WRONG_NODE,
            "%s belongs to cluster %s, but a node of cluster %s was to use it: start the "
            "node with its own folder",
            c->path, has, wants);
    }
    return FERRY_OK;
}

static enum ferry_err read_identity(struct store *s, MDB_txn *txn, struct err_text *e)
{
    MDB_val key = store_val("identity", strlen("identity"));
    MDB_val value;
    int rc = mdb_get(txn, s->meta, &key, &value);
    if (rc != 0) {
        return err_set(e, store_err_of(rc), "%s/data.mdb has no identity: restore it from a backup",
                       s->path);
    }
    enum ferry_err err =
        layout_identity_decode(bytes_of(value.mv_data, value.mv_size), &s->identity);
    if (err == FERRY_ERR_NEWER_FORMAT) {
        return err_set(e, err,
                       "%s has format %u, this ferryd knows up to %u: start the newer version",
                       s->path, s->identity.format, STORE_FORMAT);
    }
    if (err != FERRY_OK) {
        return err_set(e, err,
                       "%s/data.mdb has a damaged identity: restore the folder from a backup",
                       s->path);
    }
    return FERRY_OK;
}

/* ---- Opening ---- */

int store_open_tables(MDB_txn *txn, unsigned flags, MDB_dbi tables[STORE_TABLES])
{
    static const char *const names[STORE_TABLES] = {"log", "state", "group", "meta"};
    for (size_t i = 0; i < STORE_TABLES; i++) {
        int rc = mdb_dbi_open(txn, names[i], flags, &tables[i]);
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

static enum ferry_err set_lmdb(const struct store *s, struct err_text *e, int rc)
{
    return err_set(e, store_err_of(rc), "cannot open %s/data.mdb: %s", s->path, mdb_strerror(rc));
}

static enum ferry_err open_env(struct store *s, struct err_text *e)
{
    int rc = mdb_env_create(&s->env);
    if (rc != 0) {
        return set_lmdb(s, e, rc);
    }
    unsigned flags = 0;
    int dead = 0;
    if ((rc = mdb_env_set_maxdbs(s->env, STORE_TABLES)) != 0 ||
        (rc = mdb_env_set_maxreaders(s->env, STORE_READERS_MAX)) != 0 ||
        (rc = mdb_env_set_mapsize(s->env, (size_t)s->room.file_bytes)) != 0 ||
        (rc = mdb_env_open(s->env, s->path, ENV_FLAGS, 0600)) != 0 ||
        (rc = mdb_env_get_flags(s->env, &flags)) != 0 ||
        (rc = mdb_reader_check(s->env, &dead)) != 0) {
        return set_lmdb(s, e, rc);
    }
    must((flags & ENV_UNSAFE_FLAGS) == 0);
    must(mdb_env_get_maxkeysize(s->env) >= (int)(STORE_STATE_PREFIX_BYTES + STORE_KEY_MAX_BYTES));
    return FERRY_OK;
}

/* Opens the tables and reads who the folder belongs to, in one read transaction, which is kept for
 * the views. */
static enum ferry_err open_tables(struct store *s, struct err_text *e)
{
    MDB_txn *txn;
    MDB_dbi tables[STORE_TABLES];
    int rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn);
    if (rc != 0) {
        return set_lmdb(s, e, rc);
    }
    rc = store_open_tables(txn, 0, tables);
    if (rc != 0) {
        mdb_txn_abort(txn);
        return err_set(e, store_err_of(rc),
                       "%s/data.mdb is not a Ferry store (%s): restore the folder from a backup",
                       s->path, mdb_strerror(rc));
    }
    s->log = tables[0];
    s->state = tables[1];
    s->group = tables[2];
    s->meta = tables[3];
    enum ferry_err err = read_identity(s, txn, e);
    /* Tables opened in a transaction last only when it commits. */
    rc = mdb_txn_commit(txn);
    return err != FERRY_OK || rc == 0 ? err : set_lmdb(s, e, rc);
}

static enum ferry_err open_view(struct store *s, struct err_text *e)
{
    int rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &s->view);
    if (rc == 0) {
        rc = mdb_cursor_open(s->view, s->log, &s->view_log);
    }
    if (rc != 0) {
        return set_lmdb(s, e, rc);
    }
    mdb_txn_reset(s->view);
    return FERRY_OK;
}

/* The map is as large as the file (store_room.c says why). */
static enum ferry_err open_data(struct store *s, struct err_text *e)
{
    int64_t file_bytes = 0;
    enum ferry_err err = file_open_data(s->path, &s->data_fd, &file_bytes, e);
    if (err != FERRY_OK) {
        return err;
    }
    /* A file copied by other tools may end anywhere; LMDB wants whole pages of the machine. */
    s->room.file_bytes = file_bytes - file_bytes % sysconf(_SC_PAGESIZE);
    err = open_env(s, e);
    if (err == FERRY_OK) {
        err = open_tables(s, e);
    }
    return err;
}

static enum ferry_err open_folder(struct store *s, const struct store_config *config,
                                  struct err_text *e)
{
    bool exists = false;
    enum ferry_err err = file_lock_folder(s->path, &s->lock_fd, e);
    if (err == FERRY_OK) {
        err = file_check_data(s->path, &exists, e);
    }
    if (err == FERRY_OK && !exists && config->must_exist) {
        err = err_set(e, FERRY_ERR_WRONG_NODE,
                      "%s is missing, and the node has promised by what was in it: restore the "
                      "folder as it was, or empty all of node.data and add the node again",
                      config->path);
    }
    if (err == FERRY_OK && !exists) {
        struct store_identity id;
        err = choose_identity(config, &id, e);
        if (err == FERRY_OK) {
            err = file_create_data(config, &id, e);
        }
    }
    if (err == FERRY_OK) {
        err = file_sync_folder(s->path, e);
    }
    return err;
}

enum ferry_err store_open(const struct store_config *config, struct store **store,
                          struct err_text *e)
{
    must(config->grow_bytes > 0 && config->reserve_bytes >= 0);
    must(config->shard < config->shards);
    if (config->max_bytes < STORE_FIRST_BYTES + config->reserve_bytes) {
        return err_set(
            e, FERRY_ERR_STORAGE_FULL,
            "%s may grow to %lld bytes, which leaves no room beside the reserve of %lld: "
            "raise the limit",
            config->path, (long long)config->max_bytes, (long long)config->reserve_bytes);
    }
    struct store *s = mem_zalloc(1, sizeof(*s));
    if (s == NULL) {
        return err_set(e, FERRY_ERR_NO_MEMORY, "no memory to open %s", config->path);
    }
    s->lock_fd = -1;
    s->data_fd = -1;
    s->max_bytes = config->max_bytes;
    s->grow_bytes = config->grow_bytes;
    s->reserve_bytes = config->reserve_bytes;
    s->path = mem_strdup(config->path);

    enum ferry_err err = FERRY_OK;
    if (s->path == NULL) {
        err = err_set(e, FERRY_ERR_NO_MEMORY, "no memory to open %s", config->path);
    }
    if (err == FERRY_OK) {
        err = open_folder(s, config, e);
    }
    if (err == FERRY_OK) {
        err = open_data(s, e);
    }
    if (err == FERRY_OK) {
        err = check_owner(config, &s->identity, e);
    }
    if (err == FERRY_OK) {
        err = open_view(s, e);
    }
    if (err != FERRY_OK) {
        store_close(&s);
        return err;
    }
    room_refresh(s);
    read_find_map(s);
    room_claim(s);
    (void)room_ensure(s, s->reserve_bytes);
    *store = s;
    return FERRY_OK;
}

void store_close(struct store **store)
{
    struct store *s = *store;
    *store = NULL;
    if (s == NULL) {
        return;
    }
    if (s->write != NULL) {
        mdb_txn_abort(s->write);
    }
    if (s->view_log != NULL) {
        mdb_cursor_close(s->view_log);
    }
    if (s->view != NULL) {
        mdb_txn_abort(s->view);
    }
    if (s->env != NULL) {
        mdb_env_close(s->env);
    }
    if (s->data_fd >= 0) {
        (void)close(s->data_fd);
    }
    if (s->lock_fd >= 0) {
        (void)close(s->lock_fd);
    }
    tails_fini(&s->tails);
    mem_free(s->path);
    mem_free(s);
}
