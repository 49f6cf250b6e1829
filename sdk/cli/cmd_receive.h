/* cmd_receive: `consume` of subscriptions of mode queue and keyed: messages under leases. */
#ifndef FERRY_CLI_CMD_RECEIVE_H
#define FERRY_CLI_CMD_RECEIVE_H

#include "cli/cli.h"
#include "ferry.h"

/* After cli_connect(). */
enum cli_exit receive_run(struct cli *cli, enum ferry_mode mode);

#endif
