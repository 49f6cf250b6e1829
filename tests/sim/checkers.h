/* checkers: what must never be seen. */
#ifndef FERRY_SIM_CHECKERS_H
#define FERRY_SIM_CHECKERS_H

#include "sim/sim_node.h"

void check_turn(struct sim_node *n, uint32_t shard);

#endif
