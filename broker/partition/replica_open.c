/* What the store knows of a group: marks, configuration, where the terms change, what is damaged.
 */
#include "base/checksum.h"
#include "base/mem.h"
#include "partition/replica_internal.h"

/* The last entries of the log are read in full when it is opened: they are what a bad end of the
 * last life would have hit. */
#define OPEN_CHECK_ENTRIES 8u
/* How far a readable entry is looked for behind damaged ones. */
#define OPEN_SKIP_MAX 64u

struct run_list {
    struct raft_run *runs;
    size_t count, capacity;
};

static enum ferry_err add_run(struct run_list *l, uint64_t index, uint64_t term)
{
    if (l->count > 0 && l->runs[l->count - 1].term == term) {
        return FERRY_OK;
    }
    if (!mem_grow((void **)&l->runs, &l->capacity, l->count + 1, sizeof(*l->runs))) {
        return FERRY_ERR_NO_MEMORY;
    }
    l->runs[l->count++] = (struct raft_run){.first = index, .term = term};
    return FERRY_OK;
}

/* The entry's term. Of one that cannot be read, the next readable one's, or `floor` when there is
 * none: a guess that keeps terms in order. The core is muted there, so nothing is promised by it,
 * and it is made anew when the repaired entry tells another term. */
static enum ferry_err read_term(struct replica *r, uint64_t index, uint64_t last, uint64_t floor,
                                uint64_t *term)
{
    for (uint64_t at = index; at <= last && at - index < OPEN_SKIP_MAX; at++) {
        struct store_entry entry;
        enum ferry_err err = store_get_entry(r->config.store, r->config.group, at, &entry);
        if (err == FERRY_OK) {
            *term = entry.term;
            return FERRY_OK;
        }
        if (err != FERRY_ERR_CORRUPT || !replica_has_peers(r)) {
            return err;
        }
        repair_note(r, at);
    }
    *term = floor;
    return FERRY_OK;
}

/* Finds where the terms change. Terms never decrease along a log, so the next change is found by
 * bisection: a log of 10 million entries and a few terms costs a few dozen reads, not a scan. */
static enum ferry_err read_runs(struct replica *r, uint64_t first, uint64_t last,
                                struct run_list *l)
{
    uint64_t floor = r->marks.trim_term;
    for (uint64_t at = first; at != 0 && at <= last;) {
        uint64_t term = 0;
        enum ferry_err err = read_term(r, at, last, floor, &term);
        if (err == FERRY_OK) {
            err = term < floor ? FERRY_ERR_CORRUPT : add_run(l, at, term);
        }
        uint64_t low = at, high = last + 1; /* low has the term; high has another or is past. */
        while (err == FERRY_OK && high - low > 1) {
            uint64_t middle = low + (high - low) / 2, there = 0;
            err = read_term(r, middle, last, term, &there);
            if (err == FERRY_OK && there < term) {
                err = FERRY_ERR_CORRUPT;
            }
            *(there == term ? &low : &high) = middle;
        }
        if (err != FERRY_OK) {
            return err;
        }
        floor = term;
        at = high;
    }
    return FERRY_OK;
}

/* ---- The configuration's row: two configurations and a checksum ---- */

static enum ferry_err decode_configs(struct replica *r, struct bytes row)
{
    if (row.size < 8 || get_le64(row.data + row.size - 8) != checksum_of(row.data, row.size - 8)) {
        return FERRY_ERR_CORRUPT;
    }
    struct bytes rest = bytes_of(row.data, row.size - 8);
    bool sound = peer_take_config(&rest, &r->members) == FERRY_OK &&
                 peer_take_config(&rest, &r->previous_members) == FERRY_OK && rest.size == 0;
    return sound ? FERRY_OK : FERRY_ERR_CORRUPT;
}

static enum ferry_err read_configs(struct replica *r)
{
    struct bytes row;
    bool found = false;
    enum ferry_err err = store_get(r->config.store, r->config.group, REPLICA_TABLE_CONFIG,
                                   bytes_of(NULL, 0), &found, &row);
    if (err != FERRY_OK || found) {
        return err != FERRY_OK ? err : decode_configs(r, row);
    }
    r->members = (struct raft_config_entry){.members = r->config.initial};
    r->previous_members = r->members;
    /* From now on what is on disk counts, whatever the next start says. */
    r->members_dirty = r->config.initial.voter_count > 0;
    return FERRY_OK;
}

/* ---- The log ---- */

/* The last one tells where the next record goes, and when. */
static enum ferry_err check_entry(struct replica *r, uint64_t at, bool is_last)
{
    struct store_entry entry;
    enum ferry_err err = store_get_entry(r->config.store, r->config.group, at, &entry);
    bool readable = err == FERRY_OK;
    if (readable && is_last) {
        r->next_offset = r->config.ops->next_offset(&entry);
        r->last_append_time_ms = entry.append_time_ms;
    }
    if (readable) {
        err = peer_entry_check(&entry);
    }
    if (err == FERRY_ERR_CORRUPT && replica_has_peers(r)) {
        repair_note(r, at);
        return FERRY_OK;
    }
    /* Alone: what is damaged in its payload is refused to whoever reads it, no more. */
    return err == FERRY_ERR_CORRUPT && readable ? FERRY_OK : err;
}

/* The end of the log in full. */
static enum ferry_err check_end(struct replica *r, uint64_t first, uint64_t last)
{
    uint64_t at = last - first >= OPEN_CHECK_ENTRIES ? last - OPEN_CHECK_ENTRIES + 1 : first;
    enum ferry_err err = FERRY_OK;
    if (!replica_has_peers(r)) {
        at = last; /* Nobody could help with the others. */
    }
    for (; at <= last && err == FERRY_OK; at++) {
        err = check_entry(r, at, at == last);
    }
    return err;
}

/* What is applied was committed, even when the mark on disk does not say so yet. */
static uint64_t known_commit(const struct replica *r, uint64_t last)
{
    uint64_t applied = r->applied < last ? r->applied : last;
    return applied > r->marks.commit ? applied : r->marks.commit;
}

static enum ferry_err make_core(struct replica *r, uint64_t last, const struct run_list *runs,
                                int64_t now_us)
{
    struct raft_config config = {.self = r->config.self,
                                 .seed = r->config.seed,
                                 .election_min_us = r->config.election_min_us,
                                 .election_max_us = r->config.election_max_us,
                                 .heartbeat_us = r->config.heartbeat_us};
    struct raft_disk disk = {.term = r->marks.term,
                             .vote = r->marks.vote,
                             .commit = known_commit(r, last),
                             .trim_index = r->marks.trim_index,
                             .trim_term = r->marks.trim_term,
                             .last_index = last,
                             .runs = runs->runs,
                             .run_count = runs->count,
                             .config = r->members,
                             .previous_config = r->previous_members,
                             .floor_index = r->floor.index,
                             .floor_term = r->floor.term};
    enum ferry_err err = raft_new(&config, &disk, now_us, &r->raft);
    if (err == FERRY_OK) {
        raft_set_notice(r->raft, r->config.notice_us);
    }
    return err;
}

static enum ferry_err open_core(struct replica *r, int64_t now_us)
{
    uint64_t first = 0, last = 0;
    enum ferry_err err = store_log_bounds(r->config.store, r->config.group, &first, &last);
    if (err != FERRY_OK) {
        return err;
    }
    struct run_list runs = {0};
    uint64_t kept = r->marks.trim_index + 1;
    if (last < r->marks.trim_index) {
        last = r->marks.trim_index;
    } else if (last >= kept) {
        err = first > kept ? FERRY_ERR_CORRUPT : read_runs(r, kept, last, &runs);
        if (err == FERRY_OK) {
            err = check_end(r, kept, last);
        }
    }
    if (err == FERRY_OK) {
        err = make_core(r, last, &runs, now_us);
    }
    mem_free(runs.runs);
    return err == FERRY_OK && repair_is_damaged(r) ? repair_mute(r, now_us) : err;
}

enum ferry_err replica_read_store(struct replica *r, int64_t now_us)
{
    enum ferry_err err = store_get_group(r->config.store, r->config.group, &r->marks);
    if (err == FERRY_ERR_UNKNOWN_PARTITION) {
        r->marks = (struct store_group){.group = r->config.group};
        r->marks_dirty = true;
        err = FERRY_OK;
    }
    if (err == FERRY_OK) {
        err = replica_floor_read(r->config.store, r->config.group, &r->floor);
    }
    if (err == FERRY_OK && r->marks.installing) {
        /* Half a snapshot: its rows and entries are of no use. */
        r->in.emptying = true;
        return FERRY_OK;
    }
    if (err == FERRY_OK) {
        err = read_configs(r);
    }
    return err == FERRY_OK ? open_core(r, now_us) : err;
}

void replica_free_core(struct replica *r)
{
    raft_free(&r->raft);
    replica_lose_office(r);
    replica_drop_pending(r, 0);
    r->truncate_from = 0;
    r->now.count = 0;
    r->after_sync.count = 0;
    r->durable.count = 0;
    r->window = 0;
}

enum ferry_err replica_reopen_core(struct replica *r, int64_t now_us)
{
    replica_free_core(r);
    enum ferry_err err = store_read_begin(r->config.store);
    if (err != FERRY_OK) {
        return err;
    }
    err = replica_read_store(r, now_us);
    store_read_end(r->config.store);
    return err;
}
