/* What the source asks PostgreSQL. `@` stands for the schema's name. Parameters are text. */
#include "outbox/postgresql/source_postgresql.h"

#define COLUMNS                                                                                    \
    "o.seq, o.xid, o.tli, o.created_ms, o.msg_id, o.topic, o.mkey, o.headers, o.headers_json, "    \
    "o.payload "

/* A page of the rows that `inner` finds in order of seq: it ends with the row by which it holds
 * `bytes`. A payload that fits no batch is not fetched (NULL). Headers in JSON come as name, value,
 * name, value, …; a value that is no string as NULL. Where `bytes` is 0 the first row comes bare.
 */
#define PAGE(inner, bytes)                                                                         \
    "SELECT " RESULT("WHEN " bytes "::bigint = 0 THEN ''::bytea ", bytes                           \
                     "::bigint > 0") "FROM (SELECT q.*, sum(octet_length(q.payload) + "            \
                                     "coalesce(octet_length(q.headers), 0)) OVER (ORDER BY q.seq " \
                                     "ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS "       \
                                     "bytes_before FROM (" inner ") q) p "                         \
                                     "WHERE p.bytes_before IS NULL OR p.bytes_before < " bytes     \
                                     "::bigint ORDER BY p.seq"
#define RESULT(bare, is_whole)                                                                     \
    "p.seq, p.xid, p.tli, p.created_ms, p.msg_id, p.topic, "                                       \
    "CASE WHEN " is_whole " THEN p.mkey ELSE substr(p.mkey, 1, 1025) END, "                        \
    "CASE WHEN " is_whole " THEN p.headers END, "                                                  \
    "CASE WHEN " is_whole " AND p.headers_json IS NOT NULL THEN ARRAY(SELECT unnest(ARRAY[j.key, " \
    "CASE WHEN jsonb_typeof(j.value) = 'string' THEN j.value #>> '{}' END]) "                      \
    "FROM jsonb_each(p.headers_json) j) END, "                                                     \
    "CASE " bare "WHEN octet_length(p.payload) <= 15728640 THEN p.payload END "

/* The rows of listed transactions, each looked up by (lane, xid). With "xid = ANY" the plan that is
 * made while a leaf is new, and kept, would go through the whole leaf by (lane, seq). OFFSET 0: not
 * made a join of. */
#define LATE(xids)                                                                                 \
    "FROM unnest(" xids "::xid8[]) x(xid) CROSS JOIN LATERAL (SELECT l.* FROM @.outbox l "         \
    "WHERE l.lane = $1::smallint AND l.xid = x.xid OFFSET 0) o "

_Static_assert(SOURCE_ROW_MAX_BYTES == 15728640, "as in RESULT");
_Static_assert(SOURCE_PARKED_KEY_MAX == 1024, "as in RESULT");

const char *const source_pg_statements[PG_STATEMENT_COUNT] = {
    /* lane, xmax of the lower, what it lists, limit */
    [PG_PROBE] = "SELECT pg_current_snapshot()::text, pg_current_wal_insert_lsn(), "
                 "pg_current_wal_flush_lsn(), "
                 "(SELECT count(*) FROM (SELECT 1 FROM @.outbox o WHERE o.lane = $1::smallint "
                 "AND o.xid >= $2::xid8 LIMIT $4::bigint) a), "
                 "(SELECT count(*) FROM (SELECT 1 " LATE("$3") "LIMIT $4::bigint) b)",
    [PG_SNAPSHOT] = "SELECT pg_current_snapshot()::text",
    /* lane, xmax of the lower, xmax of the upper, the upper, seq, late ones, limit */
    [PG_SIZE] = "SELECT "
                "(SELECT count(*) FROM (SELECT 1 FROM @.outbox o WHERE o.lane = $1::smallint "
                "AND o.xid >= $2::xid8 AND o.xid < $3::xid8 LIMIT $7::bigint) a), "
                "(SELECT count(*) FROM (SELECT 1 " LATE(
                    "$6") "LIMIT $7::bigint) b) "
                          "WHERE $4::pg_snapshot IS NOT NULL AND $5::bigint IS NOT NULL",
    /* lane, seq: of what lies behind it. */
    [PG_BOUNDS] = "SELECT min(o.seq), max(o.seq) FROM @.outbox o WHERE o.lane = $1::smallint "
                  "AND o.seq > $2::bigint",
    /* lane, xmax of the lower, xmax of the upper, the upper, seq, late ones, limit, bytes. "+ 0":
     * by the index on transactions, not through a whole leaf by number. */
    [PG_SMALL] =
        PAGE("SELECT " COLUMNS "FROM @.outbox o WHERE o.lane = $1::smallint "
             "AND o.xid >= $2::xid8 AND o.xid < $3::xid8 "
             "AND pg_visible_in_snapshot(o.xid, $4::pg_snapshot) AND o.seq + 0 > $5::bigint "
             "UNION ALL "
             "SELECT " COLUMNS LATE("$6") "WHERE o.seq > $5::bigint "
                                          "ORDER BY 1 LIMIT $7::bigint",
             "$8"),
    /* lane, xmax of the lower, to, the upper, seq, late ones, limit, bytes */
    [PG_WINDOW] = PAGE("SELECT " COLUMNS "FROM @.outbox o WHERE o.lane = $1::smallint "
                       "AND o.seq > $5::bigint AND o.seq <= $3::bigint "
                       "AND (o.xid >= $2::xid8 OR o.xid = ANY($6::xid8[])) "
                       "AND pg_visible_in_snapshot(o.xid, $4::pg_snapshot) "
                       "ORDER BY o.seq LIMIT $7::bigint",
                       "$8"),
    /* lane, seq */
    [PG_ROW] = "SELECT " RESULT("", "true") "FROM @.outbox p WHERE p.lane = $1::smallint "
                                            "AND p.seq = $2::bigint",
    [PG_FLUSHED] = "SELECT pg_current_wal_flush_lsn()",
    [PG_IDENTITY] =
        "SELECT r.standby, (SELECT system_identifier FROM pg_control_system()), "
        "CASE WHEN r.standby THEN NULL ELSE pg_current_wal_insert_lsn() END, "
        "pg_snapshot_xmax(pg_current_snapshot()), "
        "CASE WHEN r.standby THEN 0 ELSE "
        "('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::integer END, "
        "(SELECT d.oid::integer FROM pg_database d WHERE d.datname = current_database()), "
        "(SELECT m.value::uuid FROM @.meta m WHERE m.name = 'source_uuid'), "
        "(SELECT m.value::integer FROM @.meta m WHERE m.name = 'lanes'), "
        "(SELECT m.value::integer FROM @.meta m WHERE m.name = 'schema_version') "
        "FROM (SELECT pg_is_in_recovery() AS standby) r",
    /* lane, seq */
    [PG_MSG_ID] = "SELECT o.msg_id FROM @.outbox o WHERE o.lane = $1::smallint "
                  "AND o.seq = $2::bigint",
    /* A record in the write-ahead log and a commit that waits for the disk; no table. */
    [PG_BARRIER] = "SELECT pg_logical_emit_message(true, 'ferry.barrier', '')",
    /* lane, seq, reason, parked */
    [PG_ASIDE] = "INSERT INTO @.outbox_dead (seq, lane, topic, mkey, msg_id, headers, "
                 "headers_json, payload, created_ms, reason, parked) "
                 "SELECT o.seq, o.lane, o.topic, o.mkey, o.msg_id, o.headers, o.headers_json, "
                 "o.payload, o.created_ms, $3, $4::boolean FROM @.outbox o "
                 "WHERE o.lane = $1::smallint AND o.seq = $2::bigint ON CONFLICT DO NOTHING",
    /* The same while its key is parked: the key's row is held against an unpark. */
    [PG_ASIDE_PARKED] =
        "WITH k AS (SELECT o.seq FROM @.outbox o JOIN @.parked_key p ON p.lane = o.lane "
        "AND p.topic = o.topic AND p.mkey = o.mkey WHERE o.lane = $1::smallint AND o.seq = "
        "$2::bigint "
        "AND p.until_no = 0 FOR UPDATE OF p), "
        "a AS (INSERT INTO @.outbox_dead (seq, lane, topic, mkey, msg_id, headers, headers_json, "
        "payload, created_ms, reason, parked) "
        "SELECT o.seq, o.lane, o.topic, o.mkey, o.msg_id, o.headers, o.headers_json, o.payload, "
        "o.created_ms, $3, $4::boolean FROM k JOIN @.outbox o ON o.lane = $1::smallint "
        "AND o.seq = k.seq ON CONFLICT DO NOTHING RETURNING 1) "
        "SELECT (SELECT count(*) FROM k), (SELECT count(*) FROM @.outbox o "
        "WHERE o.lane = $1::smallint AND o.seq = $2::bigint), "
        "(SELECT count(*) FROM @.outbox_dead d WHERE d.seq = $2::bigint)",
    /* lane, seq: its key is parked from now on. */
    [PG_ASIDE_PARK] = "INSERT INTO @.parked_key (lane, topic, mkey) "
                      "SELECT o.lane, o.topic, o.mkey FROM @.outbox o "
                      "WHERE o.lane = $1::smallint AND o.seq = $2::bigint "
                      "AND octet_length(o.mkey) <= 1024 "
                      "ON CONFLICT (lane, topic, mkey) DO UPDATE SET until_no = 0, "
                      "since_ms = excluded.since_ms WHERE parked_key.until_no <> 0",
    /* seq */
    [PG_DECIDED] = "SELECT 1 FROM @.outbox_dead d WHERE d.seq = $1::bigint",
    /* lane */
    [PG_PARKED] = "SELECT p.topic, p.mkey, p.until_no FROM @.parked_key p "
                  "WHERE p.lane = $1::smallint",
    [PG_PAUSED] = "SELECT m.value FROM @.meta m WHERE m.name = 'paused'",
    [PG_FIGURES] =
        "SELECT (SELECT last_value FROM @.outbox_seq), "
        "(SELECT (extract(epoch FROM clock_timestamp() - min(a.xact_start)) * 1000)::bigint "
        "FROM pg_stat_activity a WHERE a.datname = current_database() "
        "AND a.backend_xid IS NOT NULL), "
        "(SELECT bool_and(a.state IS NOT NULL) FROM pg_stat_activity a "
        "WHERE a.datname = current_database() AND a.backend_type = 'client backend'), "
        "@.now_ms()",
    /* lane, xmax of what is settled, what it lists */
    [PG_OLDEST] = "SELECT min(c.created_ms) FROM ("
                  "(SELECT o.created_ms FROM @.outbox o WHERE o.lane = $1::smallint "
                  "AND o.xid >= $2::xid8 ORDER BY o.xid LIMIT 100) UNION ALL "
                  "(SELECT o.created_ms " LATE("$3") "LIMIT 100)) c",
    /* schema: rows by the size of the leaf, when a row is as long as a statistic says, or 300
     * bytes.
     */
    [PG_LEAVES] = "SELECT CASE WHEN c.reltuples > 0 AND c.relpages > 0 "
                  "THEN (pg_relation_size(c.oid) / 8192.0 * c.reltuples / c.relpages)::bigint "
                  "ELSE pg_relation_size(c.oid) / 300 END, right(c.relname, 1)::integer "
                  "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
                  "WHERE n.nspname = $1 AND c.relname ~ '^outbox_[0-3]$'",
    [PG_SETTINGS] = "SELECT current_setting('fsync'), current_setting('full_page_writes'), "
                    "s.seqcache, s.seqincrement FROM pg_sequence s "
                    "WHERE s.seqrelid = '@.outbox_seq'::regclass",
    /* channel, payload: whether a trigger of ours announces rows. */
    [PG_NOTIFY] = "SELECT EXISTS (SELECT 1 FROM pg_trigger t JOIN pg_proc f ON f.oid = t.tgfoid "
                  "WHERE t.tgrelid = '@.outbox'::regclass AND f.proname = 'notify' "
                  "AND t.tgenabled <> 'D'), pg_notify($1, $2)",
    [PG_LANES] = "SELECT m.value::integer FROM @.meta m WHERE m.name = 'lanes'",
    /* lanes */
    [PG_LANES_USED] = "SELECT max(o.lane)::integer FROM @.outbox o WHERE o.lane >= $1::smallint",
};

void source_pg_copy_text(const struct source_pg *d, const struct ticks_job *job, int64_t from,
                         int64_t to, struct buf *out)
{
    buf_printf(out,
               "COPY (SELECT " RESULT(
                   "", "true") "FROM %s.outbox p WHERE p.lane = %u AND p.seq > %lld "
                               "AND p.seq <= %lld AND (p.xid >= '%llu'::xid8 OR p.xid = ANY('",
               d->url.schema, d->options.lane, (long long)from, (long long)to,
               (unsigned long long)job->lower->xmax);
    snapshot_late_text(job->lower, job->upper, out);
    buf_printf(out, "'::xid8[])) AND pg_visible_in_snapshot(p.xid, '");
    snapshot_text(job->upper, out);
    buf_printf(out, "'::pg_snapshot) ORDER BY p.seq) TO STDOUT (FORMAT binary)");
    buf_append_u8(out, 0);
}
