/* Reading: pages of rows, what came late, and whether anything came at all. */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "outbox/mariadb/source_mariadb.h"
#include "outbox/relay/source_headers.h"

#define READ_ATTEMPTS   16         /* Of one call. */
#define BARRIER_DELETES 256u       /* Rows that are deleted while a page waits. */
#define DRAIN_BYTES_MAX (1u << 20) /* More than this of an unread result costs the connection. */
/* A comparison of the whole table that took no longer than this is made each time, before a page
 * goes out and when nothing goes on; a dearer one so that it takes a twentieth of the time. */
#define CHEAP_PAGE_US 5000
#define CHEAP_LOOK_US 500
#define FULL_SHARE    20
#define IDS_APART     1000000u /* More than other lanes may be ahead of this one. */
#define RECENT_IDS    4096u    /* What is compared each time reaches so far below the last whole. */

enum column {
    COLUMN_ID,
    COLUMN_TOPIC,
    COLUMN_KEY,
    COLUMN_MESSAGE,
    COLUMN_HEADERS,
    COLUMN_PAYLOAD,
    COLUMN_CREATED,
    COLUMN_COUNT
};

/* ---- One row. */

/* Rows next to each other mostly have one topic: its name is kept once. */
static const char *row_topic(struct source_page *page, struct bytes topic)
{
    if (page->count >= 2) {
        const char *before = page->rows[page->count - 2].message.topic;
        if (topic.data != NULL && strlen(before) == topic.size &&
            memcmp(before, topic.data, topic.size) == 0) {
            return before;
        }
    }
    return source_page_text(page, topic);
}

static struct bytes column(MYSQL_ROW values, const unsigned long *sizes, enum column which)
{
    return bytes_of(values[which], values[which] == NULL ? 0 : sizes[which]);
}

static enum ferry_err row_key_and_payload(struct source_page *page, struct source_row *row,
                                          struct bytes key, struct bytes payload)
{
    char *memory = source_page_take(page, key.size + payload.size + 1);
    if (memory == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    if (key.size > 0) {
        memcpy(memory, key.data, key.size);
    }
    if (payload.size > 0) {
        memcpy(memory + key.size, payload.data, payload.size);
    }
    row->message.key = key.data != NULL ? memory : NULL;
    row->message.key_bytes = key.size;
    row->message.payload = memory + key.size;
    row->message.payload_bytes = payload.size;
    return FERRY_OK;
}

static enum ferry_err add_row(struct source_page *page, uint64_t id, MYSQL_ROW values,
                              const unsigned long *sizes)
{
    struct source_row *row = source_page_add(page);
    if (row == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    row->number = (int64_t)id;
    row->message.partition = FERRY_PARTITION_ANY;
    row->message.timestamp_ms = strtoll(values[COLUMN_CREATED], NULL, 10);
    row->message.topic = row_topic(page, column(values, sizes, COLUMN_TOPIC));
    if (row->message.topic == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    struct bytes message = column(values, sizes, COLUMN_MESSAGE);
    if (message.size == sizeof(row->message.id.bytes)) {
        memcpy(row->message.id.bytes, message.data, message.size);
    }
    struct bytes key = column(values, sizes, COLUMN_KEY);
    struct bytes headers = column(values, sizes, COLUMN_HEADERS);
    struct bytes payload = column(values, sizes, COLUMN_PAYLOAD);
    if (payload.data == NULL || key.size + headers.size + payload.size > SOURCE_ROW_MAX_BYTES) {
        return source_row_invalid(page, row, "the message is larger than any batch");
    }
    enum ferry_err err = source_headers(page, row, headers);
    return err == FERRY_OK ? row_key_and_payload(page, row, key, payload) : err;
}

/* ---- A page of rows behind the cursor. */

struct scan {
    uint64_t last;  /* Greatest id looked at. */
    size_t asked;   /* Rows of the statement's LIMIT. */
    size_t fetched; /* Rows that came. */
    bool ended;     /* The page is full. */
};

static bool scan_is_behind(const struct scan *scan)
{
    return scan->ended || scan->fetched == scan->asked;
}

/* Larger payloads than any batch holds are not even fetched. */
#define COLUMNS                                                                                    \
    "id, topic, mkey, msg_id, headers, IF(LENGTH(payload) <= %u, payload, NULL), created_ms "

static void write_row(struct source_mariadb *s, int64_t number)
{
    buf_printf(maria_link_write(&s->reader),
               "SELECT " COLUMNS "FROM ferry_outbox WHERE id = %lld AND lane = %u",
               SOURCE_ROW_MAX_BYTES, (long long)number, s->options.lane);
}

static void write_scan(struct source_mariadb *s, size_t rows, bool bare)
{
    struct buf *out = maria_link_write(&s->reader);
    if (bare) {
        buf_printf(out,
                   "SELECT id, topic, IF(LENGTH(mkey) <= %u, mkey, NULL), msg_id, NULL, '', "
                   "created_ms ",
                   SOURCE_PARKED_KEY_MAX);
    } else {
        buf_printf(out, "SELECT " COLUMNS, SOURCE_ROW_MAX_BYTES);
    }
    buf_printf(out,
               "FROM ferry_outbox FORCE INDEX (%s) WHERE id > %llu AND lane = %u "
               "ORDER BY id LIMIT %zu",
               s->index, (unsigned long long)s->cursor, s->options.lane, rows);
}

/* The column is unsigned, numbers of rows are not. What is before it goes on. */
static enum ferry_err beyond_numbers(const struct source_mariadb *s, uint64_t id,
                                     const struct source_page *page, struct scan *scan,
                                     struct err_text *e)
{
    if (page->count > 0) {
        scan->ended = true;
        return FERRY_OK;
    }
    return err_set(e, FERRY_ERR_DB,
                   "%s: row %llu cannot be published: somebody gave it an id above %lld. Put it "
                   "again without an id, delete it, then ALTER TABLE ferry_outbox "
                   "AUTO_INCREMENT=%llu (never at or below an id that was published)",
                   s->url.shown, (unsigned long long)id, (long long)INT64_MAX,
                   (unsigned long long)s->handout.top + IDS_APART);
}

static enum ferry_err fetch_rows(struct source_mariadb *s, MYSQL_RES *result, size_t rows_max,
                                 size_t bytes_max, struct source_page *page, struct scan *scan,
                                 struct err_text *e)
{
    MYSQL_ROW values;
    enum ferry_err err = FERRY_OK;
    while (err == FERRY_OK && !scan->ended && (values = mysql_fetch_row(result)) != NULL) {
        uint64_t id = strtoull(values[COLUMN_ID], NULL, 10);
        scan->fetched++;
        if (id > INT64_MAX) {
            err = beyond_numbers(s, id, page, scan, e);
            continue;
        }
        scan->last = id;
        if (handout_find(&s->handout, id) == NULL) {
            err = add_row(page, id, values, mysql_fetch_lengths(result));
            scan->ended = page->count == rows_max || page->bytes >= bytes_max;
        }
    }
    return err;
}

/* What is left of a result is read away, unless it is so much that a new connection costs less. */
static void give_up_rest(struct source_mariadb *s, size_t rows)
{
    if (rows * s->row_bytes > DRAIN_BYTES_MAX) {
        shutdown(mysql_get_socket(s->reader.mysql), SHUT_RDWR);
    }
}

static enum ferry_err scan_some(struct source_mariadb *s, size_t rows_max, size_t bytes_max,
                                struct source_page *page, struct scan *scan, struct err_text *e)
{
    MYSQL_RES *result = NULL;
    size_t by_bytes = bytes_max / s->row_bytes + 1;
    *scan = (struct scan){.last = s->cursor};
    scan->asked = rows_max < by_bytes ? rows_max : by_bytes;
    enum ferry_err err = maria_link_ready(&s->reader, e);
    if (err != FERRY_OK) {
        return err;
    }
    write_scan(s, scan->asked, bytes_max == 0);
    err = maria_link_send(&s->reader, e);
    if (err == FERRY_OK) {
        err = maria_link_take(&s->reader, &result, e);
    }
    if (err != FERRY_OK) {
        return err;
    }
    err = fetch_rows(s, result, rows_max, bytes_max, page, scan, e);
    if (page->count > 0) {
        s->row_bytes = (s->row_bytes + page->bytes / page->count + 64) / 2;
    }
    if (scan->ended && scan->fetched < scan->asked) {
        give_up_rest(s, scan->asked - scan->fetched);
        mysql_free_result(result);
        if (mysql_errno(s->reader.mysql) != 0) {
            maria_link_drop(&s->reader);
        }
        return err;
    }
    enum ferry_err ended = maria_link_done(&s->reader, result, e);
    return err == FERRY_OK ? ended : err;
}

/* ---- Comparing. */

static bool sums_equal(struct handout_sum a, struct handout_sum b)
{
    return a.count == b.count && a.ids == b.ids;
}

static bool full_is_due(const struct source_mariadb *s, int64_t cheap_us, int64_t now_us)
{
    int64_t pause_us = s->full_us * FULL_SHARE;
    return s->full_us <= cheap_us ||
           now_us - s->full_at_us >= (pause_us < SOURCE_SWEEP_US ? pause_us : SOURCE_SWEEP_US);
}

/* What the rows on their way to deletion take from the sum, if the table has them no more. */
static struct handout_sum sum_without_deleting(const struct source_mariadb *s,
                                               struct handout_sum sum, bool recent,
                                               uint64_t through)
{
    for (size_t i = 0; s->writing && i < s->deleting_count; i++) {
        uint64_t id = s->deleting[i];
        const struct handout_row *row = handout_find(&s->handout, id);
        if (row != NULL && !row->gone && id <= through && (!recent || id > s->handout.low)) {
            sum.count--;
            sum.ids ^= id;
        }
    }
    return sum;
}

/* A comparison that was sent. */
struct comparison {
    uint64_t through;
    bool recent;
    struct handout_sum page; /* Rows of the page in hand. */
    int64_t since_us;
};

static enum ferry_err comparison_send(struct source_mariadb *s, uint64_t through,
                                      const struct source_page *page, struct comparison *c,
                                      struct err_text *e)
{
    *c = (struct comparison){.through = through, .since_us = clock_monotonic_us()};
    c->recent = !full_is_due(s, page == NULL ? CHEAP_LOOK_US : CHEAP_PAGE_US, c->since_us);
    for (size_t i = 0; page != NULL && i < page->count; i++) {
        uint64_t id = (uint64_t)page->rows[i].number;
        if (!c->recent || id > s->handout.low) {
            handout_sum_add(&c->page, id);
        }
    }
    enum ferry_err err = maria_link_ready(&s->reader, e);
    if (err != FERRY_OK) {
        return err;
    }
    buf_printf(maria_link_write(&s->reader),
               "SELECT COUNT(*), BIT_XOR(id), (SELECT 1 FROM ferry_outbox FORCE INDEX (%s) "
               "WHERE id > %llu AND lane = %u ORDER BY id LIMIT 1) FROM ferry_outbox FORCE INDEX "
               "(%s) WHERE id > %llu AND id <= %llu AND lane = %u",
               s->index, (unsigned long long)through, s->options.lane, s->index,
               (unsigned long long)(c->recent ? s->handout.low : 0), (unsigned long long)through,
               s->options.lane);
    return maria_link_send(&s->reader, e);
}

/* *equal: the table has what it should. *beyond: and something behind. */
static enum ferry_err comparison_take(struct source_mariadb *s, const struct comparison *c,
                                      bool *equal, bool *beyond, struct err_text *e)
{
    MYSQL_RES *result = NULL;
    struct handout_sum is = {0};
    enum ferry_err err = maria_link_take(&s->reader, &result, e);
    if (err != FERRY_OK) {
        s->full_us = c->recent ? s->full_us : SOURCE_SWEEP_US; /* Too dear, it may be. */
        s->full_at_us = clock_monotonic_us();
        return err;
    }
    MYSQL_ROW row = mysql_fetch_row(result);
    if (row != NULL) {
        is.count = strtoll(row[0], NULL, 10);
        is.ids = strtoull(row[1], NULL, 10);
        *beyond = row[2] != NULL;
    }
    err = maria_link_done(&s->reader, result, e);
    struct handout_sum expected = handout_expected(&s->handout, c->recent, c->through);
    expected.count += c->page.count;
    expected.ids ^= c->page.ids;
    *equal = sums_equal(is, expected) ||
             sums_equal(is, sum_without_deleting(s, expected, c->recent, c->through));
    if (!c->recent) {
        s->full_at_us = clock_monotonic_us();
        s->full_us = s->full_at_us - c->since_us;
        if (*equal && s->full_us > CHEAP_LOOK_US) {
            uint64_t low = s->handout.top > RECENT_IDS ? s->handout.top - RECENT_IDS : 0;
            handout_set_low(&s->handout, low);
        }
    }
    return err;
}

/* ---- Sweeping. */

static bool page_has(const struct source_page *page, uint64_t id)
{
    size_t low = 0;
    size_t high = page == NULL ? 0 : page->count; /* Its rows have rising ids. */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if ((uint64_t)page->rows[middle].number < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return page != NULL && low < page->count && (uint64_t)page->rows[low].number == id;
}

/* Lists the ids of the table (of what is recent) up to `through`. *late: the least that is neither
 * handed out nor in the page; 0: none. */
static enum ferry_err sweep(struct source_mariadb *s, bool recent, uint64_t through,
                            const struct source_page *page, uint64_t *late, struct err_text *e)
{
    MYSQL_RES *result = NULL;
    uint64_t after = recent ? s->handout.low : 0;
    *late = 0;
    enum ferry_err err = maria_link_ready(&s->reader, e);
    if (err != FERRY_OK) {
        return err;
    }
    buf_printf(maria_link_write(&s->reader),
               "SELECT id FROM ferry_outbox FORCE INDEX (%s) WHERE id > %llu AND id <= %llu AND "
               "lane = %u ORDER BY id",
               s->index, (unsigned long long)after, (unsigned long long)through, s->options.lane);
    err = maria_link_send(&s->reader, e);
    if (err == FERRY_OK) {
        err = maria_link_take(&s->reader, &result, e);
    }
    if (err != FERRY_OK) {
        return err;
    }
    handout_sweep_begin(&s->handout);
    MYSQL_ROW row;
    while ((row = mysql_fetch_row(result)) != NULL) {
        uint64_t id = strtoull(row[0], NULL, 10);
        if (!handout_sweep_id(&s->handout, id) && *late == 0 && !page_has(page, id)) {
            *late = id;
        }
    }
    err = maria_link_done(&s->reader, result, e);
    if (err == FERRY_OK) {
        handout_sweep_end(&s->handout, after, through);
    }
    return err;
}

static void cursor_back(struct source_mariadb *s, uint64_t late)
{
    if (late != 0 && late - 1 < s->cursor) {
        s->cursor = late - 1;
    }
}

/* ---- The page is good: it is on disk, and nothing before it is missing. */

static void page_cut(struct source_page *page, uint64_t late)
{
    while (page->count > 0 && (uint64_t)page->rows[page->count - 1].number > late) {
        page->count--;
    }
}

/* Takes back what a row before the last of the page has overtaken. *cut: something was. */
static enum ferry_err complete(struct source_mariadb *s, const struct comparison *c,
                               struct source_page *page, bool *cut, struct err_text *e)
{
    bool equal = true;
    bool beyond = false;
    uint64_t late = 0;
    *cut = false;
    enum ferry_err err = comparison_take(s, c, &equal, &beyond, e);
    if (err != FERRY_OK || equal) {
        return err;
    }
    err = sweep(s, c->recent, c->through, page, &late, e);
    if (err == FERRY_OK && late != 0) {
        page_cut(page, late);
        cursor_back(s, late);
        *cut = true;
    }
    return err;
}

static enum ferry_err make_good(struct source_mariadb *s, uint64_t through,
                                struct source_page *page, bool *cut, struct err_text *e)
{
    struct comparison c;
    enum ferry_err err = FERRY_OK;
    if (s->options.barrier) {
        /* One that began before the read proves nothing. */
        err = s->writing ? source_delete_take(s, e) : FERRY_OK;
        if (err == FERRY_OK) {
            err = source_delete_send(s, BARRIER_DELETES, e);
        }
    }
    if (err == FERRY_OK) {
        err = comparison_send(s, through, page, &c, e);
    }
    if (err == FERRY_OK) {
        err = complete(s, &c, page, cut, e);
    }
    if (s->options.barrier && s->writing) {
        enum ferry_err written = source_delete_take(s, err == FERRY_OK ? e : NULL);
        err = err == FERRY_OK ? written : err;
    }
    return err;
}

static void hand_out(struct source_mariadb *s, struct source_page *page)
{
    for (size_t i = 0; i < page->count; i++) {
        struct source_row *row = &page->rows[i];
        row->position = ++s->position;
        handout_add(&s->handout, (uint64_t)row->number, row->position, &row->message.id);
    }
}

/* One attempt: *again when it gave no rows although there may be some. */
static enum ferry_err read_once(struct source_mariadb *s, size_t rows_max, size_t bytes_max,
                                struct source_page *page, bool *more, bool *again,
                                struct err_text *e)
{
    struct scan scan;
    bool cut = false;
    source_page_clear(page);
    enum ferry_err err = scan_some(s, rows_max, bytes_max, page, &scan, e);
    if (err != FERRY_OK) {
        return err;
    }
    uint64_t before = s->cursor;
    s->cursor = scan.last;
    if (!scan_is_behind(&scan) && s->cursor < s->handout.top) {
        s->cursor = s->handout.top; /* The rows up to there are deleted, or come late. */
    }
    if (page->count > 0) {
        err = make_good(s, scan.last, page, &cut, e);
    }
    if (err != FERRY_OK) {
        s->cursor = before;
        return err;
    }
    *more = cut || scan_is_behind(&scan);
    *again = page->count == 0 && *more;
    hand_out(s, page);
    return FERRY_OK;
}

enum ferry_err source_maria_read(void *driver, size_t rows_max, size_t bytes_max,
                                 struct source_page *page, bool *more, struct err_text *e)
{
    struct source_mariadb *s = driver;
    enum ferry_err err = FERRY_OK;
    bool again = true;
    *more = false;
    source_page_clear(page);
    size_t room = handout_room(&s->handout);
    if (s->behind.text[0] != '\0') {
        return err_set(e, FERRY_ERR_DB_RETRY, "%s", s->behind.text); /* verify tells it. */
    }
    if (room == 0) {
        return FERRY_OK; /* Deletions make some. */
    }
    rows_max = rows_max < room ? rows_max : room;
    if (s->suspect) {
        uint64_t late = 0;
        err = sweep(s, !s->suspect_all, s->cursor, NULL, &late, e);
        if (err == FERRY_OK) {
            cursor_back(s, late);
            s->suspect = false;
            s->suspect_all = false;
        }
    }
    for (int i = 0; err == FERRY_OK && again && i < READ_ATTEMPTS; i++) {
        err = read_once(s, rows_max, bytes_max, page, more, &again, e);
    }
    if (err != FERRY_OK) {
        source_page_clear(page);
    }
    return err;
}

enum ferry_err source_maria_fetch(void *driver, struct source_page *page, bool *there,
                                  struct err_text *e)
{
    struct source_mariadb *s = driver;
    const struct source_row bare = page->rows[0];
    MYSQL_RES *result = NULL;
    MYSQL_ROW values = NULL;
    source_page_clear(page);
    enum ferry_err err = maria_link_ready(&s->reader, e);
    if (err == FERRY_OK) {
        write_row(s, bare.number);
        err = maria_link_send(&s->reader, e);
    }
    if (err == FERRY_OK) {
        err = maria_link_take(&s->reader, &result, e);
    }
    if (err != FERRY_OK) {
        return err;
    }
    if ((values = mysql_fetch_row(result)) != NULL) {
        err = add_row(page, (uint64_t)bare.number, values, mysql_fetch_lengths(result));
    }
    enum ferry_err ended = maria_link_done(&s->reader, result, e);
    err = err == FERRY_OK ? ended : err;
    if (err != FERRY_OK) {
        source_page_clear(page);
    }
    *there = page->count == 1;
    if (*there) {
        page->rows[0].position = bare.position;
    }
    return err;
}

enum ferry_err source_maria_changed(void *driver, bool *changed, struct err_text *e)
{
    struct source_mariadb *s = driver;
    struct comparison c;
    bool equal = true;
    bool beyond = false;
    *changed = false;
    if (handout_room(&s->handout) == 0) {
        return FERRY_OK;
    }
    enum ferry_err err = comparison_send(s, s->cursor, NULL, &c, e);
    if (err == FERRY_OK) {
        err = comparison_take(s, &c, &equal, &beyond, e);
    }
    if (err == FERRY_OK) {
        s->suspect = s->suspect || !equal;
        s->suspect_all = s->suspect_all || (!equal && !c.recent);
        *changed = s->suspect || beyond;
    }
    return err;
}

void source_maria_rewind(void *driver, int64_t after)
{
    struct source_mariadb *s = driver;
    cursor_back(s, handout_rewind(&s->handout, after));
}
