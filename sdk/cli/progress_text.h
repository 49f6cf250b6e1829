/* progress_text: how far the moves of a cluster are, in words. Pure. */
#ifndef FERRY_CLI_PROGRESS_TEXT_H
#define FERRY_CLI_PROGRESS_TEXT_H

#include <stdint.h>

#define PROGRESS_TEXT_BYTES 160

struct progress {
    uint64_t moves_total, moves_done;
    uint64_t bytes_total, bytes_done;
    int64_t elapsed_us;
};

/* "3 of 12 moves, 1.20 GiB of 4.00 GiB, about 2 min 10 s left"; the estimate once there is a base
 * for it. */
void progress_describe(const struct progress *p, char text[PROGRESS_TEXT_BYTES]);
/* 0 to 1: by bytes, or by moves where there are none to copy. */
double progress_part(const struct progress *p);

#endif
