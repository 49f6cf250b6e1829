#include "cli/commands.h"

#include <string.h>

#include "base/must.h"

#define NUMBER_MAX   INT64_C(1000000000000)
#define DURATION_MAX (INT64_C(3650) * 86400000)
#define SIZE_MAX_OPT (INT64_C(1) << 50)

/* ---- Options -------------------------------------------------------------------------------- */

static const struct option_spec options[OPT_COUNT_OF_OPTIONS] = {
    [OPT_SERVER] = {"server", "EP[,EP...]", 1, false, KIND_TEXT, 0, 0,
                    "Brokers to ask first (default tcp://127.0.0.1:7400)."},
    [OPT_JSON] = {"json", NULL, 0, false, KIND_FLAG, 0, 0,
                  "Print JSON on standard output; an error is an object with the field \"error\"."},
    [OPT_TIMEOUT] = {"timeout", "MS", 1, false, KIND_DURATION, 1, 86400000,
                     "How long to wait for an answer (default 10s; 500, 10s, 2m)."},
    [OPT_SET] = {"set", "NAME=VALUE", 1, true, KIND_TEXT, 0, 0,
                 "Sets an option of the client library, see conf/client.conf; may be repeated."},
    [OPT_QUIET] = {"quiet", NULL, 0, false, KIND_FLAG, 0, 0, "No summary and no progress."},
    [OPT_HELP] = {"help", NULL, 0, false, KIND_FLAG, 0, 0, "Prints help and does nothing else."},
    [OPT_VERSION] = {"version", NULL, 0, false, KIND_FLAG, 0, 0, "Prints the version."},
    [OPT_PARTITIONS] = {"partitions", "N", 1, false, KIND_NUMBER, 1, 100000,
                        "Number of partitions (default: the broker's; of bench: 1)."},
    [OPT_REPLICAS] = {"replicas", "R", 1, false, KIND_NUMBER, 1, 15,
                      "Copies of each partition (default: the broker's)."},
    [OPT_RETENTION] = {"retention", "MS", 1, false, KIND_DURATION, 1, DURATION_MAX,
                       "How long records are kept (default: the broker's; 12h, 30d)."},
    [OPT_RETENTION_BYTES] = {"retention-bytes", "BYTES", 1, false, KIND_SIZE, 1, SIZE_MAX_OPT,
                             "How much of each partition is kept (default: no limit; 512M, 20G)."},
    [OPT_DEDUPE_WINDOW] = {"dedupe-window", "MS", 1, false, KIND_DURATION, 1, DURATION_MAX,
                           "How long message ids are remembered (default: the broker's)."},
    [OPT_KEY] = {"key", "K", 1, false, KIND_TEXT, 0, 0,
                 "The key of every record; records of one key stay in order."},
    [OPT_KEY_JSON] = {"key-json", "FIELD", 1, false, KIND_TEXT, 0, 0,
                      "Takes the key from this field of the JSON object in each line."},
    [OPT_HEADER] = {"header", "k=v", 1, true, KIND_TEXT, 0, 0,
                    "A header of every record; may be repeated."},
    [OPT_SUBSCRIPTION] = {"subscription", "S", 1, false, KIND_TEXT, 0, 0,
                          "Reads on where this durable reader stopped, and commits positions."},
    [OPT_MODE] = {"mode", "stream", 1, false, KIND_TEXT, 0, 0,
                  "How the members of the subscription share: stream, each partition to one."},
    [OPT_FROM] = {"from", "start|end|OFFSET|TIME", 1, false, KIND_TEXT, 0, 0,
                  "Where to begin when no position is committed: TIME is RFC 3339 or an age such "
                  "as 10m (default start)."},
    [OPT_COUNT] = {"count", "N", 1, false, KIND_NUMBER, 1, NUMBER_MAX, "Stops after N records."},
    [OPT_IDLE_EXIT] = {"idle-exit", "MS", 1, false, KIND_DURATION, 1, 86400000,
                       "Stops when nothing new came for so long."},
    [OPT_COMMITTED] = {"committed", "URL SQL", 2, true, KIND_TEXT, 0, 0,
                       "The ids of committed transactions: a database and a SELECT whose first "
                       "column is a message id (16 bytes, or UUID text)."},
    [OPT_ROLLED_BACK] = {"rolled-back", "URL SQL", 2, true, KIND_TEXT, 0, 0,
                         "The ids of transactions that were rolled back."},
    [OPT_ROLLED_BACK_FILE] = {"rolled-back-file", "FILE", 1, true, KIND_TEXT, 0, 0,
                              "The same from a file, one UUID a line."},
    [OPT_TOPIC] = {"topic", "TOPIC", 1, false, KIND_TEXT, 0, 0,
                   "The topic (of bench: must exist; without it one is made and deleted)."},
    [OPT_EFFECTS] = {"effects", "NAME URL SQL", 3, true, KIND_TEXT, 0, 0,
                     "A subscriber and the ids whose effects it has; repeat for each."},
    [OPT_INBOX] = {"inbox", "NAME URL", 2, true, KIND_TEXT, 0, 0,
                   "A subscriber whose inbox chains are checked for holes; repeat for each."},
    [OPT_SIZE] = {"size", "BYTES", 1, false, KIND_SIZE, 1, 1 << 30,
                  "Payload of a record (default 100)."},
    [OPT_INPUT] = {"input", "FILE", 1, false, KIND_TEXT, 0, 0,
                   "Real payloads: lines, or JSON objects with `key` and `payload`."},
    [OPT_RECORDS] = {"records", "N", 1, false, KIND_NUMBER, 1, NUMBER_MAX,
                     "How many records (default: as many as fit in --seconds)."},
    [OPT_SECONDS] = {"seconds", "S", 1, false, KIND_NUMBER, 1, 86400,
                     "How long (default 5; of iotest: for each size, default 2)."},
    [OPT_RATE] = {"rate", "R", 1, false, KIND_NUMBER, 1, 100000000,
                  "Open loop: R records a second whatever the broker does; latencies count from "
                  "the intended time (default: as fast as it goes)."},
    [OPT_IN_FLIGHT] = {"in-flight", "N", 1, false, KIND_NUMBER, 1, 100000000,
                       "At most N records without an answer."},
    [OPT_SYNC] = {"sync", NULL, 0, false, KIND_FLAG, 0, 0,
                  "One record at a time: send, wait for the answer, send the next."},
    [OPT_DIR] = {"dir", "DIR", 1, false, KIND_TEXT, 0, 0,
                 "The folder whose disk is tested (default: the present one)."},
    [OPT_PLAN] = {"plan", "ID", 1, false, KIND_TEXT, 0, 0,
                  "Only this plan, as `cluster plan` has shown it; without it the present one."},
    [OPT_NO_WAIT] = {"no-wait", NULL, 0, false, KIND_FLAG, 0, 0,
                     "Ends when it is decided; the cluster goes on by itself."},
    [OPT_HOLDER] = {"holder", "NAME", 1, false, KIND_TEXT, 0, 0,
                    "Who holds the lease (default: the name of this host)."},
    [OPT_TTL] = {"ttl", "MS", 1, false, KIND_DURATION, 1, 86400000,
                 "How long it is held unless it is renewed (default 30s)."},
    [OPT_WAIT] = {"wait", "MS", 1, false, KIND_DURATION, 0, 86400000,
                  "How long to wait in line while another holds it (default: not at all)."},
    [OPT_TOKEN] = {"token", "N", 1, false, KIND_NUMBER, 1, INT64_MAX,
                   "The token that `lease acquire` has printed."},
};

/* ---- Commands ------------------------------------------------------------------------------- */

#define B(option) COMMAND_BIT(OPT_##option)
#define BENCH_LOAD                                                                                 \
    (B(TOPIC) | B(PARTITIONS) | B(SIZE) | B(RECORDS) | B(SECONDS) | B(RATE) | B(IN_FLIGHT))

static const struct command_spec commands[COMMAND_COUNT] = {
    [COMMAND_TOPIC_CREATE] = {"topic create", "NAME", 1,
                              B(PARTITIONS) | B(REPLICAS) | B(RETENTION) | B(RETENTION_BYTES) |
                                  B(DEDUPE_WINDOW),
                              "makes a topic",
                              "The topic is durable and served when the command returns. Making "
                              "one that exists with the same settings succeeds."},
    [COMMAND_TOPIC_LIST] = {"topic list", "", 0, 0, "lists the topics", "One name a line, sorted."},
    [COMMAND_TOPIC_INFO] = {"topic info", "NAME", 1, 0, "shows a topic's settings and partitions",
                            "What a broker does not answer is shown as unknown, in JSON as null."},
    [COMMAND_TOPIC_DELETE] = {"topic delete", "NAME", 1, 0, "deletes a topic and its records",
                              "The records are gone when the command returns; disk space comes "
                              "back over time. There is no way back."},
    [COMMAND_PRODUCE] =
        {"produce", "TOPIC", 1, B(KEY) | B(KEY_JSON) | B(HEADER),
         "stores standard input, one record a line",
         "Lines are taken as bytes, without the newline; an empty line is an empty "
         "record. Ends when every record has its outcome; the summary goes to "
         "standard error. With --json one report a line, in order of completion: "
         "partition, offset, duplicate, outcome (stored, not_stored, unknown), the "
         "number of the input line, and the error if there is one. An interrupt "
         "stops reading and waits for the outcomes; one more than a second later ends at once."},
    [COMMAND_CONSUME] = {"consume", "TOPIC", 1,
                         B(SUBSCRIPTION) | B(MODE) | B(FROM) | B(COUNT) | B(IDLE_EXIT),
                         "prints records, a line each",
                         "Runs until --count, --idle-exit or an interrupt. With --json one object "
                         "a line: topic, partition, offset, key, id, timestamp, append_time, "
                         "headers, payload; key_base64 and payload_base64 where the bytes are not "
                         "UTF-8. With a subscription positions are committed after the records "
                         "were written to standard output."},
    [COMMAND_SUBSCRIPTION_LIST] = {"subscription list", "TOPIC", 1, 0,
                                   "lists the subscriptions of a topic",
                                   "One name a line, sorted."},
    [COMMAND_SUBSCRIPTION_INFO] = {"subscription info", "TOPIC S", 2, 0,
                                   "shows positions and lag of a subscription",
                                   "Lag is the messages not yet done and the age of the oldest of "
                                   "them. What a broker does not answer is unknown, in JSON null."},
    [COMMAND_CLUSTER_STATUS] =
        {"cluster status", "", 0, 0, "shows nodes, leaders, replicas and what is wrong",
         "LAG is how many log entries the slowest replica on a node is behind what is committed, "
         "LEADERS and REPLICAS count partitions, RING is the node's share of what is placed. What "
         "a node does not answer is unknown, in JSON null. Partitions that lack something are "
         "listed with the reason."},
    [COMMAND_CLUSTER_PLAN] = {"cluster plan", "", 0, 0, "shows what would move to even the load",
                              "Changes nothing. Bytes are to be copied, the time is an estimate. "
                              "`ferry cluster apply --plan ID` does exactly what was shown."},
    [COMMAND_CLUSTER_APPLY] =
        {"cluster apply", "", 0, B(PLAN) | B(NO_WAIT), "carries out the plan",
         "Shows how far it is until all has moved. The cluster does the work: it goes on when this "
         "command is interrupted, and after a crash of any node. `ferry cluster abort` ends it."},
    [COMMAND_CLUSTER_ABORT] = {"cluster abort", "", 0, 0, "ends the moves that are under way",
                               "Moves that have not begun are dropped, those that have go back. "
                               "Nothing is lost either way."},
    [COMMAND_NODE_LIST] = {"node list", "", 0, 0, "lists the nodes of the cluster",
                           "As one of them sees the others. A node that is silent may be down, or "
                           "cut off from that one."},
    [COMMAND_NODE_DRAIN] = {"node drain", "NODE", 1, B(NO_WAIT),
                            "moves everything away from a node",
                            "Nothing new is placed on it, and what it has is moved to others; then "
                            "it may be stopped for good and removed. The cluster does the work: it "
                            "goes on when this command is interrupted. `ferry node undrain` takes "
                            "it back."},
    [COMMAND_NODE_UNDRAIN] = {"node undrain", "NODE", 1, 0, "lets a node take part again",
                              "What has not left it yet stays; `ferry cluster plan` shows what "
                              "would come back."},
    [COMMAND_NODE_REMOVE] = {"node remove", "NODE", 1, 0, "takes a drained node out of the cluster",
                             "Refused while the node holds partitions: drain it first. Its data "
                             "folder is no member any more, for good."},
    [COMMAND_NODE_CHECK] =
        {"node check safe-to-stop", "NODE", 1, 0, "tells whether a node may be stopped now",
         "Exit code 0: every partition has enough replicas in sync without it; 6: not safe, and "
         "each partition that would stop is named with the reason; 7: unknown, because somebody "
         "who must be asked does not answer. For rolling restarts: stop, start, and check again "
         "before the next."},
    [COMMAND_PARTITION_INFO] = {"partition info", "TOPIC P", 2, 0,
                                "shows the leader and the replicas of a partition",
                                "LAG is in log entries behind what is committed, as the leader "
                                "knows it. What nobody answers is unknown, in JSON null."},
    [COMMAND_PARTITION_TRANSFER] = {"partition transfer", "TOPIC P NODE", 3, 0,
                                    "makes another replica the leader",
                                    "The node must have a replica that votes. Ends when it leads."},
    [COMMAND_LEASE_ACQUIRE] =
        {"lease acquire", "NAME", 1, B(HOLDER) | B(TTL) | B(WAIT), "takes a lease, or waits for it",
         "Prints the token, which rises with each holder: give it to what the lease protects, so "
         "that a holder who slept past its end is refused there. Who waits is served in the order "
         "of asking. Exit code 1 when another holds it. The holder itself asking again renews."},
    [COMMAND_LEASE_RENEW] = {"lease renew", "NAME", 1, B(HOLDER) | B(TTL) | B(TOKEN),
                             "keeps a lease for another while",
                             "Well before it ends. LEASE_LOST: another has it; stop what it "
                             "protected."},
    [COMMAND_LEASE_RELEASE] = {"lease release", "NAME", 1, B(HOLDER) | B(TOKEN), "gives a lease up",
                               "The next in line has it at once."},
    [COMMAND_LEASE_LIST] = {"lease list", "", 0, 0, "lists the leases that are held",
                            "With their holders, tokens, and how many wait in line."},
    [COMMAND_OUTBOX_INIT] = {"outbox init", "DB", 1, 0, "makes or upgrades Ferry's tables",
                             "DB is a URL: sqlite:PATH. No effect when the tables are up to date."},
    [COMMAND_OUTBOX_STATUS] = {"outbox status", "DB", 1, 0, "shows what waits in an outbox",
                               "DB is a URL: sqlite:PATH. Reads only."},
    [COMMAND_INBOX_STATUS] = {"inbox status", "DB", 1, 0, "shows what an inbox has done",
                              "DB is a URL: sqlite:PATH. One line for each group and partition; a "
                              "chain with a hole is named. Reads only."},
    [COMMAND_VERIFY_EFFECTS] =
        {"verify effects", "", 0,
         B(COMMITTED) | B(ROLLED_BACK) | B(ROLLED_BACK_FILE) | B(TOPIC) | B(EFFECTS) | B(INBOX),
         "compares what was committed, the log and the effects",
         "Prints every loss (committed, but not in the log or without an "
         "effect), every double and everything unexpected (never committed, "
         "or rolled back). The log is read from its start to the ends it had "
         "when the command began. Exit code 0 only when all three are 0."},
    [COMMAND_BENCH_PRODUCE] = {"bench produce", "", 0, BENCH_LOAD | B(INPUT) | B(SYNC),
                               "measures how fast records are stored",
                               "A record counts when the broker said that it is on disk. Latencies "
                               "count from the time a record should have been sent, so a stall is "
                               "seen by every record that it delayed."},
    [COMMAND_BENCH_CONSUME] = {"bench consume", "", 0,
                               B(TOPIC) | B(PARTITIONS) | B(SIZE) | B(INPUT) | B(RECORDS),
                               "measures how fast records are read",
                               "Without --topic one is made and filled first (1,000,000 records "
                               "unless --records says otherwise); the filling is not measured."},
    [COMMAND_BENCH_E2E] = {"bench e2e", "", 0, BENCH_LOAD,
                           "measures the time from sending to receiving",
                           "One process produces at --rate (default 1000 a second) and consumes; "
                           "the latency is from the intended sending to the consumer."},
    [COMMAND_BENCH_IOTEST] =
        {"bench iotest", "", 0, B(DIR) | B(SECONDS), "measures the disk below: write and fdatasync",
         "Writes 4 KiB, 64 KiB and 1 MiB pieces to a preallocated file in the "
         "folder, each followed by fdatasync; needs no broker. What ferryd can "
         "promise rests on these figures."},
};
#undef B

const struct command_spec *command_spec_of(enum command_id id)
{
    must(id < COMMAND_COUNT);
    return &commands[id];
}

const struct option_spec *command_option_of(enum option_id id)
{
    must(id < OPT_COUNT_OF_OPTIONS);
    return &options[id];
}

bool command_takes(const struct command_spec *command, enum option_id option)
{
    return ((command->options | COMMAND_GLOBAL_OPTIONS) & COMMAND_BIT(option)) != 0;
}

/* ---- Help ----------------------------------------------------------------------------------- */

#define HELP_COLUMNS 78

/* Prints `text` wrapped at words, each line after the first indented by `indent` blanks; the cursor
 * stands at column `column`. A word is never cut. */
static void print_wrapped(FILE *out, const char *text, int column, int indent)
{
    bool first = true;
    while (*text != '\0') {
        int word = (int)strcspn(text, " ");
        if (!first && column + 1 + word > HELP_COLUMNS) {
            fprintf(out, "\n%*s", indent, "");
            column = indent;
        } else if (!first) {
            fputc(' ', out);
            column++;
        }
        fprintf(out, "%.*s", word, text);
        column += word;
        text += word;
        text += strspn(text, " ");
        first = false;
    }
    fputc('\n', out);
}

static void print_option(FILE *out, const struct option_spec *option)
{
    enum { INDENT = 6 };
    fprintf(out, "  --%s%s%s\n%*s", option->name, option->values != NULL ? " " : "",
            option->values != NULL ? option->values : "", INDENT, "");
    print_wrapped(out, option->text, INDENT, INDENT);
}

static void print_options(FILE *out, uint64_t set)
{
    for (int i = 0; i < OPT_COUNT_OF_OPTIONS; i++) {
        if ((set & COMMAND_BIT(i)) != 0) {
            print_option(out, &options[i]);
        }
    }
}

void command_print_overview(FILE *out)
{
    fputs("usage: ferry COMMAND [ARGUMENTS] [OPTIONS]\n\n", out);
    for (int i = 0; i < COMMAND_COUNT; i++) {
        fprintf(out, "  %-23s %-12s %s\n", commands[i].name, commands[i].positionals,
                commands[i].summary);
    }
    fputs("\nOptions of every command, before or after it:\n", out);
    print_options(out, COMMAND_GLOBAL_OPTIONS);
    fputs("\nExit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 denied, 5 no answer in "
          "time,\n6 not safe, 7 not known.\n`ferry COMMAND --help` explains one command.\n",
          out);
}

void command_print_help(FILE *out, const struct command_spec *command)
{
    fprintf(out, "usage: ferry %s%s%s [OPTIONS]\n\n%s: %s.\n\n", command->name,
            command->positionals[0] != '\0' ? " " : "", command->positionals, command->name,
            command->summary);
    print_wrapped(out, command->text, 0, 0);
    if (command->options != 0) {
        fputs("\nOptions:\n", out);
        print_options(out, command->options);
    }
    fputs("\nOptions of every command:\n", out);
    print_options(out, COMMAND_GLOBAL_OPTIONS);
}
