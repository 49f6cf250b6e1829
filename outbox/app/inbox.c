/* The inbox: which offsets of a partition a group has done, as a chain of intervals in the database
 * of the effects.
 *
 * Why a second consumer cannot slip in: the interval that ends the chain is read and the next one
 * is inserted in one transaction. Two transactions that read the same end insert the same key, or
 * the database refuses the later one to write on an old snapshot; either way one of them is told
 * DB_RETRY and its effects are rolled back. A transaction that sees what others commit meanwhile
 * (READ COMMITTED) may find another end at leave than at enter: its effects are of what it read
 * then, so the end of enter is remembered and another one is DB_RETRY too. */
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "outbox/app/db.h"
#include "wire/command.h"

static enum ferry_err check_chain(struct ferry_db *db, const struct db_chain *chain)
{
    db->error.text[0] = '\0';
    if (chain->group == NULL || !name_is_valid(bytes_of_string(chain->group))) {
        return err_set(&db->error, FERRY_ERR_INVALID_ARGUMENT,
                       "the group \"%.60s\" is not a valid name: use 1 to %u of a-z A-Z 0-9 . _ -",
                       chain->group == NULL ? "" : chain->group, DB_NAME_MAX_BYTES);
    }
    if (chain->topic_id == NULL || chain->partition < 0) {
        return err_set(&db->error, FERRY_ERR_INVALID_ARGUMENT,
                       "the topic id is NULL or the partition negative");
    }
    return FERRY_OK;
}

static enum ferry_err check_in_transaction(struct ferry_db *db, const struct db_chain *chain)
{
    enum ferry_err err = check_chain(db, chain);
    if (err == FERRY_OK && !db->ops->in_transaction(db->driver)) {
        err = err_set(&db->error, FERRY_ERR_NO_TRANSACTION, "%s",
                      ferry_err_text(FERRY_ERR_NO_TRANSACTION));
    }
    return err;
}

static struct db_entered *find_entered(struct ferry_db *db, const struct db_chain *chain)
{
    for (size_t i = 0; i < db->entered_count; i++) {
        struct db_entered *e = &db->entered[i];
        if (e->partition == chain->partition && id_equal(&e->topic_id, chain->topic_id) &&
            strcmp(e->group, chain->group) == 0) {
            return e;
        }
    }
    return NULL;
}

static enum ferry_err remember_entered(struct ferry_db *db, const struct db_chain *chain,
                                       int64_t end)
{
    struct db_entered *e = find_entered(db, chain);
    if (e == NULL) {
        if (!mem_grow((void **)&db->entered, &db->entered_capacity, db->entered_count + 1,
                      sizeof(*db->entered))) {
            return err_set(&db->error, FERRY_ERR_NO_MEMORY, "out of memory");
        }
        e = &db->entered[db->entered_count++];
        memset(e, 0, sizeof(*e));
        memcpy(e->group, chain->group, strlen(chain->group)); /* check_chain: it fits. */
        e->topic_id = *chain->topic_id;
        e->partition = chain->partition;
    }
    e->end = end;
    return FERRY_OK;
}

/* Whether the chain ends elsewhere than the batch's enter has found. Forgets the batch. */
static bool has_moved(struct ferry_db *db, const struct db_chain *chain, int64_t end)
{
    struct db_entered *e = find_entered(db, chain);
    if (e == NULL) {
        return false;
    }
    bool moved = e->end != end;
    *e = db->entered[--db->entered_count];
    return moved;
}

enum ferry_err ferry_inbox_enter(struct ferry_db *db, const char *group,
                                 const struct ferry_id *topic_id, int32_t partition, int64_t first,
                                 int64_t next, enum ferry_verdict *verdict, size_t *skip,
                                 int64_t *expected)
{
    struct db_chain chain = {group, topic_id, partition};
    enum ferry_err err = check_in_transaction(db, &chain);
    if (err == FERRY_OK && (first < 0 || next <= first)) {
        err = err_set(&db->error, FERRY_ERR_INVALID_ARGUMENT,
                      "a batch from offset %lld to %lld is empty or begins below 0",
                      (long long)first, (long long)next);
    }
    bool found = false;
    int64_t end = 0;
    if (err == FERRY_OK) {
        err = db->ops->chain_end(db->driver, &chain, &found, &end, &db->error);
    }
    if (err != FERRY_OK) {
        return err;
    }
    err = remember_entered(db, &chain, found ? end : DB_CHAIN_BEFORE);
    if (err != FERRY_OK) {
        return err;
    }
    if (!found) {
        end = first; /* The first batch a group ever sees may begin anywhere. */
    }
    *skip = end > first ? (size_t)((end < next ? end : next) - first) : 0;
    *expected = end;
    *verdict = first > end ? FERRY_GAP : next <= end ? FERRY_DUPLICATE : FERRY_FRESH;
    return FERRY_OK;
}

enum ferry_err ferry_inbox_leave(struct ferry_db *db, const char *group,
                                 const struct ferry_id *topic_id, int32_t partition, int64_t next)
{
    struct db_chain chain = {group, topic_id, partition};
    enum ferry_err err = check_in_transaction(db, &chain);
    bool found = false;
    int64_t end = DB_CHAIN_BEFORE;
    if (err == FERRY_OK && next <= 0) {
        err = err_set(&db->error, FERRY_ERR_INVALID_ARGUMENT,
                      "nothing can be done before offset %lld", (long long)next);
    }
    if (err == FERRY_OK) {
        err = db->ops->chain_end(db->driver, &chain, &found, &end, &db->error);
    }
    if (err != FERRY_OK) {
        return err;
    }
    if (!db->ops->in_transaction(db->driver)) { /* The answer has told that there is none. */
        return err_set(&db->error, FERRY_ERR_DB_RETRY,
                       "the database has rolled the transaction back: repeat it");
    }
    bool moved = has_moved(db, &chain, found ? end : DB_CHAIN_BEFORE);
    if (moved || (found && next <= end)) {
        return err_set(&db->error, FERRY_ERR_DB_RETRY,
                       "offsets before %lld are done already (another consumer was faster): roll "
                       "back and fetch from there",
                       (long long)end);
    }
    return db->ops->chain_extend(db->driver, &chain, found ? end : DB_CHAIN_BEFORE, next,
                                 &db->error);
}

enum ferry_err ferry_inbox_position(struct ferry_db *db, const char *group,
                                    const struct ferry_id *topic_id, int32_t partition,
                                    int64_t *position)
{
    struct db_chain chain = {group, topic_id, partition};
    enum ferry_err err = check_chain(db, &chain);
    bool found = false;
    int64_t end = 0;
    if (err == FERRY_OK) {
        err = db->ops->chain_end(db->driver, &chain, &found, &end, &db->error);
    }
    if (err == FERRY_OK) {
        *position = found ? end : -1;
    }
    return err;
}

enum ferry_err ferry_inbox_skip_to(struct ferry_db *db, const char *group,
                                   const struct ferry_id *topic_id, int32_t partition,
                                   int64_t position, const char *reason)
{
    struct db_chain chain = {group, topic_id, partition};
    enum ferry_err err = check_in_transaction(db, &chain);
    bool found = false;
    int64_t end = DB_CHAIN_BEFORE;
    if (err == FERRY_OK && (reason == NULL || reason[0] == '\0')) {
        err = err_set(&db->error, FERRY_ERR_INVALID_ARGUMENT,
                      "a skip needs a reason: it is what the next person will ask for");
    }
    if (err == FERRY_OK) {
        err = db->ops->chain_end(db->driver, &chain, &found, &end, &db->error);
    }
    if (err != FERRY_OK) {
        return err;
    }
    int64_t from = found ? end : DB_CHAIN_BEFORE;
    if (position <= from) {
        return err_set(&db->error, FERRY_ERR_INVALID_ARGUMENT,
                       "offsets before %lld are done already: a skip goes forward only",
                       (long long)end);
    }
    err = db->ops->chain_extend(db->driver, &chain, from, position, &db->error);
    if (err == FERRY_OK) {
        err = db->ops->skip_add(db->driver, &chain, from, position, reason, &db->error);
    }
    return err;
}

#define DAY_MS          (24LL * 60 * 60 * 1000)
#define HORIZON_MS      (8 * DAY_MS)
#define TRIM_ROWS_MAX   1000
#define TRIM_MARGIN_DAY 2 /* Clocks that differ, and the day in hand. */

static enum ferry_err check_group(struct ferry_db *db, const char *group)
{
    const struct ferry_id any = {{0}};
    struct db_chain chain = {group, &any, 0};
    return check_in_transaction(db, &chain);
}

enum ferry_err ferry_inbox_claim(struct ferry_db *db, const char *group, const struct ferry_id *id,
                                 int64_t timestamp_ms, int64_t horizon_ms,
                                 enum ferry_verdict *verdict)
{
    enum ferry_err err = check_group(db, group);
    if (err == FERRY_OK && (id == NULL || id_is_zero(id) || timestamp_ms < 0 || horizon_ms < 0)) {
        err = err_set(&db->error, FERRY_ERR_INVALID_ARGUMENT,
                      "a claim needs an id, and times that are not negative");
    }
    if (err != FERRY_OK) {
        return err;
    }
    if (timestamp_ms < clock_wall_ms() - (horizon_ms == 0 ? HORIZON_MS : horizon_ms)) {
        *verdict = FERRY_LATE;
        return FERRY_OK;
    }
    bool fresh = false;
    err = db->ops->id_claim(db->driver, group, id, (int32_t)(timestamp_ms / DAY_MS), &fresh,
                            &db->error);
    *verdict = fresh ? FERRY_FRESH : FERRY_DUPLICATE;
    return err;
}

enum ferry_err ferry_inbox_claim_trim(struct ferry_db *db, const char *group, int64_t horizon_ms,
                                      size_t *removed)
{
    enum ferry_err err = check_group(db, group);
    if (err == FERRY_OK && horizon_ms < 0) {
        err = err_set(&db->error, FERRY_ERR_INVALID_ARGUMENT, "the horizon is negative");
    }
    if (err != FERRY_OK) {
        return err;
    }
    int64_t oldest_ms = clock_wall_ms() - (horizon_ms == 0 ? HORIZON_MS : horizon_ms);
    return db->ops->id_trim(db->driver, group, (int32_t)(oldest_ms / DAY_MS) - TRIM_MARGIN_DAY,
                            TRIM_ROWS_MAX, removed, &db->error);
}
