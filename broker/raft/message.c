#include "raft/core.h"

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

/* Among the message's entries, rising, each one that a leader can have proposed. */
static bool configs_are_sound(const struct raft_message *m)
{
    if (m->config_count > RAFT_MESSAGE_CONFIGS || (m->config_count > 0 && m->configs == NULL)) {
        return false;
    }
    raft_index last = m->prev_index;
    for (size_t i = 0; i < m->config_count; i++) {
        const struct raft_config_entry *entry = &m->configs[i];
        bool is_there = entry->index > last && entry->index <= m->prev_index + m->entry_count;
        if (!is_there || raft_members_check(&entry->members) != FERRY_OK ||
            entry->members.voter_count == 0) {
            return false;
        }
        last = entry->index;
    }
    return true;
}

/* Requests are taken from anybody who speaks for the group: who is a member may be news that only
 * the message itself, or a later one, brings (4.1). Replies of strangers are ignored later on. */
enum ferry_err raft_check_message(const struct raft *r, const struct raft_message *m)
{
    bool is_addressed = m->from != 0 && m->from != r->self && m->to == r->self;
    /* Who has not seen a term yet can be asked for a pre-vote. */
    raft_term term_min = m->type == RAFT_PRE_VOTE_REPLY ? 0 : 1;
    bool term_is_sound = m->term >= term_min && m->term <= RAFT_TERM_MAX;
    bool indexes_are_sound = m->prev_index <= RAFT_INDEX_MAX && m->match_index <= RAFT_INDEX_MAX;
    bool prev_is_sound = (m->prev_index == 0) == (m->prev_term == 0);
    bool body_is_sound = false;
    switch (m->type) {
    case RAFT_VOTE_REQUEST:
    case RAFT_PRE_VOTE_REQUEST:
        /* A candidate has raised its term past all its entries. */
        body_is_sound = prev_is_sound && m->prev_term < m->term;
        break;
    case RAFT_APPEND_REQUEST:
        body_is_sound =
            prev_is_sound && m->prev_term <= m->term && runs_are_sound(m) && configs_are_sound(m);
        break;
    case RAFT_VOTE_REPLY:
    case RAFT_PRE_VOTE_REPLY:
    case RAFT_APPEND_REPLY:
    case RAFT_TIMEOUT_NOW:
        body_is_sound = true;
        break;
    }
    bool sound = is_addressed && term_is_sound && indexes_are_sound && body_is_sound;
    return sound ? FERRY_OK : FERRY_ERR_INVALID_ARGUMENT;
}
