#include "raft/core.h"

static bool is_from_a_peer(const struct raft *r, const struct raft_message *m)
{
    bool found = false;
    for (size_t i = 0; i < r->peer_count; i++) {
        found = found || r->peers[i].id == m->from;
    }
    return found && m->to == r->self;
}

/* The runs cover exactly prev_index + 1..prev_index + entry_count, and their terms are ones that
 * the sender's log can have. */
static bool runs_are_sound(const struct raft_message *m)
{
    if (m->entry_count == 0) {
        return m->run_count == 0;
    }
    bool counts_are_sound = m->entry_count <= RAFT_APPEND_ENTRIES_MAX && m->run_count >= 1 &&
                            m->run_count <= RAFT_APPEND_RUNS_MAX && m->runs != NULL;
    if (!counts_are_sound || m->runs[0].first != m->prev_index + 1) {
        return false;
    }
    raft_term last_term = m->prev_term;
    for (size_t i = 0; i < m->run_count; i++) {
        const struct raft_run *run = &m->runs[i];
        bool term_is_sound = run->term > 0 && run->term <= m->term &&
                             (i == 0 ? run->term >= last_term : run->term > last_term);
        bool first_is_sound = run->first <= m->prev_index + m->entry_count &&
                              (i == 0 || run->first > m->runs[i - 1].first);
        if (!term_is_sound || !first_is_sound) {
            return false;
        }
        last_term = run->term;
    }
    return true;
}

enum ferry_err raft_check_message(const struct raft *r, const struct raft_message *m)
{
    bool header_is_sound = is_from_a_peer(r, m) && m->term >= 1 && m->term <= RAFT_TERM_MAX;
    bool indexes_are_sound = m->prev_index <= RAFT_INDEX_MAX && m->match_index <= RAFT_INDEX_MAX;
    bool prev_is_sound = (m->prev_index == 0) == (m->prev_term == 0);
    bool body_is_sound = false;
    switch (m->type) {
    case RAFT_VOTE_REQUEST:
        /* A candidate has raised its term past all its entries. */
        body_is_sound = prev_is_sound && m->prev_term < m->term;
        break;
    case RAFT_APPEND_REQUEST:
        body_is_sound = prev_is_sound && m->prev_term <= m->term && runs_are_sound(m);
        break;
    case RAFT_VOTE_REPLY:
    case RAFT_APPEND_REPLY:
        body_is_sound = true;
        break;
    }
    bool sound = header_is_sound && indexes_are_sound && body_is_sound;
    return sound ? FERRY_OK : FERRY_ERR_INVALID_ARGUMENT;
}
