/* poison_command: asks a program of the operator's what becomes of a row that a broker refused.
 *
 * Runs it without a shell, in a process group of its own, without the relay's own options in its
 * environment (they may have passwords); gives it the row as one JSON object on standard input;
 * takes the first word that it prints (dead, park, block) or, when it prints nothing, its exit code
 * (0, 1, 2). Blocks the calling thread until it ended, at most relay.poison_command_ms; then it is
 * killed. Anything that is no answer is CALLBACK: to be asked again. */
#ifndef FERRY_OUTBOX_RELAY_POISON_COMMAND_H
#define FERRY_OUTBOX_RELAY_POISON_COMMAND_H

#include "base/buf.h"
#include "outbox/relay/relay.h"

struct poison_question {
    const char *database; /* As shown to people. */
    uint32_t lane;
    const struct relay_refusal *refusal;
};

/* `e`: why it is CALLBACK; else untouched. */
enum relay_poison poison_command_ask(const struct relay_options *options,
                                     const struct poison_question *question, struct err_text *e);

/* The JSON object that the program gets, for its test. */
void poison_question_json(struct buf *out, const struct poison_question *question);

#endif
