#include "sim/groups.h"

#include "base/mem.h"

void group_init(struct group *g, const char *name)
{
    *g = (struct group){.name = name, .count = 1};
}

void group_fini(struct group *g)
{
    mem_free(g->all);
    mem_free(g->commits);
    *g = (struct group){.count = 1};
}

uint32_t group_joins(struct group *g)
{
    return ++g->members;
}

uint32_t group_given(struct group *g, uint32_t member, int64_t joined_us, int32_t partition,
                     int64_t position)
{
    must(mem_grow((void **)&g->all, &g->capacity, g->count + 1, sizeof(*g->all)));
    g->all[g->count] = (struct ownership){.member = member,
                                          .partition = partition,
                                          .joined_us = joined_us,
                                          .given_us = world_now(),
                                          .position = position};
    g->given++;
    return (uint32_t)g->count++;
}

void group_taken(struct group *g, uint32_t ownership)
{
    g->all[ownership].over = true;
}

void group_asked(struct group *g, uint32_t ownership, int64_t offset)
{
    int64_t *most = &g->attempted[g->all[ownership].partition];
    *most = offset > *most ? offset : *most;
}

/* ---- One confirmed commit beside the earlier ones ---- */

static bool same_partition(const struct group *g, uint32_t a, uint32_t b)
{
    return g->all[a].partition == g->all[b].partition;
}

/* When the first commit of the ownership was confirmed. */
static int64_t first_told(const struct group *g, uint32_t ownership)
{
    int64_t first = SIM_NEVER;
    for (size_t i = 0; i < g->commit_count; i++) {
        if (g->commits[i].ownership == ownership && g->commits[i].told_us < first) {
            first = g->commits[i].told_us;
        }
    }
    return first;
}

static void check_between(const struct group *g, const struct group_commit *now)
{
    const struct ownership *mine = &g->all[now->ownership];
    int64_t first = first_told(g, now->ownership);
    for (size_t i = 0; i < g->commit_count && !sim->ended; i++) {
        const struct group_commit *other = &g->commits[i];
        if (other->ownership == now->ownership ||
            !same_partition(g, other->ownership, now->ownership) ||
            other->asked_us <= g->reset_us[mine->partition]) {
            continue;
        }
        const struct ownership *theirs = &g->all[other->ownership];
        bool before = other->told_us < now->asked_us;
        if (before && first < other->asked_us) {
            sim_fail(SIM_INVARIANT,
                     "INV-P03: partition %d of %s: member %u committed before and after member %u",
                     mine->partition, g->name, mine->member, theirs->member);
        } else if (before && mine->position >= 0 && mine->position < other->offset) {
            sim_fail(SIM_INVARIANT,
                     "INV-P04: partition %d of %s: member %u began at %lld and commits, member %u "
                     "had committed %lld",
                     mine->partition, g->name, mine->member, (long long)mine->position,
                     theirs->member, (long long)other->offset);
        }
    }
}

static void check_zombie(const struct group *g, const struct group_commit *now)
{
    const struct ownership *mine = &g->all[now->ownership];
    for (uint32_t i = 1; i < g->count && !sim->ended; i++) {
        const struct ownership *o = &g->all[i];
        if (o->partition == mine->partition && o->joined_us > mine->given_us &&
            o->given_us < now->asked_us) {
            sim_fail(SIM_INVARIANT,
                     "INV-P03: partition %d of %s: member %u commits, member %u has it since %lld "
                     "us",
                     mine->partition, g->name, mine->member, o->member, (long long)o->given_us);
        }
    }
}

/* A reset takes the partition from whoever had it. */
static void check_reset(const struct group *g, const struct group_commit *now)
{
    const struct ownership *mine = &g->all[now->ownership];
    int64_t reset_us = g->reset_us[mine->partition];
    if (mine->given_us < g->reset_asked_us[mine->partition] && now->asked_us > reset_us) {
        sim_fail(SIM_INVARIANT,
                 "INV-P04: partition %d of %s: member %u has it since %lld us and commits over the "
                 "reset of %lld us",
                 mine->partition, g->name, mine->member, (long long)mine->given_us,
                 (long long)reset_us);
    }
}

void group_resetting(struct group *g)
{
    g->loose = true;
}

void group_reset(struct group *g, int32_t partition, int64_t asked_us, int64_t to)
{
    g->loose = false;
    g->reset_asked_us[partition] = asked_us;
    g->reset_us[partition] = world_now();
    g->attempted[partition] = to > g->attempted[partition] ? to : g->attempted[partition];
}

void group_told(struct group *g, uint32_t ownership, int64_t asked_us, int64_t offset,
                enum ferry_err err)
{
    g->fenced += err == FERRY_ERR_MEMBER_FENCED;
    if (err != FERRY_OK) {
        return;
    }
    struct group_commit now = {
        .ownership = ownership, .asked_us = asked_us, .told_us = world_now(), .offset = offset};
    if (!g->loose) {
        check_between(g, &now);
        check_zombie(g, &now);
        check_reset(g, &now);
    }
    must(mem_grow((void **)&g->commits, &g->commit_capacity, g->commit_count + 1,
                  sizeof(*g->commits)));
    g->commits[g->commit_count++] = now;
}

void group_check_position(const struct group *g, int32_t partition, int64_t position)
{
    int64_t most = 0;
    for (size_t i = 0; i < g->commit_count; i++) {
        const struct group_commit *c = &g->commits[i];
        if (g->all[c->ownership].partition == partition && c->offset > most &&
            c->asked_us > g->reset_us[partition]) {
            most = c->offset;
        }
    }
    if (!g->loose && (position < most || position > g->attempted[partition])) {
        sim_fail(SIM_INVARIANT,
                 "INV-P04: partition %d of %s is at %lld; %lld was confirmed, %lld the most that "
                 "was asked for",
                 partition, g->name, (long long)position, (long long)most,
                 (long long)g->attempted[partition]);
    }
}
