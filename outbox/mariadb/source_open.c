/* Opening an outbox of MariaDB, and whether it is the one that it was. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/id.h"
#include "base/log.h"
#include "base/mem.h"
#include "outbox/app/wake.h"
#include "outbox/mariadb/db_mariadb.h"
#include "outbox/mariadb/schema_mariadb.h"
#include "outbox/mariadb/source_mariadb.h"
#include "outbox/relay/relay_place.h"

#define VERSION_MIN       100600u /* 10.6 */
#define ROW_BYTES_GUESSED 512u
#define BATCH_ROWS_ROOM   16384u
#define LANE_LOOK_ROWS    100000

_Static_assert(MARIA_FIELD_MAX + 1 == DB_MARIADB_PLACE_MAX, "both sides name the same place");

/* Plain reads without locks; deletions that can only take the primary key, whatever the planner
 * thinks of a small table, and lists of any length as lists. */
static const char session_text[] =
    "SET SESSION tx_isolation = 'READ-COMMITTED', autocommit = 1, sql_mode = '', "
    "sql_safe_updates = 1, in_predicate_conversion_threshold = 0, innodb_lock_wait_timeout = 1, "
    "lock_wait_timeout = 5, max_statement_time = 30, group_concat_max_len = 1024";

/* ---- Is it the same. */

static enum ferry_err set_back(struct source_mariadb *s, bool *same, struct err_text *e)
{
    *same = false;
    return err_set(e, FERRY_OK, "%s", s->behind.text);
}

enum compared { COMPARED_ID, COMPARED_STAMP, COMPARED_COUNTER, COMPARED_MESSAGE, COMPARED_COUNT };

static bool message_differs(const struct maria_field *field, const struct source_spot *spot)
{
    static const struct ferry_id none;
    char text[2 * sizeof(none.bytes) + 1];
    if (field->null || id_equal(&spot->newest_id, &none)) {
        return false;
    }
    for (size_t i = 0; i < sizeof(none.bytes); i++) {
        snprintf(text + 2 * i, 3, "%02X", spot->newest_id.bytes[i]);
    }
    return strcmp(text, field->text) != 0;
}

static void tell_behind(struct source_mariadb *s, const struct maria_field *fields,
                        const struct source_spot *spot)
{
    struct ferry_id id;
    uint64_t stamp = strtoull(fields[COMPARED_STAMP].text, NULL, 10);
    uint64_t counter = strtoull(fields[COMPARED_COUNTER].text, NULL, 10);
    const char *remedy = "run `ferry outbox rebase` with its URL";
    if (!id_parse(fields[COMPARED_ID].text, &id)) {
        err_set(&s->behind, FERRY_OK, "%s: ferry_meta has no source_uuid: run `ferry outbox init`",
                s->url.shown);
    } else if (!id_equal(&id, &s->id)) {
        err_set(&s->behind, FERRY_OK,
                "%s has another source_uuid than before: it was rebased, or "
                "replaced: the relay has to open it anew",
                s->url.shown);
    } else if (stamp < spot->stamp) {
        err_set(&s->behind, FERRY_OK,
                "%s was set back in time: %llu deletions of published rows were made in it, it "
                "knows of %llu: %s",
                s->url.shown, (unsigned long long)spot->stamp, (unsigned long long)stamp, remedy);
    } else if (!fields[COMPARED_COUNTER].null && counter <= spot->newest) {
        err_set(&s->behind, FERRY_OK,
                "%s was set back in time: row %llu was published, the next one would be %llu: %s",
                s->url.shown, (unsigned long long)spot->newest, (unsigned long long)counter,
                remedy);
    } else if (message_differs(&fields[COMPARED_MESSAGE], spot)) {
        err_set(&s->behind, FERRY_OK,
                "%s was set back in time: row %llu is another message than the one published "
                "under that id: %s",
                s->url.shown, (unsigned long long)spot->newest, remedy);
    } else if (!s->writing) {
        s->stamp = stamp;
    }
}

enum ferry_err source_maria_compare(struct source_mariadb *s, const struct source_spot *spot,
                                    bool *same, struct err_text *e)
{
    struct maria_field fields[COMPARED_COUNT];
    struct source_spot known = *spot;
    bool found = false;
    *same = true;
    known.stamp = s->stamp > known.stamp ? s->stamp : known.stamp;
    buf_printf(maria_link_write(&s->reader),
               "SELECT (SELECT value FROM ferry_meta WHERE name = 'source_uuid'), (SELECT value "
               "FROM ferry_meta WHERE name = '%s'), (SELECT AUTO_INCREMENT FROM "
               "information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = "
               "'ferry_outbox'), (SELECT HEX(msg_id) FROM ferry_outbox WHERE id = %llu)",
               s->stamp_name, (unsigned long long)spot->newest);
    enum ferry_err err = maria_link_row(&s->reader, fields, COMPARED_COUNT, &found, e);
    if (err != FERRY_OK) {
        return err;
    }
    if (!found) {
        return err_set(e, FERRY_ERR_DB, "%s: a SELECT gave no row", s->url.shown);
    }
    s->behind.text[0] = '\0';
    tell_behind(s, fields, &known);
    return s->behind.text[0] == '\0' ? FERRY_OK : set_back(s, same, e);
}

/* ---- Required beginnings. */

static enum ferry_err driver_begin(void *driver, struct bytes checkpoint, int64_t *settled,
                                   bool *same, struct err_text *e)
{
    struct source_mariadb *s = driver;
    struct bytes rest;
    enum ferry_err err = source_blob_read(checkpoint, s->url.shown, &s->begun, &rest, e);
    if (err == FERRY_OK && s->writing) {
        struct err_text ignored; /* Its rows stay due. */
        (void)!source_delete_take(s, &ignored);
    }
    if (err == FERRY_OK) {
        err = source_maria_compare(s, &s->begun, same, e);
    }
    if (err != FERRY_OK || !*same) {
        return err;
    }
    handout_clear(&s->handout, false);
    s->cursor = 0;
    s->suspect = false;
    s->full_us = 0;
    *settled = s->position;
    return FERRY_OK;
}

static enum ferry_err driver_verify(void *driver, bool *same, struct err_text *e)
{
    struct source_mariadb *s = driver;
    struct source_spot spot = {.stamp = s->stamp, .newest = s->handout.top};
    return source_maria_compare(s, &spot, same, e);
}

static void driver_checkpoint(void *driver, int64_t settled, struct source_blob *blob)
{
    struct source_mariadb *s = driver;
    handout_settle(&s->handout, settled);
    struct source_spot spot = s->begun;
    spot.stamp = s->stamp;
    if (s->handout.newest_settled > spot.newest) {
        spot.newest = s->handout.newest_settled;
        spot.newest_id = s->handout.newest_settled_id;
    }
    source_blob_head(blob, &spot);
}

static struct ferry_id driver_id(void *driver)
{
    const struct source_mariadb *s = driver;
    return s->id;
}

static const char *driver_name(void *driver)
{
    const struct source_mariadb *s = driver;
    return s->url.shown;
}

/* ---- Wake: by the relay that publishes, for whoever puts on this machine. */

static int driver_wake_fd(void *driver)
{
    const struct source_mariadb *s = driver;
    return s->wake_fd;
}

static void driver_wake_drain(void *driver)
{
    const struct source_mariadb *s = driver;
    if (s->wake_fd >= 0) {
        wake_drain(s->wake_fd);
    }
}

static void driver_leave_word(void *driver, const struct source_word *word)
{
    struct source_mariadb *s = driver;
    struct err_text ignored;
    if (s->place[0] == '\0') {
        return;
    }
    if (!word->active) {
        wake_close(s->place, &s->wake_fd);
    } else if (s->wake_fd < 0 && wake_listen(s->place, &s->wake_fd, &ignored) != FERRY_OK) {
        s->wake_fd = -1; /* Another relay of this machine has it, for another lane maybe. */
    }
}

static void driver_place(void *driver, char *text, size_t bytes)
{
    const struct source_mariadb *s = driver;
    relay_place_text(s->place_fd, s->place, text, bytes);
}

static void driver_close(void *driver)
{
    struct source_mariadb *s = driver;
    if (s->place_fd >= 0) {
        close(s->place_fd);
    }
    if (s->place[0] != '\0') {
        wake_close(s->place, &s->wake_fd);
    }
    while (!list_is_empty(&s->marks)) {
        source_maria_mark_close(s, list_entry(s->marks.next, struct source_mark, all));
    }
    maria_link_close(&s->reader);
    maria_link_close(&s->writer);
    handout_fini(&s->handout);
    mem_free(s->scratch);
    mem_free(s);
}

static const struct source_ops source_ops_mariadb = {
    .close = driver_close,
    .id = driver_id,
    .name = driver_name,
    .begin = driver_begin,
    .read = source_maria_read,
    .fetch = source_maria_fetch,
    .rewind = source_maria_rewind,
    .changed = source_maria_changed,
    .verify = driver_verify,
    .checkpoint = driver_checkpoint,
    .mark_open = source_maria_mark_open,
    .mark_close = source_maria_mark_close,
    .wants = source_maria_wants,
    .mark_encode = source_maria_mark_encode,
    .mark_add = source_maria_mark_add,
    .mark_acked = source_maria_mark_acked,
    .tidy = source_maria_tidy,
    .set_aside = source_maria_set_aside,
    .decided = source_maria_decided,
    .parked = source_maria_parked,
    .paused = source_maria_paused,
    .figures = source_maria_figures,
    .wake_fd = driver_wake_fd,
    .wake_drain = driver_wake_drain,
    .leave_word = driver_leave_word,
    .place = driver_place,
};

/* ---- Opening. */

/* Settings of the server that decide whether it can be served. */
struct settings {
    unsigned flush, increment;
    bool binlog, statements, galera;
};

static void take_setting(struct settings *settings, const char *name, const char *value)
{
    bool on = strcmp(value, "ON") == 0 || strcmp(value, "1") == 0;
    if (strcmp(name, "innodb_flush_log_at_trx_commit") == 0) {
        settings->flush = (unsigned)strtoul(value, NULL, 10);
    } else if (strcmp(name, "auto_increment_increment") == 0) {
        settings->increment = (unsigned)strtoul(value, NULL, 10);
    } else if (strcmp(name, "log_bin") == 0) {
        settings->binlog = on;
    } else if (strcmp(name, "binlog_format") == 0) {
        settings->statements = strcmp(value, "STATEMENT") == 0;
    } else if (strcmp(name, "wsrep_on") == 0) {
        settings->galera = on;
    }
}

static enum ferry_err read_settings(struct source_mariadb *s, struct settings *settings,
                                    struct err_text *e)
{
    MYSQL_RES *result = NULL;
    *settings = (struct settings){.flush = 1, .increment = 1};
    buf_printf(maria_link_write(&s->reader),
               "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('innodb_flush_log_at_trx_commit', "
               "'auto_increment_increment', 'log_bin', 'binlog_format', 'wsrep_on')");
    enum ferry_err err = maria_link_send(&s->reader, e);
    if (err == FERRY_OK) {
        err = maria_link_take(&s->reader, &result, e);
    }
    if (err != FERRY_OK) {
        return err;
    }
    MYSQL_ROW row;
    while ((row = mysql_fetch_row(result)) != NULL) {
        take_setting(settings, row[0], row[1]);
    }
    return maria_link_done(&s->reader, result, e);
}

/* A setting that can lose or reorder rows: refused if the options are strict. */
static enum ferry_err doubt(const struct source_mariadb *s, const char *what, struct err_text *e)
{
    if (s->options.strict) {
        return err_set(e, FERRY_ERR_DB, "%s: %s", s->url.shown, what);
    }
    log_line(LOG_WARN, "outbox", "%s: %s", s->url.shown, what);
    return FERRY_OK;
}

static enum ferry_err check_settings(struct source_mariadb *s, struct err_text *e)
{
    struct settings settings;
    enum ferry_err err = read_settings(s, &settings, e);
    if (err == FERRY_OK && settings.binlog && settings.statements) {
        err = err_set(e, FERRY_ERR_DB,
                      "%s: with binlog_format STATEMENT nothing can be written at READ COMMITTED: "
                      "set it to MIXED or ROW",
                      s->url.shown);
    }
    if (err == FERRY_OK && settings.flush != 1) {
        err = doubt(s,
                    "innodb_flush_log_at_trx_commit is not 1: a crash can take back rows that are "
                    "published already: set it to 1",
                    e);
    }
    if (err == FERRY_OK && settings.galera) {
        err = doubt(s,
                    "it is a Galera cluster: rows of one key are in order only if one node writes "
                    "them, and the relay has to read from that node",
                    e);
    } else if (err == FERRY_OK && settings.increment != 1) {
        err = doubt(s,
                    "auto_increment_increment is not 1: rows of one key are in order only if one "
                    "server writes them",
                    e);
    }
    return err;
}

static enum ferry_err check_server(struct source_mariadb *s, struct err_text *e)
{
    const char *version = mysql_get_server_info(s->reader.mysql);
    if (strstr(version, "MariaDB") == NULL ||
        mysql_get_server_version(s->reader.mysql) < VERSION_MIN) {
        return err_set(e, FERRY_ERR_DB, "%s: the server is %s: MariaDB 10.6 or later is needed",
                       s->url.shown, version);
    }
    return FERRY_OK;
}

enum table { TABLE_VERSION, TABLE_ID, TABLE_LANES, TABLE_ENGINE, TABLE_INDEX, TABLE_COUNT };

static enum ferry_err check_tables(struct source_mariadb *s, uint32_t *lanes, struct err_text *e)
{
    struct maria_field fields[TABLE_COUNT];
    bool found = false;
    buf_printf(maria_link_write(&s->reader),
               "SELECT (SELECT value FROM ferry_meta WHERE name = 'schema_version'), (SELECT value "
               "FROM ferry_meta WHERE name = 'source_uuid'), (SELECT value FROM ferry_meta WHERE "
               "name = 'lanes'), (SELECT ENGINE FROM information_schema.TABLES WHERE TABLE_SCHEMA "
               "= DATABASE() AND TABLE_NAME = 'ferry_outbox'), EXISTS (SELECT 1 FROM "
               "information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = "
               "'ferry_outbox' AND INDEX_NAME = '" SCHEMA_MARIADB_LANE_INDEX "')");
    enum ferry_err err = maria_link_row(&s->reader, fields, TABLE_COUNT, &found, e);
    if (err != FERRY_OK) {
        return err;
    }
    long version = strtol(fields[TABLE_VERSION].text, NULL, 10);
    unsigned long there = strtoul(fields[TABLE_LANES].text, NULL, 10);
    if (version > SCHEMA_MARIADB_VERSION) {
        return err_set(e, FERRY_ERR_NEWER_FORMAT,
                       "%s: its Ferry tables have version %ld, this program knows %d: start a "
                       "newer Ferry",
                       s->url.shown, version, SCHEMA_MARIADB_VERSION);
    }
    if (version < SCHEMA_MARIADB_VERSION || !id_parse(fields[TABLE_ID].text, &s->id)) {
        return err_set(e, FERRY_ERR_DB_SCHEMA,
                       "%s: its Ferry tables are old or incomplete: run `ferry outbox init`",
                       s->url.shown);
    }
    if (strcmp(fields[TABLE_ENGINE].text, "InnoDB") != 0) {
        return err_set(e, FERRY_ERR_DB_SCHEMA,
                       "%s: ferry_outbox is a table of %s, which has no transactions: ALTER TABLE "
                       "ferry_outbox ENGINE = InnoDB",
                       s->url.shown, fields[TABLE_ENGINE].text);
    }
    bool indexed = strcmp(fields[TABLE_INDEX].text, "1") == 0;
    s->index = indexed ? SCHEMA_MARIADB_LANE_INDEX : "PRIMARY";
    *lanes = there >= 1 && there <= SOURCE_LANES_MAX ? (uint32_t)there : 1;
    return FERRY_OK;
}

/* Opening is not hurried: the caller waits for the connection. */
static enum ferry_err connect_patiently(struct maria_link *l, struct err_text *e)
{
    enum ferry_err err = FERRY_OK;
    do {
        err = maria_link_ready(l, e);
    } while (err == FERRY_ERR_DB_RETRY && l->state == MARIA_CONNECTING);
    return err == FERRY_ERR_DB_RETRY ? FERRY_ERR_IO : err;
}

/* Each lane has a stamp of its own: its relay alone compares and sets it. */
static enum ferry_err make_stamp(struct source_mariadb *s, struct err_text *e)
{
    if (s->options.lane == 0) {
        snprintf(s->stamp_name, sizeof(s->stamp_name), "delete_stamp");
        return FERRY_OK;
    }
    snprintf(s->stamp_name, sizeof(s->stamp_name), "delete_stamp.%u", s->options.lane);
    buf_printf(maria_link_write(&s->writer),
               "INSERT IGNORE INTO ferry_meta (name, value) VALUES ('%s', '0')", s->stamp_name);
    return maria_link_run(&s->writer, e);
}

/* Without it the relay polls. */
static void find_place(struct source_mariadb *s)
{
    struct maria_field place;
    struct err_text ignored;
    bool found = false;
    buf_printf(maria_link_write(&s->reader), "%s", DB_MARIADB_PLACE_SQL);
    if (maria_link_row(&s->reader, &place, 1, &found, &ignored) == FERRY_OK && found) {
        memcpy(s->place, place.text, sizeof(s->place));
        s->place_fd = relay_place_take(s->place, s->options.lane);
    }
}

/* Rows of a lane that is no more would wait for ever. They are older than all that is put since,
 * and what is published goes, so that they are found among the first. */
static enum ferry_err check_lanes(struct source_mariadb *s, uint32_t lanes, struct err_text *e)
{
    struct maria_field lane;
    bool found = false;
    if (s->options.lane >= lanes) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT, "%s: it has %u lanes, there is no lane %u",
                       s->url.shown, lanes, s->options.lane);
    }
    buf_printf(
        maria_link_write(&s->reader),
        "SELECT MAX(lane) FROM (SELECT lane FROM ferry_outbox FORCE INDEX (PRIMARY) ORDER BY "
        "id LIMIT %d) AS first_rows WHERE lane >= %u HAVING MAX(lane) IS NOT NULL",
        LANE_LOOK_ROWS, lanes);
    enum ferry_err err = maria_link_row(&s->reader, &lane, 1, &found, e);
    if (err == FERRY_OK && found) {
        unsigned long there = strtoul(lane.text, NULL, 10);
        err = err_set(e, FERRY_ERR_DB,
                      "%s: it has %u lanes now, but rows of lane %lu wait: set lanes in ferry_meta "
                      "to %lu again, let them be published, and lower it then",
                      s->url.shown, lanes, there, there + 1);
    }
    return err;
}

static enum ferry_err open_all(struct source_mariadb *s, struct err_text *e)
{
    uint32_t lanes = 0;
    struct source_spot none = {0};
    bool same = true;
    enum ferry_err err = connect_patiently(&s->reader, e);
    if (err == FERRY_OK) {
        err = connect_patiently(&s->writer, e);
    }
    if (err == FERRY_OK) {
        err = check_server(s, e);
    }
    if (err == FERRY_OK) {
        err = check_tables(s, &lanes, e);
    }
    if (err == FERRY_OK) {
        err = check_lanes(s, lanes, e);
    }
    if (err == FERRY_OK && !s->options.tidy) {
        err = err_set(e, FERRY_ERR_INVALID_ARGUMENT,
                      "%s: relay.tidy off is not for MariaDB: its rows are pending until they are "
                      "deleted, so the relay has to delete what it has published",
                      s->url.shown);
    }
    if (err == FERRY_OK) {
        err = check_settings(s, e);
    }
    if (err == FERRY_OK) {
        err = make_stamp(s, e);
    }
    if (err == FERRY_OK) {
        err = source_maria_compare(s, &none, &same, e);
    }
    if (err == FERRY_OK && !same) {
        err = FERRY_ERR_DB_SCHEMA;
    }
    if (err == FERRY_OK) {
        find_place(s);
    }
    s->reconnects_before = s->reader.times + s->writer.times;
    return err;
}

static enum ferry_err source_new(const char *url, const struct source_options *options,
                                 struct source_mariadb **made, struct err_text *e)
{
    struct source_mariadb *s = mem_zalloc(1, sizeof(*s));
    if (s == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    s->options = *options;
    s->wake_fd = -1;
    s->place_fd = -1;
    s->row_bytes = ROW_BYTES_GUESSED;
    list_init(&s->marks);
    enum ferry_err err = maria_url_parse(url, &s->url, e);
    maria_link_init(&s->reader, &s->url, session_text, options->connect_timeout_ms,
                    options->statement_timeout_ms);
    maria_link_init(&s->writer, &s->url, session_text, options->connect_timeout_ms,
                    options->statement_timeout_ms);
    if (err == FERRY_OK) {
        err = handout_init(&s->handout, SOURCE_HANDOUT_MAX);
    }
    if (err == FERRY_OK && !mem_grow((void **)&s->scratch, &s->scratch_capacity,
                                     SOURCE_MARK_IDS_MAX + BATCH_ROWS_ROOM, sizeof(*s->scratch))) {
        err = FERRY_ERR_NO_MEMORY;
    }
    if (err != FERRY_OK) {
        driver_close(s);
        return err;
    }
    *made = s;
    return FERRY_OK;
}

enum ferry_err source_open_mariadb(struct source *source, const char *url,
                                   const struct source_options *options, struct err_text *e)
{
    struct source_mariadb *s = NULL;
    enum ferry_err err = source_new(url, options, &s, e);
    if (err == FERRY_OK) {
        err = open_all(s, e);
    }
    if (err != FERRY_OK) {
        if (s != NULL) {
            driver_close(s);
        }
        return err;
    }
    *source = (struct source){&source_ops_mariadb, s};
    return FERRY_OK;
}

enum ferry_err source_maria_lanes(const char *url, uint32_t *lanes, struct err_text *e)
{
    struct source_options options = {0};
    struct source_mariadb *s = NULL;
    enum ferry_err err = source_new(url, &options, &s, e);
    if (err == FERRY_OK) {
        err = connect_patiently(&s->reader, e);
    }
    if (err == FERRY_OK) {
        err = check_tables(s, lanes, e);
    }
    if (s != NULL) {
        driver_close(s);
    }
    return err;
}
