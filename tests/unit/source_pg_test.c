/* The PostgreSQL source on a real server. */
#include "source_pg_fixture.h"

struct fixture {
    struct database db;
    struct relay_twin twin;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    if (!database_available(DATABASE_POSTGRESQL)) {
        free(f);
        return 0;
    }
    fixture_open(&f->db);
    twin_open(&f->twin, f->db.url);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    if (f == NULL) {
        return 0;
    }
    twin_kill(&f->twin);
    twin_free(&f->twin);
    database_close(&f->db);
    free(f);
    return 0;
}

static struct fixture *fixture_of(void **state)
{
    if (*state == NULL) {
        skip();
    }
    return *state;
}

/* What is put comes once, with all that it has. */
static void rows_come_once(void **state)
{
    struct fixture *f = fixture_of(state);
    put(&f->db.a, "k", "hello");
    bool more = false;
    struct err_text e;
    assert_int_equal(
        f->twin.source.ops->read(f->twin.source.driver, 10, 1000, &f->twin.page, &more, &e),
        FERRY_OK);
    assert_int_equal(f->twin.page.count, 1);
    const struct ferry_message *m = &f->twin.page.rows[0].message;
    assert_string_equal(m->topic, "t");
    assert_memory_equal(m->payload, "hello", 5);
    assert_int_equal(m->payload_bytes, 5);
    assert_memory_equal(m->key, "k", 1);
    assert_true(m->timestamp_ms > 1700000000000);
    f->twin.source.ops->rewind(f->twin.source.driver, 0);
    twin_drain(&f->twin);
    assert_int_equal(twin_total(&f->twin), 1);
    twin_drain(&f->twin);
    twin_check_all(&f->twin, &f->db);
}

/* A has number 1 and commits after B, which has number 2: both come. */
static void a_late_commit_comes(void **state)
{
    struct fixture *f = fixture_of(state);
    struct database_link a = {0};
    database_connect(&f->db, &a);
    database_exec(&a, "BEGIN");
    put(&a, "a", "1");
    put(&f->db.a, "b", "2");
    twin_drain(&f->twin);
    assert_int_equal(twin_total(&f->twin), 1);
    assert_true(twin_has(&f->twin, 2));
    database_exec(&a, "COMMIT");
    twin_drain(&f->twin);
    assert_int_equal(twin_total(&f->twin), 2);
    twin_check_all(&f->twin, &f->db);
    database_disconnect(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(rows_come_once, setup, teardown),
        cmocka_unit_test_setup_teardown(a_late_commit_comes, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
