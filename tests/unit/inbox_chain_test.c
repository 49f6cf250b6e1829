/* The inbox: verdicts, collisions, trimming, skips, and a kill between the effects and the commit.
 */
#include "outbox_fixture.h"

#include <sys/wait.h>

#include "outbox/sqlite/admin_sqlite.h"

static const struct ferry_id topic = {{1, 2, 3}};

struct answer {
    enum ferry_err err;
    enum ferry_verdict verdict;
    size_t skip;
    int64_t expected;
};

static struct answer enter(struct ferry_db *db, int64_t first, int64_t next)
{
    struct answer a = {0};
    a.err =
        ferry_inbox_enter(db, "ledger", &topic, 0, first, next, &a.verdict, &a.skip, &a.expected);
    return a;
}

static void apply(struct fixture *f, int64_t first, int64_t next)
{
    fixture_exec(f, "BEGIN IMMEDIATE");
    struct answer a = enter(f->db, first, next);
    assert_int_equal(a.err, FERRY_OK);
    assert_int_equal(a.verdict, FERRY_FRESH);
    assert_int_equal(ferry_inbox_leave(f->db, "ledger", &topic, 0, next), FERRY_OK);
    fixture_exec(f, "COMMIT");
}

static int64_t position(struct fixture *f)
{
    int64_t at = -2;
    assert_int_equal(ferry_inbox_position(f->db, "ledger", &topic, 0, &at), FERRY_OK);
    return at;
}

static void the_first_batch_may_begin_anywhere(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(position(f), -1);
    apply(f, 1000, 1010);
    assert_int_equal(position(f), 1010);
}

static void a_batch_that_was_done_is_a_duplicate(void **state)
{
    struct fixture *f = *state;
    apply(f, 0, 10);
    fixture_exec(f, "BEGIN");
    struct answer a = enter(f->db, 3, 10);
    assert_int_equal(a.err, FERRY_OK);
    assert_int_equal(a.verdict, FERRY_DUPLICATE);
    assert_int_equal(a.skip, 7);
    fixture_exec(f, "COMMIT");
}

static void a_batch_half_done_says_where_to_begin(void **state)
{
    struct fixture *f = *state;
    apply(f, 0, 10);
    fixture_exec(f, "BEGIN");
    struct answer a = enter(f->db, 6, 14);
    assert_int_equal(a.verdict, FERRY_FRESH);
    assert_int_equal(a.skip, 4);
    fixture_exec(f, "COMMIT");
}

static void a_batch_after_a_hole_is_a_gap(void **state)
{
    struct fixture *f = *state;
    apply(f, 0, 10);
    fixture_exec(f, "BEGIN");
    struct answer a = enter(f->db, 11, 14);
    assert_int_equal(a.verdict, FERRY_GAP);
    assert_int_equal(a.expected, 10);
    fixture_exec(f, "COMMIT");
}

static void groups_topics_and_partitions_do_not_see_each_other(void **state)
{
    struct fixture *f = *state;
    const struct ferry_id again = {{1, 2, 4}}; /* The topic deleted and made anew. */
    int64_t at = 0;
    apply(f, 0, 10);
    assert_int_equal(ferry_inbox_position(f->db, "audit", &topic, 0, &at), FERRY_OK);
    assert_int_equal(at, -1);
    assert_int_equal(ferry_inbox_position(f->db, "ledger", &topic, 1, &at), FERRY_OK);
    assert_int_equal(at, -1);
    assert_int_equal(ferry_inbox_position(f->db, "ledger", &again, 0, &at), FERRY_OK);
    assert_int_equal(at, -1);
}

static void outside_a_transaction_nothing_is_entered_left_or_skipped(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(enter(f->db, 0, 1).err, FERRY_ERR_NO_TRANSACTION);
    assert_int_equal(ferry_inbox_leave(f->db, "ledger", &topic, 0, 1), FERRY_ERR_NO_TRANSACTION);
    assert_int_equal(ferry_inbox_skip_to(f->db, "ledger", &topic, 0, 1, "why"),
                     FERRY_ERR_NO_TRANSACTION);
}

static void arguments_that_make_no_sense_are_refused(void **state)
{
    struct fixture *f = *state;
    struct answer a = {0};
    fixture_exec(f, "BEGIN");
    assert_int_equal(enter(f->db, 5, 5).err, FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(enter(f->db, -1, 5).err, FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(
        ferry_inbox_enter(f->db, "a/b", &topic, 0, 0, 1, &a.verdict, &a.skip, &a.expected),
        FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(
        ferry_inbox_enter(f->db, "g", &topic, -1, 0, 1, &a.verdict, &a.skip, &a.expected),
        FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(ferry_inbox_leave(f->db, "ledger", &topic, 0, 0), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(ferry_inbox_skip_to(f->db, "ledger", &topic, 0, 5, ""),
                     FERRY_ERR_INVALID_ARGUMENT);
    fixture_exec(f, "COMMIT");
}

static void without_tables_the_inbox_says_so(void **state)
{
    struct fixture *f = *state;
    int64_t at = 0;
    fixture_exec(f, "DROP TABLE ferry_inbox_chain");
    assert_int_equal(ferry_inbox_position(f->db, "ledger", &topic, 0, &at), FERRY_ERR_DB_SCHEMA);
}

/* Both read the same end in transactions of their own; the second to leave must not succeed. */
static void two_consumers_of_one_partition_collide(void **state)
{
    struct fixture *f = *state;
    apply(f, 0, 10);
    sqlite3 *other = fixture_connect(f);
    struct ferry_db *other_db = NULL;
    assert_int_equal(ferry_db_sqlite(&other_db, other), FERRY_OK);
    fixture_exec(f, "BEGIN");
    fixture_exec_on(other, "BEGIN");
    assert_int_equal(enter(f->db, 10, 20).verdict, FERRY_FRESH);
    assert_int_equal(enter(other_db, 10, 15).verdict, FERRY_FRESH);
    assert_int_equal(ferry_inbox_leave(f->db, "ledger", &topic, 0, 20), FERRY_OK);
    assert_int_equal(ferry_inbox_leave(other_db, "ledger", &topic, 0, 15), FERRY_ERR_DB_RETRY);
    fixture_exec(f, "COMMIT");
    assert_int_equal(ferry_inbox_leave(other_db, "ledger", &topic, 0, 15), FERRY_ERR_DB_RETRY);
    fixture_exec_on(other, "ROLLBACK");
    assert_int_equal(position(f), 20);
    ferry_db_free(&other_db);
    sqlite3_close(other);
}

/* Also when they never saw a batch before and begin at different offsets: the first interval's key
 * is the same for both. */
static void the_first_interval_of_a_chain_collides_too(void **state)
{
    struct fixture *f = *state;
    apply(f, 5, 10);
    assert_int_not_equal(
        sqlite3_exec(f->connection,
                     "INSERT INTO ferry_inbox_chain VALUES ('ledger', (SELECT topic_id FROM "
                     "ferry_inbox_chain), 0, -1, 99)",
                     NULL, NULL, NULL),
        SQLITE_OK);
}

static void leaving_where_another_was_faster_asks_to_retry(void **state)
{
    struct fixture *f = *state;
    apply(f, 0, 10);
    fixture_exec(f, "BEGIN");
    assert_int_equal(ferry_inbox_leave(f->db, "ledger", &topic, 0, 10), FERRY_ERR_DB_RETRY);
    fixture_exec(f, "ROLLBACK");
}

static bool note_status(const struct inbox_status *status, void *arg)
{
    *(struct inbox_status *)arg = *status;
    return true;
}

static struct inbox_status chain_status(struct fixture *f)
{
    struct inbox_status status = {0};
    struct err_text e = {{0}};
    char url[128];
    snprintf(url, sizeof(url), "sqlite:%s", f->path);
    assert_int_equal(admin_sqlite_ops.inbox(url, note_status, &status, &e), FERRY_OK);
    return status;
}

static void the_chain_keeps_its_newest_64_intervals(void **state)
{
    struct fixture *f = *state;
    for (int64_t i = 0; i < 200; i++) {
        apply(f, i * 3, i * 3 + 3);
    }
    struct inbox_status status = chain_status(f);
    assert_int_equal(status.rows, 64);
    assert_int_equal(status.position, 600);
    assert_int_equal(status.holes, 0);
    assert_memory_equal(status.topic_id.bytes, topic.bytes, sizeof(topic.bytes));
}

static void an_interval_that_somebody_removed_shows_as_a_hole(void **state)
{
    struct fixture *f = *state;
    for (int64_t i = 0; i < 5; i++) {
        apply(f, i * 3, i * 3 + 3);
    }
    fixture_exec(f, "DELETE FROM ferry_inbox_chain WHERE start_off = 6");
    assert_int_equal(chain_status(f).holes, 1);
}

static void a_skip_moves_on_and_keeps_its_reason(void **state)
{
    struct fixture *f = *state;
    apply(f, 0, 10);
    fixture_exec(f, "BEGIN");
    assert_int_equal(ferry_inbox_skip_to(f->db, "ledger", &topic, 0, 50, "dropped by retention"),
                     FERRY_OK);
    assert_int_equal(ferry_inbox_skip_to(f->db, "ledger", &topic, 0, 50, "again"),
                     FERRY_ERR_INVALID_ARGUMENT);
    fixture_exec(f, "COMMIT");
    assert_int_equal(position(f), 50);
    assert_int_equal(fixture_number(f, "SELECT count(*) FROM ferry_inbox_skip WHERE from_off = 10 "
                                       "AND to_off = 50 AND reason = 'dropped by retention'"),
                     1);
    assert_int_equal(chain_status(f).skips, 1);
    apply(f, 50, 51);
}

static void a_rolled_back_batch_is_fresh_again(void **state)
{
    struct fixture *f = *state;
    fixture_exec(f, "CREATE TABLE effect (n)");
    fixture_exec(f, "BEGIN");
    assert_int_equal(enter(f->db, 0, 10).verdict, FERRY_FRESH);
    fixture_exec(f, "INSERT INTO effect VALUES (1)");
    assert_int_equal(ferry_inbox_leave(f->db, "ledger", &topic, 0, 10), FERRY_OK);
    fixture_exec(f, "ROLLBACK");
    assert_int_equal(position(f), -1);
    assert_int_equal(fixture_number(f, "SELECT count(*) FROM effect"), 0);
}

/* A process that dies after its effects and before COMMIT has done nothing. */
static void a_kill_between_effects_and_commit_leaves_neither(void **state)
{
    struct fixture *f = *state;
    fixture_exec(f, "CREATE TABLE effect (n)");
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        sqlite3 *connection = NULL;
        struct ferry_db *db = NULL;
        bool ready = sqlite3_open(f->path, &connection) == SQLITE_OK &&
                     ferry_db_sqlite(&db, connection) == FERRY_OK &&
                     sqlite3_exec(connection, "BEGIN IMMEDIATE", NULL, NULL, NULL) == SQLITE_OK &&
                     enter(db, 0, 10).verdict == FERRY_FRESH &&
                     sqlite3_exec(connection, "INSERT INTO effect VALUES (1)", NULL, NULL, NULL) ==
                         SQLITE_OK &&
                     ferry_inbox_leave(db, "ledger", &topic, 0, 10) == FERRY_OK;
        _exit(ready ? 42 : 1); /* As by SIGKILL: no close, no rollback. */
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 42);
    assert_int_equal(position(f), -1);
    assert_int_equal(fixture_number(f, "SELECT count(*) FROM effect"), 0);
    apply(f, 0, 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(the_first_batch_may_begin_anywhere),
        FIXTURE_TEST(a_batch_that_was_done_is_a_duplicate),
        FIXTURE_TEST(a_batch_half_done_says_where_to_begin),
        FIXTURE_TEST(a_batch_after_a_hole_is_a_gap),
        FIXTURE_TEST(groups_topics_and_partitions_do_not_see_each_other),
        FIXTURE_TEST(outside_a_transaction_nothing_is_entered_left_or_skipped),
        FIXTURE_TEST(arguments_that_make_no_sense_are_refused),
        FIXTURE_TEST(without_tables_the_inbox_says_so),
        FIXTURE_TEST(two_consumers_of_one_partition_collide),
        FIXTURE_TEST(the_first_interval_of_a_chain_collides_too),
        FIXTURE_TEST(leaving_where_another_was_faster_asks_to_retry),
        FIXTURE_TEST(the_chain_keeps_its_newest_64_intervals),
        FIXTURE_TEST(an_interval_that_somebody_removed_shows_as_a_hole),
        FIXTURE_TEST(a_skip_moves_on_and_keeps_its_reason),
        FIXTURE_TEST(a_rolled_back_batch_is_fresh_again),
        FIXTURE_TEST(a_kill_between_effects_and_commit_leaves_neither),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
