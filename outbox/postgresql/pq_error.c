#include "outbox/postgresql/pq_error.h"

#include <libpq-fe.h>
#include <string.h>

#define WORDS_MAX 300u

/* Classes (two characters) and codes of which a repeat may succeed. */
static const char *const retry_states[] = {
    "08",                      /* The connection. */
    "40001",                   /* Cannot serialize. */
    "40P01",                   /* Deadlock. */
    "55P03",                   /* A lock is not available. */
    "57P01", "57P02", "57P03", /* The server stops, crashed, starts. */
    "57P05",                   /* Idle session timeout. */
    "25P03",                   /* Idle transaction timeout. */
    "53",                      /* Connections, memory, disk. */
};
static const char *const schema_states[] = {
    "42P01", /* Table. */
    "3F000", /* Schema. */
    "42703", /* Column. */
    "42883", /* Function. */
};

static bool is_one_of(const char *state, const char *const *states, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strncmp(state, states[i], strlen(states[i])) == 0) {
            return true;
        }
    }
    return false;
}

/* The first line of the server's words, without its newline. */
static void first_line(const char *words, char line[WORDS_MAX])
{
    size_t size = strcspn(words, "\n");
    size = size < WORDS_MAX - 1 ? size : WORDS_MAX - 1;
    memcpy(line, words, size);
    line[size] = '\0';
}

bool pq_is_state(const struct pg_result *result, const char *state)
{
    const char *is = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    return is != NULL && strcmp(is, state) == 0;
}

enum ferry_err pq_error(struct pg_conn *connection, const struct pg_result *result,
                        const char *doing, struct err_text *e)
{
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *words = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    char line[WORDS_MAX];
    first_line(words != NULL ? words : PQerrorMessage(connection), line);
    if (PQstatus(connection) == CONNECTION_BAD) {
        return err_set(e, FERRY_ERR_DB_RETRY,
                       "%s: the connection was lost (%s): connect again and repeat the transaction",
                       doing, line);
    }
    if (state == NULL) {
        return err_set(e, FERRY_ERR_DB, "%s: %s", doing, line);
    }
    if (is_one_of(state, retry_states, sizeof(retry_states) / sizeof(retry_states[0]))) {
        return err_set(e, FERRY_ERR_DB_RETRY, "%s: %s: roll back and repeat the transaction", doing,
                       line);
    }
    if (is_one_of(state, schema_states, sizeof(schema_states) / sizeof(schema_states[0]))) {
        return err_set(e, FERRY_ERR_DB_SCHEMA, "%s: %s: run `ferry outbox init`", doing, line);
    }
    return err_set(e, FERRY_ERR_DB, "%s: %s (SQLSTATE %s)", doing, line, state);
}
