/* meta_fixture: one metadata group on a real store in a folder of its own, driven by hand: turns,
 * crashes at any point of a turn, clocks that only the test moves. */
#ifndef FERRY_TEST_META_FIXTURE_H
#define FERRY_TEST_META_FIXTURE_H

#include "cluster/meta.h"
#include "lib/partition_fixture.h"

struct meta_fixture {
    char root[256]; /* Removed after the test. */
    char folder[300];
    struct store *store;
    struct meta *m;
    int64_t now_ms, now_us;
    struct err_text detail;
};

int meta_setup(void **state);
int meta_teardown(void **state);
#define meta_unit(name) cmocka_unit_test_setup_teardown(name, meta_setup, meta_teardown)

/* A second one beside it, for comparisons. */
struct meta_fixture *meta_fixture_new(void);
void meta_fixture_free(struct meta_fixture *f);

/* Opens store and metadata, turns until it is ready, and forgets the changes so far. */
void meta_start(struct meta_fixture *f);
/* Ends without writing anything more; meta_start goes on from the disk. */
void meta_crash(struct meta_fixture *f);
/* Crashes at a point of the turn in which something is proposed, by turns with and without rows
 * being flushed, and starts again; true when what was proposed survived. */
bool meta_crash_in_turn(struct meta_fixture *f, int round);
/* Turns, with timers and ticks, until nothing is left to write. */
void meta_turn(struct meta_fixture *f);
/* A turn that writes the rows. */
void meta_flush(struct meta_fixture *f);
/* Moves both clocks on and turns. */
void meta_pass_ms(struct meta_fixture *f, int64_t ms);
/* The next answered ticket is this one, with that answer. */
void meta_expect_done(struct meta_fixture *f, const struct meta_ticket *t, enum ferry_err err);
void meta_forget_changes(struct meta_fixture *f);

/* A node with one shard, weight 1, first start of its folder. */
struct meta_node meta_node_with(uint32_t id, const char *zone);
/* Registers, turns, and gives the answer. */
enum ferry_err meta_join(struct meta_fixture *f, const struct meta_node *node);
/* Nodes `first` to `last`, without zones. */
void meta_join_all(struct meta_fixture *f, uint32_t first, uint32_t last);
enum ferry_err meta_change_node(struct meta_fixture *f, uint32_t id,
                                enum meta_node_change_kind kind, uint32_t weight);

struct topic_create_request meta_spec(const char *name, uint32_t partitions, uint32_t replicas);
enum ferry_err meta_try_topic(struct meta_fixture *f, const struct topic_create_request *spec,
                              uint64_t id, struct meta_ticket *t);
const struct meta_topic *meta_make_topic(struct meta_fixture *f, const char *name,
                                         uint32_t partitions, uint32_t replicas, uint64_t id);
void meta_drop_topic(struct meta_fixture *f, const char *name);
enum ferry_err meta_report_done(struct meta_fixture *f, uint64_t group, const uint32_t *nodes,
                                uint32_t count);
/* Reports every active move done, again and again, until none is left. Returns how many. */
uint32_t meta_finish_moves(struct meta_fixture *f);

/* All that the log decides, as text. Free with mem_free. */
char *meta_dump(const struct meta *m);

#endif
