#include "outbox/relay/relay_setup.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "outbox/relay/relay_policy.h"
#include "outbox/relay/serve.h"

/* The program that decides has to be there before the first row needs it. */
static void check_poison(const struct relay_options *options, struct config_problems *problems)
{
    const char *command = options->poison_command;
    char path[RELAY_COMMAND_MAX + 1];
    bool asked = options->poison == RELAY_POISON_CALLBACK ||
                 strstr(options->poison_topics, "=callback") != NULL;
    (void)snprintf(path, sizeof(path), "%.*s", (int)strcspn(command, " \t"), command);
    if (asked && command[0] == '\0') {
        config_problem(problems, "relay.poison_command is to be given: callback asks it");
    } else if (command[0] != '\0' && path[0] != '/') {
        config_problem(problems, "relay.poison_command: %s is not an absolute path", path);
    } else if (command[0] != '\0' && access(path, X_OK) != 0) {
        config_problem(problems, "relay.poison_command: %s: %s", path, strerror(errno));
    }
}

void relay_setup_check(const struct relay_options *options, struct config_problems *problems)
{
    struct err_text e = {{0}};
    if (options->poll_min_ms > options->poll_max_ms) {
        config_problem(problems, "relay.poll_min_ms is larger than relay.poll_max_ms");
    }
    if (options->retry_min_ms > options->retry_max_ms) {
        config_problem(problems, "relay.retry_min_ms is larger than relay.retry_max_ms");
    }
    check_poison(options, problems);
    if (relay_policy_check(options, &e) != FERRY_OK) {
        config_problem(problems, "%s", e.text);
    }
    if (serve_lanes_check(options->lanes, &e) != FERRY_OK) {
        config_problem(problems, "%s", e.text);
    }
}
