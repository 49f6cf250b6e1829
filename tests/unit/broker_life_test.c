/* A broker's life: topics made and deleted, restarts, a store that fails, the end with requests
 * that wait, and what it refuses to start on. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "ferry_broker.h"
#include "lib/broker_fixture.h"
#include "store/store.h"

#define CONTENTS_MAX 8192

static uint64_t contents[CONTENTS_MAX];
static struct fetch_reply reply;

static void start(struct broker_fixture *f, struct wire_client *c)
{
    broker_up(f);
    wire_connect(f, c, NULL);
}

static void restart(struct broker_fixture *f, struct wire_client *c)
{
    wire_close(c);
    broker_down(f);
    start(f, c);
}

static size_t read_all(struct wire_client *c, uint64_t group)
{
    struct wire_reply r;
    size_t count = 0, got = 0;
    do {
        struct fetch_request q = wire_fetch_of(group, (int64_t)count, 0);
        (void)wire_send_fetch(c, &q);
        wire_receive(c, &r);
        got = wire_contents(&r, 0, contents + count, CONTENTS_MAX - count);
        count += got;
        wire_reply_close(&r);
    } while (got > 0);
    return count;
}

/* ---- Topics ---- */

static void what_was_acked_is_there_after_a_restart(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c;
    struct wire_topic t;
    start(f, &c);
    uint64_t g = wire_new_topic(&c, "t");
    for (int life = 0; life < 4; life++) {
        for (uint64_t i = 0; i < 10; i++) {
            assert_int_equal(wire_produce(&c, g, 1, (uint64_t)life * 10 + i, NULL), FERRY_OK);
        }
        restart(f, &c);
        assert_int_equal(wire_metadata(&c, "t", &t), FERRY_OK);
        assert_int_equal(t.groups[0], g);
        assert_int_equal(read_all(&c, g), (life + 1) * 10);
        assert_int_equal(contents[(life + 1) * 10 - 1], (life + 1) * 10 - 1);
    }
    wire_close(&c);
}

static void a_topic_made_again_is_another(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c, waiter;
    struct wire_reply r;
    start(f, &c);
    wire_connect(f, &waiter, NULL);
    struct ferry_id first, second;
    struct wire_topic t;
    assert_int_equal(wire_topic_create(&c, "t", 1, &first), FERRY_OK);
    assert_int_equal(wire_topic_create(&c, "t", 1, &second), FERRY_OK);
    assert_memory_equal(&first, &second, sizeof(first));
    assert_int_equal(wire_topic_create(&c, "t", 2, NULL), FERRY_ERR_TOPIC_EXISTS);
    assert_int_equal(wire_metadata(&c, "t", &t), FERRY_OK);
    uint64_t old = t.groups[0];
    assert_int_equal(wire_produce(&c, old, 5, 1, NULL), FERRY_OK);
    struct fetch_request q = wire_fetch_of(old, 5, 30000);
    (void)wire_send_fetch(&waiter, &q);
    assert_false(wire_receive_within(&waiter, &r, 20));
    wire_reply_close(&r);
    assert_int_equal(wire_topic_delete(&c, "t"), FERRY_OK);
    wire_receive(&waiter, &r);
    wire_fetch_reply(&r, &reply);
    assert_int_equal(reply.items[0].status, FERRY_ERR_UNKNOWN_TOPIC);
    wire_reply_close(&r);
    assert_int_equal(wire_produce(&c, old, 1, 1, NULL), FERRY_ERR_UNKNOWN_PARTITION);
    assert_int_equal(wire_metadata(&c, "t", &t), FERRY_ERR_UNKNOWN_TOPIC);
    assert_int_equal(wire_topic_delete(&c, "t"), FERRY_ERR_UNKNOWN_TOPIC);
    assert_int_equal(wire_topic_create(&c, "t", 1, &second), FERRY_OK);
    assert_true(memcmp(&first, &second, sizeof(first)) != 0);
    assert_int_equal(wire_metadata(&c, "t", &t), FERRY_OK);
    assert_true(t.groups[0] != old);
    assert_int_equal(read_all(&c, t.groups[0]), 0);
    wire_close(&waiter);
    wire_close(&c);
}

static enum ferry_err count_group(const struct store_group *g, void *arg)
{
    *(uint64_t *)arg += g->group != 0 ? 1 : 0;
    return FERRY_OK;
}

static uint64_t count_groups_on_disk(struct broker_fixture *f)
{
    char path[PATH_MAX_BYTES + 16];
    struct store *store = NULL;
    uint64_t count = 0;
    (void)snprintf(path, sizeof(path), "%s/shard-0", f->options.data);
    struct store_config config = {.path = path,
                                  .node_id = 1,
                                  .shards = (uint32_t)f->options.shards,
                                  .max_bytes = f->options.store_max_bytes,
                                  .grow_bytes = f->options.store_grow_bytes,
                                  .reserve_bytes = f->options.store_reserve_bytes};
    assert_int_equal(store_open(&config, &store, &f->detail), FERRY_OK);
    assert_int_equal(store_read_begin(store), FERRY_OK);
    assert_int_equal(store_each_group(store, count_group, &count), FERRY_OK);
    store_read_end(store);
    store_close(&store);
    return count;
}

/* The broker ends right after it answered; what is left is swept at the next start. */
static void a_deleted_topic_s_data_goes_even_when_cut_short(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c;
    struct wire_reply r;
    start(f, &c);
    uint64_t g = wire_new_topic(&c, "t"), kept = wire_new_topic(&c, "kept");
    for (uint64_t i = 0; i < 100; i++) {
        for (uint64_t k = 0; k < 40; k++) {
            struct buf batch;
            wire_batch(&batch, 0, 0, 1, 8, k);
            (void)wire_send_produce(&c, g, buf_bytes(&batch));
            buf_fini(&batch);
        }
        for (uint64_t k = 0; k < 40; k++) {
            wire_receive(&c, &r);
            assert_int_equal(r.status, FERRY_OK);
            wire_reply_close(&r);
        }
    }
    assert_int_equal(wire_produce(&c, kept, 1, 1, NULL), FERRY_OK);
    assert_int_equal(wire_topic_delete(&c, "t"), FERRY_OK);
    wire_close(&c);
    broker_down(f);
    assert_int_equal(count_groups_on_disk(f), 2);
    start(f, &c);
    assert_int_equal(read_all(&c, kept), 1);
    for (int i = 0; i < 100; i++) { /* Turns in which the sweep goes on. */
        assert_int_equal(wire_produce(&c, kept, 1, 1, NULL), FERRY_OK);
    }
    wire_close(&c);
    broker_down(f);
    assert_int_equal(count_groups_on_disk(f), 1);
}

static void many_ask_for_one_new_topic_at_once(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c[8];
    struct wire_topic t;
    broker_set(f, "topic.auto_create", "true");
    broker_up(f);
    uint32_t made = 0, later = 0;
    for (int i = 0; i < 8; i++) {
        wire_connect(f, &c[i], NULL);
    }
    for (int i = 0; i < 8; i++) {
        struct metadata_request q = {.topic = bytes_of_string("auto")};
        struct buf b;
        wire_begin(&c[i], &b, COMMAND_METADATA);
        metadata_request_encode(&b, &q);
        (void)wire_send(&c[i], &b, (struct bytes){0});
    }
    for (int i = 0; i < 8; i++) {
        struct wire_reply r;
        wire_receive(&c[i], &r);
        made += r.status == FERRY_OK;
        later += r.status == FERRY_ERR_NOT_READY;
        wire_reply_close(&r);
    }
    assert_true(made >= 1 && made + later == 8);
    assert_int_equal(wire_metadata(&c[0], "auto", &t), FERRY_OK);
    assert_int_equal(wire_metadata(&c[0], "not/a/name", &t), FERRY_ERR_UNKNOWN_TOPIC);
    for (int i = 0; i < 8; i++) {
        wire_close(&c[i]);
    }
}

/* ---- Damage ---- */

/* Flips a bit in every copy of the record with this content. */
static void damage(struct broker_fixture *f, uint64_t content)
{
    char path[PATH_MAX_BYTES + 32];
    (void)snprintf(path, sizeof(path), "%s/shard-0/data.mdb", f->options.data);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    off_t end = lseek(fd, 0, SEEK_END);
    uint8_t *all = test_malloc((size_t)end), *at = all;
    assert_int_equal(pread(fd, all, (size_t)end, 0), end);
    for (; (at = memmem(at, (size_t)(all + end - at), &content, sizeof(content))) != NULL; at++) {
        at[0] ^= 1;
        assert_int_equal(pwrite(fd, at, 1, at - all), 1);
    }
    test_free(all);
    (void)close(fd);
}

/* ---- The store fails ---- */

static void limit_file_size(rlim_t bytes)
{
    struct rlimit limit;
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static off_t size_of_log(struct broker_fixture *f)
{
    char path[PATH_MAX_BYTES + 32];
    struct stat st;
    (void)snprintf(path, sizeof(path), "%s/shard-0/data.mdb", f->options.data);
    assert_int_equal(stat(path, &st), 0);
    return st.st_size;
}

/* In a child: a write limit is for the whole process. Returns how many were acked. */
static uint32_t produce_until_it_fails(struct broker_fixture *f)
{
    struct wire_client c;
    struct wire_reply r;
    uint32_t acked = 0;
    start(f, &c);
    uint64_t g = wire_new_topic(&c, "t");
    for (; acked < 3; acked++) {
        assert_int_equal(wire_produce(&c, g, 1, acked, NULL), FERRY_OK);
    }
    struct fetch_request q = wire_fetch_of(g, 3, 30000);
    (void)wire_send_fetch(&c, &q); /* Waits, and is told. */
    limit_file_size(4096);
    struct buf batch;
    wire_batch(&batch, 0, 0, 1, 8, 99);
    uint64_t id = wire_send_produce(&c, g, buf_bytes(&batch));
    for (int i = 0; i < 2; i++) {
        wire_receive(&c, &r);
        if (r.frame.request_id == id) {
            assert_int_equal(r.status, FERRY_ERR_NOT_LEADER); /* Nobody knows what became of it. */
        } else {
            assert_int_equal(r.status, FERRY_ERR_STORE_FAILED);
        }
        wire_reply_close(&r);
    }
    assert_int_not_equal(broker_failure(f->broker), FERRY_OK);
    (void)wire_send_produce(&c, g, buf_bytes(&batch));
    wire_receive(&c, &r);
    assert_true(r.status == FERRY_ERR_STORE_FAILED || r.status == FERRY_ERR_STORAGE_FULL);
    wire_reply_close(&r);
    buf_fini(&batch);
    wire_close(&c);
    broker_down(f);
    return acked;
}

static void after_a_failed_write_nothing_is_acked_and_a_restart_has_what_was(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c;
    struct wire_topic t;
    (void)fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        _exit((int)produce_until_it_fails(f));
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 3);
    assert_true(size_of_log(f) > 0);
    start(f, &c);
    assert_int_equal(wire_metadata(&c, "t", &t), FERRY_OK);
    size_t count = read_all(&c, t.groups[0]);
    assert_true(count == 3 || count == 4);
    assert_int_equal(contents[2], 2);
    assert_int_equal(wire_produce(&c, t.groups[0], 1, 7, NULL), FERRY_OK);
    wire_close(&c);
}

/* In a child: it ends by kill -9 with requests on their way, a batch damaged after that. The
 * partition cannot apply its log again; the others serve, and the start does not hang. */
static void a_partition_that_cannot_replay_does_not_stop_the_others(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c;
    struct wire_topic bad, good;
    struct wire_reply r;
    (void)fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        start(f, &c);
        uint64_t g = wire_new_topic(&c, "bad"), other = wire_new_topic(&c, "good");
        struct buf b;
        struct subscription_create_request q = {
            .group = g, .name = bytes_of_string("Zq7Zq7Zq"), .mode = SUBSCRIPTION_STREAM};
        wire_begin(&c, &b, COMMAND_SUBSCRIPTION_CREATE);
        subscription_create_request_encode(&b, &q);
        assert_int_equal(wire_call(&c, &b, (struct bytes){0}, NULL), FERRY_OK);
        assert_int_equal(wire_produce(&c, other, 1, 1, NULL), FERRY_OK);
        for (uint64_t i = 0; i < 6; i++) { /* So that opening does not look at the damaged one. */
            assert_int_equal(wire_produce(&c, g, 1, i, NULL), FERRY_OK);
        }
        (void)kill(getpid(), SIGKILL);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    uint64_t name;
    memcpy(&name, "Zq7Zq7Zq", sizeof(name));
    damage(f, name);
    start(f, &c);
    assert_int_equal(wire_metadata(&c, "good", &good), FERRY_OK);
    assert_int_equal(wire_metadata(&c, "bad", &bad), FERRY_OK);
    assert_int_equal(read_all(&c, good.groups[0]), 1);
    assert_int_equal(wire_produce(&c, bad.groups[0], 1, 1, NULL), FERRY_ERR_CORRUPT);
    struct fetch_request q = wire_fetch_of(bad.groups[0], 0, 30000);
    (void)wire_send_fetch(&c, &q);
    wire_receive(&c, &r);
    wire_fetch_reply(&r, &reply);
    assert_int_equal(reply.items[0].status, FERRY_ERR_CORRUPT);
    wire_reply_close(&r);
    wire_close(&c);
}

/* ---- The end ---- */

static void it_stops_at_once_with_requests_that_wait(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c;
    broker_set(f, "node.shards", "2");
    for (int round = 0; round < 5; round++) {
        struct wire_topic t;
        start(f, &c);
        assert_int_equal(wire_topic_create(&c, "t", 2, NULL), FERRY_OK);
        assert_int_equal(wire_metadata(&c, "t", &t), FERRY_OK);
        uint64_t mine = t.groups[t.endpoint[0] == 0 ? 0 : 1];
        struct fetch_request q = wire_fetch_of(mine, 1000, 60000);
        q.items[0].offset = (int64_t)read_all(&c, mine);
        (void)wire_send_fetch(&c, &q);
        struct buf batch;
        wire_batch(&batch, 0, 0, 1, 8, 1);
        for (int i = 0; i < round * 10; i++) {
            (void)wire_send_produce(&c, mine, buf_bytes(&batch));
        }
        buf_fini(&batch);
        /* And a topic that may be half made. */
        char name[8];
        struct buf b;
        (void)snprintf(name, sizeof(name), "n%d", round);
        struct topic_create_request tc = {.name = bytes_of_string(name), .partitions = 8};
        wire_begin(&c, &b, COMMAND_TOPIC_CREATE);
        topic_create_request_encode(&b, &tc);
        (void)wire_send(&c, &b, (struct bytes){0});
        if (round % 2 == 0) { /* So that the broker has seen all of it. */
            struct wire_reply r;
            (void)wire_receive_within(&c, &r, 20);
            wire_reply_close(&r);
        }
        int64_t began_us = clock_monotonic_us();
        wire_close(&c);
        broker_down(f);
        assert_true(clock_monotonic_us() - began_us < 5000000);
    }
}

static void a_folder_of_another_node_or_another_number_of_shards_is_refused(void **state)
{
    struct broker_fixture *f = *state;
    broker_up(f);
    struct broker *second = NULL;
    struct broker_options o = f->options;
    (void)snprintf(o.endpoint, sizeof(o.endpoint), "inproc://second");
    assert_int_equal(broker_start(&o, &second, &f->detail), FERRY_ERR_LOCKED);
    assert_null(second);
    broker_down(f);
    o.shards = 2;
    assert_int_equal(broker_start(&o, &second, &f->detail), FERRY_ERR_WRONG_NODE);
    assert_non_null(strstr(f->detail.text, f->options.data));
    o.shards = 1;
    o.node_id = 2;
    assert_int_equal(broker_start(&o, &second, &f->detail), FERRY_ERR_WRONG_NODE);
    assert_int_equal(chmod(f->options.data, 0755), 0);
    assert_int_equal(broker_start(&f->options, &second, &f->detail), FERRY_ERR_IO);
    assert_non_null(strstr(f->detail.text, "chmod 700"));
    assert_int_equal(chmod(f->options.data, 0700), 0);
    broker_up(f);
}

/* One shard's folder is lost, on a disk of its own perhaps: made anew, it would be the same member
 * without the votes and the entries that it has promised by. Before all were there once it is no
 * loss: the first start did not get so far. */
static void a_node_that_lost_the_folder_of_one_shard_does_not_start(void **state)
{
    struct broker_fixture *f = *state;
    char from[PATH_MAX_BYTES + 32], to[PATH_MAX_BYTES + 32], again[PATH_MAX_BYTES + 32];
    (void)snprintf(again, sizeof(again), "%s/again", f->options.data);
    broker_set(f, "node.shards", "2");
    broker_up(f);
    broker_down(f);
    (void)snprintf(from, sizeof(from), "%s/shard-1", f->options.data);
    (void)snprintf(to, sizeof(to), "%s/away", f->options.data);
    assert_int_equal(rename(from, to), 0);
    struct broker *second = NULL;
    assert_int_equal(broker_start(&f->options, &second, &f->detail), FERRY_ERR_WRONG_NODE);
    assert_non_null(strstr(f->detail.text, "shard-1"));
    assert_int_equal(rename(from, again), 0); /* What the attempt left. */
    assert_int_equal(rename(to, from), 0);
    broker_up(f);
}

static void the_embedded_broker_starts_and_stops_twenty_times(void **state)
{
    struct broker_fixture *f = *state;
    char data[PATH_MAX_BYTES + 16], detail[256] = "";
    (void)snprintf(data, sizeof(data), "node.data=%s", f->options.data);
    const char *options[] = {data, "node.shards=2", "store.grow_bytes=1M"};
    for (int i = 0; i < 20; i++) {
        struct ferry_broker *b = NULL;
        enum ferry_err err = ferry_broker_start(&b, options, 3, detail, sizeof(detail));
        if (err != FERRY_OK) {
            fail_msg("%s: %s", ferry_err_name(err), detail);
        }
        assert_int_equal(ferry_broker_error(b), FERRY_OK);
        ferry_broker_stop(&b);
        assert_null(b);
        ferry_broker_stop(&b);
    }
    struct ferry_broker *b = NULL;
    const char *bad[] = {data, "no.such=1"};
    assert_int_equal(ferry_broker_start(&b, bad, 2, detail, sizeof(detail)),
                     FERRY_ERR_BAD_OPTION_VALUE);
    assert_null(b);
    assert_true(detail[0] != '\0');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        broker_test(what_was_acked_is_there_after_a_restart),
        broker_test(a_topic_made_again_is_another),
        broker_test(a_deleted_topic_s_data_goes_even_when_cut_short),
        broker_test(many_ask_for_one_new_topic_at_once),
        broker_test(after_a_failed_write_nothing_is_acked_and_a_restart_has_what_was),
        broker_test(a_partition_that_cannot_replay_does_not_stop_the_others),
        broker_test(it_stops_at_once_with_requests_that_wait),
        broker_test(a_folder_of_another_node_or_another_number_of_shards_is_refused),
        broker_test(a_node_that_lost_the_folder_of_one_shard_does_not_start),
        broker_test(the_embedded_broker_starts_and_stops_twenty_times),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
