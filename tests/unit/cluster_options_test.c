/* What a broker of a cluster can be told, and what is refused with a remedy. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "server/options.h"

#define PEERS "1=tcp://127.0.0.1:7500,2=tcp://127.0.0.1:7510,3=tcp://127.0.0.1:7520"

static void set(struct broker_options *o, const char *name, const char *value)
{
    struct err_text e;
    if (option_set(broker_option_table(), o, name, value, &e) != FERRY_OK) {
        fail_msg("%s", e.text);
    }
}

static void defaults(struct broker_options *o)
{
    option_defaults(broker_option_table(), o);
    set(o, "node.data", "/tmp/x");
    set(o, "node.id", "2");
    set(o, "node.peer_listen", "tcp://127.0.0.1:7510");
}

/* One problem, whose line names the option and says the words. */
static void assert_problem(const struct broker_options *o, const char *option, const char *words)
{
    struct config_problems p;
    config_problems_init(&p);
    broker_options_check(o, &p);
    buf_append_u8(&p.lines, 0);
    const char *lines = (const char *)p.lines.data;
    assert_int_equal(p.count, 1);
    if (strstr(lines, option) == NULL || strstr(lines, words) == NULL) {
        fail_msg("%s", lines);
    }
    config_problems_fini(&p);
}

static void assert_good(const struct broker_options *o)
{
    struct config_problems p;
    config_problems_init(&p);
    broker_options_check(o, &p);
    if (p.count > 0) {
        fail_msg("%.*s", (int)p.lines.size, (const char *)p.lines.data);
    }
    config_problems_fini(&p);
}

/* Founders sorted by id, whoever is written first. */
static void seeds_are_read_in_the_order_of_their_ids(void **state)
{
    (void)state;
    struct broker_options o;
    struct seed_option seeds[SEEDS_MAX];
    struct err_text e;
    size_t count;
    defaults(&o);
    set(&o, "node.bootstrap", "3=tcp://c:3,1=tcp://a:1,2=tcp://b:2");
    assert_good(&o);
    assert_int_equal(broker_options_seeds(&o, seeds, &count, &e), FERRY_OK);
    assert_int_equal(count, 3);
    assert_int_equal(seeds[0].node_id, 1);
    assert_string_equal(seeds[2].endpoint, "tcp://c:3");
    set(&o, "node.bootstrap", "");
    set(&o, "node.join", "tcp://a:1,tcp://b:2");
    assert_good(&o);
    assert_int_equal(broker_options_seeds(&o, seeds, &count, &e), FERRY_OK);
    assert_int_equal(count, 2);
    assert_int_equal(seeds[0].node_id, 0);
}

static void what_makes_no_sense_is_refused_with_a_remedy(void **state)
{
    (void)state;
    struct broker_options o;
    defaults(&o);
    set(&o, "node.bootstrap", "1=tcp://a:1,3=tcp://c:3");
    assert_problem(&o, "node.bootstrap", "does not name this node");
    set(&o, "node.bootstrap", "2=tcp://a:1,2=tcp://c:3");
    assert_problem(&o, "node.bootstrap", "twice");
    set(&o, "node.bootstrap", "tcp://a:1");
    assert_problem(&o, "node.bootstrap", "ID=ENDPOINT");
    set(&o, "node.bootstrap", "2=a:1");
    assert_problem(&o, "node.bootstrap", "tcp://HOST:PORT");
    set(&o, "node.bootstrap", "0=tcp://a:1,2=tcp://a:2");
    assert_problem(&o, "node.bootstrap", "ID=ENDPOINT");
    set(&o, "node.bootstrap", PEERS);
    assert_good(&o);
    set(&o, "node.join", "tcp://a:1");
    assert_problem(&o, "node.join", "leave out");
}

/* The port for peers is as open as that for clients: not beyond this machine without a word. */
static void peers_beyond_this_machine_need_a_word(void **state)
{
    (void)state;
    struct broker_options o;
    defaults(&o);
    set(&o, "node.peer_listen", "tcp://0.0.0.0:7500");
    assert_problem(&o, "node.peer_listen", "listen.insecure");
    set(&o, "listen.insecure", "true");
    assert_good(&o);
    set(&o, "node.peer_listen", "ipc:///tmp/x");
    assert_problem(&o, "node.peer_listen", "tcp://");
    set(&o, "node.peer_listen", "");
    set(&o, "node.join", "tcp://a:1");
    assert_problem(&o, "node.peer_listen", "--peer-listen");
}

static void raft_s_times_fit_each_other(void **state)
{
    (void)state;
    struct broker_options o;
    defaults(&o);
    set(&o, "raft.election_max_ms", "500ms");
    assert_problem(&o, "raft.election_max_ms", "raise it");
    set(&o, "raft.election_max_ms", "1s");
    set(&o, "raft.heartbeat_ms", "200ms");
    assert_problem(&o, "raft.election_min_ms", "three heartbeats");
    set(&o, "raft.election_min_ms", "600ms");
    assert_good(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(seeds_are_read_in_the_order_of_their_ids),
        cmocka_unit_test(what_makes_no_sense_is_refused_with_a_remedy),
        cmocka_unit_test(peers_beyond_this_machine_need_a_word),
        cmocka_unit_test(raft_s_times_fit_each_other),
    };
    return cmocka_run_group_tests_name("cluster_options", tests, NULL, NULL);
}
