/* The intrusive list. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/list.h"

struct item {
    int value;
    struct list node;
};

static int pop_value(struct list *head)
{
    struct list *node = list_pop_front(head);
    return node != NULL ? list_entry(node, struct item, node)->value : -1;
}

static void items_leave_in_the_order_they_stand(void **state)
{
    (void)state;
    struct list head;
    struct item items[4];
    list_init(&head);
    assert_true(list_is_empty(&head));
    for (int i = 0; i < 4; i++) {
        items[i].value = i;
        list_init(&items[i].node);
    }
    list_push_back(&head, &items[1].node);
    list_push_back(&head, &items[2].node);
    list_push_front(&head, &items[0].node);
    list_push_back(&head, &items[3].node);
    list_remove(&items[2].node);
    assert_true(list_is_empty(&items[2].node));
    assert_int_equal(pop_value(&head), 0);
    assert_int_equal(pop_value(&head), 1);
    assert_int_equal(pop_value(&head), 3);
    assert_int_equal(pop_value(&head), -1);
    assert_true(list_is_empty(&head));
}

static void an_unlinked_item_may_be_removed_again(void **state)
{
    (void)state;
    struct item item = {.value = 1};
    list_init(&item.node);
    list_remove(&item.node);
    list_remove(&item.node);
    assert_true(list_is_empty(&item.node));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(items_leave_in_the_order_they_stand),
        cmocka_unit_test(an_unlinked_item_may_be_removed_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
