/* cmd_saga: the sagas that began in a database, and what a person decides about one. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "cli/database.h"
#include "cli/format.h"
#include "cli/output.h"

#define SAGAS_DEFAULT 100

static const char *const states[] = {"running",     "compensating", "done",
                                     "compensated", "stuck",        "aborted"};
#define STATES (sizeof(states) / sizeof(states[0]))

struct listing {
    const struct cli *cli;
    struct output_table table;
    int64_t left; /* To be shown. */
    int64_t count, by_state[STATES];
    bool whole; /* One saga, all of it. */
};

/* ---- Showing -------------------------------------------------------------------------------- */

static json_t *saga_json(const struct outbox_saga *saga)
{
    json_t *object = output_object();
    output_set_id(object, "id", &saga->id);
    output_set_text(object, "type", saga->type);
    output_set_text(object, "state", saga->state);
    output_set_int(object, "step", saga->step);
    output_set(object, "steps", database_known(saga->steps > 0, saga->steps));
    output_set_int(object, "version", saga->version);
    output_set_int(object, "created_ms", saga->created_ms);
    output_set_int(object, "changed_ms", saga->changed_ms);
    output_set(object, "deadline_ms", database_known(saga->deadline_known, saga->deadline_ms));
    output_set_text(object, "reason",
                    saga->reason != NULL && saga->reason[0] != '\0' ? saga->reason : NULL);
    return object;
}

static void step_text(const struct outbox_saga *saga, char text[FORMAT_TEXT_BYTES])
{
    if (saga->steps > 0) {
        (void)snprintf(text, FORMAT_TEXT_BYTES, "%d of %d", saga->step + 1, saga->steps);
    } else {
        (void)snprintf(text, FORMAT_TEXT_BYTES, "%d", saga->step + 1);
    }
}

static void print_whole(const struct outbox_saga *saga)
{
    char id[FERRY_ID_TEXT_BYTES], step[FORMAT_TEXT_BYTES];
    ferry_id_format(&saga->id, id);
    step_text(saga, step);
    database_print_line("saga", id);
    database_print_line("type", saga->type);
    database_print_line("state", saga->state);
    database_print_line("step", step);
    database_print_time("began", saga->created_ms);
    database_print_time("changed", saga->changed_ms);
    if (saga->deadline_known) {
        database_print_time("deadline", saga->deadline_ms);
    }
    database_print_line("reason",
                        saga->reason != NULL && saga->reason[0] != '\0' ? saga->reason : "none");
}

static void add_line(struct listing *l, const struct outbox_saga *saga)
{
    char id[FERRY_ID_TEXT_BYTES], step[FORMAT_TEXT_BYTES], age[FORMAT_TEXT_BYTES];
    int64_t age_ms = clock_wall_ms() - saga->changed_ms;
    ferry_id_format(&saga->id, id);
    step_text(saga, step);
    format_duration_us((age_ms > 0 ? age_ms : 0) * 1000, age);
    output_table_cell(&l->table, "%s", id);
    output_table_cell(&l->table, "%s", saga->type);
    output_table_cell(&l->table, "%s", saga->state);
    output_table_cell(&l->table, "%s", step);
    output_table_cell(&l->table, "%s", age);
    output_table_cell(&l->table, "%s", saga->reason != NULL ? saga->reason : "");
}

static bool show_saga(const struct outbox_saga *saga, void *arg)
{
    struct listing *l = arg;
    l->count++;
    for (size_t i = 0; i < STATES; i++) {
        l->by_state[i] += strcmp(states[i], saga->state) == 0;
    }
    if (l->left-- <= 0) {
        return !cli_is_interrupted(l->cli); /* Counted only. */
    }
    if (l->cli->json) {
        return output_json(saga_json(saga));
    }
    if (l->whole) {
        print_whole(saga);
    } else {
        add_line(l, saga);
    }
    return true;
}

static void print_states(const struct listing *l)
{
    output_flush();
    fprintf(stderr, "%lld sagas", (long long)l->count);
    const char *before = ": ";
    for (size_t i = 0; i < STATES; i++) {
        if (l->by_state[i] > 0) {
            fprintf(stderr, "%s%lld %s", before, (long long)l->by_state[i], states[i]);
            before = ", ";
        }
    }
    fputc('\n', stderr);
}

static bool state_is_known(const char *state)
{
    for (size_t i = 0; i < STATES; i++) {
        if (strcmp(states[i], state) == 0) {
            return true;
        }
    }
    return false;
}

enum cli_exit cmd_saga_list(struct cli *cli)
{
    struct database db;
    struct err_text e = {.text = ""};
    struct listing l = {.cli = cli, .left = args_number(cli->args, OPT_COUNT, SAGAS_DEFAULT)};
    const char *state = args_text(cli->args, OPT_STATE, NULL);
    enum cli_exit code = database_open(cli, cli->args->positionals[0], &db);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    if (state != NULL && !state_is_known(state)) {
        return cli_fail(cli, FERRY_ERR_INVALID_ARGUMENT, state,
                        "--state takes running, compensating, done, compensated, stuck or aborted");
    }
    output_table_init(&l.table, "saga|type|state|step|>changed ago|reason");
    enum ferry_err err = db.admin->sagas(db.url, NULL, state, show_saga, &l, &e);
    if (err != FERRY_OK) {
        code = database_fail(cli, &db, err, &e);
    } else if (!cli->json) {
        output_table_print(&l.table);
    }
    if (err == FERRY_OK && !cli->quiet) {
        print_states(&l);
    }
    output_table_fini(&l.table);
    return code;
}

/* ---- One ------------------------------------------------------------------------------------ */

static enum cli_exit open_one(struct cli *cli, struct database *db, struct ferry_id *id)
{
    const char *text = cli->args->positionals[1];
    enum cli_exit code = database_open(cli, cli->args->positionals[0], db);
    if (code == CLI_EXIT_OK && !ferry_id_parse(text, id)) {
        code = cli_fail(cli, FERRY_ERR_INVALID_ARGUMENT, text, "not the id of a saga, a UUID");
    }
    return code;
}

enum cli_exit cmd_saga_show(struct cli *cli)
{
    struct database db;
    struct ferry_id id;
    struct err_text e = {.text = ""};
    struct listing l = {.cli = cli, .left = 1, .whole = true};
    enum cli_exit code = open_one(cli, &db, &id);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    enum ferry_err err = db.admin->sagas(db.url, &id, NULL, show_saga, &l, &e);
    if (err != FERRY_OK) {
        return database_fail(cli, &db, err, &e);
    }
    return l.count > 0 ? CLI_EXIT_OK
                       : cli_fail(cli, FERRY_ERR_UNKNOWN_MESSAGE, cli->args->positionals[1],
                                  "no saga with this id began in this database");
}

enum cli_exit cmd_saga_retry(struct cli *cli)
{
    struct database db;
    struct ferry_id id;
    struct err_text e = {.text = ""};
    enum cli_exit code = open_one(cli, &db, &id);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    enum ferry_err err = db.admin->saga_retry(db.url, &id, &e);
    return err != FERRY_OK ? cli_fail(cli, err, cli->args->positionals[1], e.text)
                           : cli_tell_done(cli, "saga", cli->args->positionals[1], "retried");
}

enum cli_exit cmd_saga_abort(struct cli *cli)
{
    struct database db;
    struct ferry_id id;
    struct err_text e = {.text = ""};
    const char *reason = args_text(cli->args, OPT_REASON, NULL);
    enum cli_exit code = open_one(cli, &db, &id);
    if (code == CLI_EXIT_OK && reason == NULL) {
        code = cli_fail(cli, FERRY_ERR_INVALID_ARGUMENT, NULL, "needs --reason R");
    }
    if (code == CLI_EXIT_OK) {
        code = database_confirm(cli, "Compensate this saga or, if it is stuck, give it up?");
    }
    if (code != CLI_EXIT_OK) {
        return code;
    }
    enum ferry_err err = db.admin->saga_abort(db.url, &id, reason, &e);
    return err != FERRY_OK ? cli_fail(cli, err, cli->args->positionals[1], e.text)
                           : cli_tell_done(cli, "saga", cli->args->positionals[1], "aborted");
}
