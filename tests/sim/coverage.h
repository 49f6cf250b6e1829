/* coverage: cases that a set of seeds must have reached (reliability.md SIM-*, E*), counted by
 * seed.
 *
 * Marks are set from outside: by the nemesis, by what the checkers see on disks, in frames and in
 * histories. A run of many seeds fails when a mark that is required was never set. */
#ifndef FERRY_SIM_COVERAGE_H
#define FERRY_SIM_COVERAGE_H

#include <stdbool.h>
#include <stdint.h>

/* X(name, required of a run of 500 seeds, what) */
#define COVERAGE_MAP(X)                                                                            \
    X(N01_LOST, true, "a message was lost")                                                        \
    X(N02_DOUBLED, true, "a message came twice")                                                   \
    X(N02_OLD, true, "a message of long ago came again")                                           \
    X(N03_LATE, true, "a message took over a second")                                              \
    X(N05_CUT, true, "nodes were cut off from each other")                                         \
    X(N09_RESET, true, "a connection was reset with messages on it")                               \
    X(N10_FLIP, true, "a bit flipped in a frame")                                                  \
    X(P01_BEFORE_COMMIT, true, "a crash between the write and its commit")                         \
    X(P01_AFTER_COMMIT, true, "a crash between the commit and the replies")                        \
    X(P02_ALL, true, "all nodes crashed at once")                                                  \
    X(P04_PAUSE, true, "a node paused longer than an election, then went on")                      \
    X(P07_WIPE, true, "a folder was wiped")                                                        \
    X(P08_OLD_FOLDER, true, "an older folder was put back")                                        \
    X(T01_CLOCK, true, "a clock was changed")                                                      \
    X(D01_UNSYNCED, true, "a commit under way was lost in a crash")                                \
    X(D06_ROT, true, "a bit of an entry flipped on a disk")                                        \
    X(D10_COMMIT_FAILS, true, "a commit failed")                                                   \
    X(D11_FULL, true, "a disk was full")                                                           \
    X(D14_STALL, true, "a commit did not end")                                                     \
    X(E_ELECTION, true, "leaders were elected anew")                                               \
    X(E11_PRE_VOTE, true, "a pre-vote was asked for")                                              \
    X(E13_STEP_DOWN, true, "a leader stepped down while it lived")                                 \
    X(E16_JOINT, true, "a joint configuration was in force")                                       \
    X(E18_LEARNER, true, "a learner was fed")                                                      \
    X(E20_NEW_LIFE, true, "a wiped node came back as another member")                              \
    X(E21_TRUNCATED, true, "a follower cut its log")                                               \
    X(E23_SNAPSHOT, true, "a snapshot was sent to its end")                                        \
    X(E23_INSTALLING_CRASH, true, "a node died while it installed a snapshot")                     \
    X(E26_TRANSFER, true, "a leadership was handed over")                                          \
    X(E32_DAMAGED, true, "a replica could not read an entry of its log")                           \
    X(D04_REPAIRED, true, "a peer was asked for a damaged entry and answered")                     \
    X(QUIET, true, "a group went quiet")                                                           \
    X(R18_COMPARED, true, "the states of two replicas were compared")                              \
    X(F15_MOVED, true, "partitions were moved by a plan while others used them")                   \
    X(F15_DRAINED, true, "a node was drained")                                                     \
    X(LEASE, true, "a lease was granted again")                                                    \
    X(F13_RELAY, true, "a relay carried rows")                                                     \
    X(F01_AT_THE_END, true, "a settlement was asked for just when its lease ended")                \
    X(F02_TOO_LATE, true, "a worker settled what another had already, and was refused")            \
    X(F02_PAUSED, true, "a worker stood still past its lease")                                     \
    X(F03_UNSEEN, true, "a hand-out was made that nobody received")                                \
    X(F04_FAILOVER, true, "a message came again from another leader")                              \
    X(F04_SNAPSHOT, true, "messages came again, and a replica was filled by a snapshot")           \
    X(F05_DEAD_READ, true, "dead letters were read as a topic")                                    \
    X(F05_REPLAYED, true, "dead letters were replayed")                                            \
    X(F05_DROPPED, true, "dead letters were dropped")                                              \
    X(F06_POISON, true, "a message failed as often as the limit says")                             \
    X(F07_REBALANCE, true, "partitions went from member to member")                                \
    X(F07_ZOMBIE, true, "a member stood still past its session, and its commit was refused")       \
    X(F08_STUCK, true, "a subscription was paused or stuck, and another went on")                  \
    X(F10_OVERTAKEN, true, "retention dropped what a queue had not handed out")                    \
    X(F11_DELAYED, true, "delayed messages came")                                                  \
    X(F11_CLOCKS, true, "delayed messages came while clocks jumped")                               \
    X(F11_CANCELLED, true, "a delayed message was cancelled")                                      \
    X(Q_RESET, true, "a subscription was started over")                                            \
    X(Q_PAUSED, true, "a subscription was paused by the steward")                                  \
    X(Q_BY_ACKS, true, "a topic dropped what all its subscriptions were done with")                \
    X(Q_RECURRING, true, "a recurring message was set")                                            \
    X(Q_TRACED, true, "a message was found by its id, and traced")                                 \
    X(Q_QUOTA, true, "a quota was in force")                                                       \
    X(Q_DIED, true, "a worker died with messages in hand")                                         \
    X(Q_CONFLICT, true, "a publish was refused, for its key had another version")                  \
    X(F09_TOPIC_DELETED, true, "a topic was deleted while others used it")                         \
    X(L_UNKNOWN, true, "a send ended as unknown")                                                  \
    X(L_DUPLICATE, true, "a repeat was recognised")                                                \
    X(L_TRIMMED, true, "a reader was told that messages were dropped")

enum mark {
#define COVERAGE_ENUM(name, required, what) MARK_##name,
    COVERAGE_MAP(COVERAGE_ENUM)
#undef COVERAGE_ENUM
        MARKS
};

void mark(enum mark m);
bool mark_is_set(enum mark m);
void marks_clear(void);
const char *mark_name(enum mark m);
const char *mark_what(enum mark m);
bool mark_is_required(enum mark m);

#endif
