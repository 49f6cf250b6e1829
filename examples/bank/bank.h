/* bank: one of three banks, A, B and C, each with a database of its own, and the transfers among
 * them.
 *
 * A transfer begins at any of them and is a saga of three steps, each a local transaction of one
 * bank: its own debits the payer, the next takes the fee, the third credits the payee. Half of them
 * are orchestrated (the first bank commands each step and waits for its answer), half choreographed
 * (the message itself goes round). If a step is refused, those before it are compensated.
 *
 * Accounts: FEE_ACCOUNTS on collect fees, PAYERS on pay, PAYEES on receive and never pay: a credit
 * may still have to be taken back, so nobody may spend it before. That is how a saga does without
 * isolation. */
#ifndef FERRY_EXAMPLE_BANK_H
#define FERRY_EXAMPLE_BANK_H

#include "sql.h"

#define BANKS          3
#define ACCOUNTS       100 /* Of each kind. */
#define FEE_ACCOUNTS   1000
#define PAYERS         2000
#define PAYEES         3000
#define CLOSED_ACCOUNT 4000 /* There is none. */
#define BALANCE        100000
#define POOR           5 /* So many payers have little, and are refused one day. */
#define POOR_BALANCE   500
#define EVENTS_TOPIC   "bank.events" /* Every change of an account, keyed by the account. */

enum kind { ORCHESTRATED, HURRIED, CHOREOGRAPHED, KINDS };
enum step { DEBIT, FEE, CREDIT, STEPS };

/* A definition that lives in one place, with its texts. */
struct kind_def {
    struct ferry_saga_def def;
    struct ferry_saga_step steps[STEPS];
    char topics[STEPS][16], type[16];
};

struct bank {
    struct sql sql;
    char letter; /* 'a', 'b' or 'c'. */
    struct kind_def kinds[KINDS];
};

/* What travels as a saga's data. */
struct transfer {
    int64_t number;
    int64_t payer, payee;
    int64_t amount, fee;
    int64_t delay_ms; /* How slow the payee's bank is with it. */
};

bool bank_init(struct bank *b, const char *letter, const char *url);
/* Tells what went wrong; the exit status. */
int bank_end(struct bank *b, const char *who, enum ferry_err err);
bool bank_should_stop(void *arg); /* SIGTERM or SIGINT came. */

enum ferry_err bank_open_accounts(struct bank *b);                            /* accounts.c */
enum ferry_err bank_teller(struct bank *b, int64_t count, int64_t per_second, /* teller.c */
                           uint64_t seed);
enum ferry_err bank_clerk(struct bank *b, const char *servers, const char *name); /* clerk.c */

#endif
