#include "outbox/relay/relay_options.h"

#define AT(field) offsetof(struct relay_options, field)

static const struct option_row rows[] = {
    {"relay.servers", OPTION_TEXT, AT(servers), 1, RELAY_SERVERS_MAX, "tcp://127.0.0.1:7400", NULL,
     "The brokers, separated by commas; any one of them is enough to find the others."},
    {"relay.db", OPTION_TEXT, AT(db), 0, RELAY_DB_MAX, "", NULL,
     "The databases to serve, as URLs separated by commas (sqlite:PATH); --db adds to them and "
     "takes "
     "paths with commas."},
    {"relay.poison", OPTION_CHOICE, AT(poison), 0, 0, "dead", "dead|block",
     "What happens to a row that a broker refuses for what it is (too large, malformed, not "
     "allowed): "
     "dead moves it to ferry_outbox_dead with the reason and goes on; block stops that database's "
     "relay until somebody has decided."},
    {"relay.unknown_topic", OPTION_CHOICE, AT(unknown_topic), 0, 0, "wait", "wait|dead",
     "What happens to rows whose topic does not exist: wait holds back that topic's rows, tries "
     "again and lets other topics pass; dead moves them to ferry_outbox_dead."},
    {"relay.lease_ms", OPTION_MS, AT(lease_ms), 1000, 60000, "3s", NULL,
     "How long the broker keeps this relay as the active one without hearing from it; a standby "
     "takes "
     "over after that."},
    {"relay.call_timeout_ms", OPTION_MS, AT(call_timeout_ms), 100, 30000, "1s", NULL,
     "How long one question to a broker may take before it is asked again."},
    {"relay.page_rows", OPTION_INT, AT(page_rows), 1, 65536, "4096", NULL,
     "Rows read from the database at a time."},
    {"relay.page_bytes", OPTION_BYTES, AT(page_bytes), 4096, 256 << 20, "4M", NULL,
     "Memory for the rows read at a time; the main term of the relay's size."},
    {"relay.batch_rows", OPTION_INT, AT(batch_rows), 1, 8192, "4096", NULL,
     "Rows sent to a partition in one batch, at most."},
    {"relay.batch_bytes", OPTION_BYTES, AT(batch_bytes), 4096, 15 << 20, "512K", NULL,
     "Size of a batch, at most; a single larger message still goes alone."},
    {"relay.window", OPTION_INT, AT(window), 1, RELAY_WINDOW_MAX, "4", NULL,
     "Batches on their way to one partition at a time."},
    {"relay.poll_min_ms", OPTION_MS, AT(poll_min_ms), 1, 10000, "1ms", NULL,
     "How soon the database is looked at again after something was found, when no wake comes."},
    {"relay.poll_max_ms", OPTION_MS, AT(poll_max_ms), 1, 60000, "50ms", NULL,
     "The longest pause between two looks when nothing happens; each look costs some "
     "microseconds."},
    {"relay.retry_min_ms", OPTION_MS, AT(retry_min_ms), 1, 60000, "50ms", NULL,
     "The longest first pause after a failure; the pause is random and its bound doubles."},
    {"relay.retry_max_ms", OPTION_MS, AT(retry_max_ms), 10, 600000, "10s", NULL,
     "The longest pause between attempts during an outage."},
    {"relay.topic_retry_ms", OPTION_MS, AT(topic_retry_ms), 10, 600000, "1s", NULL,
     "How often an unknown topic is asked for again."},
    {"relay.delete_rows", OPTION_INT, AT(delete_rows), 1, 1000000, "10000", NULL,
     "Published rows deleted in one transaction; fewer hold up the application's writers for less "
     "time."},
    {"relay.delete_backlog_rows", OPTION_INT, AT(delete_backlog_rows), 1, INT64_MAX, "100000", NULL,
     "Published rows that may wait to be deleted while there is work; below it deleting waits for "
     "a "
     "quiet moment."},
    {"relay.delete_idle_ms", OPTION_MS, AT(delete_idle_ms), 1, 3600000, "500ms", NULL,
     "How long it must have been quiet before published rows are deleted."},
    {"relay.report_ms", OPTION_MS, AT(report_ms), 100, 3600000, "10s", NULL,
     "How often a line of progress is written when the output is not a terminal."},
    {"relay.barrier", OPTION_BOOL, AT(barrier), 0, 0, "on", NULL,
     "Sync the database's WAL before publishing what was read from it, so that a power failure "
     "cannot take back a row whose message is out; off only if every writer runs with "
     "synchronous=FULL."},
};

static const struct option_table table = {rows, sizeof(rows) / sizeof(rows[0])};

const struct option_table *relay_options_table(void)
{
    return &table;
}
