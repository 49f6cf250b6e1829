/* Writing: deletions, which are the barrier too, and setting rows aside. Each is one compound
 * statement with a transaction in it, so that it is one round trip and can be waited for later. */
#include <string.h>

#include "base/clock.h"
#include "outbox/mariadb/source_mariadb.h"

#define STAMP_DIFFERS    50001 /* Our own, by SIGNAL. */
#define NOT_PARKED       50002
#define DELETE_EARLY     1024u       /* So many due rows are deleted at once, */
#define DELETE_LATEST_US (20 * 1000) /* fewer after so long. */
#define RUN_MIN          16u         /* So many ids one after another are deleted as a range. */

/* ---- The frame of every transaction. */

static void write_begin(struct source_mariadb *s)
{
    buf_printf(maria_link_write(&s->writer),
               "BEGIN NOT ATOMIC "
               "DECLARE EXIT HANDLER FOR SQLEXCEPTION BEGIN ROLLBACK; RESIGNAL; END; "
               "START TRANSACTION; "
               "UPDATE ferry_meta SET value = '%llu' WHERE name = '%s' AND value = '%llu'; "
               "IF ROW_COUNT() <> 1 THEN SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = %d, "
               "MESSAGE_TEXT = 'the delete stamp differs'; END IF; ",
               (unsigned long long)s->stamp + 1, s->stamp_name, (unsigned long long)s->stamp,
               STAMP_DIFFERS);
}

static void write_end(struct source_mariadb *s)
{
    buf_printf(&s->writer.sql, "COMMIT; END");
}

/* Another relay has raised the stamp, or the database was set back. */
static enum ferry_err stamp_differs(struct source_mariadb *s, struct err_text *e)
{
    struct source_spot none = {.stamp = s->stamp};
    bool same = true;
    enum ferry_err err = source_maria_compare(s, &none, &same, e);
    if (err != FERRY_OK) {
        return err;
    }
    return err_set(e, FERRY_ERR_DB_RETRY, "%s",
                   same ? "another relay deletes from this outbox as well" : s->behind.text);
}

static enum ferry_err write_take(struct source_mariadb *s, struct err_text *e)
{
    enum ferry_err err = maria_link_take(&s->writer, NULL, e);
    if (err == FERRY_OK) {
        s->stamp++;
        return FERRY_OK;
    }
    if (s->writer.state == MARIA_UP && mysql_errno(s->writer.mysql) == STAMP_DIFFERS) {
        return stamp_differs(s, e);
    }
    /* Lost on the way: whether it was committed the next one finds out by the stamp. */
    return err;
}

/* ---- Deletions. */

/* How many rows from `at` on can be deleted as a range: all of its ids are ours, and their rows are
 * in the table. Looking for a range's end InnoDB locks the row behind it, and waits for it if it is
 * somebody's who has not committed: so the last row of a run is no part of the range, and stands
 * behind it. */
static size_t range_rows(const struct source_mariadb *s, size_t at)
{
    size_t end = at;
    while (!s->deletion_failed && end < s->deleting_count &&
           s->deleting[end] - s->deleting[at] == end - at) {
        const struct handout_row *row = handout_find(&s->handout, s->deleting[end]);
        if (row == NULL || row->gone) {
            break;
        }
        end++;
    }
    return end - at >= RUN_MIN ? end - at - 1 : 0;
}

static void write_ranges(struct source_mariadb *s)
{
    for (size_t i = 0; i < s->deleting_count;) {
        size_t range = range_rows(s, i);
        if (range > 0) {
            buf_printf(&s->writer.sql, "DELETE FROM ferry_outbox WHERE id BETWEEN %llu AND %llu; ",
                       (unsigned long long)s->deleting[i],
                       (unsigned long long)s->deleting[i + range - 1]);
        }
        i += range > 0 ? range : 1;
    }
}

static void write_singles(struct source_mariadb *s)
{
    size_t singles = 0;
    for (size_t i = 0; i < s->deleting_count;) {
        size_t range = range_rows(s, i);
        if (range == 0) {
            buf_printf(&s->writer.sql, "%s%llu",
                       singles++ == 0 ? "DELETE FROM ferry_outbox WHERE id IN (" : ",",
                       (unsigned long long)s->deleting[i]);
        }
        i += range > 0 ? range : 1;
    }
    if (singles > 0) {
        buf_printf(&s->writer.sql, "); ");
    }
}

static size_t at_most(const struct source_mariadb *s, size_t most)
{
    uint64_t option = s->options.delete_rows > 0 ? (uint64_t)s->options.delete_rows : most;
    most = most < SOURCE_DELETE_MAX ? most : SOURCE_DELETE_MAX;
    return option < most ? (size_t)option : most;
}

enum ferry_err source_delete_send(struct source_mariadb *s, size_t most, struct err_text *e)
{
    must(!s->writing);
    enum ferry_err err = maria_link_ready(&s->writer, e);
    if (err != FERRY_OK) {
        return err;
    }
    s->deleting_count = handout_take(&s->handout, s->deleting, at_most(s, most));
    write_begin(s);
    write_ranges(s);
    write_singles(s);
    write_end(s);
    err = maria_link_send(&s->writer, e);
    if (err != FERRY_OK) {
        handout_not_deleted(&s->handout, s->deleting, s->deleting_count);
        return err;
    }
    s->writing = true;
    return FERRY_OK;
}

enum ferry_err source_delete_take(struct source_mariadb *s, struct err_text *e)
{
    must(s->writing);
    s->writing = false;
    int64_t sent_us = s->writer.since_us;
    enum ferry_err err = s->writer.state == MARIA_UP
                             ? write_take(s, e)
                             : err_set(e, FERRY_ERR_DB_RETRY, "%s", s->writer.why.text);
    s->deleted_at_us = clock_monotonic_us();
    s->deletion_failed = err != FERRY_OK;
    if (err != FERRY_OK) {
        handout_not_deleted(&s->handout, s->deleting, s->deleting_count);
        return err;
    }
    s->barriers++;
    s->barrier_us += (uint64_t)(s->deleted_at_us - sent_us);
    s->removed += s->deleting_count;
    handout_deleted(&s->handout, s->deleting, s->deleting_count);
    source_marks_forget(s, s->deleting, s->deleting_count);
    return FERRY_OK;
}

static bool deletion_is_due(const struct source_mariadb *s, const struct source_progress *progress)
{
    size_t due = s->handout.due_count;
    return due >= DELETE_EARLY ||
           (due > 0 && (progress->quiet || progress->stopping ||
                        clock_monotonic_us() - s->deleted_at_us >= DELETE_LATEST_US));
}

enum ferry_err source_maria_tidy(void *driver, const struct source_progress *progress,
                                 size_t *removed, bool *again, struct err_text *e)
{
    struct source_mariadb *s = driver;
    enum ferry_err err = FERRY_OK;
    handout_settle(&s->handout, progress->settled);
    if (s->writing &&
        (progress->stopping || maria_link_has_result(&s->writer) || s->writer.state != MARIA_UP)) {
        err = source_delete_take(s, e);
    }
    if (err == FERRY_OK && !s->writing && deletion_is_due(s, progress)) {
        err = source_delete_send(s, SOURCE_DELETE_MAX, e);
        if (err == FERRY_OK && progress->stopping) {
            err = source_delete_take(s, e);
        }
    }
    *removed = s->removed;
    s->removed = 0;
    *again = err == FERRY_OK && !s->writing && s->handout.due_count >= DELETE_EARLY;
    return err;
}

/* ---- Setting aside. */

static void write_key(struct source_mariadb *s, const struct source_row *row)
{
    maria_sql_text(&s->writer, bytes_of_string(row->message.topic));
    buf_printf(&s->writer.sql, " AND mkey = ");
    maria_sql_bytes(&s->writer, bytes_of(row->message.key, row->message.key_bytes));
}

static void write_park(struct source_mariadb *s, const struct source_row *row)
{
    buf_printf(&s->writer.sql, "INSERT INTO ferry_parked_key (lane, topic, mkey) VALUES (%u, ",
               s->options.lane);
    maria_sql_text(&s->writer, bytes_of_string(row->message.topic));
    buf_printf(&s->writer.sql, ", ");
    maria_sql_bytes(&s->writer, bytes_of(row->message.key, row->message.key_bytes));
    /* Parked anew after it was free: from now on. */
    buf_printf(&s->writer.sql,
               ") ON DUPLICATE KEY UPDATE since_ms = IF(until_no = 0, since_ms, VALUES(since_ms)), "
               "until_no = 0; ");
}

/* Holds the key's row so that nobody unparks it meanwhile. A row that is gone was moved by an
 * unpark: then there is nothing to do. */
static void write_if_parked(struct source_mariadb *s, const struct source_row *row)
{
    buf_printf(&s->writer.sql,
               "SET @ferry_until = 1, @ferry_waits = 0; SELECT until_no INTO @ferry_until FROM "
               "ferry_parked_key WHERE lane = %u AND topic = ",
               s->options.lane);
    write_key(s, row);
    buf_printf(&s->writer.sql,
               " FOR UPDATE; SELECT COUNT(*) INTO @ferry_waits FROM ferry_outbox WHERE id = %lld "
               "FOR UPDATE; IF @ferry_until <> 0 AND @ferry_waits > 0 THEN SIGNAL SQLSTATE '45000' "
               "SET MYSQL_ERRNO = %d, MESSAGE_TEXT = 'the key is not parked'; END IF; ",
               (long long)row->number, NOT_PARKED);
}

static void write_copy(struct source_mariadb *s, int64_t number, bool parked, const char *reason)
{
    buf_printf(&s->writer.sql,
               "INSERT IGNORE INTO ferry_outbox_dead (id, lane, topic, mkey, msg_id, headers, "
               "payload, created_ms, parked, reason) SELECT id, lane, topic, mkey, msg_id, "
               "headers, payload, created_ms, %d, ",
               parked ? 1 : 0);
    maria_sql_text(&s->writer, bytes_of_string(reason));
    buf_printf(&s->writer.sql,
               " FROM ferry_outbox WHERE id = %lld; DELETE FROM ferry_outbox WHERE id = %lld; ",
               (long long)number, (long long)number);
}

static enum ferry_err finish_deletion(struct source_mariadb *s, struct err_text *e)
{
    return s->writing ? source_delete_take(s, e) : FERRY_OK;
}

enum ferry_err source_maria_set_aside(void *driver, const struct source_row *row,
                                      enum source_aside why, const char *reason, bool *done,
                                      struct err_text *e)
{
    struct source_mariadb *s = driver;
    struct bytes key = bytes_of(row->message.key, row->message.key_bytes);
    bool can_park = key.data != NULL && key.size <= SOURCE_KEY_MAX;
    *done = false;
    if (why == SOURCE_ASIDE_PARKED && !can_park) {
        return FERRY_OK;
    }
    enum ferry_err err = finish_deletion(s, e);
    if (err == FERRY_OK) {
        err = maria_link_ready(&s->writer, e);
    }
    if (err != FERRY_OK) {
        return err;
    }
    write_begin(s);
    if (why == SOURCE_ASIDE_PARK && can_park) {
        write_park(s, row);
    } else if (why == SOURCE_ASIDE_PARKED) {
        write_if_parked(s, row);
    }
    write_copy(s, row->number, why == SOURCE_ASIDE_PARKED, reason);
    write_end(s);
    err = maria_link_send(&s->writer, e);
    if (err == FERRY_OK) {
        err = write_take(s, e);
    }
    if (err != FERRY_OK) {
        bool not_parked = s->writer.state == MARIA_UP && mysql_errno(s->writer.mysql) == NOT_PARKED;
        return not_parked ? FERRY_OK : err;
    }
    handout_removed(&s->handout, (uint64_t)row->number);
    *done = true;
    return FERRY_OK;
}
