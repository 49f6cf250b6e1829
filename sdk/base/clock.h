/* clock: the only place that reads the machine's clocks.
 *
 * The Raft core and everything that is applied from a log must not call this: time reaches them in
 * events and entries. */
#ifndef FERRY_BASE_CLOCK_H
#define FERRY_BASE_CLOCK_H

#include <stdint.h>

int64_t clock_monotonic_us(void); /* Never steps back; for deadlines. */
int64_t clock_wall_ms(void);      /* Unix time; may step. For timestamps that people read. */

#endif
