/* What is wrong with which disk, and for how long a commit takes there. */
#include "base/mem.h"
#include "sim/sim_disk.h"
#include "sim/world.h"

#define FAULTS_MAX 128

struct faults_of {
    char path[256];
    struct sim_disk_faults faults;
};

/* By path; kept over crashes and wipes. */
static struct faults_of all[FAULTS_MAX];

struct sim_disk_faults *sim_disk_faults(const char *path)
{
    size_t i = 0;
    while (all[i].path[0] != '\0' && strcmp(all[i].path, path) != 0) {
        must(++i < FAULTS_MAX);
    }
    if (all[i].path[0] == '\0') {
        must(strlen(path) < sizeof(all[i].path));
        (void)snprintf(all[i].path, sizeof(all[i].path), "%s", path);
        all[i].faults = (struct sim_disk_faults){.commit_min_us = 200, .commit_max_us = 800};
    }
    return &all[i].faults;
}

int64_t sim_disk_commit_time(const struct sim_disk_faults *f)
{
    if (f->stalled) {
        return SIM_NEVER / 4;
    }
    int64_t us = chance_between(f->commit_min_us, f->commit_max_us);
    return chance_permille((uint64_t)f->slow_permille) ? us + chance_between(0, f->slow_us) : us;
}
