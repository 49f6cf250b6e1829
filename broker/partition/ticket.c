#include "partition/ticket.h"

static struct ticket *ticket_of(struct list *node)
{
    return list_entry(node, struct ticket, node);
}

void ticket_init(struct ticket *t)
{
    *t = (struct ticket){0};
    list_init(&t->node);
}

void ticket_queue_init(struct ticket_queue *q)
{
    list_init(&q->waiting);
    list_init(&q->done);
}

bool ticket_queue_is_empty(const struct ticket_queue *q)
{
    return list_is_empty(&q->waiting) && list_is_empty(&q->done);
}

void ticket_queue_wait(struct ticket_queue *q, struct ticket *t, uint64_t index)
{
    t->index = index;
    struct list *before = &q->waiting;
    while (before->prev != &q->waiting && ticket_of(before->prev)->index > index) {
        before = before->prev;
    }
    list_push_back(before, &t->node);
}

static void answer(struct ticket_queue *q, struct ticket *t, enum ferry_err err)
{
    list_remove(&t->node);
    t->err = err;
    list_push_back(&q->done, &t->node);
}

void ticket_queue_applied(struct ticket_queue *q, uint64_t index)
{
    while (!list_is_empty(&q->waiting) && ticket_of(q->waiting.next)->index <= index) {
        answer(q, ticket_of(q->waiting.next), FERRY_OK);
    }
}

struct ticket *ticket_queue_find(const struct ticket_queue *q, uint64_t index)
{
    if (list_is_empty(&q->waiting)) {
        return NULL;
    }
    struct ticket *first = ticket_of(q->waiting.next);
    must(first->index >= index);
    return first->index == index ? first : NULL;
}

void ticket_queue_refuse(struct ticket_queue *q, struct ticket *t, enum ferry_err err)
{
    must(err != FERRY_OK);
    answer(q, t, err);
}

void ticket_queue_fail(struct ticket_queue *q, enum ferry_err err)
{
    while (!list_is_empty(&q->waiting)) {
        answer(q, ticket_of(q->waiting.next), err);
    }
}

struct ticket *ticket_queue_next_done(struct ticket_queue *q)
{
    struct list *node = list_pop_front(&q->done);
    return node != NULL ? ticket_of(node) : NULL;
}

void ticket_queue_check(const struct ticket_queue *q, uint64_t applied)
{
    uint64_t last = 0;
    for (struct list *n = q->waiting.next; n != &q->waiting; n = n->next) {
        must(ticket_of(n)->index >= last);
        must(ticket_of(n)->index > applied);
        last = ticket_of(n)->index;
    }
}
