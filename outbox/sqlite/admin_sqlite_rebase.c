/* Rebase: a new id for the source, without the rows that are in the log; and rows for a bench. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/id.h"
#include "outbox/app/bench_put.h"
#include "outbox/sqlite/admin_sqlite.h"
#include "outbox/sqlite/relay_lock.h"
#include "wire/batch.h"

#define PAGE_ROWS         1000 /* Judged at a time, so that memory stays small. */
#define HEADERS_MAX_BYTES (1u << 20)

struct judged {
    int64_t number;
    enum outbox_verdict verdict;
};

struct page {
    struct judged rows[PAGE_ROWS];
    size_t count;
};

static enum ferry_err read_page(struct admin_file *f, int64_t after, outbox_judge_fn *judge,
                                void *arg, struct page *page, struct err_text *e)
{
    sqlite3_stmt *stmt = NULL;
    bool row = true;
    page->count = 0;
    enum ferry_err err = admin_sqlite_prepare(f,
                                              "SELECT id, msg_id, created_ms FROM ferry_outbox "
                                              "WHERE id > ?1 ORDER BY id LIMIT ?2",
                                              &stmt, e);
    if (err == FERRY_OK) {
        sqlite3_bind_int64(stmt, 1, after);
        sqlite3_bind_int64(stmt, 2, PAGE_ROWS);
    }
    while (err == FERRY_OK && (err = admin_sqlite_step(f, stmt, &row, e)) == FERRY_OK && row) {
        struct ferry_id id;
        admin_sqlite_id(stmt, 1, &id);
        page->rows[page->count++] = (struct judged){
            .number = sqlite3_column_int64(stmt, 0),
            .verdict = judge(&id, sqlite3_column_int64(stmt, 2), arg),
        };
    }
    sqlite3_finalize(stmt);
    return err;
}

static enum ferry_err delete_row(struct admin_file *f, int64_t number, struct err_text *e)
{
    sqlite3_stmt *stmt = NULL;
    enum ferry_err err =
        admin_sqlite_prepare(f, "DELETE FROM ferry_outbox WHERE id = ?1", &stmt, e);
    if (err == FERRY_OK) {
        sqlite3_bind_int64(stmt, 1, number);
        err = admin_sqlite_run(f, stmt, NULL, e);
    }
    return err;
}

/* The headers are text of JSON, a msgpack map, or none; the column keeps the kind it has. */
static enum ferry_err mark_row(struct admin_file *f, int64_t number, struct err_text *e)
{
    sqlite3_stmt *stmt = NULL;
    struct buf marked;
    bool row = false;
    buf_init(&marked, HEADERS_MAX_BYTES);
    enum ferry_err err = admin_sqlite_prepare(
        f, "SELECT headers, typeof(headers) FROM ferry_outbox WHERE id = ?1", &stmt, e);
    if (err == FERRY_OK) {
        sqlite3_bind_int64(stmt, 1, number);
        err = admin_sqlite_step(f, stmt, &row, e);
    }
    bool text = row && sqlite3_column_type(stmt, 0) == SQLITE_TEXT;
    if (err == FERRY_OK && row && !text) {
        err = batch_add_header(&marked, admin_sqlite_bytes(stmt, 0), OUTBOX_HEADER_DUPLICATE, "1");
        if (err != FERRY_OK) {
            err = err_set(e, err, "row %lld: its headers cannot be read", (long long)number);
        }
    }
    sqlite3_finalize(stmt);
    stmt = NULL;
    if (err == FERRY_OK) {
        err = admin_sqlite_prepare(f,
                                   text ? "UPDATE ferry_outbox SET headers = json_set(headers, "
                                          "'$.\"" OUTBOX_HEADER_DUPLICATE "\"', '1') WHERE id = ?1"
                                        : "UPDATE ferry_outbox SET headers = ?2 WHERE id = ?1",
                                   &stmt, e);
    }
    if (err == FERRY_OK) {
        sqlite3_bind_int64(stmt, 1, number);
        if (!text) {
            admin_sqlite_bind_bytes(stmt, 2, buf_bytes(&marked));
        }
        err = admin_sqlite_run(f, stmt, NULL, e);
    }
    buf_fini(&marked);
    return err;
}

static enum ferry_err apply_page(struct admin_file *f, const struct page *page, bool dry_run,
                                 struct outbox_rebased *rebased, struct err_text *e)
{
    enum ferry_err err = FERRY_OK;
    for (size_t i = 0; err == FERRY_OK && i < page->count; i++) {
        const struct judged *row = &page->rows[i];
        rebased->deleted += row->verdict == OUTBOX_VERDICT_DELETE;
        rebased->marked += row->verdict == OUTBOX_VERDICT_MARK;
        rebased->kept += row->verdict != OUTBOX_VERDICT_DELETE;
        if (!dry_run && row->verdict == OUTBOX_VERDICT_DELETE) {
            err = delete_row(f, row->number, e);
        } else if (!dry_run && row->verdict == OUTBOX_VERDICT_MARK) {
            err = mark_row(f, row->number, e);
        }
    }
    return err;
}

static enum ferry_err set_new_id(struct admin_file *f, struct ferry_id *id, struct err_text *e)
{
    struct id_gen ids;
    sqlite3_stmt *stmt = NULL;
    enum ferry_err err = id_gen_init(&ids, 0);
    if (err != FERRY_OK) {
        return err_set(e, err, "no random numbers");
    }
    *id = id_random(&ids);
    err = admin_sqlite_prepare(f, "UPDATE ferry_meta SET value = ?1 WHERE name = 'source_uuid'",
                               &stmt, e);
    if (err == FERRY_OK) {
        admin_sqlite_bind_id(stmt, 1, id);
        err = admin_sqlite_run(f, stmt, NULL, e);
    }
    return err;
}

static enum ferry_err rebase(struct admin_file *f, outbox_judge_fn *judge, void *arg, bool dry_run,
                             struct outbox_rebased *rebased, struct err_text *e)
{
    struct page page = {.count = PAGE_ROWS};
    enum ferry_err err = FERRY_OK;
    for (int64_t after = 0; err == FERRY_OK && page.count == PAGE_ROWS;) {
        err = read_page(f, after, judge, arg, &page, e);
        if (err == FERRY_OK && page.count > 0) {
            after = page.rows[page.count - 1].number;
            err = apply_page(f, &page, dry_run, rebased, e);
        }
    }
    return err == FERRY_OK && !dry_run ? set_new_id(f, &rebased->new_id, e) : err;
}

/* The word beside the file is about the old id: what it calls published is not so any more. */
static void forget_word(const struct admin_file *f)
{
    struct err_text ignored;
    char *resolved = realpath(f->path, NULL);
    int fd = -1;
    if (resolved != NULL && relay_lock_open(resolved, &fd, &ignored) == FERRY_OK) {
        struct source_word word = {
            .pid = getpid(), .beat_ms = clock_wall_ms(), .state = "rebased", .active = true};
        relay_lock_write(fd, &word);
        relay_lock_release(&fd);
    }
    free(resolved);
}

enum ferry_err admin_sqlite_rebase(const char *url, outbox_judge_fn *judge, void *arg, bool dry_run,
                                   struct outbox_rebased *rebased, struct err_text *e)
{
    struct admin_file f;
    struct outbox_rebased done = {0};
    enum ferry_err err = dry_run ? admin_sqlite_open_reading(&f, url, true, e)
                                 : admin_sqlite_open_writing(&f, url, e);
    if (err != FERRY_OK) {
        return err;
    }
    err = rebase(&f, judge, arg, dry_run, &done, e);
    err = admin_sqlite_end(&f, err, e);
    if (err == FERRY_OK) {
        *rebased = done;
        if (!dry_run) {
            forget_word(&f);
        }
    }
    admin_sqlite_close(&f);
    return err;
}

/* ---- Bench ---------------------------------------------------------------------------------- */

enum ferry_err admin_sqlite_bench_put(const char *url, const char *topic, int64_t count,
                                      size_t bytes, int64_t per_commit, int64_t keys, int64_t *us,
                                      struct err_text *e)
{
    struct admin_file f;
    struct ferry_db *db = NULL;
    enum ferry_err err = admin_sqlite_open_writing(&f, url, e);
    if (err != FERRY_OK) {
        return err;
    }
    err = admin_sqlite_end(&f, FERRY_OK, e); /* The rows have transactions of their own. */
    if (err == FERRY_OK) {
        err = ferry_db_sqlite(&db, f.connection);
    }
    if (err == FERRY_OK) {
        const struct bench_put_spec spec = {
            .topic = topic, .count = count, .bytes = bytes, .per_commit = per_commit, .keys = keys};
        err = bench_put(db, &spec, us, e);
    }
    ferry_db_free(&db);
    admin_sqlite_close(&f);
    return err;
}
