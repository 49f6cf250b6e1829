/* Opening a bank: Ferry's tables, its own, and its accounts.
 *
 *   account    what there is, and how often it changed
 *   entry      every change, with no key: what is done twice must show
 *   transfer   those that began here, and what became of them
 *   ledger     the id of every message that was ever put into the outbox, by a trigger and so in
 * the same transaction: what whoever checks from outside compares the logs with */
#include <stdio.h>
#include <string.h>

#include "bank.h"

#define STATEMENT_MAX 512

static enum ferry_err make_tables(struct bank *b)
{
    const char *from = b->sql.ops->tables;
    enum ferry_err err = FERRY_OK;
    while (err == FERRY_OK && from != NULL) {
        char statement[STATEMENT_MAX];
        const char *end = strstr(from, ";;");
        size_t bytes = end != NULL ? (size_t)(end - from) : strlen(from);
        (void)snprintf(statement, sizeof(statement), "%.*s", (int)bytes, from);
        err = sql_run(&b->sql, NULL, statement, "");
        from = end != NULL ? end + 2 : NULL;
    }
    return err;
}

static enum ferry_err add_accounts(struct bank *b, int64_t first, int64_t balance)
{
    enum ferry_err err = FERRY_OK;
    for (int64_t i = 0; err == FERRY_OK && i < ACCOUNTS; i++) {
        int64_t has = first == PAYERS && i < POOR ? POOR_BALANCE : balance;
        err = sql_run(&b->sql, NULL, "INSERT INTO account VALUES (?, ?, 0)", "ii", first + i, has);
    }
    return err;
}

enum ferry_err bank_open_accounts(struct bank *b)
{
    enum ferry_err err = ferry_migrate(b->sql.db);
    if (err == FERRY_OK) {
        err = make_tables(b);
    }
    if (err == FERRY_OK) {
        err = sql_begin(&b->sql);
    }
    if (err == FERRY_OK) {
        err = add_accounts(b, FEE_ACCOUNTS, 0);
    }
    if (err == FERRY_OK) {
        err = add_accounts(b, PAYERS, BALANCE);
    }
    if (err == FERRY_OK) {
        err = add_accounts(b, PAYEES, 0);
    }
    return err == FERRY_OK ? sql_commit(&b->sql) : err;
}
