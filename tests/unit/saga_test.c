/* Sagas, their barrier and replies, on every database. One database is starter and participant
 * here; what is put is caught on its way into the outbox and delivered by the test. All orders are
 * saga_model_test's. */
#include "databases_fixture.h"

#include <pthread.h>
#include <unistd.h>

#include "base/clock.h"
#include "outbox/app/saga.h"
#include "wire/batch.h"

#define MESSAGES_MAX 64

struct caught {
    char topic[64], key[64];
    struct ferry_id id;
    uint8_t headers[2048];
    char payload[128];
    size_t headers_bytes, payload_bytes;
    int64_t due_ms;
};

/* What was put since the last look, in order; of rolled back transactions too. */
static struct {
    const struct db_ops *real;
    struct db_ops ops;
    struct caught messages[MESSAGES_MAX];
    size_t count;
} outbox;

static void keep(void *to, struct bytes from)
{
    if (from.size > 0) {
        memcpy(to, from.data, from.size);
    }
}

static enum ferry_err catch_put(void *driver, const struct db_row *row, struct err_text *e)
{
    assert_true(outbox.count < MESSAGES_MAX);
    struct caught *m = &outbox.messages[outbox.count++];
    memset(m, 0, sizeof(*m));
    assert_true(row->headers.size <= sizeof(m->headers) && row->payload.size <= sizeof(m->payload));
    keep(m->topic, row->topic);
    keep(m->key, row->key);
    keep(m->headers, row->headers);
    keep(m->payload, row->payload);
    m->headers_bytes = row->headers.size;
    m->payload_bytes = row->payload.size;
    m->id = row->id;
    return outbox.real->put(driver, row, e);
}

/* The database of the test, its puts caught, with a table of effects. */
static struct database *begin_test(void **state)
{
    struct database *d = database_of(state);
    outbox.real = d->a.db->ops;
    outbox.ops = *outbox.real;
    outbox.ops.put = catch_put;
    outbox.count = 0;
    d->a.db->ops = &outbox.ops;
    database_exec(&d->a, "CREATE TABLE effect (step INTEGER, undone INTEGER)");
    return d;
}

static struct ferry_record record_of(const struct caught *m)
{
    return (struct ferry_record){.topic = m->topic,
                                 .key = m->key,
                                 .key_bytes = strlen(m->key),
                                 .payload = m->payload,
                                 .payload_bytes = m->payload_bytes,
                                 .headers = m->headers,
                                 .headers_bytes = m->headers_bytes,
                                 .id = m->id};
}

static void well(const struct ferry_db *db, enum ferry_err err)
{
    if (err != FERRY_OK) {
        fail_msg("%s: %s", ferry_err_name(err), ferry_db_detail(db));
    }
}

static void begin(struct ferry_db *db)
{
    well(db, db->ops->begin(db->driver, &db->error));
}

static void commit(struct ferry_db *db)
{
    well(db, db->ops->commit(db->driver, &db->error));
}

/* The next message that was put, taken. Fails when it is not as said: "topic op step". */
static struct caught take(const char *what)
{
    char text[128];
    struct saga_note note;
    assert_true(outbox.count > 0);
    struct caught m = outbox.messages[0];
    struct ferry_record record = record_of(&m);
    const void *op = "";
    size_t op_bytes = 0;
    assert_true(ferry_record_header(&record, FERRY_HEADER_SAGA_OP, &op, &op_bytes));
    assert_true(saga_note_read(&record, &note));
    snprintf(text, sizeof(text), "%s %.*s %d", m.topic, (int)op_bytes, (const char *)op, note.step);
    assert_string_equal(text, what);
    outbox.count--;
    memmove(&outbox.messages[0], &outbox.messages[1], outbox.count * sizeof(m));
    return m;
}

static const struct ferry_saga_step steps[] = {{.topic = "pay", .deadline_ms = 5000},
                                               {.topic = "mail", .no_undo = true},
                                               {.topic = "ship", .deadline_ms = 5000}};

static struct ferry_id start(struct ferry_db *db, enum ferry_saga_kind kind)
{
    const struct ferry_saga_def def = {
        .type = "order", .kind = kind, .steps = steps, .count = 3, .reply_topic = "answers"};
    struct ferry_id id;
    begin(db);
    well(db, ferry_saga_start(db, &def, NULL, 0, "o-1", 3, &id));
    commit(db);
    return id;
}

/* The participant. `why` NULL: it does what is asked; else it refuses. Whether it ran. */
static bool work(struct database_link *link, const struct caught *m, const char *why)
{
    struct ferry_db *db = link->db;
    struct ferry_record record = record_of(m);
    struct ferry_saga_command command;
    bool run = false;
    assert_true(ferry_saga_command_of(&record, &command));
    assert_string_equal(command.type, "order");
    begin(db);
    well(db, ferry_saga_enter(db, &record, &run));
    if (run && why != NULL) {
        well(db, ferry_saga_refuse(db, &record, why));
    } else if (run) {
        char sql[64];
        snprintf(sql, sizeof(sql), "INSERT INTO effect VALUES (%d, %d)", command.step,
                 command.undo);
        database_exec(link, sql);
        well(db, ferry_saga_done(db, &record,
                                 command.step == 0 && !command.undo ? "o-1 paid" : NULL, 8));
    }
    commit(db);
    return run;
}

static enum ferry_saga_state answer(struct ferry_db *db, const struct caught *m)
{
    enum ferry_saga_state state = FERRY_SAGA_ABORTED;
    struct ferry_record record = record_of(m);
    begin(db);
    well(db, ferry_saga_answer(db, NULL, &record, &state));
    commit(db);
    return state;
}

static void is_in(struct ferry_db *db, const struct ferry_id *id, enum ferry_saga_state want)
{
    enum ferry_saga_state state;
    int step = -1;
    well(db, ferry_saga_state_of(db, id, &state, &step));
    assert_string_equal(ferry_saga_state_name(state), ferry_saga_state_name(want));
}

static void has_effects(struct database *d, int64_t done, int64_t undone)
{
    assert_int_equal(database_number(&d->a, "SELECT count(*) FROM effect WHERE undone = 0"), done);
    assert_int_equal(database_number(&d->a, "SELECT count(*) FROM effect WHERE undone = 1"),
                     undone);
}

/* Do 0 and its timer are taken, done, and answered: do 1 waits in the outbox. */
static void pay(struct database *d)
{
    struct caught m = take("pay do 0");
    struct caught timer = take("answers timer 0");
    assert_true(work(&d->a, &m, NULL));
    m = take("answers done 0");
    assert_int_equal(answer(d->a.db, &m), FERRY_SAGA_RUNNING);
    assert_int_equal(answer(d->a.db, &timer), 0); /* Of a state that was left. */
}

static void mail(struct database *d)
{
    struct caught m = take("mail do 1"); /* No deadline: no timer. */
    assert_int_equal(m.payload_bytes, 8);
    assert_memory_equal(m.payload, "o-1 paid", 8);
    assert_true(work(&d->a, &m, NULL));
    m = take("answers done 1");
    assert_int_equal(answer(d->a.db, &m), FERRY_SAGA_RUNNING);
}

static void an_orchestrated_saga_is_done_step_by_step(void **state)
{
    struct database *d = begin_test(state);
    struct ferry_id id = start(d->a.db, FERRY_SAGA_ORCHESTRATED);
    is_in(d->a.db, &id, FERRY_SAGA_RUNNING);
    pay(d);
    mail(d);
    struct caught m = take("ship do 2");
    struct caught timer = take("answers timer 2");
    assert_string_equal(m.key, timer.key); /* All of a saga have one. */
    assert_true(work(&d->a, &m, NULL));
    m = take("answers done 2");
    assert_int_equal(answer(d->a.db, &m), FERRY_SAGA_DONE);
    assert_int_equal(answer(d->a.db, &m), 0); /* Again, and late: told by 0. */
    assert_int_equal(answer(d->a.db, &timer), 0);
    assert_int_equal(outbox.count, 0);
    is_in(d->a.db, &id, FERRY_SAGA_DONE);
    has_effects(d, 3, 0);
}

static void a_refusal_compensates_what_was_done(void **state)
{
    struct database *d = begin_test(state);
    struct ferry_id id = start(d->a.db, FERRY_SAGA_ORCHESTRATED);
    pay(d);
    mail(d);
    struct caught m = take("ship do 2");
    (void)take("answers timer 2");
    assert_true(work(&d->a, &m, "no such \xff\x01 street \xc3\xa4")); /* Not all of it is text. */
    m = take("answers refused 2");
    assert_int_equal(answer(d->a.db, &m), FERRY_SAGA_COMPENSATING);
    m = take("pay undo 0"); /* The mail has no compensation. */
    (void)take("answers timer 0");
    assert_true(work(&d->a, &m, NULL));
    m = take("answers undone 0");
    assert_int_equal(answer(d->a.db, &m), FERRY_SAGA_COMPENSATED);
    is_in(d->a.db, &id, FERRY_SAGA_COMPENSATED);
    has_effects(d, 2, 1);
    assert_string_equal(database_text(&d->a, "SELECT reason FROM {saga}"),
                        "step 2 (ship) was refused: no such ?  street \xc3\xa4");
}

/* Nobody knows what became of the step, so it is undone; its do comes after that. */
static void a_late_do_hangs_after_its_undo(void **state)
{
    struct database *d = begin_test(state);
    struct ferry_id id = start(d->a.db, FERRY_SAGA_ORCHESTRATED);
    struct caught late = take("pay do 0");
    struct caught m = take("answers timer 0");
    assert_int_equal(answer(d->a.db, &m), FERRY_SAGA_COMPENSATING);
    m = take("pay undo 0");
    (void)take("answers timer 0");
    assert_false(work(&d->a, &m, NULL)); /* Empty: answered all the same. */
    struct caught undone = take("answers undone 0");
    assert_false(work(&d->a, &late, NULL));
    assert_int_equal(outbox.count, 0);
    assert_int_equal(answer(d->a.db, &undone), FERRY_SAGA_COMPENSATED);
    is_in(d->a.db, &id, FERRY_SAGA_COMPENSATED);
    has_effects(d, 0, 0);
}

static void a_repeat_is_answered_only_when_it_was_put_again(void **state)
{
    struct database *d = begin_test(state);
    (void)start(d->a.db, FERRY_SAGA_ORCHESTRATED);
    struct caught m = take("pay do 0");
    struct caught timer = take("answers timer 0");
    assert_true(work(&d->a, &m, NULL));
    (void)take("answers done 0"); /* It is lost. */
    assert_false(work(&d->a, &m, NULL));
    assert_int_equal(outbox.count, 0);
    assert_int_equal(answer(d->a.db, &timer), FERRY_SAGA_COMPENSATING);
    m = take("pay undo 0");
    struct caught again = take("answers timer 0");
    assert_true(work(&d->a, &m, NULL));
    (void)take("answers undone 0"); /* It is lost as well. */
    assert_false(work(&d->a, &m, NULL));
    assert_int_equal(outbox.count, 0);
    assert_int_equal(answer(d->a.db, &again), FERRY_SAGA_COMPENSATING);
    m = take("pay undo 0");
    (void)take("answers timer 0");
    assert_false(work(&d->a, &m, NULL));
    m = take("answers undone 0");
    assert_int_equal(answer(d->a.db, &m), FERRY_SAGA_COMPENSATED);
    has_effects(d, 1, 1);
}

/* Brings a saga to STUCK at step 0. */
static struct ferry_id get_stuck(struct database *d)
{
    struct ferry_id id = start(d->a.db, FERRY_SAGA_ORCHESTRATED);
    struct caught m = take("pay do 0");
    struct caught timer = take("answers timer 0");
    assert_true(work(&d->a, &m, NULL));
    (void)take("answers done 0");
    assert_int_equal(answer(d->a.db, &timer), FERRY_SAGA_COMPENSATING);
    m = take("pay undo 0");
    (void)take("answers timer 0");
    assert_true(work(&d->a, &m, "the account is closed"));
    m = take("answers undo-refused 0");
    assert_int_equal(answer(d->a.db, &m), FERRY_SAGA_STUCK);
    return id;
}

static void a_stuck_saga_is_retried_by_a_person(void **state)
{
    struct database *d = begin_test(state);
    struct ferry_db *db = d->a.db;
    struct err_text e;
    struct ferry_id id = get_stuck(d);
    for (int tries = 0; tries < 2; tries++) {
        begin(db);
        assert_int_equal(saga_operator_retry(db, &id, &e), FERRY_OK);
        commit(db);
        struct caught m = take("pay undo 0");
        (void)take("answers timer 0");
        assert_true(work(&d->a, &m, tries == 0 ? "it still is" : NULL));
        m = take(tries == 0 ? "answers undo-refused 0" : "answers undone 0");
        assert_int_equal(answer(db, &m), tries == 0 ? FERRY_SAGA_STUCK : FERRY_SAGA_COMPENSATED);
    }
    has_effects(d, 1, 1);
    begin(db);
    assert_int_equal(saga_operator_retry(db, &id, &e), FERRY_ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(e.text, "compensated"));
    commit(db);
}

static void an_abort_compensates_or_gives_up(void **state)
{
    struct database *d = begin_test(state);
    struct ferry_db *db = d->a.db;
    struct err_text e;
    struct ferry_id stuck = get_stuck(d);
    begin(db);
    assert_int_equal(saga_operator_abort(db, &stuck, "", &e), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(saga_operator_abort(db, &stuck, "paid by hand", &e), FERRY_OK);
    assert_int_equal(saga_operator_abort(db, &stuck, "again", &e), FERRY_ERR_INVALID_ARGUMENT);
    commit(db);
    is_in(db, &stuck, FERRY_SAGA_ABORTED);
    assert_non_null(strstr(database_text(&d->a, "SELECT reason FROM {saga}"), "paid by hand"));
    struct ferry_id running = start(db, FERRY_SAGA_ORCHESTRATED);
    outbox.count = 0;
    begin(db);
    assert_int_equal(saga_operator_abort(db, &running, "a mistake", &e), FERRY_OK);
    assert_int_equal(saga_operator_abort(db, &running, "now", &e), FERRY_ERR_INVALID_ARGUMENT);
    commit(db);
    (void)take("pay undo 0");
    is_in(db, &running, FERRY_SAGA_COMPENSATING);
    struct ferry_id nobody = {.bytes = {1}};
    begin(db);
    assert_int_equal(saga_operator_abort(db, &nobody, "x", &e), FERRY_ERR_UNKNOWN_MESSAGE);
    commit(db);
}

static void a_choreographed_saga_travels_by_its_slip(void **state)
{
    struct database *d = begin_test(state);
    struct ferry_id id = start(d->a.db, FERRY_SAGA_CHOREOGRAPHED);
    struct caught m = take("pay do 0");
    assert_true(work(&d->a, &m, NULL));
    m = take("mail do 1");
    assert_true(work(&d->a, &m, NULL));
    m = take("ship do 2");
    assert_true(work(&d->a, &m, NULL));
    m = take("answers end 2");
    assert_int_equal(answer(d->a.db, &m), FERRY_SAGA_DONE);
    id = start(d->a.db, FERRY_SAGA_CHOREOGRAPHED);
    m = take("pay do 0");
    assert_true(work(&d->a, &m, NULL));
    m = take("mail do 1");
    assert_true(work(&d->a, &m, "no address"));
    m = take("pay undo 0");
    assert_true(work(&d->a, &m, NULL));
    m = take("answers end 0");
    assert_int_equal(answer(d->a.db, &m), FERRY_SAGA_COMPENSATED);
    is_in(d->a.db, &id, FERRY_SAGA_COMPENSATED);
    assert_string_equal(database_text(&d->a, "SELECT reason FROM {saga} ORDER BY ver DESC, "
                                             "reason DESC LIMIT 1"),
                        "step 1 (mail) was refused: no address");
    assert_int_equal(outbox.count, 0);
}

/* A rolled back transaction has neither effect, barrier nor answer: it can be repeated. */
static void what_is_rolled_back_can_be_done_again(void **state)
{
    struct database *d = begin_test(state);
    struct ferry_db *db = d->a.db;
    bool run = false;
    (void)start(db, FERRY_SAGA_ORCHESTRATED);
    struct caught m = take("pay do 0");
    struct ferry_record record = record_of(&m);
    begin(db);
    well(db, ferry_saga_enter(db, &record, &run));
    well(db, ferry_saga_done(db, &record, NULL, 0));
    db->ops->rollback(db->driver);
    assert_true(run);
    assert_int_equal(database_number(&d->a, "SELECT count(*) FROM {saga_barrier}"), 0);
    assert_int_equal(database_number(&d->a, "SELECT count(*) FROM {outbox}"), 2);
    assert_true(work(&d->a, &m, NULL));
}

/* The undo's transaction has an older snapshot than the refusal that was committed meanwhile. */
static void an_undo_sees_a_refusal_newer_than_its_snapshot(void **state)
{
    struct database *d = begin_test(state);
    struct database_link other;
    bool run = true;
    (void)start(d->a.db, FERRY_SAGA_ORCHESTRATED);
    struct caught m = take("pay do 0");
    struct caught timer = take("answers timer 0");
    (void)answer(d->a.db, &timer);
    struct caught undo = take("pay undo 0");
    struct ferry_record record = record_of(&undo);
    database_connect(d, &other);
    begin(other.db);
    assert_int_equal(database_number(&other, "SELECT count(*) FROM {saga_barrier}"), 0);
    assert_true(work(&d->a, &m, "no"));
    well(other.db, ferry_saga_enter(other.db, &record, &run));
    assert_false(run);
    commit(other.db);
    database_disconnect(&other);
}

/* Runs an undo on a connection of its own. */
struct other {
    struct database_link link;
    const struct caught *undo;
    bool run;
};

static void *undo_elsewhere(void *arg)
{
    struct other *o = arg;
    struct ferry_db *db = o->link.db;
    struct ferry_record record = record_of(o->undo);
    enum ferry_err err = db->ops->begin(db->driver, &db->error);
    if (err == FERRY_OK) {
        err = ferry_saga_enter(db, &record, &o->run);
    }
    if (err == FERRY_OK) {
        err = db->ops->commit(db->driver, &db->error);
    }
    return err == FERRY_OK ? NULL : db->error.text;
}

/* The undo comes while its do is under way: it waits, and does what the do's end calls for. */
static void an_undo_waits_for_its_do(void **state)
{
    struct database *d = begin_test(state);
    struct ferry_db *db = d->a.db;
    for (int commits = 0; commits < 2; commits++) {
        struct other o = {.run = false};
        pthread_t thread;
        void *failed = NULL;
        bool run = false;
        (void)start(db, FERRY_SAGA_ORCHESTRATED);
        struct caught m = take("pay do 0");
        struct caught timer = take("answers timer 0");
        struct ferry_record record = record_of(&m);
        assert_int_equal(answer(db, &timer), FERRY_SAGA_COMPENSATING);
        struct caught undo = take("pay undo 0");
        outbox.count = 0;
        o.undo = &undo;
        database_connect(d, &o.link);
        begin(db);
        well(db, ferry_saga_enter(db, &record, &run));
        assert_true(run);
        assert_int_equal(pthread_create(&thread, NULL, undo_elsewhere, &o), 0);
        usleep(200 * 1000); /* Long enough for the undo to be waiting. */
        well(db, ferry_saga_done(db, &record, NULL, 0));
        if (commits == 1) {
            commit(db);
        } else {
            db->ops->rollback(db->driver);
        }
        assert_int_equal(pthread_join(thread, &failed), 0);
        if (failed != NULL) {
            fail_msg("%s", (const char *)failed);
        }
        assert_int_equal(o.run, commits == 1);
        database_disconnect(&o.link);
        outbox.count = 0;
    }
}

/* Whoever read an older version changes nothing. */
static void the_second_of_two_answers_is_asked_to_retry(void **state)
{
    struct database *d = begin_test(state);
    struct ferry_db *db = d->a.db;
    struct saga old;
    bool found = false;
    struct ferry_id id = start(db, FERRY_SAGA_ORCHESTRATED);
    well(db, saga_load(db, &id, &old, &found));
    assert_true(found);
    pay(d);
    begin(db);
    assert_int_equal(saga_forward(db, &old, NULL), FERRY_ERR_DB_RETRY);
    db->ops->rollback(db->driver);
    saga_fini(&old);
    assert_int_equal(outbox.count, 1); /* The do of the first, and nothing of the second. */
}

static void what_cannot_be_started_is_refused_with_words(void **state)
{
    struct database *d = begin_test(state);
    struct ferry_db *db = d->a.db;
    static char large[FERRY_SAGA_DATA_MAX_BYTES + 1];
    const struct ferry_saga_step bad = {.topic = "no topic"};
    struct ferry_saga_def def = {
        .type = "order", .steps = steps, .count = 3, .reply_topic = "answers"};
    assert_int_equal(ferry_saga_start(db, &def, NULL, 0, "x", 1, NULL), FERRY_ERR_NO_TRANSACTION);
    begin(db);
    assert_int_equal(ferry_saga_start(db, &def, NULL, 0, large, sizeof(large), NULL),
                     FERRY_ERR_TOO_LARGE);
    assert_int_equal(ferry_saga_start(db, &def, large, 256, "x", 1, NULL), FERRY_ERR_TOO_LARGE);
    def.steps = &bad;
    def.count = 1;
    assert_int_equal(ferry_saga_start(db, &def, NULL, 0, "x", 1, NULL), FERRY_ERR_BAD_NAME);
    assert_non_null(strstr(ferry_db_detail(db), "step 0"));
    def.count = 0;
    assert_int_equal(ferry_saga_start(db, &def, NULL, 0, "x", 1, NULL), FERRY_ERR_INVALID_ARGUMENT);
    commit(db);
    assert_int_equal(outbox.count, 0);
}

/* ---- No database ----------------------------------------------------------------------------- */

static void an_edited_plan_is_told_from_a_newer_one(void **state)
{
    (void)state;
    struct buf b;
    struct saga_plan read, plan = {.kind = FERRY_SAGA_CHOREOGRAPHED,
                                   .reply_topic = "answers",
                                   .count = 2,
                                   .steps = {{"a", 5, false}, {"b", 0, true}},
                                   .key = bytes_of("k", 1),
                                   .payload = bytes_of("data", 4)};
    buf_init(&b, SAGA_ROW_DATA_MAX_BYTES);
    assert_int_equal(saga_plan_encode(&plan, &b), FERRY_OK);
    assert_int_equal(saga_plan_decode(buf_bytes(&b), &read, NULL), FERRY_OK);
    assert_string_equal(read.steps[1].topic, "b");
    assert_true(read.steps[1].no_undo && bytes_equal(read.payload, plan.payload));
    for (size_t size = 0; size < b.size; size++) {
        assert_int_equal(saga_plan_decode(bytes_of(b.data, size), &read, NULL), FERRY_ERR_CORRUPT);
    }
    b.data[1] = 9; /* The format. */
    assert_int_equal(saga_plan_decode(buf_bytes(&b), &read, NULL), FERRY_ERR_NEWER_FORMAT);
    buf_fini(&b);
}

static void a_slip_is_read_with_care(void **state)
{
    (void)state;
    char topic[SAGA_NAME_BYTES];
    bool no_undo = false;
    struct bytes slip = bytes_of_string("pay !mail ship");
    assert_int_equal(saga_slip_count(slip), 3);
    assert_true(saga_slip_at(slip, 1, topic, &no_undo) && no_undo);
    assert_string_equal(topic, "mail");
    assert_true(saga_slip_at(slip, 2, topic, &no_undo) && !no_undo);
    assert_false(saga_slip_at(slip, 3, topic, &no_undo));
    static const char *const bad[] = {"", " ", "a ", " a", "a  b", "!", "a !", "a/b", "!!a"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(saga_slip_count(bytes_of_string(bad[i])), 0);
    }
}

static void records_of_nobody_are_no_saga(void **state)
{
    (void)state;
    struct ferry_record record = {.topic = "t"};
    struct ferry_saga_command command;
    struct ferry_id id;
    assert_false(ferry_saga_command_of(&record, &command));
    const char *const id_text = "018f0000-0000-7000-8000-000000000001";
    struct ferry_header headers[] = {{FERRY_HEADER_SAGA, id_text, 36},
                                     {FERRY_HEADER_SAGA_TYPE, "order", 5},
                                     {FERRY_HEADER_SAGA_STEP, "1", 1},
                                     {FERRY_HEADER_SAGA_OP, "do", 2}};
    const char *const bad[] = {"no id", "a b", "32", "dance"};
    for (size_t wrong = 0; wrong <= 4; wrong++) {
        struct ferry_header some[4];
        struct buf b;
        memcpy(some, headers, sizeof(some));
        if (wrong < 4) {
            some[wrong].value = bad[wrong];
            some[wrong].value_bytes = strlen(bad[wrong]);
        }
        buf_init(&b, 4096);
        assert_int_equal(batch_encode_headers(&b, some, 4), FERRY_OK);
        record.headers = b.data;
        record.headers_bytes = b.size;
        assert_int_equal(ferry_saga_command_of(&record, &command), wrong == 4);
        assert_int_equal(ferry_saga_of(&record, &id), wrong == 4);
        buf_fini(&b);
    }
    assert_int_equal(command.step, 1);
}

/* The timer of the whole acts once: not on a saga that has ended, and an end that comes after it
 * changes nothing. */
static void a_choreographed_saga_ends_by_its_deadline(void **state)
{
    struct database *d = begin_test(state);
    struct ferry_saga_def def = {.type = "order",
                                 .kind = FERRY_SAGA_CHOREOGRAPHED,
                                 .steps = steps,
                                 .count = 1,
                                 .reply_topic = "answers",
                                 .deadline_ms = 60000};
    struct ferry_db *db = d->a.db;
    struct ferry_id id;
    for (int late = 0; late < 2; late++) {
        int64_t due_ms = clock_wall_ms() + def.deadline_ms;
        begin(db);
        well(db, ferry_saga_start(db, &def, NULL, 0, "o-1", 3, &id));
        commit(db);
        struct caught m = take("pay do 0");
        struct caught timer = take("answers timer 0");
        struct ferry_record record = record_of(&timer);
        int64_t due =
            strtoll(database_text(&d->a, "SELECT max(deadline_ms) FROM {saga}"), NULL, 10);
        assert_true(due >= due_ms && due <= clock_wall_ms() + def.deadline_ms);
        assert_int_equal(record.payload_bytes, 0);
        assert_true(work(&d->a, &m, NULL));
        struct caught end = take("answers end 0");
        assert_int_equal(answer(db, late ? &timer : &end),
                         late ? FERRY_SAGA_COMPENSATING : FERRY_SAGA_DONE);
        assert_int_equal(answer(db, late ? &end : &timer), 0);
        assert_int_equal(answer(db, &timer), 0);
        if (late) {
            m = take("pay undo 0");
            assert_true(work(&d->a, &m, NULL));
            m = take("answers end 0");
            assert_int_equal(answer(db, &m), FERRY_SAGA_COMPENSATED);
        }
        assert_int_equal(outbox.count, 0);
    }
    has_effects(d, 2, 1);
    def.kind = FERRY_SAGA_ORCHESTRATED;
    begin(db);
    assert_int_equal(ferry_saga_start(db, &def, NULL, 0, "", 0, &id), FERRY_ERR_INVALID_ARGUMENT);
    commit(db);
}

/* ---- Forgetting ------------------------------------------------------------------------------ */

#define DAY_MS (INT64_C(24) * 60 * 60 * 1000)

/* The message, of a saga that began `days` ago. */
static struct caught as_old(const struct caught *m, int days)
{
    struct id_gen ids;
    char text[ID_TEXT_BYTES], now[ID_TEXT_BYTES];
    struct caught old = *m;
    struct ferry_record record = record_of(m);
    struct ferry_id id;
    size_t replaced = 0;
    assert_true(ferry_saga_of(&record, &id));
    id_format(&id, now);
    id_gen_init_seeded(&ids, (uint64_t)days + 1);
    id = id_gen_uuid7(&ids, clock_wall_ms() - days * DAY_MS);
    id_format(&id, text);
    for (size_t i = 0; i + ID_TEXT_BYTES - 1 <= old.headers_bytes; i++) {
        if (memcmp(old.headers + i, now, ID_TEXT_BYTES - 1) == 0) {
            memcpy(old.headers + i, text, ID_TEXT_BYTES - 1);
            replaced++;
        }
    }
    assert_true(replaced > 0);
    return old;
}

static size_t trim(struct ferry_db *db, int64_t days)
{
    size_t removed = SIZE_MAX;
    begin(db);
    well(db, ferry_saga_trim(db, days * DAY_MS, &removed));
    commit(db);
    return removed;
}

/* Refused since it may have been run, whatever rows are left. */
static void is_late(struct database *d, const struct caught *m)
{
    struct ferry_record record = record_of(m);
    bool run = true;
    begin(d->a.db);
    assert_int_equal(ferry_saga_enter(d->a.db, &record, &run), FERRY_ERR_UNKNOWN_MESSAGE);
    assert_false(run);
    assert_non_null(strstr(ferry_db_detail(d->a.db), "ferry_saga_trim"));
    d->a.db->ops->rollback(d->a.db->driver);
}

/* Once its rows are gone, neither a late do nor a late undo of a saga is mistaken for a first. */
static void what_a_trimmed_barrier_knew_is_not_run_again(void **state)
{
    struct database *d = begin_test(state);
    (void)start(d->a.db, FERRY_SAGA_ORCHESTRATED);
    struct caught now = take("pay do 0");
    struct caught timer = take("answers timer 0");
    assert_int_equal(answer(d->a.db, &timer), FERRY_SAGA_COMPENSATING);
    struct caught undo_now = take("pay undo 0");
    struct caught old = as_old(&now, 40), undo_old = as_old(&undo_now, 40);
    struct caught younger = as_old(&now, 20);
    assert_true(work(&d->a, &old, NULL));
    assert_true(work(&d->a, &younger, NULL));
    assert_int_equal(trim(d->a.db, 0), 1);
    assert_int_equal(trim(d->a.db, 0), 0);
    is_late(d, &old);
    is_late(d, &undo_old);
    assert_false(work(&d->a, &younger, NULL)); /* A repeat, as before. */
    assert_int_equal(trim(d->a.db, 300), 0);   /* The day never goes back. */
    is_late(d, &old);
    struct caught other = as_old(&undo_now, 41);
    is_late(d, &other); /* Never seen, but who knows. */
    assert_true(work(&d->a, &now, NULL));
    has_effects(d, 3, 0);
}

static void a_saga_is_forgotten_long_after_its_end(void **state)
{
    struct database *d = begin_test(state);
    char sql[200];
    static const char *const ages[] = {"31", "29"};
    struct ferry_id open = start(d->a.db, FERRY_SAGA_ORCHESTRATED);
    snprintf(sql, sizeof(sql), "UPDATE %s SET created_ms = 1, changed_ms = 1",
             d->kind == DATABASE_POSTGRESQL ? "ferry.saga" : "ferry_saga");
    database_exec(&d->a, sql);
    for (size_t i = 0; i < 2; i++) {
        outbox.count = 0;
        struct ferry_id id = start(d->a.db, FERRY_SAGA_ORCHESTRATED);
        struct caught m = take("pay do 0");
        assert_true(work(&d->a, &m, "no money"));
        (void)take("answers timer 0");
        m = take("answers refused 0");
        assert_int_equal(answer(d->a.db, &m), FERRY_SAGA_COMPENSATED);
        snprintf(sql, sizeof(sql),
                 "UPDATE %s SET created_ms = 1, changed_ms = %lld WHERE state = 4 AND "
                 "created_ms > 1",
                 d->kind == DATABASE_POSTGRESQL ? "ferry.saga" : "ferry_saga",
                 (long long)(clock_wall_ms() - atoi(ages[i]) * DAY_MS));
        database_exec(&d->a, sql);
        is_in(d->a.db, &id, FERRY_SAGA_COMPENSATED);
    }
    assert_int_equal(trim(d->a.db, 0), 1);
    is_in(d->a.db, &open, FERRY_SAGA_RUNNING);
    assert_int_equal(trim(d->a.db, 28), 1);
    assert_int_equal(trim(d->a.db, 28), 0);
    is_in(d->a.db, &open, FERRY_SAGA_RUNNING);
}

static void a_trim_takes_a_bounded_number_of_rows(void **state)
{
    struct database *d = begin_test(state);
    struct ferry_db *db = d->a.db;
    struct id_gen ids;
    bool fresh = false;
    size_t removed = 0;
    id_gen_init_seeded(&ids, 7);
    begin(db);
    for (int i = 0; i < FERRY_SAGA_TRIM_ROWS_MAX + 10; i++) {
        struct ferry_id id = id_gen_uuid7(&ids, clock_wall_ms() - 60 * DAY_MS);
        well(db, db->ops->barrier_add(db->driver, &id, 0, BARRIER_DO, BARRIER_BY_DO, &fresh,
                                      &db->error));
    }
    assert_int_equal(ferry_saga_trim(db, 7 * DAY_MS, &removed), FERRY_ERR_INVALID_ARGUMENT);
    commit(db);
    assert_int_equal(ferry_saga_trim(db, 0, &removed), FERRY_ERR_NO_TRANSACTION);
    assert_int_equal(trim(db, 0), FERRY_SAGA_TRIM_ROWS_MAX);
    assert_int_equal(trim(db, 0), 10);
    assert_int_equal(trim(db, 0), 0);
}

struct entering {
    struct database_link link;
    struct caught message;
    enum ferry_err err;
};

static void *enter_elsewhere(void *arg)
{
    struct entering *e = arg;
    struct ferry_db *db = e->link.db;
    struct ferry_record record = record_of(&e->message);
    bool run = false;
    do {
        begin(db);
        e->err = ferry_saga_enter(db, &record, &run);
        if (e->err != FERRY_OK) {
            db->ops->rollback(db->driver);
        } else {
            commit(db);
        }
    } while (e->err == FERRY_ERR_DB_RETRY);
    assert_false(run);
    return NULL;
}

/* While a trim is open, a late do waits for it and is then not run. */
static void a_late_do_waits_for_the_trim(void **state)
{
    struct database *d = begin_test(state);
    struct ferry_db *db = d->a.db;
    size_t removed = 0;
    pthread_t thread;
    (void)start(db, FERRY_SAGA_ORCHESTRATED);
    struct caught m = take("pay do 0");
    struct entering e = {.message = as_old(&m, 40)};
    database_connect(d, &e.link);
    assert_true(work(&d->a, &e.message, NULL));
    begin(db);
    well(db, ferry_saga_trim(db, 0, &removed));
    assert_int_equal(removed, 1);
    assert_int_equal(pthread_create(&thread, NULL, enter_elsewhere, &e), 0);
    usleep(200 * 1000);
    commit(db);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(e.err, FERRY_ERR_UNKNOWN_MESSAGE);
    database_disconnect(&e.link);
}

/* ---- Replies --------------------------------------------------------------------------------- */

static void header_is(const struct ferry_record *record, const char *name, const char *want)
{
    const void *value = NULL;
    size_t size = 0;
    assert_int_equal(ferry_record_header(record, name, &value, &size), want != NULL);
    if (want != NULL) {
        assert_int_equal(size, strlen(want));
        assert_memory_equal(value, want, size);
    }
}

static void a_reply_says_what_it_answers(void **state)
{
    struct database *d = begin_test(state);
    struct ferry_db *db = d->a.db;
    struct ferry_header asked[] = {{FERRY_HEADER_REPLY_TO, "answers", 7},
                                   {FERRY_HEADER_TRACE, "00-1", 4},
                                   {FERRY_HEADER_SAGA_OP, "do", 2}};
    struct ferry_header own = {FERRY_HEADER_TRACE, "00-2", 4};
    struct buf b;
    buf_init(&b, 4096);
    assert_int_equal(batch_encode_headers(&b, asked, 3), FERRY_OK);
    struct ferry_record cause = {.headers = b.data, .headers_bytes = b.size, .id = {{0xab}}};
    struct ferry_message message = {.payload = "yes", .payload_bytes = 3};
    begin(db);
    well(db, ferry_reply(db, &cause, &message, NULL));
    message.topic = "elsewhere";
    message.headers = &own;
    message.header_count = 1;
    well(db, ferry_reply(db, &cause, &message, NULL));
    cause.headers_bytes = 0;
    message.topic = NULL;
    assert_int_equal(ferry_reply(db, &cause, &message, NULL), FERRY_ERR_INVALID_ARGUMENT);
    commit(db);
    struct ferry_record first = record_of(&outbox.messages[0]);
    struct ferry_record second = record_of(&outbox.messages[1]);
    assert_string_equal(first.topic, "answers");
    header_is(&first, FERRY_HEADER_CAUSATION, "ab000000-0000-0000-0000-000000000000");
    header_is(&first, FERRY_HEADER_CORRELATION, "ab000000-0000-0000-0000-000000000000");
    header_is(&first, FERRY_HEADER_TRACE, "00-1");
    header_is(&first, FERRY_HEADER_SAGA_OP, NULL); /* It is no command. */
    assert_string_equal(second.topic, "elsewhere");
    header_is(&second, FERRY_HEADER_TRACE, "00-2");
    buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        DATABASE_TESTS(an_orchestrated_saga_is_done_step_by_step),
        DATABASE_TESTS(a_refusal_compensates_what_was_done),
        DATABASE_TESTS(a_late_do_hangs_after_its_undo),
        DATABASE_TESTS(a_repeat_is_answered_only_when_it_was_put_again),
        DATABASE_TESTS(a_stuck_saga_is_retried_by_a_person),
        DATABASE_TESTS(an_abort_compensates_or_gives_up),
        DATABASE_TESTS(a_choreographed_saga_travels_by_its_slip),
        DATABASE_TESTS(what_is_rolled_back_can_be_done_again),
        SERVER_TESTS(an_undo_waits_for_its_do),
        SERVER_TESTS(an_undo_sees_a_refusal_newer_than_its_snapshot),
        DATABASE_TESTS(the_second_of_two_answers_is_asked_to_retry),
        DATABASE_TESTS(what_cannot_be_started_is_refused_with_words),
        DATABASE_TESTS(a_choreographed_saga_ends_by_its_deadline),
        DATABASE_TESTS(what_a_trimmed_barrier_knew_is_not_run_again),
        DATABASE_TESTS(a_saga_is_forgotten_long_after_its_end),
        DATABASE_TESTS(a_trim_takes_a_bounded_number_of_rows),
        SERVER_TESTS(a_late_do_waits_for_the_trim),
        DATABASE_TESTS(a_reply_says_what_it_answers),
        cmocka_unit_test(an_edited_plan_is_told_from_a_newer_one),
        cmocka_unit_test(a_slip_is_read_with_care),
        cmocka_unit_test(records_of_nobody_are_no_saga),
    };
    return cmocka_run_group_tests_name("saga", tests, NULL, NULL);
}
