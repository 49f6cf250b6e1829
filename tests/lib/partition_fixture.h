/* partition_fixture: one partition on a real store in a folder of its own, driven by hand: turns,
 * crashes at any point of a turn, a clock that only the test moves. */
#ifndef FERRY_TEST_PARTITION_FIXTURE_H
#define FERRY_TEST_PARTITION_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/list.h"
#include "partition/partition.h"

#define PART_GROUP    7u
#define PART_START_MS 1700000000000
#define HOUR_MS       (60 * 60 * 1000)

/* Where in a turn the process ends. */
enum crash_point {
    CRASH_BEFORE_WRITE,  /* Proposed, in memory only. */
    CRASH_BEFORE_COMMIT, /* Written into a transaction that never commits. */
    CRASH_BEFORE_STORED, /* On disk, and nobody was told. */
    CRASH_POINTS,
};

struct part_fixture {
    char root[256]; /* Removed after the test. */
    char folder[300];
    struct store_config store_config;
    struct partition_config config;
    struct store *store;
    struct partition *p;
    int64_t now_ms, now_us;
    struct list memory; /* Batches and tickets, until the test ends. */
    struct err_text detail;
};

int part_setup(void **state);
int part_teardown(void **state);
#define part_test(name) cmocka_unit_test_setup_teardown(name, part_setup, part_teardown)

/* Opens store and partition and turns until it leads. */
void part_open(struct part_fixture *f);
/* What part_open does, when it is the answer that counts. */
enum ferry_err part_try_open(struct part_fixture *f);
/* Ends without writing anything more; part_open goes on from the disk. */
void part_crash(struct part_fixture *f);
void part_crash_at(struct part_fixture *f, enum crash_point point);
/* Turns, with timers, until nothing is left to write. */
void part_turn(struct part_fixture *f);
/* The first half of a turn: what is proposed is in a transaction that is not committed. */
void part_begin_write(struct part_fixture *f);
/* One tick and one transaction, whatever is left to write. */
void part_turn_once(struct part_fixture *f);
/* A turn that flushes the rows too. */
void part_flush(struct part_fixture *f);
/* Moves both clocks on and turns. */
void part_pass_ms(struct part_fixture *f, int64_t ms);
/* part_pass_ms in steps of a second, so that every timer gets its turn. */
void part_pass_seconds(struct part_fixture *f, int seconds);

/* Memory that lives until the test ends. */
void *part_keep(struct part_fixture *f, const void *bytes, size_t size);
struct partition_ticket *part_ticket(struct part_fixture *f);

struct batch_of {
    uint64_t producer, first_sequence;
    uint32_t epoch, count;
    const struct ferry_id *ids; /* `count` of them, or NULL. */
    size_t payload_bytes;       /* Of each record; at least 8 are written. */
    uint64_t content;           /* The records' payloads begin with content, content + 1, … */
    int64_t due, due_step;      /* Of the first record, and what each has more; 0: not delayed. */
};
struct bytes part_batch(struct part_fixture *f, const struct batch_of *b);
struct ferry_id part_id(uint64_t n); /* Never zero. */

/* Proposes; the ticket waits. */
struct partition_ticket *part_send(struct part_fixture *f, const struct batch_of *b);
/* Proposes, turns, and gives the answered ticket. */
struct partition_ticket *part_produce(struct part_fixture *f, const struct batch_of *b);
/* Expects an error of produce. */
void part_refuses(struct part_fixture *f, const struct batch_of *b, enum ferry_err err);
bool part_is_done(const struct part_fixture *f, const struct partition_ticket *t);

/* The records from `offset` to the end, one at a time: their payloads' first 8 bytes and offsets.
 */
struct part_record {
    int64_t offset;
    int64_t append_time_ms;
    uint64_t content;
    struct ferry_id id;
    uint64_t producer, sequence;
};
size_t part_read(struct part_fixture *f, int64_t offset, uint32_t max_bytes,
                 struct part_record *records, size_t max);
enum ferry_err part_read_error(struct part_fixture *f, int64_t offset);
/* Reads everything with fetches of max_bytes and checks that offsets are dense. */
size_t part_read_all(struct part_fixture *f, uint32_t max_bytes, struct part_record *records,
                     size_t max);
/* What the entries that are not trimmed take, counted on the disk. */
int64_t part_count_size(struct part_fixture *f);
uint64_t part_count_entries_on_disk(struct part_fixture *f);

void fixture_remove_tree(const char *path);
int fixture_make_folder(char *root, size_t bytes, const char *name);

#endif
