/* Rebase: a new id for the source, without the rows that are in the log. */
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "outbox/postgresql/admin_pg.h"
#include "wire/batch.h"

#define PAGE_ROWS         1000 /* Judged at a time, so that memory stays small. */
#define PAGE_TEXT         "1000"
#define HEADERS_MAX_BYTES (1u << 20)
#define NUMBER_MAX_BYTES  24

/* The rows of a page that are to be deleted. */
struct doomed {
    int64_t first, last; /* Of the page: the index knows ranges. */
    struct buf numbers;  /* "{1,2,…" */
    size_t count;
};

static enum ferry_err delete_rows(struct admin_pg *a, struct doomed *d, struct err_text *e)
{
    struct admin_pg_params p = {0};
    if (d->count == 0) {
        return FERRY_OK;
    }
    buf_append_u8(&d->numbers, '}');
    buf_append_u8(&d->numbers, 0);
    if (!buf_ok(&d->numbers)) {
        return FERRY_ERR_NO_MEMORY;
    }
    admin_pg_add_text(&p, (const char *)d->numbers.data);
    admin_pg_add_int(&p, d->first);
    admin_pg_add_int(&p, d->last);
    return admin_pg_run(
        a,
        "DELETE FROM @.outbox WHERE seq BETWEEN $2::bigint AND $3::bigint AND seq = "
        "ANY ($1::bigint[])",
        &p, NULL, e);
}

/* Whoever put the row wrote its headers as a map of ours or as JSON; they stay what they are. */
static enum ferry_err mark_row(struct admin_pg *a, int64_t number, struct bytes headers, bool json,
                               struct err_text *e)
{
    static const char json_sql[] =
        "UPDATE @.outbox SET headers_json = headers_json || "
        "'{\"" OUTBOX_HEADER_DUPLICATE "\": \"1\"}'::jsonb WHERE seq = $1::bigint";
    static const char map_sql[] = "UPDATE @.outbox SET headers = $2::bytea WHERE seq = $1::bigint";
    struct admin_pg_params p = {0};
    struct buf marked;
    enum ferry_err err = FERRY_OK;
    buf_init(&marked, HEADERS_MAX_BYTES);
    admin_pg_add_int(&p, number);
    if (!json) {
        err = batch_add_header(&marked, headers, OUTBOX_HEADER_DUPLICATE, "1");
        admin_pg_add_bytes(&p, buf_bytes(&marked));
    }
    err = err == FERRY_OK
              ? admin_pg_run(a, json ? json_sql : map_sql, &p, NULL, e)
              : err_set(e, err, "row %lld: its headers cannot be read", (long long)number);
    buf_fini(&marked);
    return err;
}

/* Columns: seq, msg_id, created_ms, headers, whether they are JSON, whether it is dead. */
static enum ferry_err judge_page(struct admin_pg *a, const PGresult *r, outbox_judge_fn *judge,
                                 void *arg, bool dry_run, struct outbox_rebased *rebased,
                                 struct err_text *e)
{
    struct doomed doomed = {.first = admin_pg_int(r, 0, 0),
                            .last = admin_pg_int(r, PQntuples(r) - 1, 0)};
    enum ferry_err err = FERRY_OK;
    buf_init(&doomed.numbers, PAGE_ROWS * NUMBER_MAX_BYTES);
    for (int i = 0; err == FERRY_OK && i < PQntuples(r); i++) {
        int64_t number = admin_pg_int(r, i, 0);
        struct ferry_id id = admin_pg_id(r, i, 1);
        bool dead = admin_pg_bool(r, i, 5); /* Its copy is kept; here it would come out again. */
        enum outbox_verdict verdict =
            dead ? OUTBOX_VERDICT_DELETE : judge(&id, admin_pg_int(r, i, 2), arg);
        rebased->deleted += !dead && verdict == OUTBOX_VERDICT_DELETE;
        rebased->marked += verdict == OUTBOX_VERDICT_MARK;
        rebased->kept += verdict != OUTBOX_VERDICT_DELETE;
        if (verdict == OUTBOX_VERDICT_DELETE) {
            buf_printf(&doomed.numbers, "%c%lld", doomed.count++ == 0 ? '{' : ',',
                       (long long)number);
        } else if (verdict == OUTBOX_VERDICT_MARK && !dry_run) {
            err = mark_row(a, number, admin_pg_bytes(r, i, 3), admin_pg_bool(r, i, 4), e);
        }
    }
    if (err == FERRY_OK && !dry_run) {
        err = delete_rows(a, &doomed, e);
    }
    buf_fini(&doomed.numbers);
    return err;
}

static enum ferry_err judge_all(struct admin_pg *a, outbox_judge_fn *judge, void *arg, bool dry_run,
                                struct outbox_rebased *rebased, struct err_text *e)
{
    bool more = true;
    enum ferry_err err = admin_pg_run(
        a,
        "DECLARE ferry_rows BINARY INSENSITIVE NO SCROLL CURSOR FOR SELECT seq, msg_id, "
        "created_ms, "
        "headers, headers_json IS NOT NULL, EXISTS (SELECT 1 FROM @.outbox_dead d WHERE d.seq = "
        "o.seq) FROM @.outbox o ORDER BY seq",
        NULL, NULL, e);
    while (err == FERRY_OK && more) {
        PGresult *r = NULL;
        err = admin_pg_ask(a, "FETCH " PAGE_TEXT " FROM ferry_rows", NULL, &r, e);
        more = err == FERRY_OK && PQntuples(r) > 0;
        if (more) {
            err = judge_page(a, r, judge, arg, dry_run, rebased, e);
        }
        PQclear(r);
    }
    return err;
}

/* The row of the id is held first: two at once wait for each other. */
static enum ferry_err set_new_id(struct admin_pg *a, struct ferry_id *id, struct err_text *e)
{
    PGresult *r = NULL;
    enum ferry_err err =
        admin_pg_ask(a,
                     "UPDATE @.meta SET value = gen_random_uuid()::text WHERE name "
                     "= 'source_uuid' RETURNING value::uuid",
                     NULL, &r, e);
    if (err == FERRY_OK && PQntuples(r) == 1) {
        *id = admin_pg_id(r, 0, 0);
    } else if (err == FERRY_OK) {
        err = err_set(e, FERRY_ERR_DB_SCHEMA, "meta has no source_uuid");
    }
    PQclear(r);
    return err;
}

enum ferry_err admin_pg_rebase(const char *url, outbox_judge_fn *judge, void *arg, bool dry_run,
                               struct outbox_rebased *rebased, struct err_text *e)
{
    struct admin_pg a;
    struct outbox_rebased done = {0};
    enum ferry_err err = admin_pg_open(&a, url, dry_run ? ADMIN_PG_READING : ADMIN_PG_WRITING, e);
    if (err != FERRY_OK) {
        return err;
    }
    if (!dry_run) {
        err = set_new_id(&a, &done.new_id, e);
    }
    if (err == FERRY_OK) {
        err = judge_all(&a, judge, arg, dry_run, &done, e);
    }
    err = admin_pg_end(&a, err, e);
    if (err == FERRY_OK) {
        *rebased = done;
    }
    return err;
}
