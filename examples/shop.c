/* shop: the business. Each line of standard input is one transaction in its own SQLite database: a
 * row, and the message about it in the outbox, together or not at all. Every N-th is rolled back on
 * purpose, as a business does when a card is refused.
 *
 *   shop DATABASE TOPIC N < lines      N = 0: none is rolled back
 *
 * It knows nothing of brokers and remembers nothing but its database. The message's key is the
 * line's first tab-separated field, so what concerns one thing stays in order. For whoever wants to
 * check, the ids of the transactions that were rolled back go to standard output, one a line. */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ferry_outbox.h"

#define BUSY_TIMEOUT_MS 5000
#define ATTEMPTS_MAX    100

struct shop {
    sqlite3 *sqlite;
    sqlite3_stmt *insert;
    struct ferry_db *db; /* Ferry's view of the same connection. */
    const char *topic;
};

static enum ferry_err sqlite_result(int code)
{
    switch (code & 0xff) {
    case SQLITE_OK:
    case SQLITE_DONE:
        return FERRY_OK;
    case SQLITE_BUSY:
        return FERRY_ERR_DB_RETRY;
    default:
        return FERRY_ERR_DB;
    }
}

static enum ferry_err execute(struct shop *s, const char *sql)
{
    return sqlite_result(sqlite3_exec(s->sqlite, sql, NULL, NULL, NULL));
}

static enum ferry_err insert_row(struct shop *s, const struct ferry_id *id, const char *line)
{
    sqlite3_bind_blob(s->insert, 1, id->bytes, sizeof(id->bytes), SQLITE_STATIC);
    sqlite3_bind_text(s->insert, 2, line, -1, SQLITE_STATIC);
    enum ferry_err err = sqlite_result(sqlite3_step(s->insert));
    sqlite3_reset(s->insert);
    return err;
}

/* The transaction: the row and its message commit together, or neither does. */
static enum ferry_err sell(struct shop *s, const char *line, bool refused, struct ferry_id *id)
{
    struct ferry_message message = {.topic = s->topic,
                                    .key = line,
                                    .key_bytes = strcspn(line, "\t"),
                                    .payload = line,
                                    .payload_bytes = strlen(line)};
    enum ferry_err err = execute(s, "BEGIN IMMEDIATE");
    if (err != FERRY_OK) {
        return err;
    }
    err = ferry_outbox_put(s->db, &message, id);
    if (err == FERRY_OK) {
        err = insert_row(s, id, line);
    }
    if (err == FERRY_OK && !refused) {
        err = execute(s, "COMMIT");
    }
    if (err != FERRY_OK || refused) {
        (void)execute(s, "ROLLBACK");
        return err;
    }
    ferry_outbox_committed(s->db); /* Wakes the relay. */
    return FERRY_OK;
}

static enum ferry_err sell_line(struct shop *s, const char *line, bool refused)
{
    struct ferry_id id;
    enum ferry_err err = FERRY_ERR_DB_RETRY;
    for (int attempt = 0; attempt < ATTEMPTS_MAX && err == FERRY_ERR_DB_RETRY; attempt++) {
        err = sell(s, line, refused, &id);
    }
    if (err == FERRY_OK && refused) {
        char text[FERRY_ID_TEXT_BYTES];
        ferry_id_format(&id, text);
        puts(text);
    }
    return err;
}

static enum ferry_err sell_all(struct shop *s, long refuse_every)
{
    char *line = NULL;
    size_t capacity = 0;
    enum ferry_err err = FERRY_OK;
    for (long number = 1; err == FERRY_OK && getline(&line, &capacity, stdin) > 0; number++) {
        line[strcspn(line, "\n")] = '\0';
        err = sell_line(s, line, refuse_every > 0 && number % refuse_every == 0);
    }
    free(line);
    return err;
}

static enum ferry_err open_shop(struct shop *s, const char *path)
{
    enum ferry_err err = sqlite_result(sqlite3_open(path, &s->sqlite));
    if (err == FERRY_OK) {
        sqlite3_busy_timeout(s->sqlite, BUSY_TIMEOUT_MS);
        err = ferry_db_sqlite(&s->db, s->sqlite);
    }
    if (err == FERRY_OK) {
        err = ferry_migrate(s->db); /* Ferry's tables, beside ours. */
    }
    if (err == FERRY_OK) {
        err =
            execute(s, "CREATE TABLE IF NOT EXISTS sale (message_id BLOB PRIMARY KEY, line TEXT)");
    }
    if (err == FERRY_OK) {
        err = sqlite_result(
            sqlite3_prepare_v2(s->sqlite, "INSERT INTO sale VALUES (?, ?)", -1, &s->insert, NULL));
    }
    return err;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fputs("usage: shop DATABASE TOPIC N < lines\n", stderr);
        return 2;
    }
    struct shop s = {.topic = argv[2]};
    enum ferry_err err = open_shop(&s, argv[1]);
    if (err == FERRY_OK) {
        err = sell_all(&s, strtol(argv[3], NULL, 10));
    }
    if (err != FERRY_OK) {
        const char *detail = s.db != NULL ? ferry_db_detail(s.db) : "";
        fprintf(stderr, "shop: %s: %s: %s\n", argv[1], ferry_err_name(err),
                detail[0] != '\0' ? detail : sqlite3_errmsg(s.sqlite));
    }
    sqlite3_finalize(s.insert);
    ferry_db_free(&s.db);
    sqlite3_close(s.sqlite);
    return err == FERRY_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
