/* The PostgreSQL source when another server takes over: a primary and a streaming standby. */
#include "source_pg_fixture.h"

#include <ftw.h>
#include <libpq-fe.h>
#include <signal.h>
#include <sys/wait.h>

#include "lib/database_server.h"
#include "outbox/postgresql/source_postgresql.h"

#define IDS_MAX 512

static const char postgres_program[] = "/usr/lib/postgresql/15/bin/postgres";
static const char backup_program[] = "/usr/lib/postgresql/15/bin/pg_basebackup";
static const char initdb_program[] = "/usr/lib/postgresql/15/bin/initdb";

struct node {
    char folder[64];
    pid_t pid; /* 0: it does not run. */
};

struct pair {
    struct node nodes[2];
    struct relay_twin twin;
    char url[256];
    struct database db; /* Only its `a`: a connection to the primary. */
};

/* ---- Servers. */

static PGconn *connect_to(const struct node *n, const char *database)
{
    char info[128];
    snprintf(info, sizeof(info), "host=%s user=ferry dbname=%s", n->folder, database);
    for (int i = 0; i < 1000; i++) {
        PGconn *connection = PQconnectdb(info);
        if (PQstatus(connection) == CONNECTION_OK) {
            return connection;
        }
        PQfinish(connection);
        usleep(20000);
    }
    fail_msg("%s does not answer", n->folder);
    return NULL;
}

static void node_start(struct node *n)
{
    char data[96];
    snprintf(data, sizeof(data), "%s/data", n->folder);
    const char *const postgres[] = {postgres_program,
                                    "-D",
                                    data,
                                    "-k",
                                    n->folder,
                                    "-c",
                                    "listen_addresses=",
                                    "-c",
                                    "fsync=off",
                                    "-c",
                                    "shared_buffers=32MB",
                                    "-c",
                                    "max_prepared_transactions=10",
                                    "-c",
                                    "wal_keep_size=256MB",
                                    NULL};
    n->pid = server_spawn(n->folder, postgres);
    PQfinish(connect_to(n, "postgres"));
}

static void node_stop(struct node *n, int how)
{
    if (n->pid > 0) {
        kill(n->pid, how);
        waitpid(n->pid, NULL, 0);
    }
    n->pid = 0;
}

static void on_node(const struct node *n, const char *sql)
{
    PGconn *connection = connect_to(n, "postgres");
    PGresult *result = PQexec(connection, sql);
    ExecStatusType status = PQresultStatus(result);
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) {
        fail_msg("%s: %s", sql, PQerrorMessage(connection));
    }
    PQclear(result);
    PQfinish(connection);
}

static void node_copy(const struct node *from, struct node *to)
{
    char data[96];
    snprintf(data, sizeof(data), "%s/data", to->folder);
    const char *const backup[] = {backup_program, "-h",   from->folder, "-U", "ferry",
                                  "-D",           data,   "-R",         "-X", "stream",
                                  "-c",           "fast", "--no-sync",  NULL};
    server_run(to->folder, backup);
}

/* An old primary that was stopped cleanly comes back behind the new one. */
static void node_follow(struct node *n, const struct node *primary)
{
    char command[400];
    snprintf(command, sizeof(command),
             "echo \"primary_conninfo = 'host=%s user=ferry'\" >> "
             "%s/data/postgresql.auto.conf && : > %s/data/standby.signal",
             primary->folder, n->folder, n->folder);
    const char *const shell[] = {"/bin/sh", "-c", command, NULL};
    server_run(n->folder, shell);
    node_start(n);
}

/* ---- A pair of them, a database, and the relay. */

static void to_primary(struct pair *p, const struct node *n)
{
    database_disconnect(&p->db.a);
    p->db.a = (struct database_link){.kind = DATABASE_POSTGRESQL};
    p->db.a.connection = connect_to(n, "shop");
    assert_int_equal(ferry_db_postgresql(&p->db.a.db, p->db.a.connection, NULL), FERRY_OK);
}

static void wait_until(const struct node *n, const char *question)
{
    PGconn *connection = connect_to(n, "postgres");
    bool yes = false;
    for (int i = 0; i < 1000 && !yes; i++) {
        PGresult *result = PQexec(connection, question);
        yes = PQntuples(result) == 1 && strcmp(PQgetvalue(result, 0, 0), "t") == 0;
        PQclear(result);
        usleep(10000);
    }
    PQfinish(connection);
    if (!yes) {
        fail_msg("not in time: %s", question);
    }
}

static void wait_for_standby(const struct pair *p)
{
    wait_until(&p->nodes[0],
               "SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming' AND "
               "replay_lsn >= pg_current_wal_flush_lsn()");
}

static int pair_setup(void **state)
{
    *state = NULL;
    if (!database_available(DATABASE_POSTGRESQL)) {
        return 0;
    }
    struct pair *p = calloc(1, sizeof(*p));
    char data[96];
    assert_non_null(p);
    server_make_folder(p->nodes[0].folder);
    server_make_folder(p->nodes[1].folder);
    snprintf(data, sizeof(data), "%s/data", p->nodes[0].folder);
    const char *const initdb[] = {initdb_program, "-D",    data, "-U",   "ferry",
                                  "-A",           "trust", "-E", "UTF8", "--locale=C.UTF-8",
                                  "--no-sync",    NULL};
    server_run(p->nodes[0].folder, initdb);
    node_start(&p->nodes[0]);
    on_node(&p->nodes[0], "CREATE DATABASE shop");
    to_primary(p, &p->nodes[0]);
    assert_int_equal(ferry_migrate(p->db.a.db), FERRY_OK);
    database_exec(&p->db.a, "CREATE TABLE ledger (seq bigint, mkey bytea)");
    node_copy(&p->nodes[0], &p->nodes[1]);
    node_start(&p->nodes[1]);
    wait_for_standby(p);
    snprintf(p->url, sizeof(p->url), "postgresql://ferry@/shop?host=%s,%s", p->nodes[0].folder,
             p->nodes[1].folder);
    twin_open(&p->twin, p->url);
    *state = p;
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static int pair_teardown(void **state)
{
    struct pair *p = *state;
    if (p == NULL) {
        return 0;
    }
    twin_kill(&p->twin);
    twin_free(&p->twin);
    database_disconnect(&p->db.a);
    for (int i = 0; i < 2; i++) {
        node_stop(&p->nodes[i], SIGQUIT);
        nftw(p->nodes[i].folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    }
    free(p);
    return 0;
}

static struct pair *pair_of(void **state)
{
    if (*state == NULL) {
        skip();
    }
    return *state;
}

/* Everybody's order in each target's log is that of the numbers: one writer, ticks in order. */
static void check_order(const struct relay_twin *t, int64_t from)
{
    for (int i = 0; i < TARGETS; i++) {
        int64_t before = from;
        for (size_t at = 0; at < t->targets[i].count; at++) {
            if (t->targets[i].log[at] > from) {
                assert_true(t->targets[i].log[at] > before);
                before = t->targets[i].log[at];
            }
        }
    }
}

static void put_many(struct pair *p, int count)
{
    for (int i = 0; i < count; i++) {
        char key[16];
        snprintf(key, sizeof(key), "k%d", i % 17);
        put(&p->db.a, key, "x");
    }
}

/* The standby takes over with all that there was; the old primary stays away. */
static void take_over(struct pair *p, int from, int how)
{
    node_stop(&p->nodes[from], how);
    on_node(&p->nodes[1 - from], "SELECT pg_promote()");
    to_primary(p, &p->nodes[1 - from]);
}

/* ---- Tests. */

/* In the middle of a tick, with a transaction that is lost and one that was prepared. */
static void a_standby_that_had_everything_goes_on(void **state)
{
    struct pair *p = pair_of(state);
    struct database_link open = {.kind = DATABASE_POSTGRESQL};
    bool more = false;
    put_many(p, 40);
    twin_drain(&p->twin);
    open.connection = connect_to(&p->nodes[0], "shop");
    database_exec(&open, "BEGIN");
    put(&open, "lost", "x");
    database_exec(&p->db.a, "BEGIN");
    put(&p->db.a, "prepared", "x");
    database_exec(&p->db.a, "PREPARE TRANSACTION 'p'");
    put_many(p, 100);
    p->twin.page_rows = 30;
    for (int i = 0; i < 1000 && p->twin.rows < 70; i++) {
        (void)twin_step(&p->twin, &more);
    }
    assert_true(p->twin.rows >= 70 && p->twin.rows < 140);
    twin_checkpoint(&p->twin);
    take_over(p, 0, SIGINT);
    put_many(p, 10);
    database_exec(&p->db.a, "COMMIT PREPARED 'p'");
    twin_drain(&p->twin);
    assert_int_equal(twin_total(&p->twin), 151);
    twin_check_all(&p->twin, &p->db);
    struct source_pg *d = p->twin.source.driver;
    assert_int_equal(d->identity.timeline, 2);
    /* And one that is started there, from what the old one left. */
    twin_kill(&p->twin);
    twin_open(&p->twin, p->url);
    put_many(p, 10);
    twin_drain(&p->twin);
    twin_check_all(&p->twin, &p->db);
    PQfinish(open.connection);
}

/* There and back, the relay alive or not; quiet partitions keep cursors of old timelines. */
static void switching_over_again_and_again_loses_nothing(void **state)
{
    struct pair *p = pair_of(state);
    int primary = 0;
    struct prng chaos;
    prng_init(&chaos, 20261127);
    for (int round = 0; round < 5; round++) {
        bool alive = prng_below(&chaos, 2) == 0;
        put_many(p, 5 + (int)prng_below(&chaos, 60));
        if (prng_below(&chaos, 3) > 0) {
            twin_drain(&p->twin);
            twin_checkpoint(&p->twin);
        }
        put_many(p, (int)prng_below(&chaos, 20));
        if (!alive) {
            twin_kill(&p->twin);
        }
        take_over(p, primary, SIGINT);
        node_follow(&p->nodes[primary], &p->nodes[1 - primary]);
        primary = 1 - primary;
        if (!alive) {
            twin_open(&p->twin, p->url);
        }
        put_many(p, 1 + (int)prng_below(&chaos, 20));
        twin_drain(&p->twin);
        twin_check_all(&p->twin, &p->db);
        check_order(&p->twin, 0);
        wait_until(&p->nodes[primary],
                   "SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming' AND "
                   "replay_lsn >= pg_current_wal_flush_lsn()");
    }
    struct source_pg *d = p->twin.source.driver;
    assert_int_equal(d->identity.timeline, 6);
}

static void expect_halt(struct pair *p, const char *words)
{
    bool same = true;
    struct err_text e = {{0}};
    for (int i = 0; i < 500 && same; i++) {
        (void)p->twin.source.ops->verify(p->twin.source.driver, &same, &e);
        usleep(20000);
    }
    print_message("%s\n", e.text);
    assert_false(same);
    assert_non_null(strstr(e.text, words));
}

struct published {
    struct ferry_id ids[IDS_MAX];
    size_t count;
};

static enum outbox_verdict judge(const struct ferry_id *id, int64_t created_ms, void *arg)
{
    const struct published *p = arg;
    (void)created_ms;
    for (size_t i = 0; i < p->count; i++) {
        if (id_equal(&p->ids[i], id)) {
            return OUTBOX_VERDICT_DELETE;
        }
    }
    return OUTBOX_VERDICT_KEEP;
}

static void note_published(struct pair *p, struct published *published)
{
    PGresult *r = PQexecParams(p->db.a.connection, "SELECT msg_id FROM ferry.outbox", 0, NULL, NULL,
                               NULL, NULL, 1);
    published->count = (size_t)PQntuples(r);
    assert_in_range(published->count, 1, IDS_MAX);
    for (int i = 0; i < PQntuples(r); i++) {
        memcpy(published->ids[i].bytes, PQgetvalue(r, i, 0), sizeof(published->ids[i].bytes));
    }
    PQclear(r);
}

/* The standby does not receive any more; what is put now is published and lost. */
static void cut_off(struct pair *p)
{
    on_node(&p->nodes[1], "ALTER SYSTEM SET primary_conninfo = ''");
    on_node(&p->nodes[1], "SELECT pg_reload_conf()");
    wait_until(&p->nodes[0], "SELECT count(*) = 0 FROM pg_stat_replication");
}

/* What the standby lacks is of no transaction: nothing is lost that a cursor covers. */
static void a_crash_without_loss_goes_on(void **state)
{
    struct pair *p = pair_of(state);
    struct source_pg *d = p->twin.source.driver;
    put_many(p, 30);
    for (int i = 0; i < 3; i++) { /* The barrier's own transaction is seen, too. */
        twin_drain(&p->twin);
    }
    twin_checkpoint(&p->twin);
    wait_for_standby(p);
    cut_off(p);
    database_exec(&p->db.a, "CHECKPOINT");
    twin_drain(&p->twin);
    twin_checkpoint(&p->twin);
    assert_true(d->flushed > d->covered);
    take_over(p, 0, SIGQUIT);
    put_many(p, 10);
    twin_drain(&p->twin);
    twin_check_all(&p->twin, &p->db);
    twin_kill(&p->twin);
    twin_open(&p->twin, p->url);
    put_many(p, 10);
    twin_drain(&p->twin);
    twin_check_all(&p->twin, &p->db);
}

/* Published rows are lost, and their transactions' numbers come again: the relay halts, says so,
 * and after a rebase each row that no log has comes, also one that the old cursor takes for had. */
static void a_standby_that_lacks_published_rows_halts_it(void **state)
{
    struct pair *p = pair_of(state);
    struct published published;
    struct outbox_rebased done;
    struct err_text e = {{0}};
    put_many(p, 20);
    twin_drain(&p->twin);
    wait_for_standby(p);
    cut_off(p);
    put_many(p, 30);
    twin_drain(&p->twin);
    twin_checkpoint(&p->twin);
    assert_int_equal(twin_total(&p->twin), 50);
    note_published(p, &published);
    take_over(p, 0, SIGQUIT);
    put_many(p, 8);
    int64_t reused = database_number(&p->db.a, "SELECT max(xid::text::bigint) FROM {outbox}");
    struct cover cover = {0};
    struct cover_place place;
    assert_int_equal(cover_decode(bytes_of(p->twin.checkpoint.data, p->twin.checkpoint.size),
                                  &cover, &place, &e),
                     FERRY_OK);
    assert_true(cover_has(&cover, (uint64_t)reused, 1)); /* It would be lost in silence. */
    cover_fini(&cover);
    expect_halt(p, "lacked the end of the log");
    twin_kill(&p->twin);
    const struct outbox_admin_ops *admin = ferry_outbox_driver_postgresql()->admin;
    if (admin->rebase(p->url, judge, &published, false, &done, &e) != FERRY_OK) {
        fail_msg("rebase: %s", e.text);
    }
    assert_int_equal(done.deleted, 20);
    assert_int_equal(done.kept, 8);
    p->twin.checkpoint.size = 0; /* Of another source now. */
    for (int i = 0; i < TARGETS; i++) {
        p->twin.targets[i].blob.size = 0;
    }
    twin_open(&p->twin, p->url);
    twin_drain(&p->twin);
    assert_int_equal(twin_total(&p->twin), 58);
}

/* Who may not read the history is told which right would let it go on. */
static void without_the_right_it_halts_and_says_which(void **state)
{
    struct pair *p = pair_of(state);
    database_exec(&p->db.a,
                  "CREATE ROLE plain LOGIN; GRANT USAGE ON SCHEMA ferry TO plain;"
                  "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA ferry TO plain;"
                  "GRANT SELECT ON ALL SEQUENCES IN SCHEMA ferry TO plain;"
                  "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA ferry TO plain");
    twin_kill(&p->twin);
    snprintf(p->url, sizeof(p->url), "postgresql://plain@/shop?host=%s,%s", p->nodes[0].folder,
             p->nodes[1].folder);
    twin_open(&p->twin, p->url);
    put_many(p, 20);
    twin_drain(&p->twin);
    take_over(p, 0, SIGINT);
    expect_halt(p, "GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_file(text)");
    twin_kill(&p->twin);
    /* The smallest right: this one text, through a function of the database's owner. */
    database_exec(&p->db.a,
                  "CREATE FUNCTION ferry.timeline_history(timeline integer) RETURNS text LANGUAGE "
                  "sql SECURITY DEFINER SET search_path = pg_catalog AS $$ SELECT pg_read_file("
                  "'pg_wal/' || lpad(upper(to_hex(timeline)), 8, '0') || '.history') $$");
    twin_open(&p->twin, p->url);
    put_many(p, 5);
    twin_drain(&p->twin);
    twin_check_all(&p->twin, &p->db);
}

/* Of one host that is a standby nothing is read; once it is the primary, it goes on there. */
static void a_standby_is_waited_for(void **state)
{
    struct pair *p = pair_of(state);
    struct source source = {0};
    struct source_options options = twin_options();
    struct err_text e = {{0}};
    char url[256];
    snprintf(url, sizeof(url), "postgresql://ferry@/shop?host=%s", p->nodes[1].folder);
    assert_int_not_equal(ferry_outbox_driver_postgresql()->source_open(&source, url, &options, &e),
                         FERRY_OK);
    print_message("%s\n", e.text);
    assert_non_null(strstr(e.text, "this is a standby"));
    put_many(p, 3);
    take_over(p, 0, SIGINT);
    assert_int_equal(ferry_outbox_driver_postgresql()->source_open(&source, url, &options, &e),
                     FERRY_OK);
    source_close(&source);
}

/* The first host's machine takes connections and says nothing: the others are asked. */
static void a_host_that_says_nothing_is_asked_last(void **state)
{
    struct pair *p = pair_of(state);
    struct source source = {0};
    struct source_options options = twin_options();
    struct err_text e = {{0}};
    char url[300];
    options.connect_timeout_ms = 500;
    node_stop(&p->nodes[1], SIGINT);
    node_start(&p->nodes[1]);
    kill(p->nodes[1].pid, SIGSTOP);
    snprintf(url, sizeof(url), "postgresql://ferry@/shop?host=%s,%s", p->nodes[1].folder,
             p->nodes[0].folder);
    enum ferry_err err = FERRY_ERR_IO;
    struct pg_url parsed;
    assert_int_equal(pg_url_parse(url, &parsed, &e), FERRY_OK);
    struct pg_target target = {.conninfo = parsed.conninfo,
                               .shown = parsed.shown,
                               .schema = parsed.schema,
                               .connect_timeout_ms = 500,
                               .statement_timeout_ms = 1000};
    struct pg_link link;
    pg_link_init(&link, &target, source_pg_statements, "test");
    for (int i = 0; i < 20 && err != FERRY_OK; i++) {
        err = pg_link_up(&link, clock_monotonic_us() + 250000, &e);
    }
    assert_int_equal(err, FERRY_OK);
    assert_int_equal(link.turns, 1);
    pg_link_fini(&link);
    /* Also when a source is opened. */
    assert_int_equal(ferry_outbox_driver_postgresql()->source_open(&source, url, &options, &e),
                     FERRY_OK);
    source_close(&source);
    kill(p->nodes[1].pid, SIGCONT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_standby_that_had_everything_goes_on, pair_setup,
                                        pair_teardown),
        cmocka_unit_test_setup_teardown(switching_over_again_and_again_loses_nothing, pair_setup,
                                        pair_teardown),
        cmocka_unit_test_setup_teardown(a_crash_without_loss_goes_on, pair_setup, pair_teardown),
        cmocka_unit_test_setup_teardown(a_standby_that_lacks_published_rows_halts_it, pair_setup,
                                        pair_teardown),
        cmocka_unit_test_setup_teardown(without_the_right_it_halts_and_says_which, pair_setup,
                                        pair_teardown),
        cmocka_unit_test_setup_teardown(a_standby_is_waited_for, pair_setup, pair_teardown),
        cmocka_unit_test_setup_teardown(a_host_that_says_nothing_is_asked_last, pair_setup,
                                        pair_teardown),
    };
    cmocka_set_test_filter(getenv("FERRY_TEST"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
