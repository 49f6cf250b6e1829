/* Relays: several may run, one is elected; they carry the rows of a table into a topic, rows and
 * cursor in one entry. However they die, a row is in the log once, and the cursor says so. */
#include "base/bytes.h"
#include "sim/fiber.h"
#include "sim/workload.h"

#define RELAY_TTL_MS      3000
#define RELAY_MS          5000
#define RELAY_ROWS_A_TURN 6

struct append_state {
    struct session *s;
    int32_t partition;
    uint64_t first, count; /* Rows. */
    bool done;
    struct ferry_append_result result;
};

static struct relay_table *table_of(const struct session *s, int32_t partition)
{
    return &s->p->load->relay[partition];
}

static const struct ferry_id source_id = {{7, 7, 7}};

/* The row's message; made when it is first looked at. */
static uint64_t row_message(struct session *s, int32_t partition, uint64_t row)
{
    struct workload *w = s->p->load;
    struct relay_table *t = table_of(s, partition);
    if (t->rows[row] == 0) {
        t->rows[row] = history_new(&w->history, w->relay_topic, 0);
    }
    return t->rows[row];
}

static void learn_cursor(struct relay_table *t, uint64_t rows)
{
    t->cursor = rows > t->cursor ? rows : t->cursor;
}

static void on_append(const struct ferry_append_result *result, void *arg)
{
    struct append_state *a = arg;
    struct workload *w = a->s->p->load;
    a->done = true;
    a->result = *result;
    a->result.cursor = NULL;
    if (result->err == FERRY_OK) {
        learn_cursor(table_of(a->s, a->partition), a->first + a->count - 1);
    }
    for (uint64_t i = 0; i < a->count && result->err == FERRY_OK; i++) {
        history_outcome(&w->history, row_message(a->s, a->partition, a->first + i), FERRY_STORED,
                        a->partition, result->base_offset + (int64_t)i, false);
    }
}

static uint64_t rows_of(const struct ferry_cursor *c)
{
    return c->version == 0 ? 0 : get_le64(c->blob);
}

static enum ferry_err read_cursor(struct session *s, struct ferry_source *source, int32_t partition,
                                  struct ferry_cursor *c)
{
    const struct workload *w = s->p->load;
    struct relay_table *t = table_of(s, partition);
    uint64_t known = t->cursor;
    enum ferry_err err =
        ferry_source_cursor(source, w->history.topics[w->relay_topic].name, partition, RELAY_MS, c);
    if (err != FERRY_OK) {
        return err;
    }
    if (rows_of(c) < known) {
        sim_fail(SIM_INVARIANT, "INV-R16: a cursor of %llu rows is read after one of %llu",
                 (unsigned long long)rows_of(c), (unsigned long long)known);
    }
    learn_cursor(t, rows_of(c));
    return FERRY_OK;
}

static enum ferry_err append_rows(struct session *s, struct ferry_source *source,
                                  struct append_state *a, uint64_t version)
{
    static uint8_t payloads[RELAY_ROWS_A_TURN][HISTORY_PAYLOAD_MAX];
    struct ferry_message messages[RELAY_ROWS_A_TURN];
    struct history *h = &s->p->load->history;
    uint8_t cursor[8];
    for (uint64_t i = 0; i < a->count; i++) {
        uint64_t number = row_message(s, a->partition, a->first + i);
        messages[i] = (struct ferry_message){.payload = payloads[i],
                                             .payload_bytes = history_payload(number, payloads[i])};
        history_sending(h, number);
    }
    put_le64(cursor, a->first + a->count - 1);
    return ferry_source_append(source, h->topics[s->p->load->relay_topic].name, a->partition,
                               version, cursor, sizeof(cursor), messages, a->count, on_append, a);
}

/* Carries the next rows; false: the source is to be elected anew. */
static bool carry(struct session *s, struct ferry_source *source, int32_t partition)
{
    struct ferry_cursor c;
    enum ferry_err err = read_cursor(s, source, partition, &c);
    struct append_state a = {.s = s,
                             .partition = partition,
                             .first = rows_of(&c) + 1,
                             .count = 1 + chance_below(RELAY_ROWS_A_TURN)};
    if (err != FERRY_OK || a.first + a.count > RELAY_ROWS_MAX) {
        program_note(s->p, "cursor", err);
        return err == FERRY_OK;
    }
    err = append_rows(s, source, &a, c.version);
    program_note(s->p, "append", err);
    while (err == FERRY_OK && !a.done && !sim->ended) {
        (void)ferry_poll(s->client, 500);
    }
    if (err == FERRY_OK && a.done) {
        program_note(s->p, "appended", a.result.err);
    }
    return a.result.err != FERRY_ERR_SOURCE_FENCED;
}

static void work(struct session *s, struct ferry_source *source, int64_t until)
{
    struct program *p = s->p;
    const struct history_topic *t = &p->load->history.topics[p->load->relay_topic];
    while (session_may_go_on(p, until)) {
        struct ferry_source_grant grant;
        enum ferry_err err = ferry_source_elect(source, RELAY_TTL_MS, RELAY_MS, &grant);
        program_note(p, "elect", err);
        if (err != FERRY_OK || grant.standby) {
            fiber_sleep(chance_between(50, 1000) * SIM_MS);
            continue;
        }
        int64_t lease_until = world_now() + RELAY_TTL_MS * SIM_MS / 2;
        while (session_may_go_on(p, lease_until) &&
               carry(s, source, (int32_t)chance_below(t->partitions))) {
            fiber_sleep(chance_between(0, 300) * SIM_MS);
        }
        p->done++;
        if (chance_permille(100)) {
            program_note(p, "resign", ferry_source_resign(source, RELAY_MS));
        }
    }
}

void relay_session(struct program *p)
{
    struct session s;
    struct ferry_source *source;
    if (!session_open(&s, p, NULL)) {
        return;
    }
    if (ferry_source_open(&source, s.client, &source_id, 0, p->host->name) == FERRY_OK) {
        work(&s, source, world_now() + chance_between(3, 30) * SIM_SECOND);
        ferry_source_close(&source);
    }
    ferry_close(&s.client, 0);
}

/* Reads cursors at times of its own, with a client that lives long: after a while of silence it
 * asks whom it took for the leader, and nobody may answer it with less than others were told
 * before. */
void watch_session(struct program *p)
{
    struct session s;
    struct ferry_source *source;
    const struct workload *w = p->load;
    int64_t until = world_now() + chance_between(20, 90) * SIM_SECOND;
    if (!session_open(&s, p, NULL)) {
        return;
    }
    if (ferry_source_open(&source, s.client, &source_id, 0, p->host->name) == FERRY_OK) {
        while (session_may_go_on(p, until)) {
            struct ferry_cursor c;
            int32_t partition = (int32_t)chance_below(w->history.topics[w->relay_topic].partitions);
            program_note(p, "watch", read_cursor(&s, source, partition, &c));
            p->done++;
            fiber_sleep(chance_permille(500) ? chance_between(0, 50) * SIM_MS
                                             : chance_between(0, 4000) * SIM_MS);
        }
        ferry_source_close(&source);
    }
    ferry_close(&s.client, 0);
}

static void verify_partition(struct session *s, int32_t partition, uint64_t cursor)
{
    const struct workload *w = s->p->load;
    const struct relay_table *t = table_of(s, partition);
    for (uint64_t row = 1; row <= RELAY_ROWS_MAX && t->rows[row] != 0; row++) {
        bool there = w->history.messages[t->rows[row]].offset >= 0;
        if (there != (row <= cursor)) {
            sim_fail(SIM_INVARIANT,
                     "INV-E01: partition %d: the cursor is at row %llu, row %llu is %s", partition,
                     (unsigned long long)cursor, (unsigned long long)row,
                     there ? "in the log" : "not in the log");
            return;
        }
    }
}

void relay_verify(struct session *s)
{
    const struct workload *w = s->p->load;
    struct ferry_source *source;
    must(ferry_source_open(&source, s->client, &source_id, 0, "verify") == FERRY_OK);
    for (uint32_t i = 0; i < w->history.topics[w->relay_topic].partitions && !sim->ended; i++) {
        struct ferry_cursor c = {0};
        while (read_cursor(s, source, (int32_t)i, &c) != FERRY_OK && !sim->ended) {
            fiber_sleep(200 * SIM_MS);
        }
        verify_partition(s, (int32_t)i, rows_of(&c));
    }
    ferry_source_close(&source);
}
