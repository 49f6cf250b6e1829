#include "raft/runs.h"

#include <string.h>

#include "base/mem.h"

/* True when the runs on disk cover trim_index + 1..last_index, rising in index and term. */
static bool disk_runs_are_sound(const struct raft_disk *disk)
{
    if (disk->last_index == disk->trim_index) {
        return disk->run_count == 0;
    }
    raft_index expected_first = disk->trim_index + 1;
    raft_term last_term = disk->trim_term;
    for (size_t i = 0; i < disk->run_count; i++) {
        const struct raft_run *run = &disk->runs[i];
        bool first_is_right = i == 0 ? run->first == expected_first : run->first >= expected_first;
        /* The first run may go on with the term of the entry trimmed before it. */
        bool term_is_right = i == 0 ? run->term >= last_term : run->term > last_term;
        if (!first_is_right || !term_is_right || run->term == 0 || run->first > disk->last_index) {
            return false;
        }
        expected_first = run->first + 1;
        last_term = run->term;
    }
    return disk->run_count > 0;
}

enum ferry_err runs_load(struct runs *l, const struct raft_disk *disk)
{
    *l = (struct runs){.trim_index = disk->trim_index,
                       .trim_term = disk->trim_term,
                       .last_index = disk->last_index};
    bool trim_is_sound = (disk->trim_index == 0) == (disk->trim_term == 0);
    bool range_is_sound =
        disk->last_index >= disk->trim_index && disk->last_index <= RAFT_INDEX_MAX;
    if (!trim_is_sound || !range_is_sound || !disk_runs_are_sound(disk)) {
        return FERRY_ERR_CORRUPT;
    }
    if (!runs_reserve(l, disk->run_count + 1)) {
        return FERRY_ERR_NO_MEMORY;
    }
    if (disk->run_count > 0) {
        memcpy(l->items, disk->runs, disk->run_count * sizeof(l->items[0]));
        l->count = disk->run_count;
    }
    runs_check(l);
    return FERRY_OK;
}

void runs_fini(struct runs *l)
{
    mem_free(l->items);
    *l = (struct runs){0};
}

bool runs_reserve(struct runs *l, size_t extra)
{
    void *items = l->items;
    bool ok = mem_grow(&items, &l->capacity, l->count + extra, sizeof(l->items[0]));
    l->items = items;
    return ok;
}

void runs_append(struct runs *l, uint64_t count, raft_term term)
{
    must(count > 0);
    must(term > 0 && term >= runs_last_term(l));
    if (l->count == 0 || l->items[l->count - 1].term != term) {
        must(l->count < l->capacity);
        l->items[l->count] = (struct raft_run){.first = l->last_index + 1, .term = term};
        l->count++;
    }
    l->last_index += count;
}

void runs_truncate(struct runs *l, raft_index from)
{
    must(from > l->trim_index);
    must(from <= l->last_index + 1);
    while (l->count > 0 && l->items[l->count - 1].first >= from) {
        l->count--;
    }
    l->last_index = from - 1;
}

/* The place of the last run that begins at or before `index`. Binary search, after a look at the
 * newest run, where nearly every question goes. */
static size_t run_of(const struct runs *l, raft_index index)
{
    must(index > l->trim_index && index <= l->last_index);
    size_t low = 0;
    size_t high = l->count - 1;
    if (l->items[high].first <= index) {
        return high;
    }
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (l->items[middle].first <= index) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

void runs_trim(struct runs *l, raft_index index)
{
    must(index >= l->trim_index && index <= l->last_index);
    if (index == l->trim_index) {
        return;
    }
    l->trim_term = runs_term_at(l, index);
    size_t gone = index == l->last_index ? l->count : run_of(l, index + 1);
    memmove(l->items, l->items + gone, (l->count - gone) * sizeof(l->items[0]));
    l->count -= gone;
    l->trim_index = index;
    if (l->count > 0) {
        l->items[0].first = index + 1;
    }
}

raft_term runs_term_at(const struct runs *l, raft_index index)
{
    if (index == l->trim_index) {
        return l->trim_term;
    }
    if (index < l->trim_index || index > l->last_index) {
        return 0;
    }
    return l->items[run_of(l, index)].term;
}

raft_term runs_last_term(const struct runs *l)
{
    return runs_term_at(l, l->last_index);
}

static raft_index run_end(const struct runs *l, size_t place)
{
    return place + 1 < l->count ? l->items[place + 1].first - 1 : l->last_index;
}

raft_index runs_stretch_end(const struct runs *l, raft_index index)
{
    return run_end(l, run_of(l, index));
}

raft_index runs_find_term(const struct runs *l, raft_index index, raft_term term)
{
    raft_index candidate = index < l->last_index ? index : l->last_index;
    if (candidate <= l->trim_index) {
        return l->trim_index;
    }
    for (size_t i = run_of(l, candidate) + 1; i > 0; i--) {
        if (l->items[i - 1].term <= term) {
            return candidate;
        }
        candidate = l->items[i - 1].first - 1;
    }
    return l->trim_index;
}

size_t runs_copy(const struct runs *l, raft_index first, raft_index last, struct raft_run *out,
                 size_t max, raft_index *covered)
{
    must(first > l->trim_index && first <= last && last <= l->last_index);
    must(max > 0);
    size_t copied = 0;
    for (raft_index at = first; at <= last && copied < max; at = *covered + 1) {
        size_t place = run_of(l, at);
        out[copied] = (struct raft_run){.first = at, .term = l->items[place].term};
        copied++;
        raft_index end = run_end(l, place);
        *covered = end < last ? end : last;
    }
    return copied;
}

void runs_check(const struct runs *l)
{
    must((l->trim_index == 0) == (l->trim_term == 0));
    must((l->count == 0) == (l->last_index == l->trim_index));
    must(l->count <= l->capacity);
    for (size_t i = 0; i < l->count; i++) {
        must(l->items[i].term > 0);
        must(l->items[i].first <= l->last_index);
        must(i > 0 || l->items[i].first == l->trim_index + 1);
        must(i > 0 || l->items[i].term >= l->trim_term);
        must(i == 0 || l->items[i].first > l->items[i - 1].first);
        must(i == 0 || l->items[i].term > l->items[i - 1].term);
    }
}
