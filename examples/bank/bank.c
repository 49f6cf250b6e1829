/* The program.
 *
 *   bank open   LETTER URL                         makes the tables and the accounts
 *   bank teller LETTER URL COUNT PER_SECOND SEED   begins transfers, COUNT in all
 *   bank clerk  LETTER URL SERVERS NAME            does what messages ask of the bank, until
 * SIGTERM
 *
 * Either may be killed at any moment and started again; so may its database, and the brokers. */
#include "bank.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HURRY_MS 100 /* A hurried credit has so long; see teller.c. */

static volatile sig_atomic_t stop_asked;

static void ask_to_stop(int signal)
{
    (void)signal;
    stop_asked = 1;
}

bool bank_should_stop(void *arg)
{
    (void)arg;
    return stop_asked != 0;
}

static void define(struct bank *b, enum kind kind)
{
    static const char *const types[KINDS] = {"orchestrated", "hurried", "choreographed"};
    struct kind_def *k = &b->kinds[kind];
    (void)snprintf(k->type, sizeof(k->type), "%s", types[kind]);
    for (int i = 0; i < STEPS; i++) {
        (void)snprintf(k->topics[i], sizeof(k->topics[i]), "bank.%c",
                       'a' + (b->letter - 'a' + i) % BANKS);
        k->steps[i].topic = k->topics[i];
    }
    if (kind == HURRIED) {
        k->steps[CREDIT].deadline_ms = HURRY_MS;
    }
    k->def = (struct ferry_saga_def){
        .type = k->type,
        .kind = kind == CHOREOGRAPHED ? FERRY_SAGA_CHOREOGRAPHED : FERRY_SAGA_ORCHESTRATED,
        .steps = k->steps,
        .count = STEPS,
        .reply_topic = k->topics[0], /* Commands and answers come by the bank's one topic. */
    };
}

bool bank_init(struct bank *b, const char *letter, const char *url)
{
    if (strlen(letter) != 1 || letter[0] < 'a' || letter[0] >= 'a' + BANKS ||
        !sql_init(&b->sql, url)) {
        return false;
    }
    b->letter = letter[0];
    for (int kind = 0; kind < KINDS; kind++) {
        define(b, (enum kind)kind);
    }
    return true;
}

int bank_end(struct bank *b, const char *who, enum ferry_err err)
{
    if (err != FERRY_OK) {
        const char *ferry = b->sql.db != NULL ? ferry_db_detail(b->sql.db) : "";
        fprintf(stderr, "bank %s %c: %s: %s %s\n", who, b->letter, ferry_err_name(err), ferry,
                b->sql.error);
    }
    sql_close(&b->sql);
    return err == FERRY_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    struct bank b = {0};
    enum ferry_err err = FERRY_OK;
    const char *who = argc > 1 ? argv[1] : "";
    bool open = strcmp(who, "open") == 0 && argc == 4;
    bool teller = strcmp(who, "teller") == 0 && argc == 7;
    bool clerk = strcmp(who, "clerk") == 0 && argc == 6;
    if ((!open && !teller && !clerk) || !bank_init(&b, argv[2], argv[3])) {
        fputs("usage: bank open LETTER URL | bank teller LETTER URL COUNT PER_SECOND SEED |\n"
              "       bank clerk LETTER URL SERVERS NAME\n",
              stderr);
        return 2;
    }
    (void)signal(SIGTERM, ask_to_stop);
    (void)signal(SIGINT, ask_to_stop);
    err = sql_connect(&b.sql, bank_should_stop, NULL);
    if (err == FERRY_OK && open) {
        err = bank_open_accounts(&b);
    } else if (err == FERRY_OK && teller) {
        err = bank_teller(&b, strtoll(argv[4], NULL, 10), strtoll(argv[5], NULL, 10),
                          strtoull(argv[6], NULL, 10));
    } else if (err == FERRY_OK) {
        err = bank_clerk(&b, argv[4], argv[5]);
    }
    return bank_end(&b, who, bank_should_stop(NULL) ? FERRY_OK : err);
}
