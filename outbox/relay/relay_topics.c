/* Topics, their targets, and what each target has. */
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "outbox/relay/relay_state.h"

#define TELL_AGAIN_US (30 * 1000 * US_PER_MS) /* About a topic that is still missing. */

static void target_init(struct relay *r, struct relay_topic *topic, int32_t partition)
{
    struct relay_target *t = &topic->targets[partition];
    *t = (struct relay_target){
        .relay = r,
        .topic = topic,
        .partition = partition,
        .state = RELAY_TARGET_LOST,
        .blocked_from = RELAY_NOT_BLOCKED,
        .queue_first = RELAY_NO_ROW,
        .queue_last = RELAY_NO_ROW,
        .limit = (size_t)r->options->batch_rows,
        .suspect_after = RELAY_NO_SUSPECT,
    };
}

static void target_close_mark(struct relay_target *t)
{
    if (t->mark != NULL) {
        t->relay->source->ops->mark_close(t->relay->source->driver, t->mark);
    }
    t->mark = NULL;
    t->full = false;
}

void relay_topics_free(struct relay *r)
{
    for (size_t i = 0; i < r->topic_count; i++) {
        for (int32_t p = 0; p < r->topics[i]->partitions; p++) {
            target_close_mark(&r->topics[i]->targets[p]);
        }
        mem_free(r->topics[i]->targets);
        mem_free(r->topics[i]->name);
        mem_free(r->topics[i]);
    }
    mem_free(r->topics);
    r->topics = NULL;
    r->topic_count = 0;
}

/* ---- Blocking: noting the first row that has to wait. */

void relay_target_block(struct relay_target *t, int64_t from, int64_t retry_at_us)
{
    must(t->state == RELAY_TARGET_LOST);
    if (t->blocked_from == RELAY_NOT_BLOCKED) {
        t->relay->blocked++;
    }
    if (from < t->blocked_from) {
        t->blocked_from = from;
    }
    t->retry_at_us = retry_at_us;
}

static void target_unblock(struct relay_target *t)
{
    if (t->blocked_from != RELAY_NOT_BLOCKED) {
        t->blocked_from = RELAY_NOT_BLOCKED;
        t->relay->blocked--;
    }
}

/* A mark that is open has taken each row that it wanted of what was read (source.h); with its topic
 * blocked it would not. */
static void close_marks(struct relay_topic *topic, int64_t from)
{
    for (int32_t p = 0; p < topic->partitions; p++) {
        struct relay_target *t = &topic->targets[p];
        if (t->state == RELAY_TARGET_READY && t->queue_count + t->flight_count > 0) {
            relay_target_put_off(t, from, t->relay->now_us);
        } else if (t->state == RELAY_TARGET_READY) {
            target_close_mark(t);
            t->state = RELAY_TARGET_LOST;
            t->suspect_after = RELAY_NO_SUSPECT;
        }
    }
}

void relay_topic_block(struct relay *r, struct relay_topic *topic, int64_t from,
                       int64_t retry_at_us)
{
    close_marks(topic, from);
    if (topic->blocked_from == RELAY_NOT_BLOCKED) {
        r->blocked++;
    }
    if (from < topic->blocked_from) {
        topic->blocked_from = from;
    }
    topic->retry_at_us = retry_at_us;
}

static void topic_unblock(struct relay *r, struct relay_topic *topic)
{
    if (topic->blocked_from != RELAY_NOT_BLOCKED) {
        topic->blocked_from = RELAY_NOT_BLOCKED;
        r->blocked--;
    }
}

void relay_target_put_off(struct relay_target *t, int64_t position, int64_t retry_at_us)
{
    int64_t from = position;
    if (t->queue_count > 0 && t->relay->page.rows[t->queue_first].position < from) {
        from = t->relay->page.rows[t->queue_first].position;
    }
    if (t->flight_count > 0 && !t->flights[t->flight_first].stale &&
        t->flights[t->flight_first].first < from) {
        from = t->flights[t->flight_first].first;
    }
    relay_target_queue_drop(t);
    target_close_mark(t);
    t->state = RELAY_TARGET_LOST;
    t->suspect_after = RELAY_NO_SUSPECT;
    relay_target_block(t, from, retry_at_us);
}

/* Its queue, if any, is the page's, which is dropped after this. */
static void target_lose(struct relay_target *t)
{
    bool was_ready = t->state == RELAY_TARGET_READY;
    target_close_mark(t);
    t->state = RELAY_TARGET_LOST;
    t->suspect_after = RELAY_NO_SUSPECT;
    if (was_ready && t->flight_count > 0) {
        relay_target_block(t, t->flights[t->flight_first].first, t->relay->now_us);
    }
}

void relay_topics_lose(struct relay *r)
{
    for (size_t i = 0; i < r->topic_count; i++) {
        for (int32_t p = 0; p < r->topics[i]->partitions; p++) {
            target_lose(&r->topics[i]->targets[p]);
        }
    }
}

void relay_topics_unblock(struct relay *r)
{
    r->growing = false;
    r->settling = false;
    r->settled_at = -1;
    for (size_t i = 0; i < r->topic_count; i++) {
        topic_unblock(r, r->topics[i]);
        r->topics[i]->state = RELAY_TOPIC_UNKNOWN; /* Another relay may have placed by others. */
        r->topics[i]->grown = 0;
        relay_growth_forget(r->topics[i]);
        for (int32_t p = 0; p < r->topics[i]->partitions; p++) {
            struct relay_target *t = &r->topics[i]->targets[p];
            must(t->state == RELAY_TARGET_LOST);
            target_unblock(t);
            t->poisoned = false;
            t->fenced = false;
            for (size_t f = 0; f < RELAY_WINDOW_MAX; f++) {
                t->flights[f].stale = true;
            }
        }
    }
    must(r->blocked == 0);
}

void relay_topic_forget(struct relay_topic *topic, int64_t from)
{
    topic->state = RELAY_TOPIC_UNKNOWN;
    relay_growth_forget(topic);
    for (int32_t p = 0; p < topic->partitions; p++) {
        struct relay_target *t = &topic->targets[p];
        if (t->queue_count > 0) {
            int64_t first = t->relay->page.rows[t->queue_first].position;
            from = first < from ? first : from;
            relay_target_queue_drop(t);
        }
        target_lose(t);
    }
    relay_topic_block(topic->targets[0].relay, topic, from, topic->targets[0].relay->now_us);
}

bool relay_topics_all_down(const struct relay *r)
{
    bool some_blocked = false;
    for (size_t i = 0; i < r->topic_count; i++) {
        if (r->topics[i]->blocked_from != RELAY_NOT_BLOCKED) {
            continue; /* It waits by itself; others may be met for the first time. */
        }
        for (int32_t p = 0; p < r->topics[i]->partitions; p++) {
            const struct relay_target *t = &r->topics[i]->targets[p];
            if (t->state == RELAY_TARGET_READY) {
                return false;
            }
            some_blocked = some_blocked || t->blocked_from != RELAY_NOT_BLOCKED;
        }
    }
    return some_blocked;
}

/* ---- Finding. */

static bool topic_find(const struct relay *r, const char *name, size_t *at)
{
    size_t low = 0;
    size_t high = r->topic_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(r->topics[middle]->name, name);
        if (order == 0) {
            *at = middle;
            return true;
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    *at = low;
    return false;
}

static struct relay_topic *topic_add(struct relay *r, const char *name, size_t at)
{
    if (r->topic_count == RELAY_TOPICS_MAX ||
        !mem_grow((void **)&r->topics, &r->topic_capacity, r->topic_count + 1,
                  sizeof(struct relay_topic *))) {
        return NULL;
    }
    struct relay_topic *topic = mem_zalloc(1, sizeof(*topic));
    if (topic == NULL) {
        return NULL;
    }
    topic->name = mem_strdup(name);
    if (topic->name == NULL) {
        mem_free(topic);
        return NULL;
    }
    topic->blocked_from = RELAY_NOT_BLOCKED;
    topic->tally = relay_tally_topic(r->hooks.tally, name);
    memmove(&r->topics[at + 1], &r->topics[at], (r->topic_count - at) * sizeof(r->topics[0]));
    r->topics[at] = topic;
    r->topic_count++;
    return topic;
}

static struct relay_topic *topic_of(struct relay *r, const char *name)
{
    if (r->topic_last != NULL && strcmp(r->topic_last->name, name) == 0) {
        return r->topic_last;
    }
    size_t at = 0;
    struct relay_topic *topic = topic_find(r, name, &at) ? r->topics[at] : topic_add(r, name, at);
    r->topic_last = topic;
    return topic;
}

static bool topic_has_flights(const struct relay_topic *topic)
{
    for (int32_t p = 0; p < topic->partitions; p++) {
        if (topic->targets[p].flight_count > 0) {
            return true;
        }
    }
    return false;
}

/* ---- Asking. */

static void tell_missing(struct relay *r, struct relay_topic *topic)
{
    if (r->options->unknown_topic == RELAY_UNKNOWN_TOPIC_DEAD) {
        return; /* Each row that is set aside is told of. */
    }
    if (topic->said_at_us != 0 && r->now_us - topic->said_at_us < TELL_AGAIN_US) {
        return;
    }
    topic->said_at_us = r->now_us;
    err_set(&r->error, FERRY_ERR_UNKNOWN_TOPIC,
            "no such topic: %s: its rows wait, others go on: `ferry topic create %s`", topic->name,
            topic->name);
    log_line(LOG_WARN, "relay", "%s: %s", relay_name(r), r->error.text);
}

bool relay_topic_place(struct relay *r, struct relay_topic *topic, int32_t partitions)
{
    must(!topic_has_flights(topic));
    relay_waiting_forget(r, topic);
    struct relay_target *targets = mem_zalloc((size_t)partitions, sizeof(*targets));
    if (targets == NULL) {
        return false;
    }
    for (int32_t p = 0; p < topic->partitions; p++) {
        must(topic->targets[p].queue_count == 0);
        target_close_mark(&topic->targets[p]);
        target_unblock(&topic->targets[p]);
    }
    struct relay_target *old = topic->targets;
    int32_t known = topic->partitions;
    topic->targets = targets;
    topic->partitions = partitions;
    topic->grown = 0;
    for (int32_t p = 0; p < partitions; p++) {
        target_init(r, topic, p);
        if (p < known) {
            targets[p].unsure = old[p].unsure;
            targets[p].past = old[p].past;
        }
    }
    mem_free(old);
    topic->state = RELAY_TOPIC_KNOWN;
    topic->said_at_us = 0;
    r->error.text[0] = '\0';
    return true;
}

/* What the client remembers may be minutes old, and another relay may have placed rows by more. One
 * partition that does not answer is not waited for as long as an answer. */
static enum ferry_err count_partitions(struct relay *r, const struct relay_topic *topic,
                                       int32_t *partitions)
{
    bool begun = topic->found > 0 || topic->looked > 0 || topic->fencing;
    if (begun || r->broker->partitions_now == NULL) {
        return r->broker->partitions(r->broker->ctx, topic->name, relay_timeout_ms(r), partitions);
    }
    return r->broker->partitions_now(r->broker->ctx, topic->name, relay_ask_ms(r), partitions);
}

/* Asks how many partitions the topic has; an answer of "no such topic" holds for topic_retry_ms.
 * When this returns UNREACHABLE or TIMEOUT the relay is no longer active. */
static enum ferry_err topic_ask(struct relay *r, struct relay_topic *topic)
{
    int32_t partitions = 0;
    if (r->now_us < topic->missing_until_us) {
        return FERRY_ERR_UNKNOWN_TOPIC;
    }
    if (topic_has_flights(topic) || r->silent) {
        return FERRY_ERR_NOT_READY;
    }
    enum ferry_err err = count_partitions(r, topic, &partitions);
    if (err == FERRY_OK && partitions <= 0) {
        err = FERRY_ERR_NO_MEMORY;
    }
    int32_t in_force = partitions;
    if (err == FERRY_OK) {
        err = relay_growth_find(r, topic, partitions, &in_force);
        if (r->state != RELAY_ACTIVE || err == FERRY_ERR_UNREACHABLE || err == FERRY_ERR_TIMEOUT) {
            return err; /* One partition does not answer: others may. */
        }
    }
    if (err == FERRY_OK && !relay_topic_place(r, topic, in_force)) {
        err = FERRY_ERR_NO_MEMORY;
    }
    if (err == FERRY_OK && in_force < partitions) {
        relay_growth_note(r, topic, partitions);
    }
    if (err == FERRY_ERR_UNKNOWN_TOPIC) {
        topic->missing_until_us = r->now_us + r->options->topic_retry_ms * US_PER_MS;
        tell_missing(r, topic);
    } else if (err == FERRY_ERR_UNREACHABLE || err == FERRY_ERR_TIMEOUT) {
        relay_outage(r, err, "asking for a topic");
    }
    return err;
}

static int64_t topic_pause_us(const struct relay *r, enum ferry_err err)
{
    return err == FERRY_ERR_NOT_READY ? US_PER_MS : r->options->topic_retry_ms * US_PER_MS;
}

/* *again: the source has rows to hand out anew because of this mark. */
static bool target_take_mark(struct relay_target *t, const struct ferry_cursor *cursor, bool *again)
{
    struct relay *r = t->relay;
    struct bytes whole = bytes_of(cursor->blob, cursor->version > 0 ? cursor->blob_bytes : 0);
    struct bytes blob;
    struct source_mark *mark = NULL;
    struct err_text e = {{0}};
    bool same = true;
    int32_t placed = 0;
    enum ferry_err err = relay_kept_mark_decode(whole, &placed, &blob, &e);
    if (err == FERRY_OK) {
        err = r->source->ops->mark_open(r->source->driver, blob, &mark, &same, again, &e);
    }
    if (err == FERRY_ERR_CORRUPT || err == FERRY_ERR_NEWER_FORMAT) {
        relay_halt(r, e.text);
        return false;
    }
    if (err != FERRY_OK) {
        r->error = e;
        return false;
    }
    if (!same) {
        must(mark == NULL);
        relay_halt_set_back(r, e.text);
        return false;
    }
    must(mark != NULL);
    t->version = cursor->version;
    t->mark = mark;
    /* Until one append of this time in office is through, one of an earlier relay may still come in
     * between: it raises the version, and what is chained behind would take it for its own. */
    t->half_open = true;
    t->state = RELAY_TARGET_READY;
    return true;
}

/* Nothing that was sent before can come any more: appends of relays before, by their epoch, and of
 * this one, by what they expect. False: not now (noted), or not active any more. */
static bool target_fence(struct relay_target *t, int64_t position)
{
    struct relay *r = t->relay;
    enum ferry_err err = r->broker->fence == NULL
                             ? FERRY_ERR_UNKNOWN_COMMAND
                             : r->broker->fence(r->broker->ctx, t->topic->name, t->partition,
                                                t->past, relay_ask_ms(r));
    r->silent = err == FERRY_ERR_TIMEOUT || err == FERRY_ERR_UNREACHABLE;
    if (err == FERRY_OK || err == FERRY_ERR_UNKNOWN_COMMAND) { /* An older broker. */
        t->fenced = true;
        t->unsure = false;
        t->past = 0;
        return true;
    }
    if (err == FERRY_ERR_SOURCE_FENCED) {
        r->stats.fenced++;
        r->elect_at_us = r->now_us;
        relay_lease_lost(r, RELAY_ELECTING);
    } else if (err == FERRY_ERR_UNKNOWN_TOPIC || err == FERRY_ERR_UNKNOWN_PARTITION) {
        relay_topic_forget(t->topic, position);
    } else {
        err_set(&r->error, err, "%s/%d: fencing: %s", t->topic->name, t->partition,
                ferry_err_text(err));
        relay_target_block(t, position, r->now_us + relay_backoff_us(r, t->failures++));
    }
    return false;
}

/* Asks what the target has. False: not now (noted), or the relay is not active any more. */
static bool target_ask(struct relay_target *t, int64_t position, bool *again)
{
    struct relay *r = t->relay;
    struct ferry_cursor cursor = {0};
    *again = false;
    must(t->state == RELAY_TARGET_LOST);
    must(t->flight_count == 0);
    if (r->silent) {
        relay_target_block(t, position, r->now_us);
        return false;
    }
    if (t->unsure && !target_fence(t, position)) {
        return false;
    }
    enum ferry_err err =
        r->broker->cursor(r->broker->ctx, t->topic->name, t->partition, relay_ask_ms(r), &cursor);
    r->silent = err == FERRY_ERR_TIMEOUT || err == FERRY_ERR_UNREACHABLE;
    if (err == FERRY_OK && target_take_mark(t, &cursor, again)) {
        return true;
    }
    if (r->state != RELAY_ACTIVE) {
        return false; /* Halted. */
    }
    if (err == FERRY_ERR_UNKNOWN_TOPIC || err == FERRY_ERR_UNKNOWN_PARTITION) {
        relay_topic_forget(t->topic, position);
        return false;
    }
    if (err != FERRY_OK) {
        err_set(&r->error, err, "%s/%d: asking for the cursor: %s", t->topic->name, t->partition,
                ferry_err_text(err));
    }
    relay_target_block(t, position, r->now_us + relay_backoff_us(r, t->failures++));
    return false;
}

/* ---- Trying again what is blocked. */

static void target_retry(struct relay_target *t)
{
    struct relay *r = t->relay;
    if (t->flight_count > 0 || r->now_us < t->retry_at_us) {
        return;
    }
    bool again = false;
    if (target_ask(t, t->blocked_from, &again)) {
        relay_rewind(r); /* Also what `again` wants. */
        target_unblock(t);
    }
}

static bool unknown_is_dead(const struct relay *r, enum ferry_err err)
{
    return err == FERRY_ERR_UNKNOWN_TOPIC && r->options->unknown_topic == RELAY_UNKNOWN_TOPIC_DEAD;
}

/* What waits for a target of a topic that is not known waits for the topic: the targets will be
 * others, and some of their batches may have been further back than what was met first. False:
 * some are on their way yet. */
static bool topic_gather(struct relay_topic *topic)
{
    if (topic_has_flights(topic)) {
        return false;
    }
    for (int32_t p = 0; p < topic->partitions; p++) {
        struct relay_target *t = &topic->targets[p];
        topic->blocked_from =
            t->blocked_from < topic->blocked_from ? t->blocked_from : topic->blocked_from;
        target_unblock(t);
    }
    return true;
}

static void topic_retry_blocked(struct relay *r, struct relay_topic *topic)
{
    if (topic->blocked_from == RELAY_NOT_BLOCKED || r->now_us < topic->retry_at_us) {
        return;
    }
    if (topic->state == RELAY_TOPIC_UNKNOWN && !topic_gather(topic)) {
        topic->retry_at_us = r->now_us + topic_pause_us(r, FERRY_ERR_NOT_READY);
        return;
    }
    enum ferry_err err = topic->state == RELAY_TOPIC_KNOWN ? FERRY_OK : topic_ask(r, topic);
    if (err == FERRY_OK || unknown_is_dead(r, err)) {
        relay_rewind(r);
        topic_unblock(r, topic);
    } else {
        topic->retry_at_us = r->now_us + topic_pause_us(r, err);
    }
}

static void topic_retry(struct relay *r, struct relay_topic *topic)
{
    topic_retry_blocked(r, topic);
    if (topic->blocked_from != RELAY_NOT_BLOCKED) {
        return;
    }
    for (int32_t p = 0; r->state == RELAY_ACTIVE && p < topic->partitions; p++) {
        if (topic->targets[p].blocked_from != RELAY_NOT_BLOCKED) {
            target_retry(&topic->targets[p]);
        }
    }
}

void relay_topics_retry(struct relay *r)
{
    size_t from = r->retry_from;
    r->silent = false;
    for (size_t i = 0; r->blocked > 0 && r->state == RELAY_ACTIVE && i < r->topic_count; i++) {
        size_t at = (from + i) % r->topic_count;
        topic_retry(r, r->topics[at]);
        if (r->silent) {
            r->retry_from = at + 1; /* The others have their turn in the next step. */
            return;
        }
    }
}

/* ---- Rows. */

/* Whether the topic is known; if not, the row is noted or set aside. */
static bool topic_ready(struct relay *r, struct relay_topic *topic, const struct source_row *row)
{
    if (topic->blocked_from != RELAY_NOT_BLOCKED) {
        return false; /* A row before this one waits. */
    }
    if (topic->state == RELAY_TOPIC_KNOWN) {
        return true;
    }
    int64_t position = row->position; /* An outage drops the page. */
    enum ferry_err err = topic_ask(r, topic);
    if (err == FERRY_OK) {
        return true;
    }
    if (r->state != RELAY_ACTIVE) {
        return false;
    }
    if (!unknown_is_dead(r, err) || relay_refuse(r, row, "there is no such topic") != RELAY_DROP) {
        relay_topic_block(r, topic, position, r->now_us + topic_pause_us(r, err));
    }
    return false;
}

static struct relay_target *target_of_row(const struct relay *r, struct relay_topic *topic,
                                          const struct source_row *row)
{
    /* Without a key: spread, but a row read again goes where it went before. */
    int32_t partition = row->message.key != NULL
                            ? r->broker->partition_of_key(row->message.key, row->message.key_bytes,
                                                          topic->partitions)
                            : (int32_t)((uint64_t)row->number % (uint64_t)topic->partitions);
    return &topic->targets[partition];
}

/* The row's target, READY; NULL: it has to wait, or the page is gone. */
static struct relay_target *ready_target(struct relay *r, struct relay_topic *topic,
                                         const struct source_row *row)
{
    struct relay_target *t = target_of_row(r, topic, row);
    if (t->state == RELAY_TARGET_READY) {
        return t;
    }
    if (t->blocked_from != RELAY_NOT_BLOCKED) {
        return NULL;
    }
    if (t->flight_count > 0) {
        relay_target_block(t, row->position, r->now_us);
        return NULL;
    }
    bool again = false;
    if (!target_ask(t, row->position, &again)) {
        return NULL;
    }
    if (again) {
        relay_rewind(r);
        return NULL;
    }
    return t;
}

/* What the mark does not cover will not be in the log unless it is sent from here on: the target
 * was fenced before, or an append of this time in office, which does the same, is through. A row
 * that is set aside must be one of these: it may be put anew. */
static bool is_all_known(const struct relay_target *t)
{
    return t->fenced || !t->half_open;
}

/* What becomes of a row that its target wants. */
static enum relay_verdict judge_row(struct relay *r, struct relay_target *t,
                                    const struct source_row *row)
{
    int64_t until = 0;
    bool poisoned = t->poisoned && t->poison == row->number;
    bool asked = relay_key_is_asked(r, row, &until);
    if ((poisoned || asked) && !is_all_known(t)) {
        t->unsure = true;
        relay_target_put_off(t, row->position, r->now_us);
        return RELAY_WAIT;
    }
    enum relay_verdict verdict = asked ? relay_judge_key(r, row, until) : RELAY_PUBLISH;
    if (verdict == RELAY_PUBLISH && poisoned) {
        verdict = relay_refuse(r, row, t->poison_reason.text);
        t->poisoned = verdict != RELAY_DROP;
    }
    if (verdict == RELAY_WAIT) {
        /* A person is asked while nothing is published: then it goes on at once. */
        int64_t pause_us = r->stuck ? 0 : r->options->topic_retry_ms * US_PER_MS;
        relay_target_put_off(t, row->position, r->now_us + pause_us);
    }
    return verdict;
}

static struct relay_topic *topic_of_row(struct relay *r, const struct source_row *row)
{
    struct relay_topic *topic = topic_of(r, row->message.topic);
    if (topic == NULL && r->topic_count == RELAY_TOPICS_MAX) {
        relay_halt(r, "more than 10000 different topics in one outbox table");
    } else if (topic == NULL) {
        relay_outage(r, FERRY_ERR_NO_MEMORY, "remembering a topic");
    }
    return topic;
}

struct relay_target *relay_topics_route(struct relay *r, const struct source_row *row)
{
    struct relay_topic *topic = topic_of_row(r, row);
    if (topic == NULL || relay_was_set_aside(r, row)) {
        return NULL;
    }
    if (row->invalid != NULL && topic->blocked_from == RELAY_NOT_BLOCKED) {
        if (relay_refuse(r, row, row->invalid) == RELAY_WAIT) {
            int64_t pause_us = r->stuck ? 0 : relay_backoff_us(r, 0);
            relay_topic_block(r, topic, row->position, r->now_us + pause_us);
        }
        return NULL;
    }
    if (!topic_ready(r, topic, row)) {
        return NULL;
    }
    struct relay_target *t = ready_target(r, topic, row);
    if (t == NULL) {
        return NULL;
    }
    if (!r->source->ops->wants(r->source->driver, t->mark, row)) {
        r->stats.covered_rows++;
        return NULL;
    }
    return judge_row(r, t, row) == RELAY_PUBLISH ? t : NULL;
}

/* ---- Rows that an earlier relay may have sent. */

static enum relay_found target_find(struct relay_target *t, const struct source_row *row)
{
    struct relay *r = t->relay;
    bool again = false;
    must(t->flight_count == 0);
    if (t->blocked_from != RELAY_NOT_BLOCKED) {
        relay_target_block(t, row->position, t->retry_at_us);
        return RELAY_FOUND_NOT_NOW;
    }
    if (!t->fenced) {
        target_close_mark(t); /* It may be older than what came last. */
        t->state = RELAY_TARGET_LOST;
        t->suspect_after = RELAY_NO_SUSPECT;
        t->unsure = true;
    }
    if (t->state != RELAY_TARGET_READY && !target_ask(t, row->position, &again)) {
        return RELAY_FOUND_NOT_NOW;
    }
    if (again) {
        relay_rewind(r);
        return RELAY_FOUND_NOT_NOW;
    }
    return r->source->ops->wants(r->source->driver, t->mark, row) ? RELAY_FOUND_NOT
                                                                  : RELAY_FOUND_IN_LOG;
}

/* Of a long key only the beginning is known: the row may be in any partition, and a mark of another
 * one may cover its place. */
static enum relay_found find_anywhere(struct relay_topic *topic, const struct source_row *row)
{
    bool perhaps = false;
    for (int32_t p = 0; p < topic->partitions; p++) {
        enum relay_found found = target_find(&topic->targets[p], row);
        if (found == RELAY_FOUND_NOT_NOW) {
            return found;
        }
        perhaps = perhaps || found == RELAY_FOUND_IN_LOG;
    }
    return perhaps ? RELAY_FOUND_PERHAPS : RELAY_FOUND_NOT;
}

enum relay_found relay_topics_find(struct relay *r, const struct source_row *row)
{
    struct relay_topic *topic = row->invalid == NULL ? topic_of_row(r, row) : NULL;
    int64_t position = row->position; /* An outage drops the page. */
    if (topic == NULL) {
        return row->invalid == NULL ? RELAY_FOUND_NOT_NOW : RELAY_FOUND_NOT;
    }
    enum ferry_err err = topic->state == RELAY_TOPIC_KNOWN ? FERRY_OK : topic_ask(r, topic);
    if (r->state == RELAY_ACTIVE && err != FERRY_OK && err != FERRY_ERR_UNKNOWN_TOPIC) {
        relay_topic_block(r, topic, position, r->now_us + topic_pause_us(r, err));
    }
    if (r->state != RELAY_ACTIVE || err != FERRY_OK) {
        return r->state == RELAY_ACTIVE && err == FERRY_ERR_UNKNOWN_TOPIC ? RELAY_FOUND_NOT
                                                                          : RELAY_FOUND_NOT_NOW;
    }
    bool is_long = row->message.key != NULL && row->message.key_bytes > SOURCE_PARKED_KEY_MAX;
    return is_long ? find_anywhere(topic, row) : target_find(target_of_row(r, topic, row), row);
}
