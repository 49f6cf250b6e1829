/* timeline: where a PostgreSQL server's timeline branched off the ones before it. Pure.
 *
 * A standby that takes over goes on with a new number of the timeline, from the place P in the
 * write-ahead log up to which it had received the old one. Its history file says so for each
 * timeline that it descends from.
 *
 * Why a cursor may go on there when P >= L, with L the place that the cursor keeps: every
 * transaction that its snapshots see as finished wrote its commit or abort into the log before L
 * (the server writes it before a snapshot can show it, and L is read after the snapshot). So
 * (1) what the cursor covers is on the new timeline: the logs hold no row that the database lost;
 * (2) the server's next number of a transaction is, after its recovery, above each number in the
 * log it has, so it is at least xmax of each of those snapshots: no number below an xmax is given
 * out anew, be it one that finished, was rolled back, was a subtransaction's, or was open and lost;
 * a row of the new timeline is therefore never "visible already" in an old snapshot;
 * (3) a transaction that was open in the snapshot (it is listed there) has finished before P, and
 * its rows come as late ones; or it was prepared, and its rows come late after COMMIT PREPARED; or
 * it is gone, and no row has its number;
 * (4) what the new server shows covers what the old one showed, so ticks and marks stay in order.
 * When P < L none of this holds: rows may be published that the database no longer has, and their
 * transactions' numbers are given to new rows, which the cursor takes for published ones. Then
 * only the messages' ids tell them apart, which is what `ferry outbox rebase` looks at.
 *
 * Several switch-overs in a row: the history names all of them; a cursor of any of its timelines
 * goes on when each branch from that one on lies at or behind L. A timeline that the history does
 * not name is another branch: its rows are not here. */
#ifndef FERRY_OUTBOX_POSTGRESQL_TIMELINE_H
#define FERRY_OUTBOX_POSTGRESQL_TIMELINE_H

#include <stdbool.h>
#include <stdint.h>

/* Whether the history (the text of a history file) descends from that timeline, and up to where it
 * has it. False: it does not, or the text is no history. */
bool timeline_left_at(const char *history, uint32_t timeline, uint64_t *place);

#endif
