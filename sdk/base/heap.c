#include "base/heap.h"

#include "base/mem.h"

void heap_init(struct heap *h)
{
    *h = (struct heap){0};
}

void heap_fini(struct heap *h)
{
    mem_free(h->nodes);
    *h = (struct heap){0};
}

void heap_node_init(struct heap_node *n)
{
    *n = (struct heap_node){.at = HEAP_NOT_QUEUED};
}

bool heap_reserve(struct heap *h, size_t count)
{
    return mem_grow((void **)&h->nodes, &h->capacity, count, sizeof(*h->nodes));
}

static bool is_before(const struct heap_node *a, const struct heap_node *b)
{
    return a->due != b->due ? a->due < b->due : a->sequence < b->sequence;
}

static void place(struct heap *h, struct heap_node *n, size_t at)
{
    h->nodes[at] = n;
    n->at = at;
}

static void sift_up(struct heap *h, struct heap_node *n)
{
    size_t at = n->at;
    while (at > 0 && is_before(n, h->nodes[(at - 1) / 2])) {
        place(h, h->nodes[(at - 1) / 2], at);
        at = (at - 1) / 2;
    }
    place(h, n, at);
}

static void sift_down(struct heap *h, struct heap_node *n)
{
    size_t at = n->at;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= h->count) {
            break;
        }
        if (child + 1 < h->count && is_before(h->nodes[child + 1], h->nodes[child])) {
            child++;
        }
        if (!is_before(h->nodes[child], n)) {
            break;
        }
        place(h, h->nodes[child], at);
        at = child;
    }
    place(h, n, at);
}

void heap_set(struct heap *h, struct heap_node *n, int64_t due)
{
    if (n->at == HEAP_NOT_QUEUED) {
        must(h->count < h->capacity);
        n->sequence = h->next_sequence++;
        place(h, n, h->count++);
    }
    must(h->nodes[n->at] == n);
    n->due = due;
    sift_up(h, n);
    sift_down(h, n);
}

void heap_remove(struct heap *h, struct heap_node *n)
{
    if (n->at == HEAP_NOT_QUEUED) {
        return;
    }
    must(h->nodes[n->at] == n);
    size_t at = n->at;
    struct heap_node *last = h->nodes[--h->count];
    n->at = HEAP_NOT_QUEUED;
    if (last != n) {
        place(h, last, at);
        sift_up(h, last);
        sift_down(h, last);
    }
}

struct heap_node *heap_first(const struct heap *h)
{
    return h->count > 0 ? h->nodes[0] : NULL;
}

void heap_check(const struct heap *h)
{
    for (size_t i = 0; i < h->count; i++) {
        must(h->nodes[i]->at == i);
        must(i == 0 || !is_before(h->nodes[i], h->nodes[(i - 1) / 2]));
    }
}
