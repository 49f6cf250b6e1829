/* Rebase: a new id for the source, without the rows that are in the log; and rows for a bench. */
#include <stdlib.h>
#include <string.h>

#include "base/id.h"
#include "base/mem.h"
#include "outbox/app/bench_put.h"
#include "outbox/mariadb/admin_mariadb.h"
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

static enum ferry_err read_page(struct admin_maria *a, int64_t after, outbox_judge_fn *judge,
                                void *arg, struct page *page, struct err_text *e)
{
    MYSQL_RES *result = NULL;
    MYSQL_ROW row = NULL;
    page->count = 0;
    buf_printf(admin_maria_sql(a),
               "SELECT id, msg_id, created_ms FROM ferry_outbox WHERE id > %lld ORDER BY id LIMIT "
               "%d",
               (long long)after, PAGE_ROWS);
    enum ferry_err err = admin_maria_query(a, &result, e);
    while (err == FERRY_OK && (err = admin_maria_next(a, result, &row, e)) == FERRY_OK &&
           row != NULL) {
        struct ferry_id id;
        admin_maria_column_id(result, row, 1, &id);
        page->rows[page->count++] = (struct judged){
            .number = admin_maria_int(row, 0),
            .verdict = judge(&id, admin_maria_int(row, 2), arg),
        };
    }
    mysql_free_result(result);
    return err;
}

static enum ferry_err delete_rows(struct admin_maria *a, const struct page *page,
                                  struct err_text *e)
{
    size_t count = 0;
    buf_printf(admin_maria_sql(a), "DELETE FROM ferry_outbox WHERE id IN (");
    for (size_t i = 0; i < page->count; i++) {
        if (page->rows[i].verdict == OUTBOX_VERDICT_DELETE) {
            buf_printf(&a->sql, "%s%lld", count == 0 ? "" : ",", (long long)page->rows[i].number);
            count++;
        }
    }
    buf_printf(&a->sql, ")");
    return count == 0 ? FERRY_OK : admin_maria_run(a, NULL, e);
}

/* The headers, read, with one more: JSON stays JSON, a map a map. */
static enum ferry_err marked_headers(struct admin_maria *a, int64_t number, bool *json,
                                     struct buf *marked, struct err_text *e)
{
    MYSQL_RES *result = NULL;
    MYSQL_ROW row = NULL;
    buf_printf(admin_maria_sql(a), "SELECT headers FROM ferry_outbox WHERE id = %lld",
               (long long)number);
    enum ferry_err err = admin_maria_query(a, &result, e);
    if (err == FERRY_OK) {
        err = admin_maria_next(a, result, &row, e);
    }
    if (err == FERRY_OK && row != NULL) {
        struct bytes headers = admin_maria_column(result, row, 0);
        *json = headers.size > 0 && headers.data[0] < 0x80;
        if (!*json) {
            err = batch_add_header(marked, headers, OUTBOX_HEADER_DUPLICATE, "1");
        }
        if (err != FERRY_OK) {
            err = err_set(e, err, "row %lld: its headers cannot be read", (long long)number);
        }
    }
    mysql_free_result(result);
    return err;
}

static enum ferry_err mark_row(struct admin_maria *a, int64_t number, struct err_text *e)
{
    struct buf marked;
    bool json = false;
    buf_init(&marked, HEADERS_MAX_BYTES);
    enum ferry_err err = marked_headers(a, number, &json, &marked, e);
    if (err == FERRY_OK) {
        buf_printf(admin_maria_sql(a), "UPDATE ferry_outbox SET headers = ");
        if (json) {
            buf_printf(&a->sql, "JSON_SET(CONVERT(headers USING utf8mb4), "
                                "'$.\"" OUTBOX_HEADER_DUPLICATE "\"', '1')");
        } else {
            admin_maria_bytes(a, buf_bytes(&marked));
        }
        buf_printf(&a->sql, " WHERE id = %lld", (long long)number);
        err = admin_maria_run(a, NULL, e);
    }
    buf_fini(&marked);
    return err;
}

static enum ferry_err apply_page(struct admin_maria *a, const struct page *page, bool dry_run,
                                 struct outbox_rebased *rebased, struct err_text *e)
{
    enum ferry_err err = dry_run ? FERRY_OK : delete_rows(a, page, e);
    for (size_t i = 0; err == FERRY_OK && i < page->count; i++) {
        const struct judged *row = &page->rows[i];
        rebased->deleted += row->verdict == OUTBOX_VERDICT_DELETE;
        rebased->marked += row->verdict == OUTBOX_VERDICT_MARK;
        rebased->kept += row->verdict != OUTBOX_VERDICT_DELETE;
        if (!dry_run && row->verdict == OUTBOX_VERDICT_MARK) {
            err = mark_row(a, row->number, e);
        }
    }
    return err;
}

static enum ferry_err set_new_id(struct admin_maria *a, struct ferry_id *id, struct err_text *e)
{
    struct id_gen ids;
    char text[ID_TEXT_BYTES];
    enum ferry_err err = id_gen_init(&ids, 0);
    if (err != FERRY_OK) {
        return err_set(e, err, "no random numbers");
    }
    *id = id_random(&ids);
    id_format(id, text);
    buf_printf(admin_maria_sql(a), "UPDATE ferry_meta SET value = '%s' WHERE name = 'source_uuid'",
               text);
    return admin_maria_run(a, NULL, e);
}

static enum ferry_err rebase(struct admin_maria *a, struct page *page, outbox_judge_fn *judge,
                             void *arg, bool dry_run, struct outbox_rebased *rebased,
                             struct err_text *e)
{
    enum ferry_err err = FERRY_OK;
    page->count = PAGE_ROWS;
    for (int64_t after = 0; err == FERRY_OK && page->count == PAGE_ROWS;) {
        err = read_page(a, after, judge, arg, page, e);
        if (err == FERRY_OK && page->count > 0) {
            after = page->rows[page->count - 1].number;
            err = apply_page(a, page, dry_run, rebased, e);
        }
    }
    return err == FERRY_OK && !dry_run ? set_new_id(a, &rebased->new_id, e) : err;
}

enum ferry_err admin_maria_rebase(const char *url, outbox_judge_fn *judge, void *arg, bool dry_run,
                                  struct outbox_rebased *rebased, struct err_text *e)
{
    struct admin_maria a;
    struct outbox_rebased done = {0};
    enum ferry_err err =
        dry_run ? admin_maria_read(&a, url, true, e) : admin_maria_write(&a, url, e);
    if (err != FERRY_OK) {
        return err;
    }
    struct page *page = mem_zalloc(1, sizeof(*page));
    err = page == NULL ? FERRY_ERR_NO_MEMORY : rebase(&a, page, judge, arg, dry_run, &done, e);
    mem_free(page);
    err = admin_maria_end(&a, err, e);
    if (err == FERRY_OK) {
        *rebased = done;
    }
    return err;
}

/* ---- Bench. */

enum ferry_err admin_maria_bench_put(const char *url, const char *topic, int64_t count,
                                     size_t bytes, int64_t per_commit, int64_t keys, int64_t *us,
                                     struct err_text *e)
{
    struct admin_maria a;
    struct ferry_db *db = NULL;
    enum ferry_err err = admin_maria_write(&a, url, e);
    if (err != FERRY_OK) {
        return err;
    }
    buf_printf(admin_maria_sql(&a), "COMMIT"); /* The rows have transactions of their own. */
    err = admin_maria_run(&a, NULL, e);
    if (err == FERRY_OK) {
        err = ferry_db_mariadb(&db, a.connection);
    }
    if (err == FERRY_OK) {
        const struct bench_put_spec spec = {
            .topic = topic, .count = count, .bytes = bytes, .per_commit = per_commit, .keys = keys};
        err = bench_put(db, &spec, us, e);
    }
    ferry_db_free(&db);
    return admin_maria_end(&a, err, e);
}
