#include <string.h>

#include "base/mem.h"
#include "lib/raft_cluster_inner.h"

static const struct raft_members nobody;

/* ---- Images ---- */

static const struct raft_members *members_at(const struct cluster *c, const struct image *image,
                                             raft_index config_index)
{
    if (config_index > 0) {
        return &c->checker.configs[image->log.entries[config_index].config];
    }
    return image->knows_group ? &c->checker.configs[0] : &nobody;
}

static raft_index config_index_of(const struct image *image, raft_index last)
{
    return last > 0 ? image->log.entries[last].config_index : 0;
}

const struct raft_members *image_members(const struct cluster *c, const struct image *image)
{
    return members_at(c, image, config_index_of(image, image->log.last));
}

/* Only as much of the log as there is. */
void image_copy(struct image *to, const struct image *from)
{
    memcpy(to->log.entries, from->log.entries, (from->log.last + 1) * sizeof(to->log.entries[0]));
    to->log.last = from->log.last;
    to->term = from->term;
    to->vote = from->vote;
    to->commit = from->commit;
    to->trim_index = from->trim_index;
    to->knows_group = from->knows_group;
    to->number = from->number;
}

/* ---- What an update says ---- */

static bool holds(const struct checker_log *log, raft_index index, struct checker_entry entry)
{
    return index <= log->last && log->entries[index].term == entry.term &&
           log->entries[index].value == entry.value;
}

struct holders_context {
    const struct cluster *c;
    raft_id id;
};

static uint32_t holders_of(void *context, uint64_t index)
{
    const struct holders_context *h = context;
    struct checker_entry entry = h->c->nodes[h->id].now.log.entries[index];
    uint32_t holders = 0;
    for (size_t id = 1; id <= h->c->node_count; id++) {
        holders |= holds(&h->c->nodes[id].disk.log, index, entry) ? UINT32_C(1) << id : 0;
    }
    return holders;
}

static struct checker_view view_of(const struct cluster *c, raft_id id)
{
    const struct node *n = &c->nodes[id];
    raft_index config = config_index_of(&n->now, n->now.log.last);
    const struct raft_members *previous =
        config > n->now.commit ? members_at(c, &n->now, config_index_of(&n->now, config - 1))
                               : NULL;
    return (struct checker_view){.node = id,
                                 .term = n->now.term,
                                 .is_leader = raft_role(n->r) == RAFT_LEADER,
                                 .members = image_members(c, &n->now),
                                 .previous = previous,
                                 .log = &n->now.log,
                                 .commit = n->now.commit};
}

static void write_commit(struct cluster *c, raft_id id, const struct checker_view *v,
                         raft_index commit)
{
    struct holders_context context = {.c = c, .id = id};
    raft_checker_commit(&c->checker, v, commit, holders_of, &context);
    c->nodes[id].now.commit = commit;
}

static void truncate_log(struct cluster *c, raft_id id, const struct raft_update *u)
{
    struct node *n = &c->nodes[id];
    if (raft_role(n->r) == RAFT_LEADER || u->truncate_from <= n->now.commit) {
        raft_checker_fail(&c->checker, "a forbidden truncation", id, u->truncate_from);
    }
    if (config_index_of(&n->now, n->now.log.last) >= u->truncate_from) {
        c->result->rolled_back++;
    }
    n->now.log.last = u->truncate_from - 1;
    n->truncate_number = u->number;
    c->result->truncations++;
}

static void append_received(struct cluster *c, struct node *n, const struct raft_update *u,
                            const struct packet *received)
{
    const struct raft_message *m = &received->message;
    for (raft_index i = u->append_first; i <= u->append_last; i++) {
        raft_term term = 0;
        for (size_t k = 0; k < m->run_count && m->runs[k].first <= i; k++) {
            term = m->runs[k].term;
        }
        const struct payload *payload = &received->payloads[i - m->prev_index - 1];
        raft_checker_append(&c->checker, &n->now.log, term, payload->value, payload->config);
    }
}

static void append_own(struct cluster *c, struct node *n, const struct checker_view *v,
                       const struct raft_update *u)
{
    uint32_t config = 0;
    if (u->append_kind == RAFT_APPENDED_CONFIG) {
        raft_checker_propose_config(&c->checker, v, &u->config.members);
        config = raft_checker_keep(&c->checker, &u->config.members);
        c->result->configs++;
        c->result->not_in_new += raft_members_has(&u->config.members, v->node) ? 0 : 1;
    }
    for (raft_index i = u->append_first; i <= u->append_last; i++) {
        raft_checker_append(&c->checker, &n->now.log, u->append_term, c->next_value, config);
        c->next_value++;
    }
}

static void write_log(struct cluster *c, raft_id id, const struct checker_view *v,
                      const struct raft_update *u, const struct packet *received)
{
    struct node *n = &c->nodes[id];
    if (u->truncate_from != 0) {
        truncate_log(c, id, u);
    }
    if (u->append_kind == RAFT_APPENDED_NOTHING) {
        return;
    }
    if (u->append_first != n->now.log.last + 1 || u->append_last < u->append_first) {
        raft_checker_fail(&c->checker, "a gap in the log", id, u->append_first);
    } else if (u->append_kind == RAFT_APPENDED_RECEIVED) {
        append_received(c, n, u, received);
    } else {
        append_own(c, n, v, u);
    }
}

static void check_muted(struct cluster *c, raft_id id, const struct raft_message *m)
{
    raft_index mute = c->nodes[id].mute;
    bool votes = m->type == RAFT_VOTE_REQUEST || m->type == RAFT_PRE_VOTE_REQUEST ||
                 (m->success && (m->type == RAFT_VOTE_REPLY || m->type == RAFT_PRE_VOTE_REPLY));
    bool vouches = m->type == RAFT_APPEND_REPLY && m->success && m->match_index >= mute;
    if (mute != 0 && (votes || vouches)) {
        raft_checker_fail(&c->checker, "a muted node speaks up", id, mute);
    }
}

static void take_messages(struct cluster *c, raft_id id, const struct raft_update *u)
{
    struct node *n = &c->nodes[id];
    for (size_t i = 0; i < u->send_now_count; i++) {
        check_muted(c, id, &u->send_now[i]);
        struct packet p = packet_of(&u->send_now[i], &n->now.log);
        network_send(c, &p);
        packet_fini(&p);
    }
    for (size_t i = 0; i < u->send_after_sync_count; i++) {
        check_muted(c, id, &u->send_after_sync[i]);
        must(n->waiting_count < PACKETS_MAX);
        struct packet *p = &n->waiting[n->waiting_count];
        *p = packet_of(&u->send_after_sync[i], &n->now.log);
        p->number = u->number;
        n->waiting_count++;
    }
}

/* 6.4: a read shows all that was committed when it was asked, by whomever. */
static void take_reads(struct cluster *c, raft_id id, const struct raft_update *u)
{
    struct node *n = &c->nodes[id];
    size_t kept = 0;
    for (size_t i = 0; i < n->read_count && u->read_number != 0; i++) {
        if (n->reads[i].number > u->read_number) {
            n->reads[kept] = n->reads[i];
            kept++;
            continue;
        }
        if (u->read_index < n->reads[i].floor) {
            raft_checker_fail(&c->checker, "a stale read", id, n->reads[i].floor);
        }
        c->result->reads++;
    }
    n->read_count = u->read_number != 0 ? kept : n->read_count;
    if (u->reads_failed) {
        c->result->reads_failed += n->read_count;
        n->read_count = 0;
    }
}

static void check_against_mirror(struct cluster *c, raft_id id)
{
    struct node *n = &c->nodes[id];
    raft_check(n->r);
    raft_index last = n->now.log.last;
    raft_index spot = prng_below(&c->prng, last + 1);
    bool term_is_right =
        spot <= n->now.trim_index || raft_term_at(n->r, spot) == n->now.log.entries[spot].term;
    if (raft_last_index(n->r) != last || !term_is_right) {
        raft_checker_fail(&c->checker, "the core's runs are not its log", id, spot);
    }
    raft_index stored = raft_stored_index(n->r);
    if (stored > n->now.trim_index && !holds(&n->disk.log, stored, n->now.log.entries[stored])) {
        raft_checker_fail(&c->checker, "an entry counted as stored before its fsync", id, stored);
    }
    const struct raft_config_entry *config = raft_configuration(n->r);
    if (config->index != config_index_of(&n->now, last) ||
        !raft_members_equal(&config->members, image_members(c, &n->now))) {
        raft_checker_fail(&c->checker, "the configuration in force is not the log's last", id,
                          config->index);
    }
    if (c->result->steps % MATCH_EVERY == 0) {
        for (size_t other = 1; other <= c->node_count; other++) {
            raft_checker_match(&c->checker, &n->now.log, &c->nodes[other].now.log);
        }
    }
}

static void trace_step(struct cluster *c, raft_id id, const struct raft_event *event,
                       const struct raft_update *u)
{
    uint64_t words[] = {id,
                        (uint64_t)event->type,
                        (uint64_t)c->now_us,
                        u->number,
                        u->truncate_from,
                        u->append_first,
                        u->append_last,
                        u->term,
                        u->vote,
                        u->commit,
                        u->read_number,
                        u->read_index,
                        u->send_now_count,
                        u->send_after_sync_count,
                        (uint64_t)raft_deadline_us(c->nodes[id].r)};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        cluster_trace(c, words[i]);
    }
    c->result->steps++;
}

/* ---- Steps ---- */

static bool may_be_refused(const struct raft_event *event, enum ferry_err err)
{
    bool asks_leader = event->type == RAFT_PROPOSE || event->type == RAFT_CONFIGURE ||
                       event->type == RAFT_TRANSFER || event->type == RAFT_READ;
    return asks_leader && (err == FERRY_ERR_NOT_LEADER || err == FERRY_ERR_NOT_READY ||
                           (err == FERRY_ERR_THROTTLED && event->type == RAFT_PROPOSE));
}

static void take_update(struct cluster *c, raft_id id, const struct checker_view *before,
                        const struct raft_update *u, const struct packet *received)
{
    struct node *n = &c->nodes[id];
    n->now.term = u->term;
    n->now.vote = u->vote;
    n->now.number = u->number;
    n->is_dirty = n->is_dirty || u->hard_state_changed || u->truncate_from != 0 ||
                  u->append_kind != RAFT_APPENDED_NOTHING;
    struct checker_view v = *before;
    v.is_leader = before->is_leader && u->term == before->term;
    if (v.is_leader) { /* It commits what was there; then it may propose what follows from that. */
        write_commit(c, id, &v, u->commit);
        v.commit = u->commit;
        write_log(c, id, &v, u, received);
    } else {
        write_log(c, id, &v, u, received);
        write_commit(c, id, &v, u->commit);
    }
    if (u->became_leader) {
        c->result->elections++;
        struct checker_view leader = view_of(c, id);
        raft_checker_leader(&c->checker, &leader);
    }
    c->result->lost_leads += u->lost_leadership ? 1 : 0;
}

enum ferry_err node_step(struct cluster *c, raft_id id, struct raft_event event,
                         const struct packet *received)
{
    struct node *n = &c->nodes[id];
    struct raft_update u;
    event.now_us = c->now_us;
    struct checker_view before = view_of(c, id);
    enum ferry_err err = raft_step(n->r, &event, &u);
    if (err != FERRY_OK) {
        if (!may_be_refused(&event, err)) {
            raft_checker_fail(&c->checker, "a step failed with this error", id, (uint64_t)err);
        }
        return err;
    }
    trace_step(c, id, &event, &u);
    if (u.term < n->now.term || u.term >= CHECKER_TERMS_MAX) {
        raft_checker_fail(&c->checker, "a term went back, or too far", id, u.term);
        return FERRY_OK;
    }
    if (event.type == RAFT_MUTE) {
        n->mute = event.index;
    }
    take_update(c, id, &before, &u, received);
    take_messages(c, id, &u);
    take_reads(c, id, &u);
    for (size_t i = 0; i < u.snapshot_to_count; i++) {
        snapshot_begin(c, id, u.snapshot_to[i]);
    }
    if (u.regressed != 0) {
        raft_checker_fail(&c->checker, "a peer is said to have lost entries", id, u.regressed);
    }
    bool leads_quietly = raft_is_quiet(n->r) && raft_role(n->r) == RAFT_LEADER;
    c->result->quiet += leads_quietly && !n->was_quiet ? 1 : 0;
    n->was_quiet = leads_quietly;
    if (raft_checker_ok(&c->checker)) {
        check_against_mirror(c, id);
    }
    return FERRY_OK;
}

/* The core goes on while this is under way; that is what update numbers are for. */
void node_sync_begin(struct cluster *c, struct node *n)
{
    image_copy(&n->syncing, &n->now);
    n->is_syncing = true;
    n->is_dirty = false;
    n->sync_done_us = c->now_us + 100 + (int64_t)prng_below(&c->prng, c->sync_max_us);
}

void node_sync_end(struct cluster *c, raft_id id)
{
    struct node *n = &c->nodes[id];
    n->is_syncing = false;
    image_copy(&n->disk, &n->syncing);
    raft_index last = n->disk.log.last;
    c->result->late_stored += n->disk.number < n->truncate_number ? 1 : 0;
    (void)node_step(c, id,
                    (struct raft_event){.type = RAFT_STORED,
                                        .number = n->disk.number,
                                        .index = last,
                                        .term = last > 0 ? n->disk.log.entries[last].term : 0},
                    NULL);
    size_t kept = 0;
    for (size_t i = 0; i < n->waiting_count; i++) {
        if (n->waiting[i].number <= n->disk.number) {
            network_send(c, &n->waiting[i]);
            packet_fini(&n->waiting[i]);
        } else {
            n->waiting[kept] = n->waiting[i];
            kept++;
        }
    }
    n->waiting_count = kept;
}

/* ---- Start, stop, crash, snapshot ---- */

static size_t runs_of(const struct image *disk, struct raft_run *runs)
{
    size_t count = 0;
    for (raft_index i = disk->trim_index + 1; i <= disk->log.last; i++) {
        raft_term term = disk->log.entries[i].term;
        if (count == 0 || runs[count - 1].term != term) {
            runs[count] = (struct raft_run){.first = i, .term = term};
            count++;
        }
    }
    return count;
}

static struct raft_config_entry config_at(const struct cluster *c, const struct image *image,
                                          raft_index config_index)
{
    return (struct raft_config_entry){.index = config_index,
                                      .members = *members_at(c, image, config_index)};
}

void node_start(struct cluster *c, raft_id id)
{
    struct node *n = &c->nodes[id];
    const struct image *disk = &n->disk;
    struct raft_config config = {.self = id,
                                 .seed = prng_next(&c->prng),
                                 .election_min_us = ELECTION_MIN_US,
                                 .election_max_us = ELECTION_MAX_US,
                                 .heartbeat_us = HEARTBEAT_US,
                                 .never_quiet = c->never_quiet};
    struct raft_run *runs = mem_zalloc(CHECKER_LOG_MAX, sizeof(runs[0]));
    must(runs != NULL);
    raft_index index = config_index_of(disk, disk->log.last);
    raft_index previous = index > 0 ? config_index_of(disk, index - 1) : 0;
    struct raft_disk found = {.term = disk->term,
                              .vote = disk->vote,
                              .commit = disk->commit,
                              .trim_index = disk->trim_index,
                              .trim_term = disk->log.entries[disk->trim_index].term,
                              .last_index = disk->log.last,
                              .runs = runs,
                              .run_count = runs_of(disk, runs),
                              .config = config_at(c, disk, index),
                              .previous_config = config_at(c, disk, previous)};
    enum ferry_err err = raft_new(&config, &found, c->now_us, &n->r);
    must(err == FERRY_OK);
    mem_free(runs);
    raft_set_window(n->r, c->window);
    raft_set_notice(n->r, id % 2 == 0 ? 0 : HEARTBEAT_US / 4); /* Both kinds, in one cluster. */
    image_copy(&n->now, disk);
    n->now.number = 0;
    n->boot++;
    if (n->mute != 0) {
        (void)node_step(c, id, (struct raft_event){.type = RAFT_MUTE, .index = n->mute}, NULL);
    }
}

void node_stop(struct cluster *c, raft_id id)
{
    struct node *n = &c->nodes[id];
    raft_free(&n->r);
    for (size_t i = 0; i < n->waiting_count; i++) {
        packet_fini(&n->waiting[i]);
    }
    (void)c;
    n->waiting_count = 0;
    n->read_count = 0;
    n->is_syncing = false;
    n->is_dirty = false;
    n->was_quiet = false;
    n->truncate_number = 0;
    n->read_number = 0;
    n->leads_alone_us = 0;
    n->paused_until_us = 0;
}

void node_crash(struct cluster *c, raft_id id)
{
    struct node *n = &c->nodes[id];
    if (n->is_syncing && cluster_happens(c, PER_MILLE / 2)) {
        image_copy(&n->disk, &n->syncing); /* It reached the disk; nobody was told. */
    }
    node_stop(c, id);
    image_copy(&n->now, &n->disk);
    c->result->crashes++;
}

/* Raft paper, figure 13, step 6: where the log has the snapshot's last entry, it is kept, for its
 * end may have been acknowledged; else all of it goes. */
bool node_install(struct cluster *c, raft_id id, const struct checker_log *log, raft_index index)
{
    struct node *n = &c->nodes[id];
    bool has_it = index <= n->now.commit || holds(&n->now.log, index, log->entries[index]);
    if (has_it) {
        return true;
    }
    node_stop(c, id);
    struct image *now = &n->now;
    memcpy(now->log.entries, log->entries, (index + 1) * sizeof(log->entries[0]));
    now->log.last = index;
    now->trim_index = index;
    now->commit = index;
    now->knows_group = true;
    if (now->term < log->entries[index].term) {
        now->term = log->entries[index].term;
        now->vote = 0;
    }
    for (raft_index i = 1; i <= index; i++) {
        if (!holds(&c->checker.committed, i, now->log.entries[i])) {
            raft_checker_fail(&c->checker, "a snapshot of what is not committed", id, i);
        }
    }
    image_copy(&n->disk, now);
    n->mute = 0;
    c->result->snapshots++;
    node_start(c, id);
    n->boot--; /* The process is the same. */
    return true;
}
