/* The invariants of delivery.h, asserted. */
#include "partition/delivery_internal.h"

/* What a walk over all runs adds up to. */
struct sums {
    uint64_t leased, waiting, revived;
    uint64_t covered; /* At or above the floor. */
    uint64_t keys_leased, keys_waiting;
};

static void check_run(const struct delivery *d, const struct delivery_run *run, struct sums *sums)
{
    must(run->count > 0 && run->first >= 0);
    must(run->state != DELIVERY_FRESH);
    must(run->first / RUN_OFFSETS_MAX == (run_end(run) - 1) / RUN_OFFSETS_MAX);
    must(run->failed <= run->handed);
    must(run->dead != 0 || run->first >= d->floor);
    must(run->dead == 0 || (run->count == 1 && dead_has(d, run->dead)));
    must(run->dead == 0 || revived_find(d, run->dead) != NULL);
    must(run->dead == 0 || revived_find(d, run->dead)->offset == run->first);
    must(run->key_hash == 0 || (d->keyed && run->count == 1));
    must((run->state == DELIVERY_LEASED) == (run->lease != 0));
    must(run->history == NULL || run->history->refs > 0);
    if (run->state == DELIVERY_DONE) {
        must(run->handed == 0 && run->failed == 0 && run->history == NULL);
        must(run->dead == 0 && run->key_hash == 0 && run->due_ms == 0);
    } else {
        must(run->handed > 0 || run->dead != 0);
    }
    sums->leased += run->state == DELIVERY_LEASED ? run->count : 0;
    sums->waiting += run->state == DELIVERY_WAITING ? run->count : 0;
    sums->keys_leased += run->state == DELIVERY_LEASED && run->key_hash != 0;
    sums->keys_waiting += run->state == DELIVERY_WAITING && run->key_hash != 0;
    sums->revived += run->dead != 0;
    sums->covered += run->first >= d->floor ? run->count : 0;
}

static bool are_one(const struct delivery_run *a, const struct delivery_run *b)
{
    return run_end(a) == b->first && b->first % RUN_OFFSETS_MAX != 0 && a->state == b->state &&
           a->handed == b->handed && a->failed == b->failed && a->lease == b->lease &&
           a->due_ms == b->due_ms && a->history == b->history && a->dead + b->dead == 0 &&
           a->key_hash + b->key_hash == 0;
}

static struct sums check_runs(const struct delivery *d)
{
    struct sums sums = {0};
    struct delivery_run before = {.first = -1};
    struct run_place place;
    size_t count = 0;
    bool more = delivery_runs_from(&d->runs, INT64_MIN, &place);
    for (; more; more = delivery_runs_next(&d->runs, &place)) {
        const struct delivery_run *run = delivery_runs_at(&d->runs, place);
        must(run->first >= run_end(&before));
        must(count == 0 || !are_one(&before, run));
        must(run->first != d->floor || (run->state != DELIVERY_DONE && run->dead == 0));
        must(place.at > 0 || d->runs.slots[place.slot].first == run->first);
        check_run(d, run, &sums);
        before = *run;
        count++;
    }
    must(count == d->runs.count);
    return sums;
}

/* Messages that a walk over what the lease was given finds under it. */
static uint64_t held_of(const struct delivery *d, const struct lease *lease)
{
    uint64_t held = 0;
    const struct delivery_ranges *given = lease->l.given;
    for (uint32_t i = 0; given != NULL && i < given->count; i++) {
        for (int64_t at = given->spans[i].first; at < given->spans[i].end;) {
            struct delivery_run piece = delivery_piece(d, at, given->spans[i].end);
            bool is_held = piece.state == DELIVERY_LEASED && piece.lease == lease->l.number;
            held += is_held ? piece.count : 0;
            at = run_end(&piece);
        }
    }
    return held;
}

static void check_leases(const struct delivery *d)
{
    uint64_t left = 0;
    uint64_t held = 0;
    size_t active = 0;
    size_t settled = 0;
    for (size_t i = 0; i < d->lease_count; i++) {
        must(i == 0 || d->leases[i - 1].number < d->leases[i].number);
        must(d->leases[i].number < d->next_lease);
        const struct lease *lease = d->leases[i].lease;
        if (lease == NULL) {
            continue;
        }
        must(lease->l.number == d->leases[i].number);
        must((lease->l.left > 0) == (lease->ended == 0));
        must((lease->l.left > 0) == (lease->holder != NULL));
        must(held_of(d, lease) == lease->l.left);
        left += lease->l.left;
        active += lease->l.left > 0;
        settled += lease->ended != 0;
    }
    must(left == d->counters.leased);
    must(active == d->active_count && settled == d->settled_count);
    must(settled <= DELIVERY_SETTLED_KEPT);
    size_t at = 0;
    for (const struct holder *h; (h = map_next(&d->holders, &at)) != NULL;) {
        must(h->held > 0 && h->leases > 0);
        held += h->held;
    }
    must(held == left);
}

static void check_keys(const struct delivery *d, const struct sums *sums)
{
    uint64_t leased = 0;
    uint64_t waiting = 0;
    size_t at = 0;
    for (const struct key_state *key; (key = map_next(&d->keys, &at)) != NULL;) {
        must(key->leased <= 1);
        must(key->leased + key->waiting > 0);
        leased += key->leased;
        waiting += key->waiting;
    }
    must(leased == sums->keys_leased && waiting == sums->keys_waiting);
    size_t parked = 0;
    at = 0;
    for (const struct parked_key *key; (key = map_next(&d->parked, &at)) != NULL;) {
        parked += key->count > 0;
    }
    must(parked == d->parked_count);
}

static void check_dead(const struct delivery *d)
{
    uint64_t kept = 0;
    for (size_t i = 0; i < d->dead_count; i++) {
        must(i == 0 || d->dead[i - 1]->segment < d->dead[i]->segment);
        uint32_t bits = 0;
        for (size_t k = 0; k < DEAD_CHUNK_NUMBERS / 64; k++) {
            bits += (uint32_t)__builtin_popcountll(d->dead[i]->bits[k]);
        }
        must(bits == d->dead[i]->count);
        kept += bits;
    }
    must(kept == d->counters.dead);
}

void delivery_check(const struct delivery *d, int64_t end)
{
    must(!d->no_memory);
    must(d->floor >= d->start && d->floor <= end);
    struct sums sums = check_runs(d);
    must(sums.leased == d->counters.leased && sums.waiting == d->counters.waiting);
    must(sums.revived == d->revived.count);
    check_leases(d);
    check_keys(d, &sums);
    check_dead(d);
    const struct delivery_counters *c = &d->counters;
    uint64_t fresh = (uint64_t)(end - d->floor) - sums.covered;
    must(fresh + c->leased + c->waiting + c->acked + c->died - c->revived + c->expired ==
         (uint64_t)(end - d->start));
}
