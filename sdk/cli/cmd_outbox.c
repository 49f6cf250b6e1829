/* cmd_outbox: outbox init and outbox status. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "cli/database.h"
#include "cli/format.h"
#include "cli/output.h"
#include "cli/relay_view.h"

/* ---- Init ----------------------------------------------------------------------------------- */

static enum cli_exit print_sql(const struct cli *cli, const struct database *db)
{
    struct err_text e = {.text = ""};
    int64_t from = 0;
    const char *text = args_text(cli->args, OPT_FROM, "0");
    if (!format_parse_number(text, &from) || from > INT32_MAX) {
        return cli_fail(cli, FERRY_ERR_INVALID_ARGUMENT, "--from",
                        "takes the number of a schema version");
    }
    enum ferry_err err = db->admin->print_sql(db->url, (int)from, stdout, &e);
    return err != FERRY_OK ? database_fail(cli, db, err, &e) : CLI_EXIT_OK;
}

static enum cli_exit init(const struct cli *cli, const struct database *db)
{
    struct err_text e = {.text = ""};
    bool created = false;
    enum ferry_err err = db->admin->init(db->url, &created, &e);
    if (err != FERRY_OK) {
        return database_fail(cli, db, err, &e);
    }
    if (cli->json) {
        json_t *object = output_object();
        output_set_text(object, "db", db->shown);
        output_set_bool(object, "created", created);
        output_set_bool(object, "ready", true);
        output_json(object);
    } else if (!cli->quiet) {
        fprintf(stderr, "%s: %s\n", db->shown,
                created ? "Ferry's tables are made" : "Ferry's tables are up to date");
    }
    return CLI_EXIT_OK;
}

enum cli_exit cmd_outbox_init(struct cli *cli)
{
    struct database db;
    enum cli_exit code = database_open(cli, cli->args->positionals[0], &db);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    if (args_has(cli->args, OPT_FROM) && !args_has(cli->args, OPT_PRINT_SQL)) {
        return cli_fail(cli, FERRY_ERR_INVALID_ARGUMENT, "--from", "goes with --print-sql");
    }
    return args_has(cli->args, OPT_PRINT_SQL) ? print_sql(cli, &db) : init(cli, &db);
}

/* ---- Status --------------------------------------------------------------------------------- */

static void print_age(const char *what, bool known, int64_t age_ms, const char *otherwise)
{
    char text[FORMAT_TEXT_BYTES];
    format_duration_us((age_ms > 0 ? age_ms : 0) * 1000, text);
    database_print_line(what, known ? text : otherwise);
}

static void print_word(const struct outbox_status *s)
{
    if (!s->word_known) {
        return;
    }
    char text[FORMAT_TEXT_BYTES + SOURCE_STATE_MAX + 64], age[FORMAT_TEXT_BYTES];
    int64_t age_ms = clock_wall_ms() - s->word.beat_ms;
    format_duration_us((age_ms > 0 ? age_ms : 0) * 1000, age);
    (void)snprintf(text, sizeof(text), "%s, pid %lld, heard %s ago", s->word.state,
                   (long long)s->word.pid, age);
    database_print_line("relay here", text);
    database_print_count("published up to id", true, s->word.published_id);
}

static void print_database(const struct outbox_status *s)
{
    database_print_count("rows pending", s->pending_known, s->pending_rows);
    print_age("oldest pending", s->oldest_known, s->oldest_pending_ms,
              s->pending_known && s->pending_rows == 0 ? "none" : "unknown");
    database_print_count("rows stored", s->stored_known, s->stored_rows);
    database_print_count("rows dead", true, s->dead_rows);
    database_print_count("keys parked", true, s->parked_keys);
    database_print_count("rows parked", true, s->parked_rows);
    database_print_line("paused", s->paused ? "yes: `ferry outbox resume` ends it" : "no");
    print_age("longest open tx", s->open_tx_known, s->longest_open_tx_ms, "unknown");
    database_print_count("greatest id", true, s->last_id);
}

static void print_status(const struct database *db, const struct outbox_status *s,
                         const struct relay_view *relays)
{
    char id[FERRY_ID_TEXT_BYTES];
    ferry_id_format(&s->source_id, id);
    database_print_line("database", db->shown);
    database_print_line("source", id);
    database_print_count("schema version", true, s->schema_version);
    relay_view_print(relays);
    print_word(s);
    if (s->relay_known && !s->word_known) {
        database_print_line("relay here",
                            s->relay_running ? "running" : "not running: start ferry-outbox");
    } else if (s->relay_known && !s->relay_running) {
        database_print_line("", "it does not run now: start ferry-outbox");
    }
    print_database(s);
}

static double seconds(int64_t ms)
{
    return (double)ms / 1000;
}

static json_t *known_seconds(bool known, int64_t ms)
{
    return known ? json_real(seconds(ms)) : json_null();
}

static void print_status_json(const struct database *db, const struct outbox_status *s,
                              const struct relay_view *relays)
{
    json_t *object = output_object();
    output_set_text(object, "db", db->shown);
    output_set_id(object, "source_id", &s->source_id);
    output_set_int(object, "schema_version", s->schema_version);
    output_set_int(object, "lanes", s->lanes);
    output_set(object, "relays", relay_view_json(relays));
    output_set(object, "pending_rows", database_known(s->pending_known, s->pending_rows));
    output_set(object, "oldest_pending_seconds",
               known_seconds(s->oldest_known, s->oldest_pending_ms));
    output_set(object, "oldest_pending_ms", database_known(s->oldest_known, s->oldest_pending_ms));
    output_set(object, "stored_rows", database_known(s->stored_known, s->stored_rows));
    output_set_int(object, "dead_rows", s->dead_rows);
    output_set_int(object, "parked_keys", s->parked_keys);
    output_set_int(object, "parked_rows", s->parked_rows);
    output_set_bool(object, "paused", s->paused);
    output_set(object, "longest_open_tx_seconds",
               known_seconds(s->open_tx_known, s->longest_open_tx_ms));
    output_set_int(object, "last_id", s->last_id);
    output_set(object, "relay_running",
               s->relay_known ? json_boolean(s->relay_running) : json_null());
    output_set_text(object, "relay_state", s->word_known ? s->word.state : NULL);
    output_set(object, "relay_pid", database_known(s->word_known, s->word.pid));
    output_set(object, "relay_heard_ms", database_known(s->word_known, s->word.beat_ms));
    output_set(object, "published_id", database_known(s->word_known, s->word.published_id));
    output_json(object);
}

/* The database first, for who it is to the brokers; then they, for what is published; then the
 * database again where that tells it more. Tells the user when it fails. */
static enum cli_exit ask(struct cli *cli, const struct database *db, struct relay_view *relays,
                         struct outbox_status *s)
{
    struct err_text e = {.text = ""};
    enum ferry_err err = db->admin->status(db->url, NULL, 0, s, &e);
    if (err == FERRY_OK && !args_has(cli->args, OPT_OFFLINE)) {
        enum cli_exit code = relay_view_ask(cli, &s->source_id, s->lanes, relays);
        if (code != CLI_EXIT_OK) {
            return code;
        }
        struct bytes checkpoints[SOURCE_LANES_MAX];
        size_t count = relay_view_checkpoints(relays, checkpoints);
        if (count > 0) {
            err = db->admin->status(db->url, checkpoints, count, s, &e);
        }
    }
    return err != FERRY_OK ? database_fail(cli, db, err, &e) : CLI_EXIT_OK;
}

static enum cli_exit status(struct cli *cli, const struct database *db, struct relay_view *relays)
{
    struct outbox_status s;
    enum cli_exit code = ask(cli, db, relays, &s);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    if (cli->json) {
        print_status_json(db, &s, relays);
    } else {
        print_status(db, &s, relays);
    }
    return relays->asked && relays->err != FERRY_OK ? CLI_EXIT_UNKNOWN : CLI_EXIT_OK;
}

enum cli_exit cmd_outbox_status(struct cli *cli)
{
    struct database db;
    struct relay_view relays = {.asked = false};
    enum cli_exit code = database_open(cli, cli->args->positionals[0], &db);
    if (code == CLI_EXIT_OK) {
        code = status(cli, &db, &relays);
    }
    relay_view_fini(&relays);
    return code;
}

/* ---- Lanes ---------------------------------------------------------------------------------- */

/* Why the number cannot be changed now; NULL: it can. */
static const char *lanes_fixed_by(const struct outbox_status *s, const struct relay_view *relays)
{
    if (relays->infos == NULL) {
        return "no broker says what is published and who publishes: nothing is changed";
    }
    for (uint32_t lane = 0; lane < relays->lanes; lane++) {
        if (relays->infos[lane].left_ms > 0) {
            return "a relay is active: once nothing is pending, stop it and wait until its lease "
                   "ends";
        }
    }
    if (s->dead_rows > 0 || s->parked_rows > 0 || s->parked_keys > 0) {
        return "rows or keys are set aside, each in its lane: requeue or unpark them, and let them "
               "be published; delete from the table of dead rows what never can be";
    }
    if (!s->pending_known && s->last_id > 0) {
        return "whether rows are pending is not known: let a relay run for a moment";
    }
    return s->pending_known && s->pending_rows > 0
               ? "rows are pending, and their keys would lose their order: stop the applications, "
                 "and let a relay publish them"
               : NULL;
}

static enum cli_exit set_lanes(struct cli *cli, const struct database *db, uint32_t lanes,
                               struct relay_view *relays)
{
    struct outbox_status s;
    struct err_text e = {.text = ""};
    enum cli_exit code = ask(cli, db, relays, &s);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    if (s.lanes != lanes) {
        const char *why = lanes_fixed_by(&s, relays);
        if (why != NULL) {
            return cli_fail(cli, FERRY_ERR_INVALID_ARGUMENT, db->shown, why);
        }
        enum ferry_err err = db->admin->set_lanes(db->url, lanes, &e);
        if (err != FERRY_OK) {
            return database_fail(cli, db, err, &e);
        }
    }
    return cli_tell_done(cli, "db", db->shown, "lanes set");
}

enum cli_exit cmd_outbox_lanes(struct cli *cli)
{
    struct database db;
    struct relay_view relays = {.asked = false};
    int64_t lanes = 0;
    if (!cli_number(cli, 1, "the number of lanes", 1, SOURCE_LANES_MAX, &lanes)) {
        return CLI_EXIT_USAGE;
    }
    enum cli_exit code = database_open(cli, cli->args->positionals[0], &db);
    if (code == CLI_EXIT_OK) {
        code = set_lanes(cli, &db, (uint32_t)lanes, &relays);
    }
    relay_view_fini(&relays);
    return code;
}
