/* relay_setup: what of a relay's options can be wrong together, for the program and for a relay
 * inside an application. No state. */
#ifndef FERRY_OUTBOX_RELAY_RELAY_SETUP_H
#define FERRY_OUTBOX_RELAY_RELAY_SETUP_H

#include "base/config.h"
#include "outbox/relay/relay_options.h"

/* Each thing that is wrong becomes a problem that names the option. Looks whether the program of
 * relay.poison_command is there. */
void relay_setup_check(const struct relay_options *options, struct config_problems *problems);

#endif
