/* sim_disk_inner: what sim_disk.c (disks, groups, rows, undo) shares with sim_store.c (store.h over
 * them). */
#ifndef FERRY_SIM_SIM_DISK_INNER_H
#define FERRY_SIM_SIM_DISK_INNER_H

#include "sim/sim_disk.h"
/* The real store's struct goes by another name here; wanted are the bytes on disk. */
#define store lmdb_store
#include "store/store_core.h"
#undef store

#define PATH_MAX_ 1100

struct value {
    uint8_t *data; /* Owned. NULL: none. */
    size_t size;
};

struct row {
    uint8_t *key; /* Owned: table, then the key's bytes. */
    size_t key_bytes;
    struct value value;
};

struct sim_group {
    uint64_t id;
    bool has_marks;
    uint8_t marks[STORE_GROUP_BYTES];
    uint64_t first; /* Of entries[head]; the log is first..first + count - 1. */
    struct value *entries;
    size_t head, count, capacity;
    struct row *rows; /* Sorted by key. */
    size_t row_count, row_capacity;
};

enum undo_kind {
    UNDO_APPEND,
    UNDO_FRONT,
    UNDO_BACK,
    UNDO_REPLACE,
    UNDO_MARKS,
    UNDO_ROW,
    UNDO_CLUSTER
};

struct undo {
    enum undo_kind kind;
    uint64_t group, index;
    struct value value; /* What was there. */
    uint8_t *key;
    size_t key_bytes;
};

struct sim_disk {
    char path[PATH_MAX_];
    struct store_identity identity;
    struct sim_group **groups; /* Sorted by id; each owned. */
    size_t group_count, group_capacity;
    struct undo *undo; /* Of the open transaction, or of the last one while it may be lost. */
    size_t undo_count, undo_capacity;
    int64_t durable_us; /* When the last commit is over. */
    bool open;
};

struct value disk_copy_value(const void *data, size_t size);
struct sim_group *disk_find_group(const struct sim_disk *d, uint64_t id);
struct sim_group *disk_need_group(struct sim_disk *d, uint64_t id);
struct value *disk_entry_at(const struct sim_group *g, uint64_t index);
uint64_t disk_last_index(const struct sim_group *g);
void disk_push_back(struct sim_group *g, uint64_t index, struct value v);
struct value disk_pop_front(struct sim_group *g);
struct value disk_pop_back(struct sim_group *g);
int disk_compare_keys(const uint8_t *a, size_t a_bytes, const uint8_t *b, size_t b_bytes);
size_t disk_row_place(const struct sim_group *g, const uint8_t *key, size_t key_bytes);
struct row *disk_find_row(const struct sim_group *g, const uint8_t *key, size_t key_bytes);
struct value disk_set_row(struct sim_group *g, const uint8_t *key, size_t key_bytes,
                          struct value value);
struct undo *disk_note(struct sim_disk *d, enum undo_kind kind, uint64_t group, uint64_t index);
void disk_forget_undo(struct sim_disk *d);
void disk_undo_all(struct sim_disk *d);
void disk_add_disk(struct sim_disk *d);

#endif
