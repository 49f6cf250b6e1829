/* run: one seed from the first start to the verdict. */
#ifndef FERRY_SIM_RUN_H
#define FERRY_SIM_RUN_H

#include "sim/coverage.h"
#include "sim/world.h"

struct run_options {
    uint64_t seed;
    bool verbose, frames;
    uint32_t nodes;  /* 0: the seed says. */
    int64_t seconds; /* Of faults; 0: the seed says. */
    bool no_faults;
    int lie;    /* enum history_lie; the run must fail. */
    bool print; /* The options that the seed drew, and what was counted. */
};

struct run_result {
    enum sim_end end;
    char verdict[600];
    uint64_t hash, events;
    int64_t simulated_us;
    uint64_t acked, read;
    bool marks[MARKS];
};

void run_seed(const struct run_options *options, struct run_result *result);

#endif
