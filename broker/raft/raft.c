#include "raft/core.h"

#include "base/mem.h"

/* ---- Making and unmaking ---- */

static bool outbox_init(struct outbox *o, size_t capacity, bool carries_entries)
{
    o->messages = mem_zalloc(capacity, sizeof(o->messages[0]));
    o->runs = carries_entries ? mem_zalloc(capacity, sizeof(o->runs[0])) : NULL;
    o->capacity = capacity;
    return o->messages != NULL && (o->runs != NULL || !carries_entries);
}

static void outbox_fini(struct outbox *o)
{
    mem_free(o->messages);
    mem_free(o->runs);
    *o = (struct outbox){0};
}

static bool voters_are_sound(const struct raft_config *config)
{
    if (config->voter_count == 0 || config->voter_count > RAFT_VOTERS_MAX) {
        return false;
    }
    bool has_self = false;
    for (size_t i = 0; i < config->voter_count; i++) {
        has_self = has_self || config->voters[i] == config->self;
        for (size_t j = 0; j < i; j++) {
            if (config->voters[i] == config->voters[j]) {
                return false;
            }
        }
        if (config->voters[i] == 0) {
            return false;
        }
    }
    return has_self;
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

/* Sorted by id, so that nothing depends on the order in which somebody listed the voters. */
static void set_peers(struct raft *r, const struct raft_config *config)
{
    for (size_t i = 0; i < config->voter_count; i++) {
        if (config->voters[i] == config->self) {
            continue;
        }
        size_t place = r->peer_count;
        for (; place > 0 && r->peers[place - 1].id > config->voters[i]; place--) {
            r->peers[place] = r->peers[place - 1];
        }
        r->peers[place] = (struct raft_peer){.id = config->voters[i]};
        r->peer_count++;
    }
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
    r->voter_count = config->voter_count;
    set_times(r, config);
    if (!times_are_sound(r)) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    set_peers(r, config);
    prng_init(&r->prng, config->seed);
    enum ferry_err err = load_disk(r, disk);
    if (err != FERRY_OK) {
        return err;
    }
    /* Per step: to each peer a window of appends; vote requests to all peers, or one reply. */
    bool ok = outbox_init(&r->send_now, r->peer_count * RAFT_PEER_MESSAGES_MAX, true) &&
              outbox_init(&r->send_after_sync, r->peer_count, false);
    if (!ok) {
        return FERRY_ERR_NO_MEMORY;
    }
    r->now_us = now_us;
    raft_restart_election_timer(r);
    if (r->peer_count == 0) {
        r->deadline_us = now_us; /* Nobody to wait for. */
    }
    return FERRY_OK;
}

enum ferry_err raft_new(const struct raft_config *config, const struct raft_disk *disk,
                        int64_t now_us, struct raft **r)
{
    *r = NULL;
    must(now_us >= 0 && now_us < RAFT_NEVER / 2);
    if (!voters_are_sound(config)) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
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
    outbox_fini(&(*r)->send_now);
    outbox_fini(&(*r)->send_after_sync);
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

struct raft_peer *raft_find_peer(struct raft *r, raft_id id)
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

/* 3.4: drawn anew each time, so that two candidates do not split the votes for ever. */
void raft_restart_election_timer(struct raft *r)
{
    if (r->peer_count == 0) {
        r->deadline_us = RAFT_NEVER;
        return;
    }
    uint64_t spread = (uint64_t)(r->election_max_us - r->election_min_us) + 1;
    r->deadline_us = r->now_us + r->election_min_us + (int64_t)prng_below(&r->prng, spread);
}

static void restart_heartbeat_timer(struct raft *r)
{
    r->deadline_us = r->peer_count == 0 ? RAFT_NEVER : r->now_us + r->heartbeat_us;
}

/* ---- Roles ---- */

void raft_become_follower(struct raft *r, raft_term term, raft_id leader, struct raft_update *u)
{
    must(term >= r->term);
    must(r->role != RAFT_LEADER || term > r->term);
    if (term > r->term) {
        r->term = term;
        r->vote = 0;
        raft_touch_hard_state(r, u);
    }
    if (r->role == RAFT_LEADER) {
        u->lost_leadership = true;
        raft_restart_election_timer(r); /* It held the heartbeat's deadline. */
    }
    r->role = RAFT_FOLLOWER;
    r->leader = leader;
}

static void become_candidate(struct raft *r, struct raft_update *u)
{
    must(r->role != RAFT_LEADER);
    r->role = RAFT_CANDIDATE;
    r->leader = 0;
    r->term++;
    r->vote = r->self;
    raft_touch_hard_state(r, u);
    for (size_t i = 0; i < r->peer_count; i++) {
        r->peers[i].vote_granted = false;
    }
    raft_restart_election_timer(r);
    raft_send_vote_requests(r);
}

/* 6.4: the no-op lets the leader commit, by counting, whatever its predecessors left. */
static void become_leader(struct raft *r, struct raft_update *u)
{
    must(r->role == RAFT_CANDIDATE);
    must(r->vote == r->self);
    r->role = RAFT_LEADER;
    r->leader = r->self;
    runs_append(&r->log, 1, r->term);
    r->noop_index = r->log.last_index;
    u->became_leader = true;
    u->append_is_noop = true;
    u->append_first = r->noop_index;
    u->append_last = r->noop_index;
    u->append_term = r->term;
    restart_heartbeat_timer(r);
    raft_start_replication(r);
}

void raft_count_votes(struct raft *r, struct raft_update *u)
{
    must(r->role == RAFT_CANDIDATE);
    bool own_vote_is_stored = r->hard_stored >= r->hard_number;
    if (!own_vote_is_stored) {
        return;
    }
    size_t granted = 1;
    for (size_t i = 0; i < r->peer_count; i++) {
        granted += r->peers[i].vote_granted ? 1 : 0;
    }
    if (granted >= quorum_size(r->voter_count)) {
        become_leader(r, u);
    }
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

static enum ferry_err check_trim(const struct raft *r, const struct raft_event *event)
{
    bool allowed = event->index <= r->commit && event->index <= r->stored;
    return allowed ? FERRY_OK : FERRY_ERR_INVALID_ARGUMENT;
}

/* All that can be wrong with an event, found before anything changes. */
static enum ferry_err check_event(const struct raft *r, const struct raft_event *event)
{
    switch (event->type) {
    case RAFT_TICK:
        return FERRY_OK;
    case RAFT_PROPOSE:
        return check_propose(r, event);
    case RAFT_STORED:
        return event->number <= r->number ? FERRY_OK : FERRY_ERR_INVALID_ARGUMENT;
    case RAFT_RECEIVE:
        return check_receive(r, event->message);
    case RAFT_TRIM:
        return check_trim(r, event);
    }
    return FERRY_ERR_INVALID_ARGUMENT;
}

static void step_tick(struct raft *r, struct raft_update *u)
{
    if (r->now_us < r->deadline_us) {
        return;
    }
    if (r->role == RAFT_LEADER) {
        raft_send_heartbeats(r);
        restart_heartbeat_timer(r);
    } else {
        become_candidate(r, u);
    }
}

static void step_propose(struct raft *r, uint32_t count, struct raft_update *u)
{
    u->append_first = r->log.last_index + 1;
    runs_append(&r->log, count, r->term);
    u->append_last = r->log.last_index;
    u->append_term = r->term;
    raft_replicate(r);
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
    bool is_there = event->index > r->stored && event->index <= r->log.last_index &&
                    runs_term_at(&r->log, event->index) == event->term;
    if (!is_late && is_there) {
        r->stored = event->index;
    }
    if (r->role == RAFT_CANDIDATE) {
        raft_count_votes(r, u);
    } else if (r->role == RAFT_LEADER) {
        raft_advance_commit(r);
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
    }
}

static void step_trim(struct raft *r, raft_index index)
{
    if (index <= r->log.trim_index) {
        return;
    }
    runs_trim(&r->log, index);
    if (r->role == RAFT_LEADER) {
        raft_replicate_past_trim(r);
    }
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
        step_trim(r, event->index);
        break;
    }
}

static void finish_update(const struct raft *r, struct raft_update *u)
{
    u->number = r->number;
    u->term = r->term;
    u->vote = r->vote;
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
    /* A no-op or a proposal adds one run at most, a received append as many as it has. */
    size_t runs_max = event->type == RAFT_RECEIVE ? 1 + event->message->run_count : 1;
    if (!runs_reserve(&r->log, runs_max)) {
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
    return r->deadline_us;
}

enum raft_role raft_role(const struct raft *r)
{
    return r->role;
}

raft_term raft_current_term(const struct raft *r)
{
    return r->term;
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

static void check_leader(const struct raft *r)
{
    must(r->leader == r->self && r->vote == r->self);
    must(r->noop_index > 0 && r->noop_index <= r->log.last_index);
    must(runs_last_term(&r->log) == r->term);
    must(r->hard_stored >= r->hard_number);
    for (size_t i = 0; i < r->peer_count; i++) {
        const struct raft_peer *peer = &r->peers[i];
        must(peer->match < peer->next);
        must(peer->next > r->log.trim_index);
        must(peer->next <= r->log.last_index + 1);
    }
}

void raft_check(const struct raft *r)
{
    runs_check(&r->log);
    must(runs_last_term(&r->log) <= r->term);
    must(r->log.trim_index <= r->commit && r->commit <= r->log.last_index);
    must(r->log.trim_index <= r->stored && r->stored <= r->log.last_index);
    must(r->hard_number <= r->number && r->hard_stored <= r->number);
    must(r->truncate_number <= r->number);
    must(r->role != RAFT_CANDIDATE || (r->vote == r->self && r->leader == 0));
    must(r->role != RAFT_FOLLOWER || r->leader != r->self);
    must(r->peer_count + 1 == r->voter_count);
    for (size_t i = 1; i < r->peer_count; i++) {
        must(r->peers[i - 1].id < r->peers[i].id);
    }
    if (r->role == RAFT_LEADER) {
        check_leader(r);
    }
}
