/* The first turn of a shard that has just been opened: what comes before it knows what it has. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/shard.h"
#include "wire/command.h"
#include "wire/frame.h"

#define ENDPOINT      "inproc://broker-start"
#define PATIENCE_MS   5000
#define UNKNOWN_GROUP 77

struct fixture {
    char folder[64];
    struct broker_options options;
    struct ferry_context *context;
    struct shard *shard;
    struct net_link *link;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct err_text e;
    assert_non_null(f);
    (void)snprintf(f->folder, sizeof(f->folder), "/tmp/ferry-start-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    option_defaults(broker_option_table(), &f->options);
    (void)snprintf(f->options.data, sizeof(f->options.data), "%s", f->folder);
    (void)snprintf(f->options.endpoint, sizeof(f->options.endpoint), ENDPOINT);
    f->options.store_grow_bytes = 1 << 20;
    f->options.store_reserve_bytes = 1 << 20;
    assert_int_equal(net_context_new(1, &f->context), FERRY_OK);
    struct shard_config config = {.options = &f->options, .context = f->context, .seed = 1};
    if (shard_new(&config, &f->shard, &e) != FERRY_OK) {
        fail_msg("%s", e.text);
    }
    shard_connect(f->shard, &f->shard, 1);
    assert_int_equal(net_link_open(f->context, ENDPOINT, FRAME_MAX_BYTES, &f->link, &e), FERRY_OK);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    char remove[96];
    shard_stop(f->shard);
    shard_join(f->shard);
    net_link_close(&f->link);
    shard_free(&f->shard);
    net_context_free(&f->context);
    (void)snprintf(remove, sizeof(remove), "rm -rf %s", f->folder);
    assert_int_equal(system(remove), 0);
    free(f);
    return 0;
}

static void ask(struct fixture *f)
{
    struct offset_find_request q = {.group = UNKNOWN_GROUP, .kind = OFFSET_END};
    struct buf b;
    buf_init(&b, FRAME_MAX_BYTES);
    frame_begin_request(&b, COMMAND_OFFSET_FIND, 1, PATIENCE_MS);
    offset_find_request_encode(&b, &q);
    assert_true(frame_end(&b));
    assert_int_equal(net_link_send(f->link, &b), FERRY_OK);
    buf_fini(&b);
}

static uint16_t status_of_answer(struct fixture *f)
{
    struct net_message m;
    struct net_poll_item item = {.link = f->link, .fd = -1};
    struct frame frame;
    struct err_text e;
    net_message_init(&m);
    while (!net_link_receive(f->link, &m)) {
        assert_int_equal(net_poll(&item, 1, PATIENCE_MS), 1);
    }
    assert_int_equal(frame_parse(net_message_bytes(&m), &frame, &e), FERRY_OK);
    net_message_close(&m);
    return frame.status;
}

/* Over inproc:// the request is there before the shard's first turn. */
static void a_group_is_not_unknown_before_the_shard_knows_its_own(void **state)
{
    struct fixture *f = *state;
    ask(f);
    assert_int_equal(shard_start(f->shard), FERRY_OK);
    assert_int_equal(status_of_answer(f), FERRY_ERR_NOT_READY);
    uint16_t status = FERRY_ERR_NOT_READY;
    while (status == FERRY_ERR_NOT_READY) {
        ask(f);
        status = status_of_answer(f);
    }
    assert_int_equal(status, FERRY_ERR_UNKNOWN_PARTITION);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_group_is_not_unknown_before_the_shard_knows_its_own,
                                        set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
