/* random_database: a database in memory whose transactions commit when the test says so, and two
 * drivers for it that stand for those that are hard: `pending` hands out what was not handed out
 * yet, deletes what is acknowledged and keeps the ids between in its marks, which are full now and
 * then (as MariaDB's); `snapshot` compares commits, reads ticks between two snapshots in the order
 * of numbers and deletes by the checkpoint alone (as PostgreSQL's). Positions are never reused. */
#ifndef FERRY_TESTS_RANDOM_DATABASE_H
#define FERRY_TESTS_RANDOM_DATABASE_H

#include "base/prng.h"
#include "outbox/relay/source.h"

#define DB_ROWS_MAX  1024
#define DB_KEYS      12 /* Of all topics: key k is of topic k % DB_TOPICS, as text k / DB_TOPICS. */
#define DB_TOPICS    3
#define DB_OPEN_MAX  5
#define DB_MARKS_MAX 16
#define DB_IDS_MAX   256

struct db_row {
    int64_t number;
    int64_t message; /* The number under which it was put first: what is published. */
    int64_t moved;   /* The number under which it was put anew, when its key was freed; else 0. */
    int key;         /* -1: none; its topic is then number % DB_TOPICS. */
    uint64_t commit; /* 0: not committed. */
    bool open;       /* Its transaction goes on. */
    bool deleted;    /* By the driver. */
    bool aside;
    bool as_parked; /* Set aside for nothing but its key. */
    bool poison;    /* The broker refuses it. */
    bool invalid;   /* It is no message. */
};

struct db_transaction {
    size_t rows[8];
    size_t count;
    bool locked[DB_KEYS];
    bool used;
};

struct db {
    struct prng *prng;
    struct db_row rows[DB_ROWS_MAX]; /* By number, from 1. */
    size_t count;
    uint64_t commits;
    struct db_transaction open[DB_OPEN_MAX];
    bool parked[DB_KEYS];
    int64_t until[DB_KEYS]; /* Of those that were freed. */
    uint32_t error_in;      /* One call of so many fails; 0: none. */
    size_t mark_ids;        /* `pending`: so many ids fit a mark. */
};

int db_topic_of(const struct db_row *row);
const char *db_topic_name(int topic);
/* One step of the applications: a row put, a commit or a rollback. */
void db_step(struct db *db, bool more);
void db_commit_all(struct db *db);
/* Where the message is now. */
const struct db_row *db_row_of(const struct db *db, int64_t message);
/* What a person does, by the rules of admin.h; false: there is no room for the rows. Freeing a key
 * waits for the transactions that are open. */
void db_park(struct db *db, int key);
bool db_unpark(struct db *db, int key);

/* A connection: what one relay has. */
enum db_kind { DB_PENDING, DB_SNAPSHOT };
enum ferry_err db_source_open(struct source *source, struct db *db, enum db_kind kind);

#endif
