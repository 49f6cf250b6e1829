#include "cli/id_list.h"

#include <stdlib.h>

#include "base/bytes.h"
#include "base/mem.h"

void id_list_fini(struct id_list *l)
{
    mem_free(l->ids);
    *l = (struct id_list){0};
}

bool id_list_add(struct id_list *l, const struct ferry_id *id)
{
    if (!mem_grow((void **)&l->ids, &l->capacity, l->count + 1, sizeof(l->ids[0]))) {
        return false;
    }
    l->ids[l->count++] =
        (struct id_pair){.high = get_be64(id->bytes), .low = get_be64(id->bytes + 8)};
    l->sorted = false;
    return true;
}

static int compare(const struct id_pair *a, const struct id_pair *b)
{
    if (a->high != b->high) {
        return a->high < b->high ? -1 : 1;
    }
    return a->low == b->low ? 0 : a->low < b->low ? -1 : 1;
}

static int compare_for_qsort(const void *a, const void *b)
{
    return compare(a, b);
}

void id_list_sort(struct id_list *l)
{
    if (l->count > 1) {
        qsort(l->ids, l->count, sizeof(l->ids[0]), compare_for_qsort);
    }
    l->sorted = true;
}

static void tell(const struct id_pair *pair, id_list_cb *callback, void *arg)
{
    struct ferry_id id;
    put_be64(id.bytes, pair->high);
    put_be64(id.bytes + 8, pair->low);
    callback(&id, arg);
}

/* The place after all that equal ids[i]. */
static size_t after_run(const struct id_list *l, size_t i)
{
    size_t next = i + 1;
    while (next < l->count && compare(&l->ids[next], &l->ids[i]) == 0) {
        next++;
    }
    return next;
}

size_t id_list_repeated(const struct id_list *l, id_list_cb *callback, void *arg)
{
    must(l->sorted || l->count == 0);
    size_t found = 0;
    for (size_t i = 0, next; i < l->count; i = next) {
        next = after_run(l, i);
        if (next - i > 1) {
            found++;
            tell(&l->ids[i], callback, arg);
        }
    }
    return found;
}

/* Walks both; tells the ids of `a` that are in `b` (wanted) or are not. */
static size_t walk(const struct id_list *a, const struct id_list *b, bool wanted,
                   id_list_cb *callback, void *arg)
{
    must((a->sorted || a->count == 0) && (b->sorted || b->count == 0));
    size_t found = 0;
    size_t j = 0;
    for (size_t i = 0; i < a->count; i = after_run(a, i)) {
        while (j < b->count && compare(&b->ids[j], &a->ids[i]) < 0) {
            j++;
        }
        bool in_both = j < b->count && compare(&b->ids[j], &a->ids[i]) == 0;
        if (in_both == wanted) {
            found++;
            tell(&a->ids[i], callback, arg);
        }
    }
    return found;
}

size_t id_list_missing(const struct id_list *a, const struct id_list *b, id_list_cb *callback,
                       void *arg)
{
    return walk(a, b, false, callback, arg);
}

size_t id_list_shared(const struct id_list *a, const struct id_list *b, id_list_cb *callback,
                      void *arg)
{
    return walk(a, b, true, callback, arg);
}

bool id_list_find(const struct id_list *l, const struct ferry_id *id, size_t *place)
{
    must(l->sorted || l->count == 0);
    const struct id_pair pair = {.high = get_be64(id->bytes), .low = get_be64(id->bytes + 8)};
    const struct id_pair *found =
        l->count == 0 ? NULL : bsearch(&pair, l->ids, l->count, sizeof(pair), compare_for_qsort);
    if (found != NULL) {
        *place = (size_t)(found - l->ids);
    }
    return found != NULL;
}

bool id_list_has(const struct id_list *l, const struct ferry_id *id)
{
    size_t place = 0;
    return id_list_find(l, id, &place);
}

size_t id_list_distinct(const struct id_list *l)
{
    size_t distinct = 0;
    for (size_t i = 0; i < l->count; i = after_run(l, i)) {
        distinct++;
    }
    return distinct;
}
