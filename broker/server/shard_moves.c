/* Bringing a group to where it should be, on the shard of its leader.
 *
 * What should be is node ids (the placement, or the target of a move; of group 0 what the metadata
 * computes); nodes are members by who is registered for them now. So a move and the replacement of
 * a lost folder are the same work, and after a crash of anyone the next leader goes on with it:
 *   learners are added; when those that are to vote have caught up, the members are configured (the
 *   core goes through joint by itself); a leader that is leaving hands over to one that stays;
 *   then, when somebody waits for it, the metadata leader is told.
 * Each step changes one thing and looks again: when something changed, or after a while. Nothing
 * looks at all groups. */
#include "base/log.h"
#include "server/shard_internal.h"

#define LOOK_AGAIN_US 200000
#define REPEAT_US     1000000
/* A leadership that is where it should not be is handed over after so long, and not more often. */
#define SPREAD_US     10000000
#define COPY_BURST_US 100000
/* Behind by no more than this counts as caught up: it takes one round of appends. */
#define CAUGHT_UP_ENTRIES 256u

void shard_look_at_members(struct shard *s, struct seat *seat)
{
    if (seat->led_term != 0) {
        heap_set(&s->moves, &seat->move, s->now_us);
    }
}

static void look_again(struct shard *s, struct seat *seat, int64_t after_us)
{
    heap_set(&s->moves, &seat->move, s->now_us + after_us);
}

static void set_filling(struct shard *s, struct seat *seat, bool filling)
{
    if (seat->filling != filling) {
        s->filling += filling ? 1 : UINT32_MAX; /* Down by one. */
        seat->filling = filling;
    }
}

void shard_stop_driving(struct shard *s, struct seat *seat)
{
    heap_remove(&s->moves, &seat->move);
    set_filling(s, seat, false);
    if (!list_is_empty(&seat->led)) {
        list_remove(&seat->led);
    }
    seat->led_term = 0;
}

/* ---- What should be ---- */

static bool add_id(raft_id *ids, uint32_t *count, uint32_t max, raft_id id)
{
    uint32_t at = *count;
    if (at == max) {
        return false;
    }
    for (; at > 0 && ids[at - 1] > id; at--) {
        ids[at] = ids[at - 1];
    }
    ids[at] = id;
    (*count)++;
    return true;
}

static bool has_id(const raft_id *ids, uint32_t count, raft_id id)
{
    for (uint32_t i = 0; i < count; i++) {
        if (ids[i] == id) {
            return true;
        }
    }
    return false;
}

/* False: not all of the nodes are known here (yet). */
static bool fill_wanted(const struct shard *s, const struct seat *seat, struct raft_members *wanted)
{
    *wanted = (struct raft_members){0};
    if (seat->group == META_GROUP) {
        meta_wanted_members(s->meta, wanted);
        return wanted->voter_count > 0;
    }
    for (uint32_t i = 0; i < seat->target_count; i++) {
        const struct node *n = shard_find_node(s, seat->target[i]);
        if (n == NULL || has_id(wanted->voters, wanted->voter_count, n->member) ||
            !add_id(wanted->voters, &wanted->voter_count, RAFT_VOTERS_MAX, n->member)) {
            return false;
        }
    }
    return wanted->voter_count > 0;
}

/* ---- How far the others are ---- */

struct progress {
    struct raft_progress peers[RAFT_PEERS_MAX];
    size_t count;
};

static const struct raft_progress *progress_of(const struct progress *p, raft_id member)
{
    for (size_t i = 0; i < p->count; i++) {
        if (p->peers[i].id == member) {
            return &p->peers[i];
        }
    }
    return NULL;
}

static bool has_caught_up(const struct shard *s, const struct seat *seat, const struct progress *p,
                          raft_id member)
{
    if (member == s->self) {
        return true;
    }
    const struct raft_progress *peer = progress_of(p, member);
    return peer != NULL && !peer->snapshotting && peer->match > 0 &&
           peer->match + CAUGHT_UP_ENTRIES >= replica_last_index(seat->replica);
}

/* A voter that could take over now: caught up, and heard just now (or quiet, with all of it). */
static bool may_lead(const struct shard *s, const struct seat *seat, const struct progress *p,
                     raft_id member)
{
    const struct raft_progress *peer = progress_of(p, member);
    const struct node *n = shard_find_member(s, member);
    return peer != NULL && n != NULL && !n->far[seat->group % n->shards].silent &&
           raft_members_has_voter(replica_members(seat->replica), member) &&
           has_caught_up(s, seat, p, member);
}

/* ---- Steps ---- */

static enum ferry_err configure(struct shard *s, struct seat *seat, const struct raft_members *m)
{
    enum ferry_err err = replica_configure(seat->replica, m, s->now_us);
    shard_touch(s, seat);
    if (err != FERRY_OK && err != FERRY_ERR_NOT_READY && err != FERRY_ERR_NOT_LEADER) {
        log_line(LOG_WARN, "moves", "group %llu: its members cannot be changed: %s",
                 (unsigned long long)seat->group, ferry_err_text(err));
    }
    return err;
}

/* Learners: those that are wanted as such, and those that are to vote once they have caught up. */
static bool add_learners(struct shard *s, struct seat *seat, const struct raft_members *wanted)
{
    const struct raft_members *now = replica_members(seat->replica);
    struct raft_members next = *now;
    next.learner_count = 0;
    for (uint32_t i = 0; i < wanted->voter_count; i++) {
        if (!has_id(now->voters, now->voter_count, wanted->voters[i])) {
            (void)add_id(next.learners, &next.learner_count, RAFT_LEARNERS_MAX, wanted->voters[i]);
        }
    }
    for (uint32_t i = 0; i < wanted->learner_count; i++) {
        if (!has_id(now->voters, now->voter_count, wanted->learners[i])) {
            (void)add_id(next.learners, &next.learner_count, RAFT_LEARNERS_MAX,
                         wanted->learners[i]);
        }
    }
    if (raft_members_equal(&next, now)) {
        return false;
    }
    (void)configure(s, seat, &next);
    return true;
}

/* Those that are to vote newly, and a majority of all: one that votes already and is dead must not
 * keep others from taking the place of another. */
static bool enough_caught_up(const struct shard *s, const struct seat *seat,
                             const struct progress *p, const struct raft_members *wanted)
{
    const struct raft_members *now = replica_members(seat->replica);
    uint32_t caught_up = 0;
    for (uint32_t i = 0; i < wanted->voter_count; i++) {
        bool has = has_caught_up(s, seat, p, wanted->voters[i]);
        if (!has && !has_id(now->voters, now->voter_count, wanted->voters[i])) {
            return false;
        }
        caught_up += has ? 1 : 0;
    }
    return caught_up > wanted->voter_count / 2;
}

/* This node is to leave the group: one that stays takes over, if there is one that can. */
static bool leave_first(struct shard *s, struct seat *seat, const struct progress *p,
                        const struct raft_members *wanted)
{
    if (has_id(wanted->voters, wanted->voter_count, s->self)) {
        return false;
    }
    for (uint32_t i = 0; i < wanted->voter_count; i++) {
        if (may_lead(s, seat, p, wanted->voters[i])) {
            enum ferry_err err = replica_transfer(seat->replica, wanted->voters[i], s->now_us);
            shard_touch(s, seat);
            return err == FERRY_OK || err == FERRY_ERR_NOT_READY;
        }
    }
    return false;
}

/* The preferred leader should lead, so that leaders are spread as replicas are. */
static void spread(struct shard *s, struct seat *seat, const struct progress *p)
{
    int64_t due_us = seat->led_since_us + SPREAD_US;
    due_us = seat->transfer_due_us > due_us ? seat->transfer_due_us : due_us;
    const struct node *n = seat->target_count > 0 ? shard_find_node(s, seat->target[0]) : NULL;
    if (n == NULL || n->member == s->self || seat->transfer != NULL) {
        return;
    }
    if (s->now_us >= due_us && may_lead(s, seat, p, n->member)) {
        enum ferry_err err = replica_transfer(seat->replica, n->member, s->now_us);
        (void)err; /* It is tried again. */
        shard_touch(s, seat);
        seat->transfer_due_us = s->now_us + SPREAD_US;
    }
    look_again(s, seat, s->now_us < due_us ? due_us - s->now_us : SPREAD_US);
}

/* The members are what they should be, for good: the metadata lets go of the replicas that are not
 * among them, and their nodes delete them. */
static void arrived(struct shard *s, struct seat *seat, const struct progress *p)
{
    set_filling(s, seat, false);
    if (seat->moving) {
        struct mail mail = {
            .kind = MAIL_MOVED, .group = seat->group, .target_count = seat->target_count};
        memcpy(mail.target, seat->target, sizeof(mail.target));
        shard_post(s, &mail);
        look_again(s, seat, REPEAT_US);
        return;
    }
    if (seat->group != META_GROUP) {
        spread(s, seat, p);
    }
}

/* Someone has to be copied: not too many groups of a shard at a time. */
static bool may_fill(struct shard *s, struct seat *seat)
{
    bool may = seat->filling || seat->group == META_GROUP ||
               s->filling < (uint32_t)s->config.options->active_moves;
    set_filling(s, seat, may);
    return may;
}

static void drive(struct shard *s, struct seat *seat)
{
    struct raft_members wanted;
    struct progress p;
    if (!replica_is_ready(seat->replica) || seat->dropping || atomic_load(&s->leaving)) {
        return;
    }
    const struct raft_members *now = replica_members(seat->replica);
    if (!fill_wanted(s, seat, &wanted)) {
        look_again(s, seat, REPEAT_US);
        return;
    }
    p.count = replica_progress(seat->replica, p.peers, RAFT_PEERS_MAX);
    bool final = replica_members_are_final(seat->replica);
    if (raft_members_equal(now, &wanted) && final) {
        arrived(s, seat, &p);
        return;
    }
    look_again(s, seat, LOOK_AGAIN_US);
    if (!final || now->old_voter_count > 0 || !may_fill(s, seat) ||
        add_learners(s, seat, &wanted)) {
        return;
    }
    if (enough_caught_up(s, seat, &p, &wanted) && !leave_first(s, seat, &p, &wanted)) {
        (void)configure(s, seat, &wanted);
    }
}

void shard_drive_moves(struct shard *s)
{
    for (;;) {
        struct heap_node *node = heap_first(&s->moves);
        if (node == NULL || node->due > s->now_us || atomic_load(&s->failure) != FERRY_OK) {
            return;
        }
        struct seat *seat = list_entry(node, struct seat, move);
        heap_remove(&s->moves, node);
        drive(s, seat);
    }
}

void shard_fill_copies(struct shard *s)
{
    int64_t rate = s->config.options->move_bytes_per_second;
    int64_t passed_us = s->now_us - s->copy_filled_us;
    int64_t most = rate / (1000000 / COPY_BURST_US);
    /* Only what makes whole bytes is counted as passed: at a low rate turns are short for one. */
    int64_t added = rate / 1000 * (passed_us < COPY_BURST_US ? passed_us : COPY_BURST_US) / 1000;
    if (added > 0) {
        s->copy_bytes = s->copy_bytes + added < most ? s->copy_bytes + added : most;
        s->copy_filled_us = s->now_us;
    }
}

/* ---- Leaving the process ---- */

/* True while another could have it. */
static bool hand_over(struct shard *s, struct seat *seat)
{
    struct progress p;
    p.count = replica_progress(seat->replica, p.peers, RAFT_PEERS_MAX);
    for (size_t i = 0; i < p.count; i++) {
        if (may_lead(s, seat, &p, p.peers[i].id)) {
            enum ferry_err err = replica_transfer(seat->replica, p.peers[i].id, s->now_us);
            (void)err; /* Under way, or tried again soon. */
            shard_touch(s, seat);
            return true;
        }
    }
    return false;
}

void shard_lead_elsewhere(struct shard *s, struct seat *seat)
{
    if (s->now_us >= seat->transfer_due_us) {
        seat->transfer_due_us = s->now_us + SPREAD_US; /* All disks may be full. */
        (void)hand_over(s, seat);
    }
}

void shard_hand_over(struct shard *s)
{
    uint32_t left = 0;
    if (!atomic_load(&s->leaving)) {
        return;
    }
    for (struct list *n = s->led.next; n != &s->led; n = n->next) {
        struct seat *seat = list_entry(n, struct seat, led);
        left += hand_over(s, seat) ? 1 : 0;
    }
    atomic_store(&s->left, left == 0);
}
