/* relay_view: who publishes an outbox now, as the brokers know it. */
#ifndef FERRY_CLI_RELAY_VIEW_H
#define FERRY_CLI_RELAY_VIEW_H

#include "base/bytes.h"
#include "cli/cli.h"
#include "cli/output.h"

struct relay_view {
    bool asked;
    enum ferry_err err; /* Why the rest is unknown. */
    char detail[200];   /* Its words; may be empty. */
    uint32_t lanes;
    struct ferry_source_info *infos; /* One a lane. Owned; NULL when unknown. */
};

/* Asks for at most a few seconds unless --timeout says otherwise; what goes wrong is told later, by
 * the view. Connects unless that was done; the result is not OK when the options are wrong, which
 * the user was told then. */
MUST_CHECK enum cli_exit relay_view_ask(struct cli *cli, const struct ferry_id *source_id,
                                        uint32_t lanes, struct relay_view *view);
void relay_view_fini(struct relay_view *view); /* Accepts zeroed memory. */
/* Of an outbox with one lane; empty when it is not known. */
struct bytes relay_view_checkpoint(const struct relay_view *view);
void relay_view_print(const struct relay_view *view);
json_t *relay_view_json(const struct relay_view *view); /* Null: not known. */

#endif
