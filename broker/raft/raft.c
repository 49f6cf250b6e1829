#include "base/mem.h"
#include "raft/core.h"

/* ---- Making and unmaking ---- */

static bool outbox_init(struct outbox *o, size_t capacity, bool carries_entries)
{
    o->messages = mem_zalloc(capacity, sizeof(o->messages[0]));
    o->runs = carries_entries ? mem_zalloc(capacity, sizeof(o->runs[0])) : NULL;
    o->capacity = capacity;
    return o->messages != NULL && (o->runs != NULL || !carries_entries);
}

void raft_outbox_fini(struct outbox *o)
{
    mem_free(o->messages);
    mem_free(o->runs);
    *o = (struct outbox){0};
}

/* Per step at most, at once: to each peer a window of appends, and one message more (a pre-vote
 * reply, perhaps to a stranger, or TIMEOUT_NOW: with those there are heartbeats only). After the
 * fsync: vote requests to all peers, or one reply. */
bool raft_outboxes_make(struct outbox *now, struct outbox *after_sync, size_t peer_count)
{
    return outbox_init(now, peer_count * RAFT_PEER_MESSAGES_MAX + 1, true) &&
           outbox_init(after_sync, peer_count > 0 ? peer_count : 1, false);
}

static bool times_are_sound(const struct raft *r)
{
    return r->heartbeat_us > 0 && r->heartbeat_us < r->election_min_us &&
           r->election_min_us <= r->election_max_us && r->election_max_us < RAFT_NEVER / 4;
}

static void set_times(struct raft *r, const struct raft_config *config)
{
    bool use_defaults =
        config->election_min_us == 0 && config->election_max_us == 0 && config->heartbeat_us == 0;
    r->election_min_us = use_defaults ? RAFT_ELECTION_MIN_US : config->election_min_us;
    r->election_max_us = use_defaults ? RAFT_ELECTION_MAX_US : config->election_max_us;
    r->heartbeat_us = use_defaults ? RAFT_HEARTBEAT_US : config->heartbeat_us;
}

static enum ferry_err load_disk(struct raft *r, const struct raft_disk *disk)
{
    enum ferry_err err = runs_load(&r->log, disk);
    if (err != FERRY_OK) {
        return err;
    }
    bool term_is_sound =
        disk->term >= runs_last_term(&r->log) && (disk->term > 0 || disk->vote == 0);
    if (!term_is_sound || disk->commit > disk->last_index) {
        return FERRY_ERR_CORRUPT;
    }
    bool configs_are_sound =
        disk->config.index <= disk->last_index && disk->previous_config.index <= disk->config.index;
    if (!configs_are_sound) {
        return FERRY_ERR_CORRUPT;
    }
    r->config = disk->config;
    r->previous_config = disk->previous_config;
    r->floor_index = disk->floor_index;
    r->floor_term = disk->floor_term;
    r->term = disk->term;
    r->vote = disk->vote;
    r->stored = disk->last_index;
    r->commit = disk->commit > disk->trim_index ? disk->commit : disk->trim_index;
    return FERRY_OK;
}

static enum ferry_err init_core(struct raft *r, const struct raft_config *config,
                                const struct raft_disk *disk, int64_t now_us)
{
    r->self = config->self;
    r->never_quiet = config->never_quiet;
    r->notice_due_us = RAFT_NEVER;
    r->window = RAFT_APPEND_WINDOW_MAX;
    set_times(r, config);
    bool sound = config->self != 0 && times_are_sound(r) &&
                 raft_members_check(&disk->config.members) == FERRY_OK &&
                 raft_members_check(&disk->previous_config.members) == FERRY_OK;
    if (!sound) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    prng_init(&r->prng, config->seed);
    enum ferry_err err = load_disk(r, disk);
    if (err != FERRY_OK) {
        return err;
    }
    /* A truncation can bring the previous configuration back, and cannot wait for memory then. */
    size_t count = raft_count_peers(&r->config.members, r->self);
    size_t previous_count = raft_count_peers(&r->previous_config.members, r->self);
    if (!raft_reserve_peers(r, count > previous_count ? count : previous_count)) {
        return FERRY_ERR_NO_MEMORY;
    }
    raft_refresh_peers(r);
    r->now_us = now_us;
    raft_restart_election_timer(r);
    if (raft_is_sole_voter(r)) {
        r->timer_us = now_us; /* Nobody to wait for. */
    }
    return FERRY_OK;
}

enum ferry_err raft_new(const struct raft_config *config, const struct raft_disk *disk,
                        int64_t now_us, struct raft **r)
{
    *r = NULL;
    must(now_us >= 0 && now_us < RAFT_NEVER / 2);
    struct raft *made = mem_zalloc(1, sizeof(*made));
    if (made == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    enum ferry_err err = init_core(made, config, disk, now_us);
    if (err != FERRY_OK) {
        raft_free(&made);
        return err;
    }
    raft_check(made);
    *r = made;
    return FERRY_OK;
}

void raft_free(struct raft **r)
{
    if (*r == NULL) {
        return;
    }
    runs_fini(&(*r)->log);
    raft_outbox_fini(&(*r)->send_now);
    raft_outbox_fini(&(*r)->send_after_sync);
    mem_free((*r)->peers);
    mem_free((*r)->spare);
    mem_free(*r);
    *r = NULL;
}

/* ---- What the handlers share ---- */

struct raft_message *raft_outbox_add(struct raft *r, struct outbox *o, enum raft_message_type type,
                                     raft_id to)
{
    must(o->count < o->capacity);
    struct raft_message *m = &o->messages[o->count];
    o->count++;
    *m = (struct raft_message){.type = type, .from = r->self, .to = to, .term = r->term};
    return m;
}

struct raft_peer *raft_find_peer(const struct raft *r, raft_id id)
{
    for (size_t i = 0; i < r->peer_count; i++) {
        if (r->peers[i].id == id) {
            return &r->peers[i];
        }
    }
    return NULL;
}

void raft_touch_hard_state(struct raft *r, struct raft_update *u)
{
    r->hard_number = r->number;
    u->hard_state_changed = true;
}

/* ---- Events ---- */

static enum ferry_err check_propose(const struct raft *r, const struct raft_event *event)
{
    if (event->count == 0 || event->count > RAFT_UNCOMMITTED_MAX) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    if (r->role != RAFT_LEADER) {
        return FERRY_ERR_NOT_LEADER;
    }
    if (r->transfer_to != 0) {
        return FERRY_ERR_NOT_READY; /* 3.10: else the target would never have everything. */
    }
    uint64_t uncommitted = r->log.last_index - r->commit;
    bool fits = uncommitted + event->count <= RAFT_UNCOMMITTED_MAX;
    return fits ? FERRY_OK : FERRY_ERR_THROTTLED;
}

static enum ferry_err check_receive(const struct raft *r, const struct raft_message *m)
{
    enum ferry_err err = raft_check_message(r, m);
    if (err == FERRY_OK && m->type == RAFT_APPEND_REQUEST) {
        err = raft_check_append(r, m);
    } else if (err == FERRY_OK && m->type == RAFT_APPEND_REPLY) {
        err = raft_check_append_reply(r, m);
    }
    return err;
}

static enum ferry_err invalid_unless(bool allowed)
{
    return allowed ? FERRY_OK : FERRY_ERR_INVALID_ARGUMENT;
}

/* All that can be wrong with an event, found before anything changes. */
static enum ferry_err check_event(const struct raft *r, const struct raft_event *event)
{
    switch (event->type) {
    case RAFT_TICK:
    case RAFT_SEND:
    case RAFT_CAMPAIGN:
    case RAFT_WAKE:
        return FERRY_OK;
    case RAFT_PROPOSE:
        return check_propose(r, event);
    case RAFT_STORED:
        return invalid_unless(event->number <= r->number);
    case RAFT_RECEIVE:
        return check_receive(r, event->message);
    case RAFT_TRIM:
        return invalid_unless(event->index <= r->commit && event->index <= r->stored);
    case RAFT_CONFIGURE:
        return raft_check_configure(r, event->members);
    case RAFT_TRANSFER:
        return raft_check_transfer(r, event->peer);
    case RAFT_READ:
        return raft_check_read(r, event->number);
    case RAFT_SNAPSHOT_DONE:
    case RAFT_MUTE:
        return invalid_unless(event->index <= RAFT_INDEX_MAX);
    }
    return FERRY_ERR_INVALID_ARGUMENT;
}

/* A no-op, a proposal or a configuration adds one run at most, a received append as many as it has.
 * Configurations that come or are proposed may bring peers. */
static bool reserve(struct raft *r, const struct raft_event *event)
{
    size_t runs_max = event->type == RAFT_RECEIVE ? 1 + event->message->run_count : 1;
    if (!runs_reserve(&r->log, runs_max)) {
        return false;
    }
    if (event->type == RAFT_CONFIGURE) {
        return raft_reserve_configure(r, event->members);
    }
    bool ok = true;
    bool brings_configs =
        event->type == RAFT_RECEIVE && event->message->type == RAFT_APPEND_REQUEST;
    for (size_t i = 0; ok && brings_configs && i < event->message->config_count; i++) {
        const struct raft_members *m = &event->message->configs[i].members;
        ok = raft_reserve_peers(r, raft_count_peers(m, r->self));
    }
    return ok;
}

static void step_tick(struct raft *r, struct raft_update *u)
{
    if (r->now_us < raft_deadline_us(r)) {
        return;
    }
    if (r->role == RAFT_LEADER) {
        raft_end_notice(r);
        if (r->now_us >= r->timer_us) {
            raft_tick_leader(r, u);
        }
    } else {
        raft_become_pre_candidate(r, u);
    }
}

static void step_propose(struct raft *r, uint32_t count, struct raft_update *u)
{
    raft_wake(r);
    u->append_kind = RAFT_APPENDED_PROPOSAL;
    u->append_first = r->log.last_index + 1;
    runs_append(&r->log, count, r->term);
    u->append_last = r->log.last_index;
    u->append_term = r->term;
}

static void step_stored(struct raft *r, const struct raft_event *event, struct raft_update *u)
{
    uint64_t covered = event->number != 0 ? event->number : r->number - 1;
    if (covered > r->hard_stored) {
        r->hard_stored = covered;
    }
    /* The term alone is no proof: an entry can be written, cut away, and written again with the
     * same term, and this event may speak of the first writing. */
    bool is_late = covered < r->truncate_number;
#ifdef MUT_06 /* the fsync of an entry that was written again since counts */
    is_late = false;
#endif
    bool is_there = event->index > r->stored && event->index <= r->log.last_index &&
                    runs_term_at(&r->log, event->index) == event->term;
    if (!is_late && is_there) {
        r->stored = event->index;
    }
    if (r->role == RAFT_CANDIDATE) {
        raft_count_votes(r, u);
    } else if (r->role == RAFT_LEADER) {
        raft_advance_commit(r, u);
    }
}

static void step_receive(struct raft *r, const struct raft_message *m, struct raft_update *u)
{
    switch (m->type) {
    case RAFT_VOTE_REQUEST:
        raft_receive_vote_request(r, m, u);
        break;
    case RAFT_VOTE_REPLY:
        raft_receive_vote_reply(r, m, u);
        break;
    case RAFT_APPEND_REQUEST:
        raft_receive_append_request(r, m, u);
        break;
    case RAFT_APPEND_REPLY:
        raft_receive_append_reply(r, m, u);
        break;
    case RAFT_PRE_VOTE_REQUEST:
        raft_receive_pre_vote_request(r, m);
        break;
    case RAFT_PRE_VOTE_REPLY:
        raft_receive_pre_vote_reply(r, m, u);
        break;
    case RAFT_TIMEOUT_NOW:
        raft_receive_timeout_now(r, m, u);
        break;
    }
}

static void step_trim(struct raft *r, raft_index index, struct raft_update *u)
{
    if (index <= r->log.trim_index) {
        return;
    }
    runs_trim(&r->log, index);
    if (r->role == RAFT_LEADER) {
        raft_replicate_past_trim(r, u);
    }
}

static void step_campaign(struct raft *r, struct raft_update *u)
{
    if (r->role == RAFT_FOLLOWER && raft_may_campaign(r)) {
        raft_become_pre_candidate(r, u);
    }
}

/* Whose log cannot be read cannot tell whose is newer, nor feed others. */
static void step_mute(struct raft *r, raft_index index, struct raft_update *u)
{
    if (index != 0 && r->role == RAFT_LEADER) {
        raft_resign(r, u);
    }
    if (index != 0 && r->role != RAFT_FOLLOWER) {
        raft_become_follower(r, r->term, 0, u);
    }
    if (index == 0 && r->mute != 0) {
        raft_restart_election_timer(r);
    }
    r->mute = index;
}

static void handle_event(struct raft *r, const struct raft_event *event, struct raft_update *u)
{
    switch (event->type) {
    case RAFT_TICK:
        step_tick(r, u);
        break;
    case RAFT_PROPOSE:
        step_propose(r, event->count, u);
        break;
    case RAFT_STORED:
        step_stored(r, event, u);
        break;
    case RAFT_RECEIVE:
        step_receive(r, event->message, u);
        break;
    case RAFT_TRIM:
        step_trim(r, event->index, u);
        break;
    case RAFT_SEND:
        if (r->role == RAFT_LEADER) {
            raft_replicate(r);
        }
        break;
    case RAFT_CONFIGURE:
        raft_configure(r, event->members, u);
        break;
    case RAFT_TRANSFER:
        raft_transfer(r, event->peer);
        break;
    case RAFT_CAMPAIGN:
        step_campaign(r, u);
        break;
    case RAFT_READ:
        raft_read(r, event->number, u);
        break;
    case RAFT_SNAPSHOT_DONE:
        raft_end_snapshot(r, event->peer, event->index, u);
        break;
    case RAFT_MUTE:
        step_mute(r, event->index, u);
        break;
    case RAFT_WAKE:
        raft_wake_event(r);
        break;
    }
}

static void finish_update(const struct raft *r, struct raft_update *u)
{
    u->number = r->number;
    u->term = r->term;
    u->vote = r->vote;
    if (u->config_changed) {
        u->config = r->config;
        u->previous_config = r->previous_config;
    }
    u->commit = r->commit;
    u->send_now = r->send_now.messages;
    u->send_now_count = r->send_now.count;
    u->send_after_sync = r->send_after_sync.messages;
    u->send_after_sync_count = r->send_after_sync.count;
}

enum ferry_err raft_step(struct raft *r, const struct raft_event *event, struct raft_update *update)
{
    must(event->now_us >= 0 && event->now_us < RAFT_NEVER / 2);
    *update = (struct raft_update){0};
    enum ferry_err err = check_event(r, event);
    if (err != FERRY_OK) {
        return err;
    }
    if (!reserve(r, event)) {
        return FERRY_ERR_NO_MEMORY;
    }
    raft_term last_term = r->term;
    raft_index last_commit = r->commit;
    r->number++;
    r->now_us = event->now_us > r->now_us ? event->now_us : r->now_us;
    r->send_now.count = 0;
    r->send_after_sync.count = 0;
    handle_event(r, event, update);
    finish_update(r, update);
    must(r->term >= last_term);
    must(r->commit >= last_commit);
    return FERRY_OK;
}

/* ---- Questions ---- */

int64_t raft_deadline_us(const struct raft *r)
{
    bool is_waiting = false;
    if (r->role == RAFT_LEADER) {
        is_waiting = r->peer_count > 0;
    } else {
        /* Who decides alone has nobody to wait for but its own disk. */
        bool waits_for_disk = r->role == RAFT_CANDIDATE && raft_is_sole_voter(r);
        is_waiting = raft_may_campaign(r) && !waits_for_disk;
    }
    int64_t due_us = r->timer_us;
    if (r->role == RAFT_LEADER && r->notice_due_us < due_us) {
        due_us = r->notice_due_us;
    }
    return is_waiting && !r->is_quiet ? due_us : RAFT_NEVER;
}

void raft_pause_learners(struct raft *r, bool paused)
{
    r->learners_paused = paused;
}

void raft_set_window(struct raft *r, uint32_t entries)
{
    must(entries >= 1 && entries <= RAFT_APPEND_WINDOW_MAX);
    r->window = entries;
}

void raft_set_notice(struct raft *r, int64_t notice_us)
{
    must(notice_us >= 0 && notice_us <= r->heartbeat_us);
    r->notice_us = notice_us;
}

enum raft_role raft_role(const struct raft *r)
{
    return r->role;
}

raft_term raft_current_term(const struct raft *r)
{
    return r->term;
}

raft_id raft_self(const struct raft *r)
{
    return r->self;
}

raft_id raft_leader(const struct raft *r)
{
    return r->leader;
}

raft_index raft_commit_index(const struct raft *r)
{
    return r->commit;
}

raft_index raft_last_index(const struct raft *r)
{
    return r->log.last_index;
}

raft_index raft_stored_index(const struct raft *r)
{
    return r->stored;
}

raft_index raft_trim_index(const struct raft *r)
{
    return r->log.trim_index;
}

raft_term raft_term_at(const struct raft *r, raft_index index)
{
    return runs_term_at(&r->log, index);
}

bool raft_is_ready(const struct raft *r)
{
    return r->role == RAFT_LEADER && r->commit >= r->noop_index;
}

bool raft_is_quiet(const struct raft *r)
{
    return r->is_quiet;
}

bool raft_is_transferring(const struct raft *r)
{
    return r->transfer_to != 0;
}

const struct raft_config_entry *raft_configuration(const struct raft *r)
{
    return &r->config;
}

size_t raft_progress(const struct raft *r, struct raft_progress *out, size_t max)
{
    size_t count = 0;
    for (; r->role == RAFT_LEADER && count < r->peer_count && count < max; count++) {
        const struct raft_peer *peer = &r->peers[count];
        out[count] = (struct raft_progress){.id = peer->id,
                                            .voter = peer->in_new || peer->in_old,
                                            .learner = peer->is_learner,
                                            .snapshotting = peer->state == PEER_SNAPSHOT,
                                            .match = peer->match,
                                            .heard_us = peer->heard_us};
    }
    return count;
}

/* ---- Invariants, by their numbers in raft.h ---- */

static void check_leader(const struct raft *r)
{
    must(r->leader == r->self);
    must(r->vote == r->self && r->hard_stored >= r->hard_number); /* (1) */
    must(r->mute == 0);                                           /* (11) */
    must(r->noop_index > 0 && r->noop_index <= r->log.last_index);
    must(runs_last_term(&r->log) == r->term); /* (3) */
    for (size_t i = 0; i < r->peer_count; i++) {
        const struct raft_peer *peer = &r->peers[i];
        must(peer->match < peer->next);
        must(peer->next > r->log.trim_index);
        must(peer->next <= r->log.last_index + 1);
        must(peer->sent_sequence <= r->sequence && peer->heard_sequence <= r->sequence);
        must(!r->is_quiet || (peer->agreed_quiet && peer->match == r->log.last_index));
    }
    must(!r->is_quiet || r->commit == r->log.last_index);
    must(r->transfer_to == 0 || raft_find_peer(r, r->transfer_to) != NULL);
    must(r->reads[0].number != 0 || r->reads[1].number == 0);
    must(raft_is_voter(r) || r->config.index > r->commit); /* (9) */
}

static void check_members(const struct raft *r)
{
    const struct raft_members *m = &r->config.members;
    must(raft_members_check(m) == FERRY_OK);
    must(r->previous_config.index <= r->config.index); /* (9) */
    must(r->config.index <= r->log.last_index);
    must(r->peer_count == raft_count_peers(m, r->self));
    must(r->peer_count <= r->peer_capacity);
    uint32_t new_count = r->self_in_new ? 1 : 0;
    uint32_t old_count = r->self_in_old ? 1 : 0;
    for (size_t i = 0; i < r->peer_count; i++) {
        const struct raft_peer *peer = &r->peers[i];
        must(peer->id != r->self);
        must(i == 0 || r->peers[i - 1].id < peer->id);              /* (8) */
        must(peer->is_learner == (!peer->in_new && !peer->in_old)); /* (10) */
        new_count += peer->in_new ? 1 : 0;
        old_count += peer->in_old ? 1 : 0;
    }
    must(new_count == m->voter_count && old_count == m->old_voter_count); /* (10) */
}

void raft_check(const struct raft *r)
{
    runs_check(&r->log);
    must(runs_last_term(&r->log) <= r->term);
    must(r->log.trim_index <= r->commit && r->commit <= r->log.last_index); /* (6) */
    must(r->log.trim_index <= r->stored && r->stored <= r->log.last_index); /* (6) */
    must(r->hard_number <= r->number && r->hard_stored <= r->number);       /* (4) */
    must(r->truncate_number <= r->number);
    must(r->role != RAFT_CANDIDATE || r->vote == r->self); /* (1) */
    must(r->role == RAFT_FOLLOWER || r->role == RAFT_LEADER || r->leader == 0);
    must(r->role != RAFT_FOLLOWER || r->leader != r->self);
    must(r->role == RAFT_FOLLOWER || r->role == RAFT_LEADER || raft_may_campaign(r)); /* (11) */
    must(r->role == RAFT_LEADER || (!raft_has_reads(r) && r->transfer_to == 0));
    must(!r->is_quiet || r->role == RAFT_LEADER || r->leader != 0);
    check_members(r);
    if (r->role == RAFT_LEADER) {
        check_leader(r);
    }
}
