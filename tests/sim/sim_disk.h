/* sim_disk: the disks under sim_store.c, and what goes wrong with them.
 *
 * A disk is what a shard's folder holds, by path; it outlives the store that has it open. What a
 * transaction changes is durable when its commit returns, or, for a commit that takes a while, when
 * that time is over: a crash before may lose all of it or keep all of it, as the crash says. LMDB
 * writes to free pages and then one meta page, so nothing in between exists; where the real store
 * runs (the other binary), its own files say so.
 *
 * Faults: a commit may take long or for ever, fail (and be durable or not, as after an fsync that
 * reported EIO), entries may rot (a bit flips; the checksum tells), there may be no room. */
#ifndef FERRY_SIM_SIM_DISK_H
#define FERRY_SIM_SIM_DISK_H

#include "store/store.h"

struct sim_disk;

struct sim_disk_faults {
    int64_t commit_min_us, commit_max_us; /* How long a commit takes, */
    int64_t slow_permille, slow_us;       /*   but for some, up to so long. */
    bool stalled;                         /* Commits end no more. */
    bool fail_next;                       /* The next commit fails, */
    bool fail_keeps;                      /*   and what it wrote is there all the same. */
    bool full;                            /* Nothing may be added but from the reserve. */
};

void sim_disks_init(void);
void sim_disks_fini(void);
/* Where nodes' folders are, and whatever must be there before shards open theirs. */
const char *sim_disks_root(void);
void sim_disks_make_folder(const char *path);
/* Removes what a process of that number left behind. */
void sim_disks_remove(long pid);
/* Around each commit, for a store that knows no faults of its own. An error: it fails. */
MUST_CHECK enum ferry_err sim_disk_before_commit(const char *path);
void sim_disk_after_commit(const char *path);
/* How long a commit takes now. */
int64_t sim_disk_commit_time(const struct sim_disk_faults *f);
/* NULL: no such folder. */
struct sim_disk *sim_disk_find(const char *path);
struct sim_disk_faults *sim_disk_faults(const char *path); /* Kept for the path, disk or not. */
/* The machine loses its power at `when_us`: a commit that was not over by then is undone, unless
 * `keeps`. True: one was. */
bool sim_disk_crash(const char *path, int64_t when_us, bool keeps);
void sim_disk_wipe(const char *path);
/* A copy of the whole disk as it is now, and back. */
struct sim_disk *sim_disk_copy(const char *path);
void sim_disk_restore(const char *path, struct sim_disk **copy); /* Taken. */
void sim_disk_free(struct sim_disk **d);
/* Flips one bit of an entry. False: no such entry. */
bool sim_disk_rot(const char *path, uint64_t group, uint64_t index, uint64_t bit);

#endif
