/* saga_world_db: the databases of saga_world. */
#ifndef FERRY_TESTS_SAGA_WORLD_DB_H
#define FERRY_TESTS_SAGA_WORLD_DB_H

#include "saga_world.h"

void world_databases_open(struct world *w);
void world_databases_reset(struct world *w);

#endif
