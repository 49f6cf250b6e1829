/* Who holds what, until when, and what is on its way to whom. */
#include "base/checksum.h"
#include "base/mem.h"
#include "partition/pick_internal.h"

void pick_lease_init(struct pick *k)
{
    heap_init(&k->leases_by_end);
    map_init(&k->leases);
    map_init(&k->members);
    list_init(&k->flights);
}

/* ---- Members ---- */

static bool is_member(const void *item, const void *key)
{
    const struct pick_member *m = item;
    return bytes_equal(bytes_of(m->name, m->name_bytes), *(const struct bytes *)key);
}

struct pick_member *member_find(const struct pick *k, struct bytes name)
{
    return map_find(&k->members, checksum_of(name.data, name.size), is_member, &name);
}

enum ferry_err member_get(struct pick *k, struct bytes name, struct pick_member **m)
{
    must(name.size <= NAME_MAX_BYTES);
    *m = member_find(k, name);
    if (*m != NULL) {
        return FERRY_OK;
    }
    struct pick_member *made = mem_zalloc(1, sizeof(*made));
    if (made == NULL || !map_add(&k->members, checksum_of(name.data, name.size), made)) {
        mem_free(made);
        return FERRY_ERR_NO_MEMORY;
    }
    made->name_bytes = (uint32_t)name.size;
    memcpy(made->name, name.data, name.size);
    *m = made;
    return FERRY_OK;
}

void member_let_go(struct pick *k, struct pick_member *m)
{
    if (m->flights == 0) {
        must(m->in_flight == 0);
        map_remove(&k->members, checksum_of(m->name, m->name_bytes), m);
        mem_free(m);
    }
}

uint32_t member_room(const struct pick *k, const struct pick_member *m)
{
    uint32_t most = delivery_settings(k->delivery)->inflight_max;
    uint32_t has = delivery_held(k->delivery, bytes_of(m->name, m->name_bytes)) + m->in_flight;
    return has < most ? most - has : 0;
}

uint32_t pick_held(const struct pick *k, struct bytes member)
{
    const struct pick_member *m = member_find(k, member);
    return delivery_held(k->delivery, member) + (m != NULL ? m->in_flight : 0);
}

/* ---- Leases ---- */

static bool is_lease(const void *item, const void *key)
{
    return ((const struct pick_lease *)item)->number == *(const uint64_t *)key;
}

static struct pick_lease *find_lease(const struct pick *k, uint64_t number)
{
    return map_find(&k->leases, map_hash_u64(number), is_lease, &number);
}

static void remove_lease(struct pick *k, struct pick_lease *l)
{
    heap_remove(&k->leases_by_end, &l->end);
    map_remove(&k->leases, map_hash_u64(l->number), l);
    mem_free(l);
}

static enum ferry_err get_lease(struct pick *k, uint64_t number, struct pick_lease **l)
{
    *l = find_lease(k, number);
    if (*l != NULL) {
        return FERRY_OK;
    }
    struct pick_lease *made = mem_zalloc(1, sizeof(*made));
    if (made == NULL || !heap_reserve(&k->leases_by_end, k->leases.count + 1) ||
        !map_add(&k->leases, map_hash_u64(number), made)) {
        mem_free(made);
        return FERRY_ERR_NO_MEMORY;
    }
    heap_node_init(&made->end);
    made->number = number;
    *l = made;
    return FERRY_OK;
}

enum ferry_err pick_lease_begin(struct pick *k, uint64_t number, int64_t now_us)
{
    const struct delivery_lease *d = delivery_find_lease(k->delivery, number);
    struct pick_lease *l = NULL;
    if (d == NULL || d->left == 0) {
        return FERRY_OK; /* It has ended since. */
    }
    enum ferry_err err = get_lease(k, number, &l);
    if (err == FERRY_OK && !l->ending) {
        heap_set(&k->leases_by_end, &l->end, now_us + (int64_t)d->lease_ms * 1000);
    }
    return err;
}

void pick_lease_end(struct pick *k, uint64_t number)
{
    struct pick_lease *l = find_lease(k, number);
    if (l != NULL) {
        remove_lease(k, l);
    }
}

void pick_lease_clear(struct pick *k)
{
    size_t at = 0;
    for (struct pick_lease *l; (l = map_next(&k->leases, &at)) != NULL; at = 0) {
        remove_lease(k, l);
    }
}

void pick_lease_fini(struct pick *k)
{
    while (!list_is_empty(&k->flights)) {
        flight_end(k, list_entry(k->flights.next, struct pick_flight, node));
    }
    pick_lease_clear(k);
    must(k->members.count == 0);
    heap_fini(&k->leases_by_end);
    map_fini(&k->leases);
    map_fini(&k->members);
}

uint32_t pick_expired(struct pick *k, const struct pick_clock *now, uint64_t *leases)
{
    uint32_t count = 0;
    struct heap_node *n = NULL;
    while (count < PICK_EXPIRE_MAX && (n = heap_first(&k->leases_by_end)) != NULL &&
           n->due <= now->us) {
        struct pick_lease *l = list_entry(n, struct pick_lease, end);
        heap_remove(&k->leases_by_end, n);
        l->ending = true;
        leases[count++] = l->number;
    }
    return count;
}

void pick_expire_later(struct pick *k, uint64_t lease, int64_t at_us)
{
    struct pick_lease *l = find_lease(k, lease);
    if (l != NULL) {
        l->ending = false;
        heap_set(&k->leases_by_end, &l->end, at_us);
    }
}

int64_t pick_extend(struct pick *k, uint64_t lease, int64_t until_us)
{
    struct pick_lease *l = find_lease(k, lease);
    if (l == NULL || l->ending) {
        return until_us; /* The entry's outcome tells. */
    }
    if (l->end.due < until_us) {
        heap_set(&k->leases_by_end, &l->end, until_us);
    }
    return l->end.due;
}

/* ---- On their way ---- */

enum ferry_err flight_begin(struct pick *k, struct pick_member *m, uint32_t messages)
{
    size_t bytes = k->taken.size;
    struct pick_flight *f = mem_alloc(sizeof(*f) + bytes);
    if (f == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    *f = (struct pick_flight){.lease = k->next_lease++,
                              .member = m,
                              .messages = messages,
                              .count = bytes / sizeof(struct pick_taken)};
    memcpy(f->taken, k->taken.data, bytes);
    list_init(&f->node);
    list_push_back(&k->flights, &f->node);
    m->flights++;
    m->in_flight += messages;
    return FERRY_OK;
}

void flight_end(struct pick *k, struct pick_flight *f)
{
    struct pick_member *m = f->member;
    must(m->flights > 0 && m->in_flight >= f->messages);
    list_remove(&f->node);
    m->flights--;
    m->in_flight -= f->messages;
    member_let_go(k, m);
    mem_free(f);
}

enum ferry_err flights_land(struct pick *k)
{
    uint64_t next = delivery_next_lease_number(k->delivery);
    enum ferry_err err = FERRY_OK;
    while (err == FERRY_OK && !list_is_empty(&k->flights)) {
        struct pick_flight *f = list_entry(k->flights.next, struct pick_flight, node);
        if (f->lease >= next) {
            break;
        }
        for (size_t i = 0; i < f->count && err == FERRY_OK; i++) {
            err = keyed_landed(k, f->taken[i].key_hash);
        }
        flight_end(k, f);
    }
    return err;
}
