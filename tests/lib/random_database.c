#include "lib/random_database.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define TICKS_MAX 4096

static const char *const topic_names[DB_TOPICS] = {"alpha", "beta", "gamma"};

int db_topic_of(const struct db_row *row)
{
    return row->key >= 0 ? row->key % DB_TOPICS : (int)(row->number % DB_TOPICS);
}

const char *db_topic_name(int topic)
{
    return topic_names[topic];
}

/* ---- Applications. */

static bool key_is_locked(const struct db *db, int key)
{
    for (size_t i = 0; i < DB_OPEN_MAX; i++) {
        if (db->open[i].used && db->open[i].locked[key]) {
            return true;
        }
    }
    return false;
}

static void put_row(struct db *db, struct db_transaction *t)
{
    int key = (int)prng_below(db->prng, DB_KEYS + 3);
    key = key >= DB_KEYS ? -1 : key;
    if (t->count == sizeof(t->rows) / sizeof(t->rows[0]) || db->count == DB_ROWS_MAX) {
        return;
    }
    if (key >= 0 && !t->locked[key]) {
        if (key_is_locked(db, key)) {
            return; /* It would wait for the other transaction. */
        }
        t->locked[key] = true;
    }
    struct db_row *row = &db->rows[db->count];
    *row = (struct db_row){.number = (int64_t)db->count + 1, .key = key, .open = true};
    row->message = row->number;
    row->poison = prng_below(db->prng, 40) == 0;
    row->invalid = prng_below(db->prng, 80) == 0;
    t->rows[t->count++] = db->count++;
}

static void end(struct db *db, struct db_transaction *t, bool commit)
{
    db->commits += commit;
    for (size_t i = 0; i < t->count; i++) {
        db->rows[t->rows[i]].open = false;
        db->rows[t->rows[i]].commit = commit ? db->commits : 0;
    }
    *t = (struct db_transaction){0};
}

void db_step(struct db *db, bool more)
{
    struct db_transaction *t = &db->open[prng_below(db->prng, DB_OPEN_MAX)];
    if (!t->used && more) {
        t->used = true;
    }
    if (t->used && more) {
        put_row(db, t);
    }
    uint64_t fate = prng_below(db->prng, 12);
    if (t->used && fate < 5) {
        end(db, t, fate > 0);
    }
}

void db_commit_all(struct db *db)
{
    for (size_t i = 0; i < DB_OPEN_MAX; i++) {
        end(db, &db->open[i], true);
    }
}

const struct db_row *db_row_of(const struct db *db, int64_t message)
{
    const struct db_row *row = &db->rows[message - 1];
    while (row->moved != 0) {
        row = &db->rows[row->moved - 1];
    }
    return row;
}

void db_park(struct db *db, int key)
{
    db->parked[key] = true;
}

/* Whether an unpark moves the row: as a parked one, or as one that waits behind the last of them.
 */
static bool row_moves(const struct db_row *row, int key, bool parked, int64_t last)
{
    return row->key == key && row->commit != 0 && row->moved == 0 &&
           (parked ? row->as_parked : !row->aside && !row->deleted && row->number > last);
}

static void move_row(struct db *db, struct db_row *row)
{
    struct db_row *anew = &db->rows[db->count++];
    *anew = *row;
    anew->number = (int64_t)db->count;
    anew->commit = db->commits;
    anew->deleted = false;
    anew->aside = false;
    anew->as_parked = false;
    row->moved = anew->number;
    row->deleted = true;
    row->as_parked = false;
}

bool db_unpark(struct db *db, int key)
{
    int64_t last = 0;
    size_t moving[2] = {0};
    db_commit_all(db);
    size_t count = db->count;
    for (size_t i = 0; i < count; i++) {
        last = row_moves(&db->rows[i], key, true, 0) ? db->rows[i].number : last;
    }
    for (size_t i = 0; i < count && last > 0; i++) {
        moving[0] += row_moves(&db->rows[i], key, true, last);
        moving[1] += row_moves(&db->rows[i], key, false, last);
    }
    if (count + moving[0] + moving[1] > DB_ROWS_MAX) {
        return false;
    }
    db->parked[key] = false;
    db->until[key] = (int64_t)count + 1;
    db->commits++;
    for (int step = 0; step < 2 && last > 0; step++) {
        for (size_t i = 0; i < count; i++) {
            if (row_moves(&db->rows[i], key, step == 0, last)) {
                move_row(db, &db->rows[i]);
            }
        }
    }
    return true;
}

/* ---- What both drivers have. */

struct source_mark {
    bool used;
    /* pending: ids in the log or on their way, and not deleted. */
    int64_t ids[DB_IDS_MAX];
    size_t count, acked;
    /* snapshot: has all commits up to base, and of those up to upper the numbers up to `high`. */
    uint64_t base, upper;
    int64_t high;
};

struct tick {
    int64_t end; /* Position of its last row. */
    uint64_t upper;
};

struct connection {
    struct db *db;
    struct source_mark marks[DB_MARKS_MAX];
    int64_t given; /* The last position. */
    uint64_t seen; /* Commits at the last look. */

    /* pending: the position at which each row was handed out; 0: not. */
    int64_t handed[DB_ROWS_MAX];

    /* snapshot: */
    uint64_t begun;       /* Where reading began. */
    uint64_t base, upper; /* The present tick, or the last one. */
    bool ticking;         /* It is not at its end. */
    int64_t tick_at;      /* Numbers read of it. */
    struct tick ticks[TICKS_MAX];
    size_t tick_count;
    struct source_mark *extra[DB_MARKS_MAX]; /* Marks that want an older tick first. */
    size_t extra_count;
    int64_t extra_at;
    bool page_is_extra, page_is_last;
    const struct source_mark *page_mark; /* Of an extra page; NULL: closed since. */
};

static bool fails(struct connection *c, struct err_text *e)
{
    if (c->db->error_in == 0 || prng_below(c->db->prng, c->db->error_in) > 0) {
        return false;
    }
    err_set(e, FERRY_ERR_DB_RETRY, "the database is busy");
    return true;
}

static void c_close(void *driver)
{
    struct connection *c = driver;
    for (size_t i = 0; i < DB_MARKS_MAX; i++) {
        must(!c->marks[i].used);
    }
    free(c);
}

static struct ferry_id c_id(void *driver)
{
    (void)driver;
    return (struct ferry_id){{7}};
}

static const char *c_name(void *driver)
{
    (void)driver;
    return "random";
}

static enum ferry_err c_changed(void *driver, bool *changed, struct err_text *e)
{
    struct connection *c = driver;
    (void)e;
    *changed = c->db->commits != c->seen;
    c->seen = c->db->commits;
    return FERRY_OK;
}

static bool add_row(struct connection *c, struct source_page *page, const struct db_row *from)
{
    char payload[24];
    char key[16];
    struct source_row *row = source_page_add(page);
    if (row == NULL) {
        return false;
    }
    snprintf(payload, sizeof(payload), "%lld", (long long)from->message);
    snprintf(key, sizeof(key), "%d", from->key / DB_TOPICS);
    row->number = from->number;
    row->position = ++c->given;
    row->transaction = from->commit;
    row->message.topic = db_topic_name(db_topic_of(from));
    row->message.payload = source_page_text(page, bytes_of_string(payload));
    row->message.payload_bytes = strlen(payload);
    if (from->key >= 0) {
        row->message.key = source_page_text(page, bytes_of_string(key));
        row->message.key_bytes = strlen(key);
    }
    row->invalid = from->invalid ? "it is no message" : NULL;
    return row->message.payload != NULL;
}

static struct source_mark *mark_new(struct connection *c)
{
    for (size_t i = 0; i < DB_MARKS_MAX; i++) {
        if (!c->marks[i].used) {
            c->marks[i] = (struct source_mark){.used = true};
            return &c->marks[i];
        }
    }
    must(false);
    return NULL;
}

static enum ferry_err c_set_aside(void *driver, const struct source_row *row, enum source_aside why,
                                  const char *reason, bool *done, struct err_text *e)
{
    struct connection *c = driver;
    struct db_row *in_db = &c->db->rows[row->number - 1];
    (void)reason;
    if (fails(c, e)) {
        return FERRY_ERR_DB_RETRY;
    }
    must(why != SOURCE_ASIDE_REFUSED || in_db->poison || in_db->invalid);
    *done = in_db->moved != 0 || in_db->aside || why != SOURCE_ASIDE_PARKED ||
            c->db->parked[in_db->key];
    if (why == SOURCE_ASIDE_PARK) {
        c->db->parked[in_db->key] = true;
    }
    if (*done && in_db->moved == 0 && !in_db->aside) {
        in_db->aside = true;
        in_db->as_parked = why == SOURCE_ASIDE_PARKED;
    }
    return FERRY_OK;
}

static enum ferry_err c_parked(void *driver, source_parked_cb *callback, void *arg,
                               struct err_text *e)
{
    struct connection *c = driver;
    if (fails(c, e)) {
        return FERRY_ERR_DB_RETRY;
    }
    for (int key = 0; key < DB_KEYS; key++) {
        char text[16];
        snprintf(text, sizeof(text), "%d", key / DB_TOPICS);
        if (c->db->parked[key] || c->db->until[key] != 0) {
            callback(db_topic_name(key % DB_TOPICS), bytes_of_string(text),
                     c->db->parked[key] ? 0 : c->db->until[key], arg);
        }
    }
    return FERRY_OK;
}

/* ---- pending. */

static enum ferry_err p_begin(void *driver, struct bytes checkpoint, int64_t *settled, bool *same,
                              struct err_text *e)
{
    struct connection *c = driver;
    (void)checkpoint;
    if (fails(c, e)) {
        return FERRY_ERR_DB_RETRY;
    }
    memset(c->handed, 0, sizeof(c->handed));
    *settled = c->given;
    *same = true;
    return FERRY_OK;
}

static enum ferry_err p_read(void *driver, size_t rows_max, size_t bytes_max,
                             struct source_page *page, bool *more, struct err_text *e)
{
    struct connection *c = driver;
    (void)bytes_max;
    source_page_clear(page);
    if (fails(c, e)) {
        return FERRY_ERR_DB_RETRY;
    }
    for (size_t i = 0; i < c->db->count && page->count < rows_max; i++) {
        const struct db_row *row = &c->db->rows[i];
        if (row->commit != 0 && !row->deleted && !row->aside && c->handed[i] == 0) {
            if (!add_row(c, page, row)) {
                return FERRY_ERR_NO_MEMORY;
            }
            c->handed[i] = c->given;
        }
    }
    *more = page->count == rows_max;
    return FERRY_OK;
}

static void p_rewind(void *driver, int64_t after)
{
    struct connection *c = driver;
    for (size_t i = 0; i < c->db->count; i++) {
        if (c->handed[i] > after) {
            c->handed[i] = 0;
        }
    }
}

static void p_checkpoint(void *driver, int64_t settled, struct source_blob *blob)
{
    (void)driver;
    blob->size = settled == 0 ? 0 : 8;
    put_le64(blob->data, (uint64_t)settled);
}

static enum ferry_err p_mark_open(void *driver, struct bytes blob, struct source_mark **mark,
                                  bool *same, bool *again, struct err_text *e)
{
    struct connection *c = driver;
    *same = true;
    *again = false;
    if (fails(c, e)) {
        return FERRY_ERR_DB_RETRY;
    }
    struct source_mark *m = mark_new(c);
    m->count = blob.size / 8;
    m->acked = m->count;
    for (size_t i = 0; i < m->count; i++) {
        m->ids[i] = (int64_t)get_le64(blob.data + i * 8);
    }
    *mark = m;
    return FERRY_OK;
}

static void p_mark_close(void *driver, struct source_mark *mark)
{
    (void)driver;
    must(mark->used);
    mark->used = false;
}

static bool p_wants(void *driver, const struct source_mark *mark, const struct source_row *row)
{
    (void)driver;
    must(mark->used);
    for (size_t i = 0; i < mark->count; i++) {
        if (mark->ids[i] == row->number) {
            return false;
        }
    }
    return true;
}

static size_t p_mark_encode(void *driver, const struct source_mark *mark,
                            const struct source_row *const *rows, size_t count, bool last,
                            struct source_blob *blob)
{
    const struct connection *c = driver;
    size_t room = mark->count < c->db->mark_ids ? c->db->mark_ids - mark->count : 0;
    (void)last;
    count = count < room ? count : room;
    for (size_t i = 0; i < mark->count; i++) {
        put_le64(blob->data + i * 8, (uint64_t)mark->ids[i]);
    }
    for (size_t i = 0; i < count; i++) {
        put_le64(blob->data + (mark->count + i) * 8, (uint64_t)rows[i]->number);
    }
    blob->size = (mark->count + count) * 8;
    return count;
}

static enum ferry_err p_mark_add(void *driver, struct source_mark *mark,
                                 const struct source_row *const *rows, size_t count, bool last)
{
    struct connection *c = driver;
    (void)last;
    if (c->db->error_in > 0 && prng_below(c->db->prng, 200) == 0) {
        return FERRY_ERR_NO_MEMORY;
    }
    for (size_t i = 0; i < count; i++) {
        mark->ids[mark->count++] = rows[i]->number;
    }
    return FERRY_OK;
}

static void p_mark_acked(void *driver, struct source_mark *mark, size_t count)
{
    (void)driver;
    mark->acked += count;
    must(mark->acked <= mark->count);
}

static enum ferry_err p_tidy(void *driver, const struct source_progress *progress, size_t *removed,
                             bool *again, struct err_text *e)
{
    struct connection *c = driver;
    (void)progress;
    if (fails(c, e)) {
        return FERRY_ERR_DB_RETRY;
    }
    for (size_t i = 0; i < DB_MARKS_MAX; i++) {
        struct source_mark *m = &c->marks[i];
        size_t count = m->used ? prng_below(c->db->prng, m->acked + 1) : 0;
        for (size_t j = 0; j < count; j++) {
            c->db->rows[m->ids[j] - 1].deleted = true;
        }
        if (m->used) {
            memmove(m->ids, m->ids + count, (m->count - count) * sizeof(m->ids[0]));
            m->count -= count;
            m->acked -= count;
            *again = *again || m->acked > 0;
        }
        *removed += count;
    }
    return FERRY_OK;
}

/* ---- snapshot. A checkpoint is {base, upper of the tick being read, or 0}; a mark is {base,
 * upper or 0, high}. */

static enum ferry_err s_begin(void *driver, struct bytes checkpoint, int64_t *settled, bool *same,
                              struct err_text *e)
{
    struct connection *c = driver;
    if (fails(c, e)) {
        return FERRY_ERR_DB_RETRY;
    }
    c->base = checkpoint.size == 0 ? 0 : get_le64(checkpoint.data);
    c->upper = checkpoint.size == 0 ? 0 : get_le64(checkpoint.data + 8);
    c->ticking = c->upper > c->base;
    c->upper = c->ticking ? c->upper : c->base;
    c->begun = c->base;
    c->tick_at = 0;
    c->tick_count = 0;
    c->extra_count = 0;
    c->page_is_extra = false;
    c->page_is_last = false;
    *settled = c->given;
    *same = true;
    return FERRY_OK;
}

static uint64_t base_at(const struct connection *c, int64_t position, size_t *ticks)
{
    size_t n = c->tick_count;
    while (n > 0 && c->ticks[n - 1].end > position) {
        n--;
    }
    if (ticks != NULL) {
        *ticks = n;
    }
    return n == 0 ? c->begun : c->ticks[n - 1].upper;
}

static void s_rewind(void *driver, int64_t after)
{
    struct connection *c = driver;
    size_t kept = 0;
    c->base = base_at(c, after, &kept);
    c->tick_count = kept;
    c->tick_at = 0;
    c->ticking = c->upper > c->base;
    c->extra_at = c->extra_count > 0 ? c->extra[0]->high : 0;
    c->page_is_extra = false;
    c->page_is_last = false;
}

static void s_checkpoint(void *driver, int64_t settled, struct source_blob *blob)
{
    const struct connection *c = driver;
    blob->size = 16;
    put_le64(blob->data, base_at(c, settled, NULL));
    put_le64(blob->data + 8, c->upper);
}

/* Rows committed in (base, upper] with numbers above `at`, by number; *at moves. True: the end. */
static bool s_fill(struct connection *c, struct source_page *page, size_t rows_max, uint64_t base,
                   uint64_t upper, int64_t *at)
{
    for (size_t i = (size_t)*at; i < c->db->count; i++) {
        const struct db_row *row = &c->db->rows[i];
        if (row->commit > base && row->commit <= upper) {
            if (page->count == rows_max) {
                return false;
            }
            *at = row->number;
            must(row->deleted || add_row(c, page, row)); /* Whoever sleeps may miss deleted ones. */
        }
    }
    return true;
}

/* What the last page said is done by now: its rows are in the marks. */
static void s_end_extra(struct connection *c)
{
    struct source_mark *m = c->extra[0];
    m->base = m->upper;
    m->upper = 0;
    m->high = 0;
    c->extra_count--;
    memmove((void *)c->extra, (void *)(c->extra + 1), c->extra_count * sizeof(c->extra[0]));
    c->extra_at = c->extra_count > 0 ? c->extra[0]->high : 0;
}

static void s_end_tick(struct connection *c)
{
    must(c->tick_count < TICKS_MAX);
    c->ticks[c->tick_count++] = (struct tick){c->given, c->upper};
    c->ticking = false;
    for (size_t i = 0; i < DB_MARKS_MAX; i++) {
        struct source_mark *m = &c->marks[i];
        if (m->used && m->base < c->upper && m->upper <= c->upper) {
            m->base = c->upper;
            m->upper = 0;
            m->high = 0;
        }
    }
}

static enum ferry_err s_read(void *driver, size_t rows_max, size_t bytes_max,
                             struct source_page *page, bool *more, struct err_text *e)
{
    struct connection *c = driver;
    (void)bytes_max;
    source_page_clear(page);
    if (fails(c, e)) {
        return FERRY_ERR_DB_RETRY;
    }
    *more = true;
    if (c->extra_count > 0) {
        if (c->page_is_extra && c->page_is_last && c->page_mark == c->extra[0]) {
            s_end_extra(c);
            c->page_is_extra = false;
            c->page_is_last = false;
            return FERRY_OK; /* An empty page; there is more. */
        }
        const struct source_mark *m = c->extra[0];
        c->page_is_extra = true;
        c->page_mark = m;
        c->page_is_last = s_fill(c, page, rows_max, m->base, m->upper, &c->extra_at);
        return FERRY_OK;
    }
    if (c->ticking && !c->page_is_extra && c->page_is_last) {
        s_end_tick(c);
    }
    c->page_is_extra = false;
    if (!c->ticking) {
        c->base = c->upper;
        c->upper = c->db->commits;
        c->tick_at = 0;
        c->ticking = c->upper > c->base;
        if (!c->ticking) {
            c->page_is_last = false;
            *more = false;
            return FERRY_OK;
        }
    }
    c->page_is_last = s_fill(c, page, rows_max, c->base, c->upper, &c->tick_at);
    return FERRY_OK;
}

static enum ferry_err s_mark_open(void *driver, struct bytes blob, struct source_mark **mark,
                                  bool *same, bool *again, struct err_text *e)
{
    struct connection *c = driver;
    *same = true;
    *again = false;
    if (fails(c, e)) {
        return FERRY_ERR_DB_RETRY;
    }
    struct source_mark *m = mark_new(c);
    if (blob.size > 0) {
        m->base = get_le64(blob.data);
        m->upper = get_le64(blob.data + 8);
        m->high = (int64_t)get_le64(blob.data + 16);
    }
    if (m->upper != 0 && !(c->ticking && m->upper == c->upper)) {
        c->extra[c->extra_count++] = m;
        *again = true;
    }
    *mark = m;
    return FERRY_OK;
}

static void s_mark_close(void *driver, struct source_mark *mark)
{
    struct connection *c = driver;
    size_t kept = 0;
    must(mark->used);
    mark->used = false;
    for (size_t i = 0; i < c->extra_count; i++) {
        if (c->extra[i] != mark) {
            c->extra[kept++] = c->extra[i];
        }
    }
    c->extra_count = kept;
    c->extra_at = kept > 0 ? c->extra[0]->high : 0;
    if (c->page_is_extra && c->page_mark == mark) { /* Its page means nothing any more. */
        c->page_mark = NULL;
        c->page_is_last = false;
    }
}

static bool s_wants(void *driver, const struct source_mark *mark, const struct source_row *row)
{
    const struct connection *c = driver;
    must(mark->used);
    if (c->page_is_extra && c->page_mark != mark) {
        return false;
    }
    return row->transaction > mark->base &&
           !(row->transaction <= mark->upper && row->number <= mark->high);
}

static void s_move(const struct connection *c, struct source_mark *m,
                   const struct source_row *const *rows, size_t count, bool last)
{
    uint64_t upper = c->page_is_extra ? m->upper : c->upper;
    must(m->upper == 0 || m->upper == upper);
    m->upper = upper;
    m->high = rows[count - 1]->number;
    if (last && c->page_is_last && !c->page_is_extra) {
        m->base = upper;
        m->upper = 0;
        m->high = 0;
    }
}

static size_t s_mark_encode(void *driver, const struct source_mark *mark,
                            const struct source_row *const *rows, size_t count, bool last,
                            struct source_blob *blob)
{
    struct source_mark m = *mark;
    s_move(driver, &m, rows, count, last);
    put_le64(blob->data, m.base);
    put_le64(blob->data + 8, m.upper);
    put_le64(blob->data + 16, (uint64_t)m.high);
    blob->size = 24;
    return count;
}

static enum ferry_err s_mark_add(void *driver, struct source_mark *mark,
                                 const struct source_row *const *rows, size_t count, bool last)
{
    struct connection *c = driver;
    if (c->db->error_in > 0 && prng_below(c->db->prng, 200) == 0) {
        return FERRY_ERR_NO_MEMORY;
    }
    s_move(c, mark, rows, count, last);
    return FERRY_OK;
}

static void s_mark_acked(void *driver, struct source_mark *mark, size_t count)
{
    (void)driver;
    (void)count;
    must(mark->used);
}

static enum ferry_err s_tidy(void *driver, const struct source_progress *progress, size_t *removed,
                             bool *again, struct err_text *e)
{
    struct connection *c = driver;
    *again = false;
    if (fails(c, e)) {
        return FERRY_ERR_DB_RETRY;
    }
    must(progress->checkpointed <= progress->settled);
    uint64_t base = base_at(c, progress->checkpointed, NULL);
    for (size_t i = 0; i < c->db->count; i++) {
        struct db_row *row = &c->db->rows[i];
        if (row->commit != 0 && row->commit <= base && !row->deleted) {
            row->deleted = true;
            (*removed)++;
        }
    }
    return FERRY_OK;
}

static const struct source_ops pending_ops = {
    .close = c_close,
    .id = c_id,
    .name = c_name,
    .begin = p_begin,
    .read = p_read,
    .rewind = p_rewind,
    .changed = c_changed,
    .checkpoint = p_checkpoint,
    .mark_open = p_mark_open,
    .mark_close = p_mark_close,
    .wants = p_wants,
    .mark_encode = p_mark_encode,
    .mark_add = p_mark_add,
    .mark_acked = p_mark_acked,
    .tidy = p_tidy,
    .set_aside = c_set_aside,
    .parked = c_parked,
};

static const struct source_ops snapshot_ops = {
    .close = c_close,
    .id = c_id,
    .name = c_name,
    .begin = s_begin,
    .read = s_read,
    .rewind = s_rewind,
    .changed = c_changed,
    .checkpoint = s_checkpoint,
    .mark_open = s_mark_open,
    .mark_close = s_mark_close,
    .wants = s_wants,
    .mark_encode = s_mark_encode,
    .mark_add = s_mark_add,
    .mark_acked = s_mark_acked,
    .tidy = s_tidy,
    .set_aside = c_set_aside,
    .parked = c_parked,
};

enum ferry_err db_source_open(struct source *source, struct db *db, enum db_kind kind)
{
    struct connection *c = calloc(1, sizeof(*c));
    if (c == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    c->db = db;
    *source = (struct source){kind == DB_PENDING ? &pending_ops : &snapshot_ops, c};
    return FERRY_OK;
}
