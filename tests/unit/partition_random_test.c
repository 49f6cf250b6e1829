/* Thousands of random operations with crashes at every point of a turn, against a naive twin that
 * knows only what was asked and where the process ended. */
#include "lib/partition_fixture.h"

#include "base/prng.h"

#define OPERATIONS   6000
#define RECORDS_MAX  40000
#define PRODUCERS    4
#define SUBSCRIBERS  3
#define IDS          40
#define BATCH_MAX    6
#define WINDOW_MS    60000
#define SIZE_MAX_LOG 60000

struct twin_record {
    uint64_t content;
    uint64_t id; /* 0: none. */
    int64_t time_ms;
};

/* What a crash takes back as a whole. */
struct twin_state {
    size_t count; /* Of records; offsets are places. */
    uint64_t next_sequence[PRODUCERS];
    uint32_t epoch[PRODUCERS];
    uint64_t version, appended; /* The cursor's; after the last append, whose blob it has. */
    uint64_t source_epoch;
    int64_t position[SUBSCRIBERS]; /* -1: not there. */
};

struct last_batch {
    struct batch_of batch;
    struct ferry_id ids[BATCH_MAX];
    uint64_t id_numbers[BATCH_MAX];
    int64_t base_offset;
    uint32_t duplicates;
};

struct twin {
    struct part_fixture *f;
    struct prng random;
    struct twin_record records[RECORDS_MAX];
    struct twin_state proposed, committed;
    struct last_batch last[PRODUCERS];
    uint64_t next_content;
    int64_t start;
    bool subscription_in_turn[SUBSCRIBERS];
};

static const struct ferry_id source = {{9}};
static struct part_record read_back[RECORDS_MAX];

static uint64_t below(struct twin *t, uint64_t bound)
{
    return prng_below(&t->random, bound);
}

/* ---- Produce ---- */

static bool is_known(const struct twin *t, uint64_t id)
{
    for (size_t i = t->proposed.count; i-- > 0;) {
        if (t->records[i].id == id) {
            return t->records[i].time_ms >= t->f->now_ms - WINDOW_MS;
        }
    }
    return false;
}

static void append(struct twin *t, uint64_t content, uint64_t id)
{
    assert_true(t->proposed.count < RECORDS_MAX);
    t->records[t->proposed.count++] =
        (struct twin_record){.content = content, .id = id, .time_ms = t->f->now_ms};
}

/* Appends to the twin what the partition must keep; how many it must drop. */
static uint32_t append_batch(struct twin *t, const struct last_batch *l)
{
    uint32_t dropped = 0;
    for (uint32_t i = 0; i < l->batch.count; i++) {
        uint64_t id = l->batch.ids != NULL ? l->id_numbers[i] : 0;
        if (id != 0 && is_known(t, id)) {
            dropped++;
        } else {
            append(t, l->batch.content + i, id);
        }
    }
    return dropped;
}

static void fill_batch(struct twin *t, struct last_batch *l, uint64_t producer)
{
    uint32_t count = 1 + (uint32_t)below(t, BATCH_MAX);
    bool ids = below(t, 2) == 0;
    for (uint32_t i = 0; i < count; i++) {
        l->id_numbers[i] = below(t, IDS);
        l->ids[i] = l->id_numbers[i] != 0 ? part_id(l->id_numbers[i]) : (struct ferry_id){{0}};
    }
    l->batch = (struct batch_of){.producer = producer,
                                 .count = count,
                                 .ids = ids ? l->ids : NULL,
                                 .payload_bytes = 8 + below(t, 200),
                                 .content = t->next_content};
    t->next_content += count;
}

static void send_new(struct twin *t, struct last_batch *l)
{
    size_t before = t->proposed.count;
    struct partition_ticket *ticket = part_send(t->f, &l->batch);
    l->duplicates = append_batch(t, l);
    l->base_offset = l->duplicates == l->batch.count ? -1 : (int64_t)before;
    assert_int_equal(ticket->base_offset, l->base_offset);
    assert_int_equal(ticket->duplicate_count, l->duplicates);
    assert_false(ticket->duplicate);
}

static void produce_anonymous(struct twin *t)
{
    struct last_batch l;
    fill_batch(t, &l, 0);
    send_new(t, &l);
}

static void produce_next(struct twin *t, uint32_t p)
{
    struct last_batch *l = &t->last[p];
    fill_batch(t, l, p + 1);
    if (below(t, 20) == 0) {
        t->proposed.epoch[p]++;
        t->proposed.next_sequence[p] = 0;
    }
    l->batch.epoch = t->proposed.epoch[p];
    l->batch.first_sequence = t->proposed.next_sequence[p];
    if (l->batch.ids != NULL) {
        l->batch.ids = l->ids;
    }
    send_new(t, l);
    t->proposed.next_sequence[p] += l->batch.count;
}

/* A batch whose ids are all zero is one without. */
static bool has_ids(const struct last_batch *l)
{
    bool any = false;
    for (uint32_t i = 0; l->batch.ids != NULL && i < l->batch.count; i++) {
        any = any || l->id_numbers[i] != 0;
    }
    return any;
}

/* The client does not know what became of its batch, and sends it again. */
static void produce_again(struct twin *t, uint32_t p)
{
    struct last_batch *l = &t->last[p];
    struct twin_state *s = &t->proposed;
    if (l->batch.count == 0) {
        return;
    }
    if (l->batch.epoch < s->epoch[p]) {
        part_refuses(t->f, &l->batch, FERRY_ERR_PRODUCER_FENCED);
        return;
    }
    if (l->batch.epoch > s->epoch[p] || l->batch.first_sequence == s->next_sequence[p]) {
        bool gap = l->batch.epoch > s->epoch[p] && l->batch.first_sequence != 0;
        if (gap) {
            part_refuses(t->f, &l->batch, FERRY_ERR_SEQUENCE_GAP);
            return;
        }
        send_new(t, l); /* A crash had taken it. */
        s->epoch[p] = l->batch.epoch;
        s->next_sequence[p] = l->batch.first_sequence + l->batch.count;
        return;
    }
    if (l->batch.first_sequence > s->next_sequence[p]) {
        part_refuses(t->f, &l->batch, FERRY_ERR_SEQUENCE_GAP);
        return;
    }
    bool waits =
        t->committed.epoch[p] != s->epoch[p] || t->committed.next_sequence[p] < s->next_sequence[p];
    if (has_ids(l) && waits) {
        part_refuses(t->f, &l->batch, FERRY_ERR_NOT_READY);
        return;
    }
    struct partition_ticket *ticket = part_send(t->f, &l->batch);
    assert_true(ticket->duplicate);
    assert_int_equal(ticket->base_offset, l->base_offset);
    if (l->base_offset >= t->start) {
        assert_int_equal(ticket->duplicate_count, l->duplicates);
    }
}

static void produce_wrongly(struct twin *t, uint32_t p)
{
    struct batch_of b = {.producer = p + 1,
                         .epoch = t->proposed.epoch[p],
                         .first_sequence = t->proposed.next_sequence[p] + 1 + below(t, 3),
                         .count = 1};
    part_refuses(t->f, &b, FERRY_ERR_SEQUENCE_GAP);
}

/* ---- The other requests ---- */

static void append_cas(struct twin *t)
{
    struct append_cas_refusal refusal;
    struct bytes batch = part_batch(
        t->f, &(struct batch_of){.count = 2, .content = t->next_content, .payload_bytes = 50});
    bool right = below(t, 4) != 0;
    bool late = t->proposed.source_epoch > 1 && below(t, 6) == 0;
    uint64_t epoch = t->proposed.source_epoch > 0 ? t->proposed.source_epoch : 1;
    struct append_cas c = {.source = source,
                           .epoch = late ? epoch - 1 : epoch,
                           .expect_version = t->proposed.version + (right ? 0 : 1),
                           .cursor = bytes_of(&t->proposed.version, sizeof(uint64_t)),
                           .batch = batch};
    c.cursor = bytes_of(part_keep(t->f, c.cursor.data, c.cursor.size), c.cursor.size);
    struct partition_ticket *ticket = part_ticket(t->f);
    enum ferry_err err = partition_append_cas(t->f->p, &c, t->f->now_ms, t->f->now_us, ticket,
                                              &refusal, &t->f->detail);
    if (late) {
        assert_int_equal(err, FERRY_ERR_SOURCE_FENCED);
        assert_int_equal(refusal.epoch, epoch);
        return;
    }
    assert_int_equal(err, right ? FERRY_OK : FERRY_ERR_CURSOR_CONFLICT);
    assert_int_equal(right ? t->proposed.version : refusal.version, t->proposed.version);
    if (right) {
        t->proposed.source_epoch = epoch;
        assert_int_equal(ticket->base_offset, t->proposed.count);
        append(t, t->next_content, 0);
        append(t, t->next_content + 1, 0);
        t->next_content += 2;
        t->proposed.appended = ++t->proposed.version;
    }
}

static void fence(struct twin *t)
{
    bool late = t->proposed.source_epoch > 1 && below(t, 4) == 0;
    uint64_t epoch = t->proposed.source_epoch + below(t, 3);
    epoch = late ? t->proposed.source_epoch - 1 : epoch > 0 ? epoch : 1;
    uint64_t past = below(t, 2) == 0 ? 0 : t->proposed.version + below(t, 4);
    struct source_fence_request q = {.source = source, .epoch = epoch, .version = past};
    enum ferry_err err = partition_source_fence(t->f->p, &q, t->f->now_ms, t->f->now_us,
                                                part_ticket(t->f), &t->f->detail);
    assert_int_equal(err, late ? FERRY_ERR_SOURCE_FENCED : FERRY_OK);
    if (!late) {
        t->proposed.source_epoch = epoch;
        t->proposed.version = past > t->proposed.version ? past : t->proposed.version;
    }
}

static void subscribe(struct twin *t, uint32_t i)
{
    char name[] = {(char)('a' + i), 0};
    struct bytes n = bytes_of_string(name);
    struct partition_ticket *ticket = part_ticket(t->f);
    struct part_fixture *f = t->f;
    int64_t end = partition_end_offset(f->p);
    if (t->subscription_in_turn[i]) {
        return; /* Requests of one turn do not see each other. */
    }
    t->subscription_in_turn[i] = true;
    if (t->committed.position[i] < 0) {
        assert_int_equal(partition_subscription_create(f->p, n, SUBSCRIPTION_STREAM, FERRY_FROM_END,
                                                       f->now_ms, f->now_us, ticket),
                         FERRY_OK);
        t->proposed.position[i] = end;
    } else if (below(t, 10) == 0) {
        assert_int_equal(partition_subscription_delete(f->p, n, f->now_ms, f->now_us, ticket),
                         FERRY_OK);
        t->proposed.position[i] = -1;
    } else {
        int64_t position = (int64_t)below(t, (uint64_t)end + 1);
        assert_int_equal(
            partition_subscription_commit(f->p, n, position, f->now_ms, f->now_us, ticket),
            FERRY_OK);
        int64_t *mine = &t->proposed.position[i];
        *mine = position > *mine ? position : *mine;
        assert_int_equal(ticket->position, *mine);
    }
}

/* ---- Turns, crashes, checks ---- */

static void committed(struct twin *t)
{
    t->committed = t->proposed;
    memset(t->subscription_in_turn, 0, sizeof(t->subscription_in_turn));
}

static void check_subscriptions(struct twin *t)
{
    assert_int_equal(store_read_begin(t->f->store), FERRY_OK);
    for (uint32_t i = 0; i < SUBSCRIBERS; i++) {
        char name[] = {(char)('a' + i), 0};
        struct subscription_get_reply reply = {.position = -1};
        enum ferry_err err =
            partition_subscription_get(t->f->p, bytes_of_string(name), t->f->now_ms, &reply);
        assert_int_equal(err,
                         t->committed.position[i] < 0 ? FERRY_ERR_UNKNOWN_SUBSCRIPTION : FERRY_OK);
        assert_int_equal(reply.position, t->committed.position[i]);
    }
    store_read_end(t->f->store);
}

static void check_all(struct twin *t)
{
    struct part_fixture *f = t->f;
    int64_t start = partition_start_offset(f->p);
    assert_int_equal(partition_end_offset(f->p), t->committed.count);
    assert_true(start >= t->start);
    t->start = start;
    size_t count = part_read_all(f, 1 + (uint32_t)below(t, 5000), read_back, RECORDS_MAX);
    assert_int_equal(count, (int64_t)t->committed.count - start);
    for (size_t i = 0; i < count; i++) {
        const struct twin_record *r = &t->records[(size_t)start + i];
        assert_int_equal(read_back[i].content, r->content);
        assert_int_equal(read_back[i].append_time_ms, r->time_ms);
    }
    assert_int_equal(partition_size_bytes(f->p), part_count_size(f));
    struct cursor_get_reply cursor;
    partition_cursor_get(f->p, &source, 0, &cursor);
    assert_int_equal(cursor.version, t->committed.version);
    assert_int_equal(cursor.epoch, t->committed.source_epoch);
    if (t->committed.appended > 0) {
        assert_int_equal(get_le64(cursor.cursor.data), t->committed.appended - 1);
    }
    check_subscriptions(t);
}

static void crash(struct twin *t)
{
    enum crash_point point = (enum crash_point)below(t, CRASH_POINTS);
    bool writes = replica_wants_write(partition_replica(t->f->p), t->f->now_us);
    part_crash_at(t->f, point);
    if (point == CRASH_BEFORE_STORED || !writes) {
        committed(t);
    }
    t->proposed = t->committed;
    memset(t->subscription_in_turn, 0, sizeof(t->subscription_in_turn));
    part_open(t->f);
    check_all(t);
}

static void pass_time(struct twin *t)
{
    t->f->now_ms += (int64_t)below(t, 8000);
    t->f->now_us += (int64_t)below(t, 600000);
}

static void operate(struct twin *t)
{
    uint32_t p = (uint32_t)below(t, PRODUCERS);
    switch (below(t, 12)) {
    case 0:
    case 1:
        produce_anonymous(t);
        return;
    case 2:
    case 3:
        produce_next(t, p);
        return;
    case 4:
    case 5:
        produce_again(t, p);
        return;
    case 6:
        produce_wrongly(t, p);
        return;
    case 7:
        if (below(t, 4) == 0) {
            fence(t);
        } else {
            append_cas(t);
        }
        return;
    case 8:
        subscribe(t, (uint32_t)below(t, SUBSCRIBERS));
        return;
    case 9:
        if (below(t, 4) == 0) {
            crash(t);
        }
        return;
    default:
        part_turn(t->f);
        committed(t);
        check_all(t);
        if (below(t, 2) == 0) {
            pass_time(t);
            part_turn(t->f);
        }
    }
}

static void run(struct part_fixture *f, uint64_t seed)
{
    struct twin *t = test_calloc(1, sizeof(*t));
    print_message("seed %llu\n", (unsigned long long)seed);
    t->f = f;
    prng_init(&t->random, seed);
    for (uint32_t i = 0; i < SUBSCRIBERS; i++) {
        t->proposed.position[i] = t->committed.position[i] = -1;
    }
    f->config.settings = (struct topic_settings){
        .retention_ms = -1, .retention_bytes = SIZE_MAX_LOG, .dedupe_window_ms = WINDOW_MS};
    part_open(f);
    for (int i = 0; i < OPERATIONS; i++) {
        operate(t);
    }
    part_turn(f);
    committed(t);
    check_all(t);
    test_free(t);
}

static void random_operations_and_crashes_match_a_naive_twin(void **state)
{
    run(*state, 1);
}

static void random_operations_and_crashes_match_a_naive_twin_again(void **state)
{
    run(*state, 20261121);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        part_test(random_operations_and_crashes_match_a_naive_twin),
        part_test(random_operations_and_crashes_match_a_naive_twin_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
