/* Append requests: the follower's side of replication (3.5; paper 5.3; configurations 4.1). */
#include "raft/core.h"

enum append_verdict {
    APPEND_FITS,
    APPEND_REFUSED,     /* The entry before the new ones is not here, or is another. */
    APPEND_CONTRADICTS, /* It would change what is committed: somebody's promise is broken. */
};

struct append_plan {
    enum append_verdict verdict;
    raft_index first_new; /* FITS: the message's entries from here on are new; 0: none are. */
};

/* The first entry of the message that the log lacks or has with another term; 0 when it has all.
 * Entries at or below trim_index are committed, so they are the same. */
static raft_index first_difference(const struct raft *r, const struct raft_message *m)
{
    raft_index known = m->prev_index > r->log.trim_index ? m->prev_index : r->log.trim_index;
    raft_index at = known + 1;
    for (size_t i = 0; i < m->run_count; i++) {
        raft_index last = m->prev_index + m->entry_count;
        raft_index run_end = i + 1 < m->run_count ? m->runs[i + 1].first - 1 : last;
        while (at <= run_end) {
            if (runs_term_at(&r->log, at) != m->runs[i].term) {
                return at;
            }
            raft_index stretch_end = runs_stretch_end(&r->log, at);
            at = (stretch_end < run_end ? stretch_end : run_end) + 1;
        }
    }
    return 0;
}

static struct append_plan plan_append(const struct raft *r, const struct raft_message *m)
{
    bool prev_is_trimmed = m->prev_index < r->log.trim_index;
    bool prev_matches =
        m->prev_index <= r->log.last_index && runs_term_at(&r->log, m->prev_index) == m->prev_term;
    if (!prev_is_trimmed && !prev_matches) {
        bool contradicts = m->prev_index <= r->commit;
        return (struct append_plan){contradicts ? APPEND_CONTRADICTS : APPEND_REFUSED, 0};
    }
    raft_index first_new = first_difference(r, m);
#ifdef MUT_07 /* an append that ends inside the log cuts off what follows */
    first_new = m->entry_count > 0 && m->prev_index >= r->commit ? m->prev_index + 1 : first_new;
#endif
    /* The configuration before the one in force is committed too, known or not (4.1). */
    bool contradicts =
        first_new != 0 && (first_new <= r->commit || first_new <= r->previous_config.index);
    return (struct append_plan){contradicts ? APPEND_CONTRADICTS : APPEND_FITS, first_new};
}

enum ferry_err raft_check_append(const struct raft *r, const struct raft_message *m)
{
    if (m->term < r->term) {
        return FERRY_OK; /* Refused without being looked at. */
    }
    bool term_has_another_leader = m->term == r->term && r->leader != 0 && r->leader != m->from;
    if (term_has_another_leader) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    bool contradicts = plan_append(r, m).verdict == APPEND_CONTRADICTS;
    return contradicts ? FERRY_ERR_CORRUPT : FERRY_OK;
}

static void append_message_entries(struct raft *r, const struct raft_message *m,
                                   raft_index first_new)
{
    raft_index last = m->prev_index + m->entry_count;
    for (size_t i = 0; i < m->run_count; i++) {
        raft_index run_end = i + 1 < m->run_count ? m->runs[i + 1].first - 1 : last;
        raft_index from = m->runs[i].first > first_new ? m->runs[i].first : first_new;
        if (from <= run_end) {
            must(from == r->log.last_index + 1);
            runs_append(&r->log, run_end - from + 1, m->runs[i].term);
        }
    }
    must(r->log.last_index == last);
}

/* Only a real conflict truncates. A late, reordered append that ends inside the log must leave the
 * entries after it alone: they may already be counted by the leader (paper 5.3, fig. 2, step 3). */
static void take_entries(struct raft *r, const struct raft_message *m, raft_index first_new,
                         struct raft_update *u)
{
    if (first_new <= r->log.last_index) {
        must(first_new > r->commit);
        raft_roll_back_config(r, first_new, u);
        runs_truncate(&r->log, first_new);
        if (r->stored >= first_new) {
            r->stored = first_new - 1;
        }
        r->truncate_number = r->number;
        u->truncate_from = first_new;
    }
    append_message_entries(r, m, first_new);
    u->append_kind = RAFT_APPENDED_RECEIVED;
    u->append_first = first_new;
    u->append_last = r->log.last_index;
    for (size_t i = 0; i < m->config_count; i++) {
        if (m->configs[i].index >= first_new) {
            raft_adopt_config(r, &m->configs[i], u);
        }
    }
}

/* Fast back-up (paper 5.3): not the entry before, but the last one that can match: nothing of a
 * later term than the leader had there, and never below what is committed, for the leader has
 * that. One refusal skips a whole term. */
static raft_index back_up_hint(const struct raft *r, const struct raft_message *m)
{
    raft_index hint = runs_find_term(&r->log, m->prev_index, m->prev_term);
    return hint > r->commit ? hint : r->commit;
}

/* What this message proved to be the leader's, not all we have: the rest may differ. And nothing at
 * or past an entry that cannot be read. */
static void acknowledge(struct raft *r, const struct raft_message *m, struct raft_message *reply)
{
    reply->match_index = m->prev_index + m->entry_count;
    reply->match_term = m->run_count > 0 ? m->runs[m->run_count - 1].term : m->prev_term;
#ifdef MUT_26 /* a reply acknowledges more than the message proved */
    reply->match_index = r->log.last_index;
#endif
    if (r->mute != 0 && reply->match_index >= r->mute) {
        reply->match_index = r->mute - 1;
        reply->match_term = runs_term_at(&r->log, reply->match_index);
    }
}

static void reply_to_append(struct raft *r, const struct raft_message *m, bool success)
{
    struct outbox *o = &r->send_after_sync;
#ifdef MUT_03 /* an append reply leaves before the fsync */
    o = &r->send_now;
#endif
    struct raft_message *reply = raft_outbox_add(r, o, RAFT_APPEND_REPLY, m->from);
    reply->success = success;
    /* Sequences are a leader's own of one term: to one of an earlier term, who may lead again by
     * now, or have restarted and counted anew, this must not look like an answer of now. */
    reply->sequence = m->term == r->term ? m->sequence : 0;
#ifdef MUT_10 /* a refusal of an earlier term's append looks like an answer of now */
    reply->sequence = m->sequence;
#endif
    if (success) {
        acknowledge(r, m, reply);
        reply->quiet = r->is_quiet;
    } else if (m->term == r->term) {
        reply->match_index = back_up_hint(r, m);
        reply->match_term = runs_term_at(&r->log, reply->match_index);
    }
}

/* Not beyond what this message proved: the leader's commit may name entries of which we still hold
 * others (fig. 2, step 5). */
static void follow_commit(struct raft *r, const struct raft_message *m)
{
    raft_index proved = m->prev_index + m->entry_count;
#ifdef MUT_08 /* commit goes beyond what the message proved */
    proved = r->log.last_index;
#endif
    raft_index commit = m->commit < proved ? m->commit : proved;
    if (commit > r->commit) {
        r->commit = commit;
    }
}

void raft_receive_append_request(struct raft *r, const struct raft_message *m,
                                 struct raft_update *u)
{
    if (m->term < r->term) {
        reply_to_append(r, m, false);
        return;
    }
    raft_become_follower(r, m->term, m->from, u);
    r->heard_us = r->now_us;
    raft_restart_election_timer(r);
    struct append_plan plan = plan_append(r, m);
    must(plan.verdict != APPEND_CONTRADICTS);
    if (plan.verdict == APPEND_REFUSED) {
        reply_to_append(r, m, false);
        return;
    }
    if (plan.first_new != 0) {
        take_entries(r, m, plan.first_new, u);
    }
    follow_commit(r, m);
    r->is_quiet = raft_agrees_to_quiet(r, m);
    reply_to_append(r, m, true);
}
