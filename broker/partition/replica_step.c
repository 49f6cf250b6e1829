/* Stepping the core, and taking in what it says. */
#include "base/log.h"
#include "base/mem.h"
#include "partition/replica_internal.h"

bool replica_is_leader(const struct replica *r)
{
    return r->raft != NULL && raft_role(r->raft) == RAFT_LEADER;
}

bool replica_has_peers(const struct replica *r)
{
    const struct raft_members *m = &r->members.members;
    bool alone = m->voter_count == 1 && m->old_voter_count == 0 && m->learner_count == 0 &&
                 m->voters[0] == r->config.self;
    return !alone;
}

/* ---- Pending entries ---- */

void replica_drop_pending(struct replica *r, size_t keep)
{
    must(keep <= r->pending_count);
    for (size_t i = keep; i < r->pending_count; i++) {
        mem_free(r->pending[i].owned);
    }
    r->pending_count = keep;
    r->written = r->written < keep ? r->written : keep;
}

const struct store_entry *replica_pending_entry(const struct replica *r, raft_index index)
{
    if (r->pending_count == 0 || index < r->pending[0].index) {
        return NULL;
    }
    uint64_t at = index - r->pending[0].index;
    return at < r->pending_count ? &r->pending[at].entry : NULL;
}

static bool reserve_pending(struct replica *r, size_t more)
{
    return mem_grow((void **)&r->pending, &r->pending_capacity, r->pending_count + more,
                    sizeof(*r->pending));
}

/* The average follows the last hundred entries or so. */
static void note_size(struct replica *r, const struct store_entry *entry)
{
    int64_t bytes = (int64_t)peer_entry_bytes(entry);
    int64_t average = (int64_t)r->entry_bytes;
    r->entry_bytes = (uint32_t)(average == 0 ? bytes : average + (bytes - average) / 64);
}

static void push_pending(struct replica *r, uint64_t index, const struct store_entry *entry,
                         void *owned)
{
    must(r->pending_count < r->pending_capacity);
    must(r->pending_count == 0 || r->pending[r->pending_count - 1].index + 1 == index);
    r->pending[r->pending_count++] =
        (struct pending_entry){.index = index, .entry = *entry, .owned = owned};
    if (entry->append_time_ms > r->last_append_time_ms) {
        r->last_append_time_ms = entry->append_time_ms;
    }
    r->next_offset = r->config.ops->next_offset(entry);
    note_size(r, entry);
}

/* ---- Messages ---- */

void replica_queue_message(struct replica *r, struct message_list *l, const struct raft_message *m)
{
    if (l->count >= REPLICA_MESSAGES_MAX ||
        !mem_grow((void **)&l->items, &l->capacity, l->count + 1, sizeof(*l->items))) {
        r->dropped++; /* As a network would. */
        return;
    }
    struct raft_message *copy = &l->items[l->count++];
    *copy = *m;
    copy->runs = NULL; /* The entries that travel beside tell their terms. */
    copy->run_count = 0;
    copy->configs = NULL;
    copy->config_count = 0;
}

static void queue_all(struct replica *r, const struct raft_update *u)
{
    for (size_t i = 0; i < u->send_now_count; i++) {
        replica_queue_message(r, &r->now, &u->send_now[i]);
    }
    for (size_t i = 0; i < u->send_after_sync_count; i++) {
#ifdef MUT_30 /* votes and acks leave before the fsync */
        replica_queue_message(r, &r->now, &u->send_after_sync[i]);
#else
        replica_queue_message(r, &r->after_sync, &u->send_after_sync[i]);
#endif
    }
}

/* ---- Updates ---- */

void replica_lose_office(struct replica *r)
{
    snapshot_cancel_all(r);
    r->noop_index = 0;
    if (r->ready_told) {
        r->ready_told = false;
        r->config.ops->role_changed(r->config.machine, false);
    }
}

/* Entries from `from` on are void: those not written are forgotten, those on disk dropped with the
 * next transaction. */
static void truncate_log(struct replica *r, raft_index from)
{
    must(from > r->applied && r->written == 0);
    size_t keep = 0;
    while (keep < r->pending_count && r->pending[keep].index < from) {
        keep++;
    }
    bool on_disk = r->pending_count == 0 || from < r->pending[0].index;
    replica_drop_pending(r, keep);
    if (on_disk && (r->truncate_from == 0 || from < r->truncate_from)) {
        r->truncate_from = from;
    }
    repair_truncated(r, from);
}

/* It says who leads in its term, for traces; those of before are empty. */
static void push_noop(struct replica *r, const struct raft_update *u)
{
    put_le64(r->self_bytes, r->config.self);
    struct store_entry noop = {.term = u->append_term,
                               .type = STORE_ENTRY_NOOP,
                               .base_offset = r->next_offset,
                               .append_time_ms = r->last_append_time_ms,
                               .payload = bytes_of(r->self_bytes, sizeof(r->self_bytes))};
    push_pending(r, u->append_first, &noop, NULL);
    r->noop_index = u->append_first;
}

static enum ferry_err push_config(struct replica *r, const struct raft_update *u)
{
    struct buf payload;
    buf_init(&payload, 4096);
    peer_put_members(&payload, &u->config.members);
    if (!buf_ok(&payload)) {
        buf_fini(&payload);
        return FERRY_ERR_NO_MEMORY;
    }
    struct store_entry entry = {.term = u->append_term,
                                .type = STORE_ENTRY_CONFIG,
                                .base_offset = r->next_offset,
                                .append_time_ms = r->last_append_time_ms};
    size_t size = 0;
    uint8_t *owned = buf_steal(&payload, &size);
    entry.payload = bytes_of(owned, size);
    push_pending(r, u->append_first, &entry, owned);
    return FERRY_OK;
}

/* The message's entries from append_first on; those before are there already. `first` is the index
 * of the first one in `entries`. */
static void push_received(struct replica *r, const struct raft_update *u, raft_index first,
                          struct bytes entries)
{
    for (raft_index index = first; index <= u->append_last; index++) {
        struct store_entry entry;
        must(peer_take_entry(&entries, &entry) == FERRY_OK); /* It was checked. */
#ifdef MUT_36 /* a follower forgets which records of a batch were dropped as repeats */
        entry.skip_count = 0;
#endif
        if (index >= u->append_first) {
            push_pending(r, index, &entry, NULL);
        }
    }
}

void replica_settle_reads(struct replica *r)
{
    if (r->read_confirmed > r->read_done && r->applied >= r->read_index) {
        r->read_done = r->read_confirmed;
    }
}

static void take_marks(struct replica *r, const struct raft_update *u)
{
    if (u->hard_state_changed) {
        r->marks.term = u->term;
        r->marks.vote = u->vote;
        r->marks_dirty = true;
    }
    if (u->config_changed) {
        r->members = u->config;
        r->previous_members = u->previous_config;
        r->members_dirty = true;
    }
    if (u->read_number != 0) {
        r->read_confirmed = u->read_number;
        r->read_index = u->read_index;
        replica_settle_reads(r);
    }
    if (u->reads_failed) {
        r->read_lost = r->read_asked;
    }
    if (u->regressed != 0) {
        r->regressed = u->regressed;
        log_line(LOG_ERROR, "replica",
                 "group %llu: member %llx lost entries that it had acknowledged; it is not fed any "
                 "more: replace that node",
                 (unsigned long long)r->config.group, (unsigned long long)u->regressed);
    }
}

static enum ferry_err take_append(struct replica *r, const struct raft_update *u, raft_index first,
                                  struct bytes entries)
{
    switch (u->append_kind) {
    case RAFT_APPENDED_NOTHING:
    case RAFT_APPENDED_PROPOSAL: /* replica_propose's. */
        return FERRY_OK;
    case RAFT_APPENDED_NOOP:
        push_noop(r, u);
        return FERRY_OK;
    case RAFT_APPENDED_CONFIG:
        return push_config(r, u);
    case RAFT_APPENDED_RECEIVED:
        push_received(r, u, first, entries);
        return FERRY_OK;
    }
    must(false);
    return FERRY_ERR_CORRUPT;
}

static enum ferry_err take_update(struct replica *r, const struct raft_update *u, raft_index first,
                                  struct bytes entries)
{
    if (u->lost_leadership) {
        replica_lose_office(r);
    }
    if (u->truncate_from != 0) {
        /* Only entries of another leader replace what was cut, so the end is known again at once.
         */
        must(u->append_kind == RAFT_APPENDED_RECEIVED);
        truncate_log(r, u->truncate_from);
        r->last_append_time_ms = 0;
    }
    take_marks(r, u);
    queue_all(r, u);
    for (size_t i = 0; i < u->snapshot_to_count; i++) {
        snapshot_want(r, u->snapshot_to[i]);
    }
    return take_append(r, u, first, entries);
}

static enum ferry_err step_taking(struct replica *r, const struct raft_event *event,
                                  struct raft_update *u, struct bytes entries, size_t count)
{
    if (r->failed != FERRY_OK) {
        return r->failed;
    }
    must(r->raft != NULL);
    if (!reserve_pending(r, count + 2)) {
        return FERRY_ERR_NO_MEMORY;
    }
    enum ferry_err err = raft_step(r->raft, event, u);
    if (err == FERRY_OK) {
        raft_index first = event->type == RAFT_RECEIVE ? event->message->prev_index + 1 : 0;
        err = take_update(r, u, first, entries);
        if (err != FERRY_OK) {
            replica_fail(r, err); /* The core has gone on without us. */
        }
    }
    return err;
}

enum ferry_err replica_step_update(struct replica *r, const struct raft_event *event,
                                   struct raft_update *update)
{
    return step_taking(r, event, update, bytes_of(NULL, 0), 0);
}

enum ferry_err replica_step(struct replica *r, const struct raft_event *event)
{
    struct raft_update update;
    return step_taking(r, event, &update, bytes_of(NULL, 0), 0);
}

enum ferry_err replica_step_received(struct replica *r, const struct raft_event *event,
                                     struct bytes entries, uint32_t entry_count)
{
    struct raft_update update;
    return step_taking(r, event, &update, entries, entry_count);
}

/* ---- Requests ---- */

enum ferry_err replica_check_leader(const struct replica *r)
{
    if (r->failed != FERRY_OK) {
        return r->failed;
    }
    if (r->ready_told) {
        return FERRY_OK;
    }
    raft_id leader = replica_leader(r);
    return leader != 0 && leader != r->config.self ? FERRY_ERR_NOT_LEADER : FERRY_ERR_NOT_READY;
}

enum ferry_err replica_propose(struct replica *r, struct store_entry *entry, int64_t now_us,
                               uint64_t *index)
{
    enum ferry_err err = replica_check_leader(r);
    if (err != FERRY_OK) {
        return err;
    }
    must(entry->append_time_ms >= r->last_append_time_ms);
    r->now_us = now_us;
    struct raft_event propose = {.type = RAFT_PROPOSE, .now_us = now_us, .count = 1};
    struct raft_update update;
    err = replica_step_update(r, &propose, &update);
    if (err != FERRY_OK) {
        return err;
    }
    must(update.append_kind == RAFT_APPENDED_PROPOSAL);
    must(update.append_first == update.append_last);
    entry->term = update.append_term;
    push_pending(r, update.append_first, entry, NULL);
    *index = update.append_first;
    return FERRY_OK;
}

void replica_trim(struct replica *r, uint64_t index)
{
    must(index <= r->applied);
    if (index <= r->marks.trim_index) {
        return;
    }
    r->marks.trim_term = raft_term_at(r->raft, index);
    r->marks.trim_index = index;
    r->marks_dirty = true;
    repair_trimmed(r, index);
    struct raft_event trim = {.type = RAFT_TRIM, .now_us = r->now_us, .index = index};
    must(replica_step(r, &trim) == FERRY_OK);
}

/* What only a replica with a core can be asked. */
static enum ferry_err ask(struct replica *r, const struct raft_event *event)
{
    if (r->failed == FERRY_OK && r->raft == NULL) {
        return FERRY_ERR_NOT_READY;
    }
    return replica_step(r, event);
}

enum ferry_err replica_campaign(struct replica *r, int64_t now_us)
{
    struct raft_event event = {.type = RAFT_CAMPAIGN, .now_us = now_us};
    return ask(r, &event);
}

/* A voter to be must be a learner that can be fed from the log from here on. Else a majority of the
 * new voters may be installing when the leader dies, and nobody is left to be elected, nor to feed
 * them (4.2.1). */
static bool is_caught_up(const struct replica *r, raft_id member)
{
    struct raft_progress peers[RAFT_PEERS_MAX];
    size_t count = raft_progress(r->raft, peers, RAFT_PEERS_MAX);
    for (size_t i = 0; i < count; i++) {
        if (peers[i].id == member) {
            return !peers[i].snapshotting && peers[i].match > 0 &&
                   peers[i].match >= raft_trim_index(r->raft) &&
                   peers[i].match + REPLICA_CAUGHT_UP_ENTRIES >= raft_commit_index(r->raft);
        }
    }
    return false;
}

static bool voters_are_caught_up(const struct replica *r, const struct raft_members *wanted)
{
    bool all = true;
    for (uint32_t i = 0; i < wanted->voter_count && i < RAFT_VOTERS_MAX; i++) {
        raft_id id = wanted->voters[i];
        bool votes = id == r->config.self || raft_members_has_voter(&r->members.members, id);
        all = all && (votes || is_caught_up(r, id));
    }
    return all;
}

enum ferry_err replica_configure(struct replica *r, const struct raft_members *members,
                                 int64_t now_us)
{
    struct raft_event event = {.type = RAFT_CONFIGURE, .now_us = now_us, .members = members};
    if (replica_is_leader(r) && !voters_are_caught_up(r, members)) {
        return FERRY_ERR_NOT_READY;
    }
    return ask(r, &event);
}

enum ferry_err replica_transfer(struct replica *r, raft_id to, int64_t now_us)
{
    struct raft_event event = {.type = RAFT_TRANSFER, .now_us = now_us, .peer = to};
    return ask(r, &event);
}

enum ferry_err replica_wake(struct replica *r, raft_id member, int64_t now_us)
{
    if (r->failed != FERRY_OK || r->raft == NULL || !raft_is_quiet(r->raft)) {
        return r->failed;
    }
    bool concerns = replica_is_leader(r) ? raft_members_has(&r->members.members, member)
                                         : raft_leader(r->raft) == member;
    struct raft_event wake = {.type = RAFT_WAKE, .now_us = now_us};
    return concerns ? replica_step(r, &wake) : FERRY_OK;
}

enum ferry_err replica_read(struct replica *r, int64_t now_us, uint64_t *number)
{
    enum ferry_err err = replica_check_leader(r);
    if (err != FERRY_OK) {
        return err;
    }
    struct raft_event event = {.type = RAFT_READ, .now_us = now_us, .number = r->read_asked + 1};
    r->read_asked++; /* What is lost in this step includes it. */
    err = replica_step(r, &event);
    if (err == FERRY_OK) {
        *number = event.number;
    }
    return err;
}

enum replica_read_state replica_read_done(const struct replica *r, uint64_t number)
{
    must(number != 0 && number <= r->read_asked);
    /* A confirmation may come in a turn that has nothing to write or to apply. */
    bool is_current = number <= r->read_confirmed && r->applied >= r->read_index;
    if (number <= r->read_done || is_current) {
        return REPLICA_READ_DONE;
    }
    bool lost = r->failed != FERRY_OK || (number <= r->read_lost && number > r->read_confirmed);
    return lost ? REPLICA_READ_LOST : REPLICA_READ_WAITING;
}
