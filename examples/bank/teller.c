/* The teller begins transfers: a row of its own and the saga, in one transaction.
 *
 * Transfers are numbered, and the number decides what a transfer is; so a teller that was killed,
 * or that never heard what became of its COMMIT, looks up the last number and goes on behind it. */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "bank.h"

#define AMOUNT_MAX      100
#define FEE_AMOUNT      1
#define REFUSED_PERCENT 10 /* Payees whose account is closed. */
#define HURRIED_PERCENT 5  /* Transfers whose credit is given about as long as it takes. */
#define SLOW_MIN_MS     50
#define SLOW_MS         100
#define STRANGE_PERCENT 10 /* Payees that are not the payer's usual one. */

static uint64_t mix(uint64_t x) /* splitmix64 */
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static int64_t chance(uint64_t *state, int64_t below)
{
    *state = mix(*state);
    return (int64_t)(*state % (uint64_t)below);
}

static enum kind decide(const struct bank *b, uint64_t seed, struct transfer *t)
{
    uint64_t state = mix(seed ^ mix((uint64_t)t->number * BANKS + (uint64_t)b->letter));
    int64_t payer = chance(&state, ACCOUNTS);
    int64_t payee = chance(&state, 100) < STRANGE_PERCENT ? chance(&state, ACCOUNTS) : payer;
    t->payer = PAYERS + payer;
    t->payee = chance(&state, 100) < REFUSED_PERCENT ? CLOSED_ACCOUNT : PAYEES + payee;
    t->amount = 1 + chance(&state, AMOUNT_MAX);
    t->fee = FEE_AMOUNT;
    t->delay_ms = 0;
    if (chance(&state, 100) < HURRIED_PERCENT) {
        t->delay_ms = SLOW_MIN_MS + chance(&state, SLOW_MS);
        return HURRIED;
    }
    return chance(&state, 2) == 0 ? ORCHESTRATED : CHOREOGRAPHED;
}

/* In a transaction. */
static enum ferry_err begin_transfer(struct bank *b, enum kind kind, const struct transfer *t)
{
    static const char *const letters[KINDS] = {"o", "h", "c"};
    char key[32], data[128], saga[FERRY_ID_TEXT_BYTES];
    struct ferry_id id;
    (void)snprintf(key, sizeof(key), "%c/%lld", b->letter, (long long)t->payer);
    (void)snprintf(data, sizeof(data), "%lld %lld %lld %lld %lld %lld", (long long)t->number,
                   (long long)t->payer, (long long)t->payee, (long long)t->amount,
                   (long long)t->fee, (long long)t->delay_ms);
    enum ferry_err err =
        ferry_saga_start(b->sql.db, &b->kinds[kind].def, key, strlen(key), data, strlen(data), &id);
    if (err == FERRY_OK) {
        ferry_id_format(&id, saga);
        err =
            sql_run(&b->sql, NULL, "INSERT INTO transfer VALUES (?, ?, ?, ?, ?, ?)", "ittiii",
                    t->number, saga, letters[kind], t->amount, t->fee, (int64_t)FERRY_SAGA_RUNNING);
    }
    return err;
}

static enum ferry_err one_transfer(struct bank *b, uint64_t seed, int64_t number)
{
    struct transfer t = {.number = number};
    enum kind kind = decide(b, seed, &t);
    enum ferry_err err = sql_begin(&b->sql);
    if (err == FERRY_OK) {
        err = begin_transfer(b, kind, &t);
    }
    if (err == FERRY_OK) {
        err = sql_commit(&b->sql);
    }
    if (err != FERRY_OK) {
        sql_rollback(&b->sql);
    }
    return err;
}

static enum ferry_err last_number(struct bank *b, int64_t *number)
{
    return sql_run(&b->sql, number,
                   "SELECT coalesce(max(number), 0) FROM transfer WHERE number > ?", "i",
                   (int64_t)0);
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void keep_pace(int64_t begun_ms, int64_t done, int64_t per_second)
{
    int64_t wait_ms = begun_ms + done * 1000 / per_second - now_ms();
    if (wait_ms > 0) {
        poll(NULL, 0, (int)wait_ms);
    }
}

enum ferry_err bank_teller(struct bank *b, int64_t count, int64_t per_second, uint64_t seed)
{
    int64_t number = 0, begun_ms = now_ms(), done = 0;
    enum ferry_err err = last_number(b, &number);
    while (err == FERRY_OK && number < count && !bank_should_stop(NULL)) {
        keep_pace(begun_ms, done++, per_second);
        err = one_transfer(b, seed, number + 1);
        if (err == FERRY_OK) {
            number++;
        }
        while (err == FERRY_ERR_DB_RETRY && !bank_should_stop(NULL)) {
            err = b->sql.lost ? sql_connect(&b->sql, bank_should_stop, NULL) : FERRY_OK;
            if (err == FERRY_OK) {
                err = last_number(b, &number); /* It may be there nevertheless. */
            }
        }
    }
    return err;
}
