/* Retention and expiry: decided by the leader, carried out by everyone through an entry. */
#include "partition/partition_internal.h"

/* A partition looks at most this often; and how far one entry goes, so that none is large work. */
#define RETENTION_CHECK_US    1000000
#define RETENTION_ENTRIES_MAX 32768u
#define WORTH_TRIM_BYTES      (256 << 10)
/* Message ids expire in steps of this part of the window: an id lives up to so much longer. */
#define EXPIRE_STEPS 16

struct trim {
    uint64_t index; /* Last to drop; 0: none. */
    uint64_t bytes;
    int64_t start_offset;
    int64_t least;        /* Every subscription is done with what is before; -1: not looked at. */
    int64_t kept_time_ms; /* Of the first entry that stays; INT64_MAX: none does. */
};

/* Dead letters and delayed messages are kept elsewhere and hold nothing back. */
static int64_t acked_before(const struct partition *p)
{
    int64_t least = p->config.settings.retention_acked ? deliver_least_position(p) : -1;
    return least != INT64_MAX ? least : -1;
}

static bool is_over(const struct partition *p, const struct store_entry *entry,
                    const struct trim *trim, int64_t now_ms)
{
    const struct topic_settings *s = &p->config.settings;
    bool old = s->retention_ms >= 0 && entry->append_time_ms < now_ms - s->retention_ms;
    bool big = s->retention_bytes >= 0 && p->size_bytes - (int64_t)trim->bytes > s->retention_bytes;
    return old || big || partition_offset_after(entry) <= trim->least;
}

static enum ferry_err measure_trim(struct partition *p, struct store_cursor *cursor, int64_t now_ms,
                                   struct trim *trim)
{
    uint64_t applied = replica_applied(p->replica);
    for (uint32_t i = 0; i < RETENTION_ENTRIES_MAX && cursor->next_index <= applied; i++) {
        uint64_t index = 0;
        struct store_entry entry;
        enum ferry_err err = store_cursor_next(cursor, &index, &entry);
        if (err == FERRY_ERR_CORRUPT) {
            return partition_damaged(p, cursor->next_index);
        }
        if (err != FERRY_OK) {
            return err == FERRY_ERR_OFFSET_OUT_OF_RANGE ? FERRY_OK : err;
        }
        /* The entry that is dropped last tells the start by the one after it. */
        trim->start_offset = entry.base_offset;
        if (!is_over(p, &entry, trim, now_ms)) {
            trim->kept_time_ms = entry.append_time_ms;
            return FERRY_OK;
        }
        trim->index = index;
        trim->bytes += (uint64_t)entry_size(&entry);
        trim->start_offset = p->next_offset;
    }
    if (cursor->next_index <= applied) {
        struct store_entry entry;
        uint64_t index = 0;
        enum ferry_err err = store_cursor_next(cursor, &index, &entry);
        if (err != FERRY_OK) {
            return err;
        }
        trim->start_offset = entry.base_offset;
        trim->kept_time_ms = entry.append_time_ms; /* If it is over too, the next look is soon. */
    }
    return FERRY_OK;
}

static enum ferry_err find_trim(struct partition *p, int64_t now_ms, struct trim *trim)
{
    enum ferry_err err = store_read_begin(p->config.store);
    if (err != FERRY_OK) {
        return err;
    }
    struct store_cursor cursor = {0};
    err = store_cursor_open(p->config.store, p->config.group, replica_first_index(p->replica),
                            &cursor);
    if (err == FERRY_OK) {
        err = measure_trim(p, &cursor, now_ms, trim);
    }
    store_cursor_close(&cursor);
    store_read_end(p->config.store);
    return err;
}

/* Records are worth a trim, and else only much (delayed batches, entries of subscriptions): a log
 * of few control entries would trim itself for ever, since each trim adds one. */
static bool has_something(const struct partition *p)
{
    const struct topic_settings *s = &p->config.settings;
    bool limited = s->retention_ms >= 0 || s->retention_bytes >= 0 ||
                   (s->retention_acked && p->subscriptions.count > 0);
    return limited && (p->next_offset > p->start_offset || p->size_bytes >= WORTH_TRIM_BYTES);
}

static int64_t not_before_next_look(const struct partition *p, int64_t due_us)
{
    int64_t next_look_us = p->retention_looked_us + RETENTION_CHECK_US;
    return due_us > next_look_us ? due_us : next_look_us;
}

/* Called for every append, so only a comparison: by time the next look is set already, but for the
 * first entry in an empty partition; by size it is due when it has grown past its limit. */
void partition_retain_soon(struct partition *p)
{
    const struct topic_settings *s = &p->config.settings;
    bool over = s->retention_bytes >= 0 && p->size_bytes > s->retention_bytes;
    bool first = s->retention_ms >= 0 && !p->retention_timed;
    if (p->retention_due_us == RAFT_NEVER || over || first) {
        int64_t due_us = not_before_next_look(p, 0);
        p->retention_due_us = due_us < p->retention_due_us ? due_us : p->retention_due_us;
    }
}

void partition_retain_acked(struct partition *p)
{
    if (p->config.settings.retention_acked && replica_is_ready(p->replica)) {
        int64_t due_us = not_before_next_look(p, 0);
        p->retention_due_us = due_us < p->retention_due_us ? due_us : p->retention_due_us;
    }
}

/* Nothing to drop by now: the next look is when the first entry gets too old. */
static void schedule(struct partition *p, const struct trim *trim, int64_t now_ms, int64_t now_us)
{
    int64_t window_ms = p->config.settings.retention_ms;
    if (window_ms >= 0 && trim->kept_time_ms != INT64_MAX) {
        int64_t left_ms = trim->kept_time_ms + window_ms - now_ms + 1;
        int64_t due_us = not_before_next_look(p, now_us + left_ms * 1000);
        p->retention_due_us = due_us < p->retention_due_us ? due_us : p->retention_due_us;
        p->retention_timed = true;
    }
}

/* What holds no record, such as a leader's no-op, stays until a record goes or it is much: traces
 * want to know who led. */
static bool is_worth(const struct partition *p, const struct trim *trim)
{
    return trim->index != 0 &&
           (trim->start_offset > p->start_offset || trim->bytes >= WORTH_TRIM_BYTES);
}

static enum ferry_err retain(struct partition *p, int64_t now_ms, int64_t now_us)
{
    struct trim trim = {.kept_time_ms = INT64_MAX, .least = acked_before(p)};
    enum ferry_err err = find_trim(p, now_ms, &trim);
    if (err != FERRY_OK) {
        return err;
    }
    schedule(p, &trim, now_ms, now_us);
    if (!is_worth(p, &trim)) {
        return FERRY_OK;
    }
    struct control c = {.kind = CONTROL_TRIM,
                        .trim_index = trim.index,
                        .trim_bytes = trim.bytes,
                        .start_offset = trim.start_offset};
    return partition_propose_housekeeping(p, &c, now_ms, now_us);
}

static enum ferry_err expire_ids(struct partition *p, int64_t now_ms, int64_t now_us)
{
    int64_t window = p->config.settings.dedupe_window_ms;
    int64_t before = now_ms - window;
    bool idle = window <= 0 || (!p->ids.disk_has_rows && p->ids.count == 0);
    if (idle || before - p->ids.expire_before_ms < window / EXPIRE_STEPS) {
        return FERRY_OK;
    }
    struct control c = {.kind = CONTROL_EXPIRE_IDS, .before_ms = before};
    return partition_propose_housekeeping(p, &c, now_ms, now_us);
}

int64_t partition_deadline_us(const struct partition *p)
{
    int64_t due = replica_deadline_us(p->replica);
    int64_t deliver = deliver_deadline_us(p);
    due = deliver < due ? deliver : due;
    due = p->members_due_us < due ? p->members_due_us : due;
    int64_t schedule_us = partition_schedule_deadline_us(p);
    due = schedule_us < due ? schedule_us : due;
    return p->retention_due_us < due ? p->retention_due_us : due;
}

/* Ids are looked at from time to time as long as there are some. */
static void begin_look(struct partition *p, int64_t now_us)
{
    int64_t window_ms = p->config.settings.dedupe_window_ms;
    bool ids = p->ids.disk_has_rows || p->ids.count > 0;
    p->retention_looked_us = now_us;
    p->retention_due_us = RAFT_NEVER;
    p->retention_timed = false;
    if (ids && window_ms > 0) {
        p->retention_due_us = not_before_next_look(p, now_us + window_ms * 1000 / EXPIRE_STEPS);
    }
}

static enum ferry_err tick_retention(struct partition *p, int64_t now_ms, int64_t now_us)
{
    enum ferry_err err = FERRY_OK;
    if (p->retention_due_us > now_us) {
        return FERRY_OK;
    }
    if (!replica_is_ready(p->replica)) {
        p->retention_due_us = RAFT_NEVER; /* Who becomes leader looks at once. */
        return FERRY_OK;
    }
    if (p->housekeeping) {
        p->retention_due_us = now_us + RETENTION_CHECK_US;
        return FERRY_OK;
    }
    begin_look(p, now_us);
    if (has_something(p)) {
        err = retain(p, now_ms, now_us);
    }
    if (err == FERRY_OK && !p->housekeeping) {
        err = expire_ids(p, now_ms, now_us);
    }
    return err;
}

/* What is tried again later is no failure. */
static enum ferry_err unless_later(const struct partition *p, enum ferry_err err)
{
    bool later = err == FERRY_ERR_CORRUPT || err == FERRY_ERR_THROTTLED ||
                 err == FERRY_ERR_NOT_LEADER || err == FERRY_ERR_NOT_READY;
    return later && replica_failure(p->replica) == FERRY_OK ? FERRY_OK : err;
}

enum ferry_err partition_tick(struct partition *p, int64_t now_ms, int64_t now_us)
{
    enum ferry_err err = FERRY_OK;
    if (replica_deadline_us(p->replica) <= now_us) {
        err = replica_tick(p->replica, now_us);
    }
    if (err == FERRY_OK && deliver_deadline_us(p) <= now_us) {
        err = unless_later(p, deliver_tick(p, now_ms, now_us));
    }
    if (err == FERRY_OK && p->members_due_us <= now_us) {
        err = unless_later(p, partition_members_tick(p, now_ms, now_us));
    }
    if (err == FERRY_OK) {
        err = unless_later(p, partition_schedule_tick(p, now_ms, now_us));
    }
    if (err == FERRY_OK) {
        err = unless_later(p, partition_recurring_tick(p, now_ms, now_us));
    }
    return err == FERRY_OK ? unless_later(p, tick_retention(p, now_ms, now_us)) : err;
}
