#include "outbox/relay/relay_options.h"

#define AT(field) offsetof(struct relay_options, field)

static const struct option_row rows[] = {
    {"relay.servers", OPTION_TEXT, AT(servers), 1, RELAY_SERVERS_MAX, "tcp://127.0.0.1:7400", NULL,
     "The brokers, separated by commas; any one of them is enough to find the others."},
    {"relay.db", OPTION_TEXT, AT(db), 0, RELAY_DB_MAX, "", NULL,
     "The databases to serve, as URLs separated by commas: sqlite:PATH, "
     "postgresql://USER@HOST/DATABASE, mariadb://USER@HOST/DATABASE; @FILE reads them from a file, "
     "one a line, for passwords."},
    {"relay.lanes", OPTION_TEXT, AT(lanes), 1, RELAY_LANES_TEXT, "all", NULL,
     "Which lanes of each outbox to serve: all, or a list as 0,2,3; those that an outbox does not "
     "have are passed over."},
    {"relay.poison", OPTION_CHOICE, AT(poison), 0, 0, "dead", "dead|park_key|block|callback",
     "What happens to a row that a broker refuses for what it is (too large, malformed, not "
     "allowed): dead moves it to the dead rows with the reason and goes on; park_key does the same "
     "and keeps later rows of its key there too, until `ferry outbox unpark`; block stops that "
     "outbox until somebody decides by `ferry outbox skip`; callback asks relay.poison_command."},
    {"relay.poison_topics", OPTION_TEXT, AT(poison_topics), 0, RELAY_POISON_TOPICS_MAX, "", NULL,
     "relay.poison of single topics: topic=policy, separated by commas."},
    {"relay.poison_command", OPTION_TEXT, AT(poison_command), 0, RELAY_COMMAND_MAX, "", NULL,
     "The program that decides about a poison row: an absolute path and arguments, separated by "
     "blanks, run without a shell. It gets the row as JSON and answers dead, park or block."},
    {"relay.poison_command_ms", OPTION_MS, AT(poison_command_ms), 10, 60000, "5s", NULL,
     "How long the program may take; then it is ended and asked again after a pause."},
    {"relay.unknown_topic", OPTION_CHOICE, AT(unknown_topic), 0, 0, "wait", "wait|dead",
     "What happens to rows whose topic does not exist: wait holds back that topic's rows, tries "
     "again and lets other topics pass; dead moves them to ferry_outbox_dead."},
    {"relay.lease_ms", OPTION_MS, AT(lease_ms), 500, 60000, "1s", NULL,
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
    {"relay.pace_ms", OPTION_MS, AT(pace_ms), 0, 1000, "4ms", NULL,
     "While commits come faster than one by one, the database is read no more often than this; 0: "
     "as often as it can be."},
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
    {"relay.connect_timeout_ms", OPTION_MS, AT(connect_timeout_ms), 100, 60000, "5s", NULL,
     "How long connecting to a database may take; then it is tried again after a pause."},
    {"relay.statement_timeout_ms", OPTION_MS, AT(statement_timeout_ms), 100, 600000, "30s", NULL,
     "How long one statement of the relay may take before the database is to end it."},
    {"relay.copy_rows", OPTION_INT, AT(copy_rows), 1, INT64_MAX, "50000", NULL,
     "PostgreSQL: a backlog above this is read by COPY."},
    {"relay.barrier", OPTION_BOOL, AT(barrier), 0, 0, "on", NULL,
     "Make sure, before publishing what was read, that it is on the database's disk, so that a "
     "power failure cannot take back a row whose message is out; off only if every writer commits "
     "to the disk."},
    {"relay.strict", OPTION_BOOL, AT(strict), 0, 0, "on", NULL,
     "Refuse a database whose settings can lose or disorder committed rows."},
    {"relay.notify", OPTION_BOOL, AT(notify), 0, 0, "off", NULL,
     "PostgreSQL: listen to NOTIFY, for applications that cannot send the wake datagram."},
    {"relay.tidy", OPTION_BOOL, AT(tidy), 0, 0, "on", NULL,
     "Delete published rows. Off keeps them all; somebody else has to. MariaDB needs it on."},
    {"relay.http", OPTION_TEXT, AT(http), 0, RELAY_ADDRESS_MAX, "", NULL,
     "ADDRESS:PORT of /metrics, /livez and /readyz, as 127.0.0.1:7480; empty: off."},
    {"relay.http_stuck_ms", OPTION_MS, AT(http_stuck_ms), 1000, 3600000, "60s", NULL,
     "/livez fails when the loop of an outbox has not turned for so long."},
    {"relay.figures", OPTION_BOOL, AT(figures), 0, 0, "on", NULL,
     "Tell of the inboxes and sagas of each database in /metrics; a count reads at most 10,000 "
     "index entries."},
    {"relay.figures_ms", OPTION_MS, AT(figures_ms), 1000, 3600000, "15s", NULL,
     "How often each database is asked for them, over a connection made for it."},
};

static const struct option_table table = {rows, sizeof(rows) / sizeof(rows[0])};

const struct option_table *relay_options_table(void)
{
    return &table;
}
