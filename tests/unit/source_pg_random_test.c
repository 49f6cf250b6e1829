/* The PostgreSQL source under writers that commit late, roll back and hold locks, and relays that
 * die at any point: what the targets hold is compared with what was committed. */
#include "source_pg_fixture.h"

#define WRITERS 6
#define KEYS    8
#define STEPS   700

struct writer {
    struct database_link link;
    bool open;
    int locks; /* Keys it holds, as bits. */
};

static uint64_t seed_of(void)
{
    const char *given = getenv("FERRY_SEED");
    return given != NULL ? strtoull(given, NULL, 10) : (uint64_t)clock_monotonic_us();
}

/* Puts a row of a key whose lock nobody else holds: the lock first, then the number. */
static void writer_put(struct writer *writers, int at, struct prng *p)
{
    struct writer *w = &writers[at];
    int key = (int)prng_below(p, KEYS);
    for (int i = 0; i < WRITERS; i++) {
        if (i != at && (writers[i].locks & (1 << key)) != 0) {
            return; /* It would wait for ever: this is one thread. */
        }
    }
    char sql[64];
    char name[16];
    snprintf(name, sizeof(name), "key-%d", key);
    if (!w->open) {
        database_exec(&w->link, "BEGIN");
        w->open = true;
    }
    w->locks |= 1 << key;
    bool nested = prng_below(p, 4) == 0;
    if (nested) {
        database_exec(&w->link, "SAVEPOINT s");
    }
    snprintf(sql, sizeof(sql), "SELECT pg_advisory_xact_lock(%d)", key);
    database_exec(&w->link, sql);
    for (uint64_t n = 1 + prng_below(p, 4); n > 0; n--) {
        put(&w->link, name, "payload");
    }
    if (nested && prng_below(p, 2) == 0) {
        database_exec(&w->link,
                      "ROLLBACK TO s"); /* `locks` keeps others away from its key all the same. */
    }
}

static void writer_end(struct writer *w, struct prng *p)
{
    if (w->open) {
        database_exec(&w->link, prng_below(p, 5) == 0 ? "ROLLBACK" : "COMMIT");
        w->open = false;
        w->locks = 0;
    }
}

/* Rows of one key are in their target's log by rising number: whoever waited for the lock took its
 * number later. */
static void check_order(struct relay_twin *t, struct database *db)
{
    int64_t last[KEYS] = {0};
    for (int i = 0; i < TARGETS; i++) {
        for (size_t at = 0; at < t->targets[i].count; at++) {
            char sql[128];
            snprintf(sql, sizeof(sql),
                     "SELECT right(convert_from(mkey, 'UTF8'), 1) FROM ledger WHERE seq = %lld",
                     (long long)t->targets[i].log[at]);
            int64_t key = atoll(database_text(&db->a, sql));
            if (t->targets[i].log[at] <= last[key]) {
                fail_msg("key %lld: row %lld came after row %lld", (long long)key,
                         (long long)t->targets[i].log[at], (long long)last[key]);
            }
            last[key] = t->targets[i].log[at];
        }
    }
}

static void run(uint64_t seed)
{
    struct database db = {0};
    struct relay_twin twin = {.page_rows = 3};
    struct writer writers[WRITERS] = {0};
    struct prng p;
    prng_init(&p, seed);
    printf("seed %llu\n", (unsigned long long)seed);
    fixture_open(&db);
    twin.chaos = &p;
    twin_open(&twin, db.url);
    for (int i = 0; i < WRITERS; i++) {
        database_connect(&db, &writers[i].link);
    }
    for (int step = 0; step < STEPS; step++) {
        bool more = false;
        int at = (int)prng_below(&p, WRITERS);
        switch (prng_below(&p, 12)) {
        case 0:
        case 1:
        case 2:
            writer_put(writers, at, &p);
            break;
        case 3:
        case 4:
            writer_end(&writers[at], &p);
            break;
        case 5:
            twin_checkpoint(&twin);
            break;
        case 6:
            if (prng_below(&p, 3) == 0) {
                twin_kill(&twin);
                twin.page_rows = 1 + prng_below(&p, 9);
                twin_open(&twin, db.url);
            }
            break;
        default:
            (void)twin_step(&twin, &more);
            break;
        }
    }
    for (int i = 0; i < WRITERS; i++) {
        writer_end(&writers[i], &p);
    }
    twin_drain(&twin);
    twin_check_all(&twin, &db);
    check_order(&twin, &db);
    for (int i = 0; i < WRITERS; i++) {
        database_disconnect(&writers[i].link);
    }
    twin_kill(&twin);
    twin_free(&twin);
    database_close(&db);
}

static void nothing_is_lost_or_twice_whatever_dies(void **state)
{
    (void)state;
    if (!database_available(DATABASE_POSTGRESQL)) {
        skip();
    }
    uint64_t seed = seed_of();
    const char *rounds = getenv("FERRY_ROUNDS");
    for (int round = 0; round < (rounds == NULL ? 3 : atoi(rounds)); round++) {
        run(seed + (uint64_t)round);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_lost_or_twice_whatever_dies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
