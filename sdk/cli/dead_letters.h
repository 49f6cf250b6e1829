/* dead_letters: what the dlq commands have in common: walking the letters of a subscription, and
 * reading one whole. */
#ifndef FERRY_CLI_DEAD_LETTERS_H
#define FERRY_CLI_DEAD_LETTERS_H

#include "cli/cli.h"
#include "ferry.h"

/* Calls `visit` for every dead letter, by partition and number, with the reason or with any (NULL).
 * Ends at an interrupt, or when `visit` returns an error, which is returned. */
typedef enum ferry_err dead_visit(const struct ferry_dead *dead, void *arg);
MUST_CHECK enum ferry_err dead_letters_walk(struct cli *cli, const char *reason, dead_visit *visit,
                                            void *arg);
/* The one at the place. Errors: UNKNOWN_MESSAGE when it is not there. */
MUST_CHECK enum ferry_err dead_letters_find(struct cli *cli, struct ferry_dead_place place,
                                            struct ferry_dead *dead);

/* The name it is read by: TOPIC.dlq.SUBSCRIPTION. */
#define DEAD_TOPIC_BYTES 512
void dead_letters_topic(const struct cli *cli, char text[DEAD_TOPIC_BYTES]);
/* The letter as a record; it lives until the batch, NULL at first, is freed. Errors:
 * UNKNOWN_MESSAGE. */
MUST_CHECK enum ferry_err dead_letters_read(struct cli *cli, struct ferry_dead_place place,
                                            struct ferry_batch **batch,
                                            struct ferry_record *record);

/* --partition and --number together name one letter. Tells the user what is wrong. */
MUST_CHECK enum cli_exit dead_letters_place(const struct cli *cli, struct ferry_dead_place *place,
                                            bool *named);
/* Tells of an error of any of these. */
enum cli_exit dead_letters_fail(const struct cli *cli, enum ferry_err err);

#endif
