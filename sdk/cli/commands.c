#include "cli/commands.h"

#include <string.h>

#include "base/must.h"

#define NUMBER_MAX   INT64_C(1000000000000)
#define DURATION_MAX (INT64_C(3650) * 86400000)
#define SIZE_MAX_OPT (INT64_C(1) << 50)
#define YEAR_MS      (INT64_C(365) * 86400000)
#define LEASE_MS_MAX (INT64_C(12) * 3600000)

/* ---- Options -------------------------------------------------------------------------------- */

static const struct option_spec options[OPT_COUNT_OF_OPTIONS] = {
    [OPT_NONE] = {"", NULL, 0, false, KIND_FLAG, 0, 0, ""},
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
    [OPT_MODE] =
        {"mode", "stream|queue|keyed", 1, false, KIND_TEXT, 0, 0,
         "How the readers of the subscription share: stream, each partition to one, by "
         "position; queue, each message to one, under a lease; keyed, as queue, and of "
         "each key one message at a time, in order (default: what it is; a new one stream)."},
    [OPT_FROM] =
        {"from", "start|end|OFFSET|TIME", 1, false, KIND_TEXT, 0, 0,
         "Where to begin when no position is committed: TIME is RFC 3339 or an age such "
         "as 10m, of streams (default start). Of outbox init: the schema version that is there (a "
         "number, default 0)."},
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
                   "The topic (of bench: must exist, without it one is made and deleted; of quota, "
                   "outbox: without it any; of trace: without it all are searched; of verify: "
                   "several parted by commas are one log)."},
    [OPT_EFFECTS] =
        {"effects", "NAME URL SQL", 3, true, KIND_TEXT, 0, 0,
         "A subscriber and the ids whose effects it has; repeat for each. The same NAME again "
         "adds another database to that subscriber."},
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
                  "R a second. Of bench: whatever the broker does, and latencies count from the "
                  "intended time; of dlq replay: at most (default: as fast as it goes)."},
    [OPT_IN_FLIGHT] =
        {"in-flight", "N", 1, false, KIND_NUMBER, 1, 100000000,
         "At most N records without an answer; of a subscription: not settled, held by one "
         "reader of one partition (default 1000)."},
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
    [OPT_RETENTION_ACKED] = {"retention-acked", NULL, 0, false, KIND_FLAG, 0, 0,
                             "Also drops what every subscription is done with: with one queue, a "
                             "work queue."},
    [OPT_AT] = {"at", "TIME", 1, false, KIND_TEXT, 0, 0,
                "Delivers at this time, RFC 3339 such as 2026-12-31T09:00:00Z."},
    [OPT_IN] = {"in", "MS", 1, false, KIND_DURATION, 1, YEAR_MS,
                "Delivers after so long (30s, 2h; at most 365d)."},
    [OPT_PRIORITY] = {"priority", "0..7", 1, false, KIND_NUMBER, 0, 7,
                      "7 goes first, in subscriptions of mode queue (default 0)."},
    [OPT_ACK] = {"ack", "auto|none", 1, false, KIND_TEXT, 0, 0,
                 "auto: a message is acked after its line was written out; none: never, so that it "
                 "comes again when its lease ends (default auto)."},
    [OPT_NACK_EVERY] = {"nack-every", "N", 1, false, KIND_NUMBER, 1, NUMBER_MAX,
                        "Says of every Nth message that it failed, to try things out."},
    [OPT_MEMBER] = {"member", "NAME", 1, false, KIND_TEXT, 0, 0,
                    "The name of this reader, in lists and traces. Of mode stream: joins the group "
                    "and reads the partitions assigned to it."},
    [OPT_LEASE] = {"lease", "MS", 1, false, KIND_DURATION, 100, LEASE_MS_MAX,
                   "How long a message is one reader's unless it is extended (default 30s)."},
    [OPT_MAX_DELIVERIES] = {"max-deliveries", "N", 1, false, KIND_NUMBER, 1, 1000000,
                            "After so many failures a message is a dead letter (default 10)."},
    [OPT_BACKOFF] = {"backoff", "MIN..MAX", 1, false, KIND_TEXT, 0, 0,
                     "How long a failed message waits: MIN after the first failure, doubled with "
                     "each further one up to MAX (default 1s..10m)."},
    [OPT_KEY_POLICY] = {"key-policy", "wait|park", 1, false, KIND_TEXT, 0, 0,
                        "Of keyed. wait: a key waits while its message is tried again; park: once "
                        "one is a dead letter, later ones of the key join it (default wait)."},
    [OPT_TO] = {"to", "start|end|OFFSET|TIME", 1, false, KIND_TEXT, 0, 0,
                "Where to start over: TIME is RFC 3339 or an age such as 10m."},
    [OPT_DRY_RUN] = {"dry-run", NULL, 0, false, KIND_FLAG, 0, 0,
                     "Says what would be done and does nothing."},
    [OPT_OFFSET] = {"offset", "N", 1, false, KIND_NUMBER, 0, INT64_MAX,
                    "Begins at this offset of each partition that is read."},
    [OPT_TIME] = {"time", "TIME", 1, false, KIND_TEXT, 0, 0,
                  "Begins at the first record stored at or after it: RFC 3339, or an age such as "
                  "10m."},
    [OPT_ID] = {"id", "ID", 1, false, KIND_TEXT, 0, 0,
                "The record, or the row, with this message id."},
    [OPT_PARTITION] = {"partition", "P", 1, false, KIND_NUMBER, 0, 100000, "Only this partition."},
    [OPT_NUMBER] =
        {"number", "N", 1, false, KIND_NUMBER, 1, INT64_MAX,
         "The number of one dead letter, with --partition; of outbox and inbox: of one row."},
    [OPT_REASON] =
        {"reason", "R", 1, false, KIND_TEXT, 0, 0,
         "Only dead letters with exactly this reason; of outbox skip and saga abort: why, for "
         "those who read it later."},
    [OPT_ALL] = {"all", NULL, 0, false, KIND_FLAG, 0, 0, "All of them."},
    [OPT_EDIT] = {"edit", "FILE", 1, false, KIND_TEXT, 0, 0,
                  "Replays the one named with the payload in this file (- is standard input); its "
                  "key and headers stay."},
    [OPT_SCHEDULE] = {"schedule", "ID", 1, true, KIND_TEXT, 0, 0,
                      "A delayed message, as `schedule list` shows it; may be repeated."},
    [OPT_EVERY] = {"every", "MS", 1, false, KIND_DURATION, 1000, YEAR_MS,
                   "Again and again, so far apart (10s, 1h)."},
    [OPT_CRON] = {"cron", "LINE", 1, false, KIND_TEXT, 0, 0,
                  "Again and again: minute hour day month weekday, such as \"0 9 * * 1\"; needs "
                  "--tz."},
    [OPT_TZ] = {"tz", "ZONE", 1, false, KIND_TEXT, 0, 0,
                "The time zone of --cron: UTC, Europe/Berlin."},
    [OPT_NAME] = {"name", "NAME", 1, false, KIND_TEXT, 0, 0,
                  "The name of a recurring message; setting it again replaces it."},
    [OPT_CLIENT] = {"client", "NAME", 1, false, KIND_TEXT, 0, 0,
                    "Whom the quota is for, by client.name (default: any)."},
    [OPT_BYTES] = {"bytes", "N", 1, false, KIND_SIZE, 0, SIZE_MAX_OPT,
                   "Bytes a second, produced and fetched; 0: no limit."},
    [OPT_MESSAGES] = {"messages", "N", 1, false, KIND_NUMBER, 0, NUMBER_MAX,
                      "Messages a second, produced and handed out; 0: no limit."},
    [OPT_REQUESTS] = {"requests", "N", 1, false, KIND_NUMBER, 0, NUMBER_MAX,
                      "Requests a second; 0: no limit."},
    [OPT_PRINT_SQL] = {"print-sql", NULL, 0, false, KIND_FLAG, 0, 0,
                       "Prints the steps as SQL for the database's own client, and does nothing."},
    [OPT_OFFLINE] = {"offline", NULL, 0, false, KIND_FLAG, 0, 0,
                     "Asks the database only, no broker; what brokers know is unknown then, and "
                     "the exit code is 0."},
    [OPT_YES] = {"yes", NULL, 0, false, KIND_FLAG, 0, 0,
                 "Does not ask whether it is meant; needed where nobody sits at a terminal."},
    [OPT_ACCEPT_DUPLICATES] = {"accept-duplicates", NULL, 0, false, KIND_FLAG, 0, 0,
                               "Publishes, with the header ferry-possible-duplicate, rows that may "
                               "have been in a part of a log that is gone."},
    [OPT_KEYS] = {"keys", "N", 1, false, KIND_NUMBER, 0, NUMBER_MAX,
                  "How many different keys; 0: none (default 1000)."},
    [OPT_PER_COMMIT] = {"per-commit", "N", 1, false, KIND_NUMBER, 1, 10000,
                        "Rows of one transaction (default 1)."},
    [OPT_GROUP] = {"group", "G", 1, false, KIND_TEXT, 0, 0, "Only this group of the inbox."},
    [OPT_STATE] = {"state", "STATE", 1, false, KIND_TEXT, 0, 0,
                   "Only sagas that are running, compensating, done, compensated, stuck or "
                   "aborted."},
    [OPT_DB] = {"db", "URL", 1, true, KIND_TEXT, 0, 0,
                "A database whose outbox and inbox are looked at, too, or @FILE with its URL; "
                "repeat for each."},
};

/* ---- Commands ------------------------------------------------------------------------------- */

#define BENCH_LOAD                                                                                 \
    OPT_TOPIC, OPT_PARTITIONS, OPT_SIZE, OPT_RECORDS, OPT_SECONDS, OPT_RATE, OPT_IN_FLIGHT
#define DB_FORMS "sqlite:PATH, postgresql://USER@HOST/DATABASE or mariadb://USER@HOST/DATABASE"
#define SUBSCRIPTION_SETTINGS                                                                      \
    OPT_LEASE, OPT_MAX_DELIVERIES, OPT_BACKOFF, OPT_KEY_POLICY, OPT_IN_FLIGHT

static const struct command_spec commands[COMMAND_COUNT] = {
    [COMMAND_TOPIC_CREATE] = {"topic create",
                              "NAME",
                              1,
                              {OPT_PARTITIONS, OPT_REPLICAS, OPT_RETENTION, OPT_RETENTION_BYTES,
                               OPT_DEDUPE_WINDOW, OPT_RETENTION_ACKED},
                              "makes a topic",
                              "The topic is durable and served when the command returns. Making "
                              "one that exists with the same settings succeeds."},
    [COMMAND_TOPIC_LIST] =
        {"topic list", "", 0, {OPT_NONE}, "lists the topics", "One name a line, sorted."},
    [COMMAND_TOPIC_INFO] = {"topic info",
                            "NAME",
                            1,
                            {OPT_NONE},
                            "shows a topic's settings and partitions",
                            "What a broker does not answer is shown as unknown, in JSON as null."},
    [COMMAND_TOPIC_DELETE] = {"topic delete",
                              "NAME",
                              1,
                              {OPT_NONE},
                              "deletes a topic and its records",
                              "The records are gone when the command returns; disk space comes "
                              "back over time. There is no way back."},
    [COMMAND_PRODUCE] =
        {"produce",
         "TOPIC",
         1,
         {OPT_KEY, OPT_KEY_JSON, OPT_HEADER, OPT_AT, OPT_IN, OPT_PRIORITY},
         "stores standard input, one record a line",
         "Lines are taken as bytes, without the newline; an empty line is an empty "
         "record. Ends when every record has its outcome; the summary goes to "
         "standard error. With --json one report a line, in order of completion: "
         "partition, offset, duplicate, outcome (stored, not_stored, unknown), the "
         "number of the input line, and the error if there is one. An interrupt "
         "stops reading and waits for the outcomes; one more than a second later ends at once. "
         "With --at or --in the records are kept aside, have no offset yet, and hold nothing back; "
         "the report tells the schedule by which `schedule cancel` takes one back."},
    [COMMAND_CONSUME] = {"consume",
                         "TOPIC",
                         1,
                         {OPT_SUBSCRIPTION, OPT_MODE, OPT_FROM, OPT_COUNT, OPT_IDLE_EXIT, OPT_ACK,
                          OPT_NACK_EVERY, OPT_MEMBER, OPT_LEASE},
                         "prints records, a line each",
                         "Runs until --count, --idle-exit or an interrupt. With --json one object "
                         "a line: topic, partition, offset, key, id, timestamp, append_time, "
                         "headers, payload; key_base64 and payload_base64 where the bytes are not "
                         "UTF-8. With a subscription positions are committed after the records "
                         "were written to standard output. With --mode queue or keyed the "
                         "subscription is made if it is not there, a message is acked after its "
                         "line was written out, and --json shows handed_out and failed, too."},
    [COMMAND_PEEK] =
        {"peek",
         "TOPIC",
         1,
         {OPT_OFFSET, OPT_TIME, OPT_KEY, OPT_ID, OPT_PARTITION, OPT_COUNT},
         "shows records without consuming them",
         "From the start of the log unless --offset or --time says otherwise, to its end or to "
         "--count (default 10). No subscription knows of it. A line is partition/offset, the time "
         "it was stored, key and payload, parted by tabs; with --json as of consume. "
         "TOPIC.dlq.SUBSCRIPTION shows dead letters."},
    [COMMAND_TRACE] =
        {"trace",
         "MESSAGE",
         1,
         {OPT_TOPIC, OPT_DB},
         "tells the life of one message",
         "MESSAGE is a message id, or TOPIC/PARTITION/OFFSET. A line an event, from the log "
         "itself: when it was stored, handed out to whom, nacked why, acked, or became a dead "
         "letter, with the node that led. What retention has dropped of the log is not known any "
         "more, and that is said. A message that a relay has published is looked for in the log "
         "itself, which takes a while; without --db only when --topic says where. With --db its "
         "row in an outbox before, and which group of an "
         "inbox has done it; with brokers that do not answer these are told alone, and the exit "
         "code is 5."},
    [COMMAND_SUBSCRIPTION_CREATE] =
        {"subscription create",
         "TOPIC S",
         2,
         {OPT_MODE, OPT_FROM, SUBSCRIPTION_SETTINGS},
         "makes a subscription",
         "On every partition, from now on kept by the broker. Making one that exists with the same "
         "mode succeeds and changes nothing."},
    [COMMAND_SUBSCRIPTION_LIST] = {"subscription list",
                                   "TOPIC",
                                   1,
                                   {OPT_NONE},
                                   "lists the subscriptions of a topic",
                                   "One name a line, sorted."},
    [COMMAND_SUBSCRIPTION_INFO] = {"subscription info",
                                   "TOPIC S",
                                   2,
                                   {OPT_NONE},
                                   "shows state and lag of a subscription",
                                   "Lag is the messages not yet done and the age of the oldest of "
                                   "them. Of queue and keyed: ready may be handed out now, leased "
                                   "is out, waiting has failed and comes again, dead is given up "
                                   "(see `dlq list`). What a broker does not answer is unknown, in "
                                   "JSON null."},
    [COMMAND_SUBSCRIPTION_ALTER] =
        {"subscription alter",
         "TOPIC S",
         2,
         {SUBSCRIPTION_SETTINGS},
         "changes settings of a subscription",
         "Of queue and keyed; what is not named stays. Leases that run keep their end. The mode "
         "cannot be changed: make another subscription."},
    [COMMAND_SUBSCRIPTION_PAUSE] =
        {"subscription pause",
         "TOPIC S",
         2,
         {OPT_NONE},
         "hands out nothing for now",
         "What is out may still be acked; nothing is lost. Others read on."},
    [COMMAND_SUBSCRIPTION_RESUME] = {"subscription resume",
                                     "TOPIC S",
                                     2,
                                     {OPT_NONE},
                                     "ends a pause",
                                     "Readers go on where they were."},
    [COMMAND_SUBSCRIPTION_RESET] =
        {"subscription reset",
         "TOPIC S",
         2,
         {OPT_TO, OPT_DRY_RUN},
         "starts a subscription over",
         "Everything before --to is done, everything from it on comes (again); leases end, dead "
         "letters stay. Shows the positions before and after; --dry-run shows them and changes "
         "nothing."},
    [COMMAND_SUBSCRIPTION_MEMBERS] = {"subscription members",
                                      "TOPIC S",
                                      2,
                                      {OPT_NONE},
                                      "lists who reads for a subscription now",
                                      "ASSIGNED partitions are to be a member's, HELD ones are. "
                                      "SILENT is since it was heard of; after its SESSION it is "
                                      "out."},
    [COMMAND_SUBSCRIPTION_HISTORY] =
        {"subscription history",
         "TOPIC S",
         2,
         {OPT_NONE},
         "tells what happened to a subscription",
         "Oldest first: made, paused, reset, who joined, left or was fenced, what was assigned to "
         "whom, and why."},
    [COMMAND_SUBSCRIPTION_DELETE] =
        {"subscription delete",
         "TOPIC S",
         2,
         {OPT_NONE},
         "deletes a subscription",
         "Its positions, leases and dead letters are gone; the topic's messages stay. There is no "
         "way back."},
    [COMMAND_DLQ_LIST] =
        {"dlq list",
         "TOPIC S",
         2,
         {OPT_REASON},
         "lists dead letters, grouped by reason",
         "How many, since when, and the newest. REPLAYED ones are on their way again. With "
         "--reason each one, a line: partition, number, offset, when it died, how often it "
         "failed."},
    [COMMAND_DLQ_SHOW] =
        {"dlq show",
         "TOPIC S",
         2,
         {OPT_PARTITION, OPT_NUMBER},
         "shows one dead letter, whole",
         "The message as it was, with the latest failures: when, what, by whom and why."},
    [COMMAND_DLQ_REPLAY] =
        {"dlq replay",
         "TOPIC S",
         2,
         {OPT_PARTITION, OPT_NUMBER, OPT_REASON, OPT_ALL, OPT_RATE, OPT_EDIT, OPT_DRY_RUN},
         "hands dead letters out again",
         "To this subscription alone, with counters at 0. Which ones: --partition and --number, "
         "--reason, or --all. A letter goes when it is acked, and is a dead letter again when it "
         "fails again."},
    [COMMAND_DLQ_DROP] =
        {"dlq drop",
         "TOPIC S",
         2,
         {OPT_PARTITION, OPT_NUMBER, OPT_REASON, OPT_ALL, OPT_DRY_RUN},
         "drops dead letters for good",
         "Which ones: --partition and --number, --reason, or --all. There is no way back; `dlq "
         "export` first."},
    [COMMAND_DLQ_EXPORT] =
        {"dlq export",
         "TOPIC S",
         2,
         {OPT_PARTITION},
         "prints dead letters as JSON, a line each",
         "Whole messages as of `consume --json`: offset is the letter's number, and the headers "
         "ferry-dlq-reason, -offset, -failed, -member and -time say how it ended. Changes "
         "nothing."},
    [COMMAND_SCHEDULE_LIST] =
        {"schedule list",
         "TOPIC",
         1,
         {OPT_COUNT},
         "lists delayed and recurring messages",
         "Delayed ones by partition and time, --count of them (default 100), and how many there "
         "are; then the recurring ones with their next time."},
    [COMMAND_SCHEDULE_ADD] =
        {"schedule add",
         "TOPIC",
         1,
         {OPT_AT, OPT_IN, OPT_EVERY, OPT_CRON, OPT_TZ, OPT_NAME, OPT_KEY, OPT_HEADER, OPT_PRIORITY,
          OPT_PARTITION},
         "delays messages, or lets one come again and again",
         "With --at or --in standard input is taken as by produce, a message a line, and the "
         "schedule of each is printed. With --every or --cron and a --name all of it is one "
         "message, which is stored once for each time; times that pass while no broker runs are "
         "made up for once."},
    [COMMAND_SCHEDULE_CANCEL] =
        {"schedule cancel",
         "TOPIC",
         1,
         {OPT_SCHEDULE, OPT_NAME, OPT_ALL},
         "takes delayed or recurring messages back",
         "Delayed ones by --schedule, or --all of them; a recurring one by --name. What has come "
         "due is not taken back. Exit code 3 when nothing was there."},
    [COMMAND_QUOTA_SET] =
        {"quota set",
         "",
         0,
         {OPT_CLIENT, OPT_TOPIC, OPT_BYTES, OPT_MESSAGES, OPT_REQUESTS},
         "limits what a client may do a second",
         "At each shard of a broker. Who asks for more waits: the client does so by itself. The "
         "most specific row counts: client and topic, client, topic, neither. All three 0 takes "
         "the row away; what is not named is 0."},
    [COMMAND_QUOTA_SHOW] =
        {"quota show", "", 0, {OPT_NONE}, "lists the quotas", "By client and topic; * is any."},
    [COMMAND_CLUSTER_STATUS] =
        {"cluster status",
         "",
         0,
         {OPT_NONE},
         "shows nodes, leaders, replicas and what is wrong",
         "LAG is how many log entries the slowest replica on a node is behind what is committed, "
         "LEADERS and REPLICAS count partitions, RING is the node's share of what is placed. What "
         "a node does not answer is unknown, in JSON null. Partitions that lack something are "
         "listed with the reason."},
    [COMMAND_CLUSTER_PLAN] = {"cluster plan",
                              "",
                              0,
                              {OPT_NONE},
                              "shows what would move to even the load",
                              "Changes nothing. Bytes are to be copied, the time is an estimate. "
                              "`ferry cluster apply --plan ID` does exactly what was shown."},
    [COMMAND_CLUSTER_APPLY] =
        {"cluster apply",
         "",
         0,
         {OPT_PLAN, OPT_NO_WAIT},
         "carries out the plan",
         "Shows how far it is until all has moved. The cluster does the work: it goes on when this "
         "command is interrupted, and after a crash of any node. `ferry cluster abort` ends it."},
    [COMMAND_CLUSTER_ABORT] = {"cluster abort",
                               "",
                               0,
                               {OPT_NONE},
                               "ends the moves that are under way",
                               "Moves that have not begun are dropped, those that have go back. "
                               "Nothing is lost either way."},
    [COMMAND_NODE_LIST] = {"node list",
                           "",
                           0,
                           {OPT_NONE},
                           "lists the nodes of the cluster",
                           "As one of them sees the others. A node that is silent may be down, or "
                           "cut off from that one."},
    [COMMAND_NODE_DRAIN] = {"node drain",
                            "NODE",
                            1,
                            {OPT_NO_WAIT},
                            "moves everything away from a node",
                            "Nothing new is placed on it, and what it has is moved to others; then "
                            "it may be stopped for good and removed. The cluster does the work: it "
                            "goes on when this command is interrupted. `ferry node undrain` takes "
                            "it back."},
    [COMMAND_NODE_UNDRAIN] = {"node undrain",
                              "NODE",
                              1,
                              {OPT_NONE},
                              "lets a node take part again",
                              "What has not left it yet stays; `ferry cluster plan` shows what "
                              "would come back."},
    [COMMAND_NODE_REMOVE] = {"node remove",
                             "NODE",
                             1,
                             {OPT_NONE},
                             "takes a drained node out of the cluster",
                             "Refused while the node holds partitions: drain it first. Its data "
                             "folder is no member any more, for good."},
    [COMMAND_NODE_CHECK] =
        {"node check safe-to-stop",
         "NODE",
         1,
         {OPT_NONE},
         "tells whether a node may be stopped now",
         "Exit code 0: every partition has enough replicas in sync without it; 6: not safe, and "
         "each partition that would stop is named with the reason; 7: unknown, because somebody "
         "who must be asked does not answer. For rolling restarts: stop, start, and check again "
         "before the next."},
    [COMMAND_PARTITION_INFO] = {"partition info",
                                "TOPIC P",
                                2,
                                {OPT_NONE},
                                "shows the leader and the replicas of a partition",
                                "LAG is in log entries behind what is committed, as the leader "
                                "knows it. What nobody answers is unknown, in JSON null."},
    [COMMAND_PARTITION_TRANSFER] = {"partition transfer",
                                    "TOPIC P NODE",
                                    3,
                                    {OPT_NONE},
                                    "makes another replica the leader",
                                    "The node must have a replica that votes. Ends when it leads."},
    [COMMAND_LEASE_ACQUIRE] =
        {"lease acquire",
         "NAME",
         1,
         {OPT_HOLDER, OPT_TTL, OPT_WAIT},
         "takes a lease, or waits for it",
         "Prints the token, which rises with each holder: give it to what the lease protects, so "
         "that a holder who slept past its end is refused there. Who waits is served in the order "
         "of asking. Exit code 1 when another holds it. The holder itself asking again renews."},
    [COMMAND_LEASE_RENEW] = {"lease renew",
                             "NAME",
                             1,
                             {OPT_HOLDER, OPT_TTL, OPT_TOKEN},
                             "keeps a lease for another while",
                             "Well before it ends. LEASE_LOST: another has it; stop what it "
                             "protected."},
    [COMMAND_LEASE_RELEASE] = {"lease release",
                               "NAME",
                               1,
                               {OPT_HOLDER, OPT_TOKEN},
                               "gives a lease up",
                               "The next in line has it at once."},
    [COMMAND_LEASE_LIST] = {"lease list",
                            "",
                            0,
                            {OPT_NONE},
                            "lists the leases that are held",
                            "With their holders, tokens, and how many wait in line."},
    [COMMAND_OUTBOX_INIT] =
        {"outbox init",
         "DB",
         1,
         {OPT_PRINT_SQL, OPT_FROM},
         "makes or upgrades Ferry's tables",
         "DB is a URL: " DB_FORMS
         "; or @FILE, a file with such a URL in it, which keeps a password out of the list of "
         "processes. No effect when the tables are up to date. With --print-sql the "
         "same steps are printed for those who run them themselves; --from 1 leaves out what makes "
         "version 1."},
    [COMMAND_OUTBOX_STATUS] =
        {"outbox status",
         "DB",
         1,
         {OPT_OFFLINE},
         "shows what waits in an outbox, and who publishes it",
         "Reads only. What cannot be known is shown as unknown, in JSON null, never as 0. The "
         "database is asked, and the brokers (--server) for the relay: when they do not answer, "
         "what the database knows is shown and the exit code is 7; --offline asks no broker."},
    [COMMAND_OUTBOX_PEEK] =
        {"outbox peek",
         "DB",
         1,
         {OPT_NUMBER, OPT_ID, OPT_TOPIC, OPT_KEY, OPT_COUNT},
         "shows rows of the outbox table",
         "Oldest first, --count of them (default 100), with those that are published and not yet "
         "deleted. With --number or --id one row, whole. With --json an object a line, payloads "
         "included."},
    [COMMAND_OUTBOX_DEAD] =
        {"outbox dead",
         "DB",
         1,
         {OPT_NUMBER, OPT_ID, OPT_TOPIC, OPT_KEY, OPT_COUNT},
         "shows rows that were set aside",
         "Those that a broker refused, with its reason; those that `outbox skip` took out; and "
         "those whose key is parked. With --number or --id one row, whole."},
    [COMMAND_OUTBOX_REQUEUE] =
        {"outbox requeue",
         "DB",
         1,
         {OPT_NUMBER, OPT_ID, OPT_TOPIC, OPT_KEY, OPT_ALL, OPT_DRY_RUN},
         "puts dead rows into the outbox again",
         "Behind what waits there, with their message ids. Which ones: --number, --id, --topic, "
         "--key, or --all. Rows of a parked key stay: `outbox unpark` puts them back in order."},
    [COMMAND_OUTBOX_SKIP] =
        {"outbox skip",
         "DB",
         1,
         {OPT_NUMBER, OPT_REASON},
         "takes one row out of the way",
         "The row goes to the dead ones with the --reason, and what waits behind it goes on. "
         "Nothing "
         "is lost: `outbox requeue` puts it back."},
    [COMMAND_OUTBOX_PARK] =
        {"outbox park",
         "DB TOPIC KEY",
         3,
         {OPT_NONE},
         "sets aside all rows of a key of a topic from now on",
         "In order, until `outbox unpark`. Other keys go on, and so does the key in other topics."},
    [COMMAND_OUTBOX_UNPARK] = {"outbox unpark",
                               "DB TOPIC KEY",
                               3,
                               {OPT_NONE},
                               "publishes the rows of a parked key, in order",
                               "The dead row that made the relay park it stays dead: requeue it "
                               "first if it is to go before them."},
    [COMMAND_OUTBOX_PARKED] =
        {"outbox parked",
         "DB",
         1,
         {OPT_NONE},
         "lists the keys that are parked",
         "In which topic, since when, and how many rows are set aside for each."},
    [COMMAND_OUTBOX_LANES] =
        {"outbox lanes",
         "DB N",
         2,
         {OPT_NONE},
         "sets into how many lanes keys are spread",
         "Each lane has one active relay, so several machines can share the work of one outbox. A "
         "key's lane depends on their number, so with rows on their way it would lose its order: "
         "stop the applications (each remembers the number), wait until `outbox status` says that "
         "nothing is pending, stop the relays, set the number, start all again. Refused while rows "
         "are pending, dead or parked or that is not known, and while a relay is active. SQLite "
         "has one lane."},
    [COMMAND_OUTBOX_PAUSE] =
        {"outbox pause",
         "DB",
         1,
         {OPT_NONE},
         "publishes nothing for now",
         "The relay stays the active one and stops within a second; "
         "applications go on putting. `outbox resume` ends it."},
    [COMMAND_OUTBOX_RESUME] =
        {"outbox resume",
         "DB",
         1,
         {OPT_NONE},
         "ends a pause",
         "The relay goes on within a second."},
    [COMMAND_OUTBOX_REBASE] =
        {"outbox rebase",
         "DB",
         1,
         {OPT_DRY_RUN, OPT_ACCEPT_DUPLICATES, OPT_YES},
         "makes an outbox publishable again after a restore",
         "For a relay that has halted because the database was set back in time, or is a copy. "
         "Reads "
         "the logs of the topics that its rows are for, deletes the rows that are in them, and "
         "gives the outbox a new id; the relay then publishes the rest by itself. Refused while a "
         "relay is active. --dry-run tells what would be done. Exit code 6: rows are older than "
         "what "
         "is left of a log, and nobody knows whether they were published."},
    [COMMAND_OUTBOX_BENCH] =
        {"outbox bench",
         "DB",
         1,
         {OPT_TOPIC, OPT_RECORDS, OPT_SIZE, OPT_PER_COMMIT, OPT_KEYS},
         "measures how fast rows are put, and published",
         "Puts --records rows (default 10,000) of --size bytes. With --server it waits until the "
         "relay has published them, and tells how long each took from put to log, by the clocks of "
         "both machines. Without --server, or without a relay, the rows stay: name a --topic that "
         "they may go to."},
    [COMMAND_INBOX_STATUS] =
        {"inbox status",
         "DB",
         1,
         {OPT_NONE},
         "shows what an inbox has done",
         "One line for each group and partition; a chain with a hole is named. A group that knows "
         "messages by their ids (queue, keyed) has one line, with how many it keeps. Reads only."},
    [COMMAND_INBOX_DEAD] =
        {"inbox dead",
         "DB",
         1,
         {OPT_NUMBER, OPT_ID, OPT_GROUP, OPT_KEY, OPT_COUNT},
         "shows records that their handler gave up",
         "And those of the same key that wait behind them (parked). With --number or --id one, "
         "whole."},
    [COMMAND_INBOX_REQUEUE] =
        {"inbox requeue",
         "DB",
         1,
         {OPT_NUMBER, OPT_ID, OPT_GROUP, OPT_KEY, OPT_ALL, OPT_DRY_RUN},
         "gives dead records to their handler again",
         "The consumer takes them within a moment, in order. Which ones: --number, --id, --group, "
         "--key, or --all."},
    [COMMAND_SAGA_LIST] =
        {"saga list",
         "DB",
         1,
         {OPT_STATE, OPT_COUNT},
         "lists the sagas that began in a database",
         "Oldest first, --count of them (default 100), and how many there are in each state."},
    [COMMAND_SAGA_SHOW] = {"saga show",
                           "DB SAGA",
                           2,
                           {OPT_NONE},
                           "shows one saga",
                           "Where it is, since when, and why."},
    [COMMAND_SAGA_RETRY] =
        {"saga retry",
         "DB SAGA",
         2,
         {OPT_NONE},
         "sends the command of a saga again",
         "Of a stuck saga the compensation that was refused; of others the command that waits for "
         "its answer. What a participant has done already it does not do again."},
    [COMMAND_SAGA_ABORT] = {"saga abort",
                            "DB SAGA",
                            2,
                            {OPT_REASON, OPT_YES},
                            "compensates a saga, or gives it up",
                            "A running saga is compensated. A stuck one is given up: what was not "
                            "compensated stays as "
                            "it is, and somebody has to mend it by hand; there is no way back."},
    [COMMAND_VERIFY_EFFECTS] =
        {"verify effects",
         "",
         0,
         {OPT_COMMITTED, OPT_ROLLED_BACK, OPT_ROLLED_BACK_FILE, OPT_TOPIC, OPT_EFFECTS, OPT_INBOX},
         "compares what was committed, the log and the effects",
         "Prints every loss (committed, but not in the log or without an "
         "effect), every double and everything unexpected (never committed, "
         "or rolled back). The log is read from its start to the ends it had "
         "when the command began; without --topic only the databases are compared. Every URL may "
         "be of another database: sqlite, postgresql, mariadb; or @FILE with one. Exit code 0 only "
         "when all three are 0."},
    [COMMAND_BENCH_PRODUCE] = {"bench produce",
                               "",
                               0,
                               {BENCH_LOAD, OPT_INPUT, OPT_SYNC},
                               "measures how fast records are stored",
                               "A record counts when the broker said that it is on disk. Latencies "
                               "count from the time a record should have been sent, so a stall is "
                               "seen by every record that it delayed."},
    [COMMAND_BENCH_CONSUME] = {"bench consume",
                               "",
                               0,
                               {OPT_TOPIC, OPT_PARTITIONS, OPT_SIZE, OPT_INPUT, OPT_RECORDS},
                               "measures how fast records are read",
                               "Without --topic one is made and filled first (1,000,000 records "
                               "unless --records says otherwise); the filling is not measured."},
    [COMMAND_BENCH_E2E] = {"bench e2e",
                           "",
                           0,
                           {BENCH_LOAD},
                           "measures the time from sending to receiving",
                           "One process produces at --rate (default 1000 a second) and consumes; "
                           "the latency is from the intended sending to the consumer."},
    [COMMAND_BENCH_IOTEST] =
        {"bench iotest",
         "",
         0,
         {OPT_DIR, OPT_SECONDS},
         "measures the disk below: write and fdatasync",
         "Writes 4 KiB, 64 KiB and 1 MiB pieces to a preallocated file in the "
         "folder, each followed by fdatasync; needs no broker. What ferryd can "
         "promise rests on these figures."},
};
#undef SUBSCRIPTION_SETTINGS
#undef BENCH_LOAD
#undef DB_FORMS

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

const enum option_id *command_global_options(void)
{
    static const enum option_id ids[] = {OPT_SERVER, OPT_JSON, OPT_TIMEOUT, OPT_SET,
                                         OPT_QUIET,  OPT_HELP, OPT_VERSION, OPT_NONE};
    return ids;
}

static bool is_in(const enum option_id *ids, enum option_id option)
{
    while (*ids != OPT_NONE && *ids != option) {
        ids++;
    }
    return *ids != OPT_NONE;
}

bool command_takes(const struct command_spec *command, enum option_id option)
{
    return is_in(command->options, option) || is_in(command_global_options(), option);
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

static void print_options(FILE *out, const enum option_id *ids)
{
    for (; *ids != OPT_NONE; ids++) {
        print_option(out, &options[*ids]);
    }
}

const char *command_exit_codes(void)
{
    return "0 done, 1 failed, 2 wrong usage, 3 not found, 4 denied, 5 no answer in time, 6 not "
           "safe, 7 not known.";
}

void command_print_overview(FILE *out)
{
    fputs("usage: ferry COMMAND [ARGUMENTS] [OPTIONS]\n\n", out);
    for (int i = 0; i < COMMAND_COUNT; i++) {
        fprintf(out, "  %-23s %-12s %s\n", commands[i].name, commands[i].positionals,
                commands[i].summary);
    }
    fputs("\nOptions of every command, before or after it:\n", out);
    print_options(out, command_global_options());
    fputs("\nExit codes: ", out);
    print_wrapped(out, command_exit_codes(), (int)strlen("Exit codes: "), 0);
    fputs("`ferry COMMAND --help` explains one command.\n", out);
}

void command_print_help(FILE *out, const struct command_spec *command)
{
    fprintf(out, "usage: ferry %s%s%s [OPTIONS]\n\n%s: %s.\n\n", command->name,
            command->positionals[0] != '\0' ? " " : "", command->positionals, command->name,
            command->summary);
    print_wrapped(out, command->text, 0, 0);
    if (command->options[0] != OPT_NONE) {
        fputs("\nOptions:\n", out);
        print_options(out, command->options);
    }
    fputs("\nOptions of every command:\n", out);
    print_options(out, command_global_options());
}
