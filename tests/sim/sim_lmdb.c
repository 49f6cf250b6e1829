/* The disks of the other binary: the real store, in files on a memory file system. A crash loses
 * what was not committed; what an fsync keeps is LMDB's business there. */
#include <errno.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sim/sim_disk.h"
#include "sim/world.h"

#define ROOT_BYTES 64

static char root[ROOT_BYTES];

static void name_root(char name[ROOT_BYTES], long pid)
{
    (void)snprintf(name, ROOT_BYTES, "/dev/shm/ferry-sim.%ld", pid);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static void remove_tree(const char *path)
{
    (void)nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

void sim_disks_init(void)
{
    name_root(root, (long)getpid());
    must(mkdir(root, 0700) == 0 || errno == EEXIST);
}

void sim_disks_fini(void)
{
    remove_tree(root);
}

void sim_disks_remove(long pid)
{
    char name[ROOT_BYTES];
    name_root(name, pid);
    remove_tree(name);
}

const char *sim_disks_root(void)
{
    return root;
}

void sim_disks_make_folder(const char *path)
{
    must(mkdir(path, 0700) == 0 || errno == EEXIST);
}

enum ferry_err sim_disk_before_commit(const char *path)
{
    struct sim_disk_faults *f = sim_disk_faults(path);
    bool fails = f->fail_next;
    f->fail_next = false;
    return fails ? FERRY_ERR_STORE_FAILED : FERRY_OK;
}

void sim_disk_after_commit(const char *path)
{
    task_spend(sim_disk_commit_time(sim_disk_faults(path)));
}

struct sim_disk *sim_disk_find(const char *path)
{
    (void)path;
    return NULL;
}

bool sim_disk_crash(const char *path, int64_t when_us, bool keeps)
{
    (void)path;
    (void)when_us;
    (void)keeps;
    return false;
}

void sim_disk_wipe(const char *path)
{
    remove_tree(path);
}

struct sim_disk *sim_disk_copy(const char *path)
{
    (void)path;
    return NULL;
}

void sim_disk_restore(const char *path, struct sim_disk **copy)
{
    (void)path;
    (void)copy;
}

void sim_disk_free(struct sim_disk **d)
{
    *d = NULL;
}

bool sim_disk_rot(const char *path, uint64_t group, uint64_t index, uint64_t bit)
{
    (void)path;
    (void)group;
    (void)index;
    (void)bit;
    return false;
}
