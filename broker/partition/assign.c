#include "partition/assign.h"

#include "base/must.h"

struct shares {
    const struct assign *a;
    int32_t *owners;
    uint32_t base;                 /* Every member has so many, */
    uint32_t extras;               /* so many members one more; not given yet. */
    uint32_t count[MEMBERS_MAX];   /* What each has. */
    uint32_t at_home[MEMBERS_MAX]; /* ... of it in its own zone. */
    uint32_t quota[MEMBERS_MAX];
};

static bool is_home(const struct shares *s, uint32_t partition, uint32_t member)
{
    if (s->a->partition_zones == NULL || s->a->partition_zones[partition].size == 0) {
        return false;
    }
    return bytes_equal(s->a->partition_zones[partition], s->a->member_zones[member]);
}

static void count(struct shares *s)
{
    for (uint32_t p = 0; p < s->a->partition_count; p++) {
        if (s->owners[p] == ASSIGN_NOBODY) {
            continue;
        }
        uint32_t m = (uint32_t)s->owners[p];
        must(m < s->a->member_count);
        s->count[m]++;
        s->at_home[m] += is_home(s, p, m) ? 1 : 0;
    }
}

/* Those that have more than the base keep one more, as far as the extras go: each that does is one
 * partition less that moves. Among them those that would have to give up one of their zone. */
static void give_extras_to_who_has_more(struct shares *s)
{
    while (s->extras > 0) {
        uint32_t best = UINT32_MAX;
        for (uint32_t m = 0; m < s->a->member_count; m++) {
            bool more = s->quota[m] == s->base && s->count[m] > s->base;
            if (more && (best == UINT32_MAX || s->at_home[m] > s->at_home[best])) {
                best = m;
            }
        }
        if (best == UINT32_MAX) {
            return;
        }
        s->quota[best]++;
        s->extras--;
    }
}

enum place { PLACE_STRANGE, PLACE_UNKNOWN, PLACE_HOME };

static enum place place_of(const struct shares *s, uint32_t partition, uint32_t member)
{
    if (is_home(s, partition, member)) {
        return PLACE_HOME;
    }
    bool known = s->a->partition_zones != NULL && s->a->partition_zones[partition].size > 0;
    return known ? PLACE_STRANGE : PLACE_UNKNOWN;
}

/* What is above the quotas becomes free, high numbers first. */
static void take_what_is_too_much(struct shares *s, enum place place)
{
    for (uint32_t p = s->a->partition_count; p-- > 0;) {
        uint32_t m = (uint32_t)s->owners[p];
        if (s->owners[p] == ASSIGN_NOBODY || s->count[m] <= s->quota[m] ||
            place_of(s, p, m) != place) {
            continue;
        }
        s->owners[p] = ASSIGN_NOBODY;
        s->count[m]--;
    }
}

static bool has_room(const struct shares *s, uint32_t member)
{
    return s->count[member] < s->quota[member] || (s->extras > 0 && s->quota[member] == s->base);
}

/* Who has least, of those with room; with `home` in the partition's zone only. */
static uint32_t find_taker(const struct shares *s, uint32_t partition, bool home)
{
    uint32_t best = UINT32_MAX;
    for (uint32_t m = 0; m < s->a->member_count; m++) {
        if (has_room(s, m) && (!home || is_home(s, partition, m)) &&
            (best == UINT32_MAX || s->count[m] < s->count[best])) {
            best = m;
        }
    }
    return best;
}

/* There is exactly as much room as there are free partitions, whatever order they go in. */
static void give_what_is_free(struct shares *s, bool home)
{
    for (uint32_t p = 0; p < s->a->partition_count; p++) {
        if (s->owners[p] != ASSIGN_NOBODY) {
            continue;
        }
        uint32_t m = find_taker(s, p, home);
        must(home || m != UINT32_MAX);
        if (m == UINT32_MAX) {
            continue;
        }
        if (s->count[m] == s->quota[m]) {
            s->quota[m]++;
            s->extras--;
        }
        s->count[m]++;
        s->owners[p] = (int32_t)m;
    }
}

void assign_balance(const struct assign *a, int32_t *owners)
{
    must(a->member_count <= MEMBERS_MAX);
    if (a->member_count == 0) {
        for (uint32_t p = 0; p < a->partition_count; p++) {
            owners[p] = ASSIGN_NOBODY;
        }
        return;
    }
    struct shares s = {.a = a,
                       .owners = owners,
                       .base = a->partition_count / a->member_count,
                       .extras = a->partition_count % a->member_count};
    for (uint32_t m = 0; m < a->member_count; m++) {
        s.quota[m] = s.base;
    }
    count(&s);
    give_extras_to_who_has_more(&s);
    take_what_is_too_much(&s, PLACE_STRANGE);
    take_what_is_too_much(&s, PLACE_UNKNOWN);
    take_what_is_too_much(&s, PLACE_HOME);
    if (a->partition_zones != NULL) {
        give_what_is_free(&s, true);
    }
    give_what_is_free(&s, false);
    must(s.extras == 0);
}
