/* Rows that are not published: refused ones, and those whose key is parked.
 *
 * A row that was set aside may be handed out once more, since some databases keep it where it was;
 * so the numbers of those of this time in office are remembered until the low mark has passed them
 * and nothing waits: a source goes back by more than it has to, and with a row refused anew at each
 * turn nothing behind it would ever have one.
 * A later relay that meets such a row sends it and is refused again, or finds its key parked: both
 * change nothing. Keys are read anew each second, and whenever the database says that a key which
 * seemed parked is not: the database decides, in the transaction that sets the row aside. */
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "outbox/relay/relay_policy.h"
#include "outbox/relay/relay_state.h"

/* ---- What was set aside. */

static bool aside_find(const struct relay *r, int64_t number, size_t *at)
{
    size_t low = 0;
    size_t high = r->aside_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (r->aside[middle].number < number) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    *at = low;
    return low < r->aside_count && r->aside[low].number == number;
}

static bool aside_reserve(struct relay *r)
{
    if (r->aside_count == RELAY_ASIDE_MAX) {
        relay_aside_prune(r);
    }
    if (r->aside_count == RELAY_ASIDE_MAX) {
        err_set(&r->error, FERRY_ERR_LIMIT_REACHED,
                "%u rows were set aside behind one that waits: no more until it goes on",
                RELAY_ASIDE_MAX);
        return false;
    }
    if (!mem_grow((void **)&r->aside, &r->aside_capacity, r->aside_count + 1, sizeof(*r->aside))) {
        err_set(&r->error, FERRY_ERR_NO_MEMORY, "out of memory");
        return false;
    }
    return true;
}

/* There is room: aside_reserve. */
static void aside_add(struct relay *r, int64_t number, int64_t position)
{
    size_t at = 0;
    if (!aside_find(r, number, &at)) {
        must(r->aside_count < r->aside_capacity);
        memmove(&r->aside[at + 1], &r->aside[at], (r->aside_count - at) * sizeof(*r->aside));
        r->aside_count++;
    }
    r->aside[at] = (struct relay_aside){number, position};
}

bool relay_was_set_aside(struct relay *r, const struct source_row *row)
{
    size_t at = 0;
    if (r->aside_count == 0 || !aside_find(r, row->number, &at)) {
        return false;
    }
    r->aside[at].position = row->position; /* It may have a new one. */
    return true;
}

void relay_aside_prune(struct relay *r)
{
    int64_t low = relay_low_mark(r);
    size_t kept = 0;
    for (size_t i = 0; i < r->aside_count; i++) {
        if (r->aside[i].position > low) {
            r->aside[kept++] = r->aside[i];
        }
    }
    r->aside_count = kept;
}

void relay_aside_clear(struct relay *r)
{
    r->aside_count = 0;
    r->stuck = false;
}

/* ---- Parked keys. */

static void parked_free(struct relay_parked_set *set)
{
    for (size_t i = 0; i < set->count; i++) {
        mem_free(set->keys[i].topic);
    }
    mem_free(set->keys);
    *set = (struct relay_parked_set){0};
}

void relay_aside_fini(struct relay *r)
{
    parked_free(&r->parked);
    mem_free(r->aside);
    r->aside = NULL;
}

static int key_order(const struct relay_parked *p, const char *topic, struct bytes key)
{
    int order = strcmp(p->topic, topic);
    size_t common = p->key_bytes < key.size ? p->key_bytes : key.size;
    if (order == 0 && common > 0) {
        order = memcmp(p->key, key.data, common);
    }
    return order != 0 ? order : (p->key_bytes > key.size) - (p->key_bytes < key.size);
}

static bool parked_find(const struct relay_parked_set *set, const char *topic, struct bytes key,
                        size_t *at)
{
    size_t low = 0;
    size_t high = set->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = key_order(&set->keys[middle], topic, key);
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

static enum ferry_err parked_insert(struct relay_parked_set *set, size_t at, const char *topic,
                                    struct bytes key, int64_t until)
{
    size_t topic_bytes = strlen(topic) + 1;
    if (!mem_grow((void **)&set->keys, &set->capacity, set->count + 1, sizeof(*set->keys))) {
        return FERRY_ERR_NO_MEMORY;
    }
    char *copy = mem_alloc(topic_bytes + key.size);
    if (copy == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    memcpy(copy, topic, topic_bytes);
    if (key.size > 0) {
        memcpy(copy + topic_bytes, key.data, key.size);
    }
    memmove(&set->keys[at + 1], &set->keys[at], (set->count - at) * sizeof(*set->keys));
    set->keys[at] = (struct relay_parked){
        .topic = copy, .key = (uint8_t *)copy + topic_bytes, .key_bytes = key.size, .until = until};
    set->count++;
    set->parked += until == 0;
    return FERRY_OK;
}

static enum ferry_err parked_put(struct relay_parked_set *set, const char *topic, struct bytes key,
                                 int64_t until)
{
    size_t at = 0;
    bool found = parked_find(set, topic, key, &at);
    if (found && set->keys[at].until == until) {
        return FERRY_OK;
    }
    size_t freed = set->count - set->parked;
    if (until == 0 ? set->parked == RELAY_PARKED_KEYS_MAX : freed == RELAY_PARKED_KEYS_MAX) {
        return FERRY_ERR_LIMIT_REACHED;
    }
    if (!found) {
        return parked_insert(set, at, topic, key, until);
    }
    set->parked += until == 0;
    set->parked -= set->keys[at].until == 0;
    set->keys[at].until = until;
    return FERRY_OK;
}

struct loading {
    struct relay_parked_set set;
    enum ferry_err err;
};

static void take_key(const char *topic, struct bytes key, int64_t until, void *arg)
{
    struct loading *l = arg;
    if (l->err == FERRY_OK) {
        l->err = parked_put(&l->set, topic, key, until);
    }
}

enum ferry_err relay_parked_load(struct relay *r, struct err_text *e)
{
    struct loading l = {0};
    enum ferry_err err = source_parked(r->source, take_key, &l, e);
    if (err == FERRY_OK && l.err == FERRY_ERR_LIMIT_REACHED) {
        err = err_set(e, l.err,
                      "more than %u keys are parked, or were freed within the last hour: `ferry "
                      "outbox unpark` some, or wait",
                      RELAY_PARKED_KEYS_MAX);
    } else if (err == FERRY_OK && l.err != FERRY_OK) {
        err = err_set(e, l.err, "out of memory: reading the parked keys");
    }
    if (err != FERRY_OK) {
        parked_free(&l.set);
        return err;
    }
    parked_free(&r->parked);
    r->parked = l.set;
    return FERRY_OK;
}

static void tally_row(struct relay *r, const struct source_row *row, enum relay_tally_kind kind)
{
    relay_tally_row(r->hooks.tally, relay_tally_topic(r->hooks.tally, row->message.topic), kind);
}

static struct bytes key_of(const struct source_row *row)
{
    return bytes_of(row->message.key, row->message.key_bytes);
}

static bool key_of_row_find(const struct relay *r, const struct source_row *row, size_t *at)
{
    return r->parked.count > 0 && row->message.key != NULL &&
           parked_find(&r->parked, row->message.topic, key_of(row), at);
}

/* The database says that the key is not parked: nor are others, perhaps. */
static enum relay_verdict judge_anew(struct relay *r, const struct source_row *row)
{
    struct err_text e = {{0}};
    size_t at = 0;
    if (relay_parked_load(r, &e) != FERRY_OK) {
        r->error = e;
        return RELAY_WAIT;
    }
    bool parked = key_of_row_find(r, row, &at) && r->parked.keys[at].until == 0;
    return parked ? RELAY_WAIT : RELAY_PUBLISH; /* Parked once more in between: asked again. */
}

bool relay_key_is_asked(const struct relay *r, const struct source_row *row, int64_t *until)
{
    size_t at = 0;
    if (!key_of_row_find(r, row, &at)) {
        return false;
    }
    *until = r->parked.keys[at].until;
    return *until == 0 || row->number < *until;
}

/* Asks the database about a row whose key is parked, or was freed since the row was put: then it
 * was moved, and is gone, or it waits here as it did. */
enum relay_verdict relay_judge_key(struct relay *r, const struct source_row *row, int64_t until)
{
    struct err_text e = {{0}};
    bool done = false;
    if (!aside_reserve(r)) {
        return RELAY_WAIT;
    }
    if (r->source->ops->set_aside(r->source->driver, row, SOURCE_ASIDE_PARKED, "its key is parked",
                                  &done, &e) != FERRY_OK) {
        r->error = e;
        return RELAY_WAIT;
    }
    if (!done) {
        return until == 0 ? judge_anew(r, row) : RELAY_PUBLISH;
    }
    /* It was moved, or the key is parked again, and those behind this row are not free. */
    if (until != 0 && relay_parked_load(r, &e) != FERRY_OK) {
        r->error = e;
        return RELAY_WAIT;
    }
    r->stats.parked_rows += until == 0;
    r->stats.moved_rows += until != 0;
    if (until == 0) {
        tally_row(r, row, RELAY_TALLY_PARKED);
    }
    aside_add(r, row->number, row->position);
    return RELAY_DROP;
}

/* ---- Refused rows. */

static enum relay_verdict set_aside_refused(struct relay *r, const struct source_row *row,
                                            enum source_aside why, const char *reason)
{
    struct err_text e = {{0}};
    bool done = false;
    if (why == SOURCE_ASIDE_PARK && r->parked.parked == RELAY_PARKED_KEYS_MAX) {
        err_set(&r->error, FERRY_ERR_LIMIT_REACHED,
                "row %lld is refused, and no more than %u keys can be parked: `ferry outbox "
                "unpark` some",
                (long long)row->number, RELAY_PARKED_KEYS_MAX);
        return RELAY_WAIT;
    }
    if (!aside_reserve(r)) {
        return RELAY_WAIT;
    }
    enum ferry_err err = r->source->ops->set_aside(r->source->driver, row, why, reason, &done, &e);
    if (err == FERRY_OK && why == SOURCE_ASIDE_PARK) {
        err = parked_put(&r->parked, row->message.topic, key_of(row), 0);
    }
    if (err != FERRY_OK) {
        r->error = e; /* If only the key is not noted here, the next try finds the row set aside. */
        return RELAY_WAIT;
    }
    r->stats.refused_rows++;
    r->stats.dead_rows++;
    tally_row(r, row, RELAY_TALLY_REFUSED);
    tally_row(r, row, RELAY_TALLY_DEAD);
    aside_add(r, row->number, row->position);
    log_line(LOG_WARN, "relay", "%s: row %lld (topic %s) set aside%s: %s", relay_name(r),
             (long long)row->number, row->message.topic,
             why == SOURCE_ASIDE_PARK ? ", and its key is parked" : "", reason);
    return RELAY_DROP;
}

/* Nothing more of this source is published until a person has decided. */
static enum relay_verdict ask_person(struct relay *r, const struct source_row *row,
                                     const char *reason)
{
    struct err_text e = {{0}};
    bool decided = false;
    if (!aside_reserve(r)) {
        return RELAY_WAIT;
    }
    if (source_decided(r->source, row->number, &decided, &e) != FERRY_OK) {
        r->error = e;
        return RELAY_WAIT;
    }
    r->stats.refused_rows++;
    tally_row(r, row, RELAY_TALLY_REFUSED);
    if (decided) {
        aside_add(r, row->number, row->position);
        return RELAY_DROP;
    }
    r->stuck = true;
    r->undecided = row->number;
    r->undecided_position = row->position;
    r->ask_at_us = r->now_us + r->options->topic_retry_ms * US_PER_MS;
    err_set(&r->error, FERRY_OK,
            "row %lld (topic %s) cannot be published: %s: nothing goes on until `ferry outbox "
            "skip URL --number %lld --reason WHY`",
            (long long)row->number, row->message.topic, reason, (long long)row->number);
    log_line(LOG_ERROR, "relay", "%s: blocked: %s", relay_name(r), r->error.text);
    return RELAY_WAIT;
}

static enum relay_poison ask_policy(struct relay *r, const struct source_row *row,
                                    const char *reason)
{
    enum relay_poison policy = relay_policy_of(r->options, row->message.topic);
    if (policy != RELAY_POISON_CALLBACK) {
        return policy;
    }
    if (r->hooks.poison == NULL) {
        return RELAY_POISON_DEAD;
    }
    struct relay_refusal refusal = {.number = row->number,
                                    .message = &row->message,
                                    .invalid = row->invalid != NULL,
                                    .reason = reason};
    return r->hooks.poison(&refusal, r->hooks.arg);
}

static enum relay_verdict refuse_by(struct relay *r, const struct source_row *row,
                                    enum relay_poison policy, const char *reason)
{
    bool has_key = row->invalid == NULL && row->message.key != NULL &&
                   row->message.key_bytes <= SOURCE_PARKED_KEY_MAX;
    switch (policy) {
    case RELAY_POISON_BLOCK:
        return ask_person(r, row, reason);
    case RELAY_POISON_PARK_KEY:
        return set_aside_refused(r, row, has_key ? SOURCE_ASIDE_PARK : SOURCE_ASIDE_REFUSED,
                                 reason);
    case RELAY_POISON_CALLBACK: /* Not decided yet. */
        err_set(&r->error, FERRY_OK, "row %lld (topic %s): %s: not decided yet",
                (long long)row->number, row->message.topic, reason);
        return RELAY_WAIT;
    case RELAY_POISON_DEAD:
        break;
    }
    return set_aside_refused(r, row, SOURCE_ASIDE_REFUSED, reason);
}

enum relay_verdict relay_refuse(struct relay *r, const struct source_row *row, const char *reason)
{
    return refuse_by(r, row, ask_policy(r, row, reason), reason);
}

/* Under `callback` a person decides: the program, or the application, would have it in hand. So
 * does one when row after row seems to end the relay: it is hardly the rows then. */
enum relay_verdict relay_blame(struct relay *r, const struct source_row *row, bool perhaps)
{
    struct err_text reason;
    enum relay_poison policy = relay_policy_of(r->options, row->message.topic);
    bool many = r->care.blamed >= RELAY_BLAMED_MAX;
    err_set(&reason, FERRY_OK,
            "the relay's process has ended %u times while it had only this row%s%s", r->care.deaths,
            many ? ", and of rows before it: look for another reason, as a limit of memory" : "",
            perhaps ? "; look whether it was published: its key is too long to tell" : "");
    if (policy == RELAY_POISON_CALLBACK || many || perhaps) {
        policy = RELAY_POISON_BLOCK;
    }
    return refuse_by(r, row, policy, reason.text);
}

void relay_undecided_step(struct relay *r)
{
    struct err_text e = {{0}};
    bool decided = false;
    if (!r->stuck || r->now_us < r->ask_at_us || !aside_reserve(r)) {
        return;
    }
    r->ask_at_us = r->now_us + r->options->topic_retry_ms * US_PER_MS;
    if (source_decided(r->source, r->undecided, &decided, &e) != FERRY_OK || !decided) {
        return;
    }
    log_line(LOG_INFO, "relay", "%s: row %lld was skipped: going on", relay_name(r),
             (long long)r->undecided);
    aside_add(r, r->undecided, r->undecided_position);
    r->stuck = false;
    r->error.text[0] = '\0';
}
