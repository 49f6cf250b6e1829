/* Reads without a log entry (6.4): the commit index of now, once a quorum has shown after now that
 * it still follows this leader.
 *
 * Any number of READs wait in two rounds. Answers to an append that was sent after the READ confirm
 * it; the sequence numbers of appends say which those are. */
#include "raft/core.h"

enum ferry_err raft_check_read(const struct raft *r, uint64_t number)
{
    if (r->role != RAFT_LEADER) {
        return FERRY_ERR_NOT_LEADER;
    }
#ifndef MUT_18 /* a new leader answers reads before its no-op is committed */
    if (!raft_is_ready(r)) {
        return FERRY_ERR_NOT_READY;
    }
#endif
    return number > r->read_number ? FERRY_OK : FERRY_ERR_INVALID_ARGUMENT;
}

bool raft_has_reads(const struct raft *r)
{
    return r->reads[0].number != 0;
}

void raft_read(struct raft *r, uint64_t number, struct raft_update *u)
{
    raft_wake(r);
    r->read_number = number;
    struct read_round *older = &r->reads[0];
    bool joins_older = older->number == 0 || older->sequence == r->sequence;
    struct read_round *round = joins_older ? older : &r->reads[1];
    *round = (struct read_round){.number = number, .index = r->commit, .sequence = r->sequence};
    raft_confirm_reads(r, u);
}

static uint64_t peer_heard_sequence(const struct raft_peer *peer)
{
    return peer->heard_sequence;
}

static void confirm(struct read_round *round, struct raft_update *u)
{
    u->read_number = round->number;
    u->read_index = round->index;
    *round = (struct read_round){0};
}

void raft_confirm_reads(struct raft *r, struct raft_update *u)
{
    if (!raft_has_reads(r)) {
        return;
    }
    uint64_t heard = raft_quorum_value(r, UINT64_MAX, peer_heard_sequence);
#ifdef MUT_17 /* reads are confirmed without asking a quorum */
    heard = UINT64_MAX;
#endif
    struct read_round *older = &r->reads[0];
    struct read_round *newer = &r->reads[1];
    if (older->sequence < heard) {
        confirm(older, u);
        if (newer->number != 0 && newer->sequence < heard) {
            confirm(newer, u);
        }
        *older = *newer;
        *newer = (struct read_round){0};
    }
}

void raft_fail_reads(struct raft *r, struct raft_update *u)
{
    u->reads_failed = raft_has_reads(r);
    r->reads[0] = (struct read_round){0};
    r->reads[1] = (struct read_round){0};
}

bool raft_reads_want(const struct raft *r, const struct raft_peer *peer)
{
    const struct read_round *newest = r->reads[1].number != 0 ? &r->reads[1] : &r->reads[0];
    return newest->number != 0 && !peer->is_learner && peer->sent_sequence <= newest->sequence;
}
