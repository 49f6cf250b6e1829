/* cmd_subscription_change: subscription create, alter, pause, resume, reset, delete. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "cli/cli.h"
#include "cli/format.h"
#include "cli/output.h"
#include "cli/place.h"
#include "cli/subscription_words.h"

#define BACKOFF_MS_MAX (INT64_C(365) * 86400000)

static const char *topic_of(const struct cli *cli)
{
    return cli->args->positionals[0];
}

static const char *name_of(const struct cli *cli)
{
    return cli->args->positionals[1];
}

/* What a broker refuses, it explains; what is not there is named. */
static enum cli_exit fail(const struct cli *cli, enum ferry_err err)
{
    return cli_fail(cli, err, err == FERRY_ERR_UNKNOWN_TOPIC ? topic_of(cli) : name_of(cli), NULL);
}

/* ---- Settings ------------------------------------------------------------------------------- */

static enum cli_exit take_backoff(const struct cli *cli, struct ferry_subscription_spec *spec)
{
    const char *text = args_text(cli->args, OPT_BACKOFF, NULL);
    int64_t min_ms, max_ms;
    if (text == NULL) {
        return CLI_EXIT_OK;
    }
    if (!place_parse_range_ms(text, BACKOFF_MS_MAX < UINT32_MAX ? BACKOFF_MS_MAX : UINT32_MAX,
                              &min_ms, &max_ms)) {
        return cli_fail(cli, FERRY_ERR_BAD_OPTION_VALUE, text,
                        "--backoff takes MIN..MAX such as 1s..10m, MIN not above MAX, at most 49d");
    }
    spec->backoff_min_ms = (uint32_t)min_ms;
    spec->backoff_max_ms = (uint32_t)max_ms;
    return CLI_EXIT_OK;
}

static enum cli_exit take_key_policy(const struct cli *cli, struct ferry_subscription_spec *spec)
{
    const char *text = args_text(cli->args, OPT_KEY_POLICY, NULL);
    if (text == NULL) {
        return CLI_EXIT_OK;
    }
    if (strcmp(text, "wait") == 0) {
        spec->key_policy = FERRY_KEY_WAIT;
    } else if (strcmp(text, "park") == 0) {
        spec->key_policy = FERRY_KEY_PARK;
    } else {
        return cli_fail(cli, FERRY_ERR_BAD_OPTION_VALUE, text, "--key-policy takes wait or park");
    }
    return CLI_EXIT_OK;
}

static enum cli_exit take_settings(const struct cli *cli, struct ferry_subscription_spec *spec)
{
    spec->lease_ms = (uint32_t)args_number(cli->args, OPT_LEASE, 0);
    spec->max_deliveries = (uint32_t)args_number(cli->args, OPT_MAX_DELIVERIES, 0);
    spec->inflight_max = (uint32_t)args_number(cli->args, OPT_IN_FLIGHT, 0);
    enum cli_exit code = take_backoff(cli, spec);
    return code == CLI_EXIT_OK ? take_key_policy(cli, spec) : code;
}

static bool has_settings(const struct cli *cli)
{
    return args_has(cli->args, OPT_LEASE) || args_has(cli->args, OPT_MAX_DELIVERIES) ||
           args_has(cli->args, OPT_BACKOFF) || args_has(cli->args, OPT_KEY_POLICY) ||
           args_has(cli->args, OPT_IN_FLIGHT);
}

static enum cli_exit take_from(const struct cli *cli, struct ferry_subscription_spec *spec)
{
    struct place place;
    const char *text = args_text(cli->args, OPT_FROM, "start");
    if (!place_parse(text, 0, &place) || place.is_time) {
        return cli_fail(cli, FERRY_ERR_BAD_OPTION_VALUE, text,
                        "--from takes start, end or an offset here; for a time: `subscription "
                        "reset --to TIME`");
    }
    spec->from = place.offset;
    return CLI_EXIT_OK;
}

enum cli_exit cmd_subscription_create(struct cli *cli)
{
    struct ferry_subscription_spec spec = {.mode = FERRY_MODE_STREAM};
    const char *mode = args_text(cli->args, OPT_MODE, "stream");
    if (!subscription_parse_mode(mode, &spec.mode)) {
        return cli_fail(cli, FERRY_ERR_BAD_OPTION_VALUE, mode, SUBSCRIPTION_MODE_FORMS);
    }
    if (spec.mode == FERRY_MODE_STREAM && has_settings(cli)) {
        return cli_fail(
            cli, FERRY_ERR_INVALID_ARGUMENT, name_of(cli),
            "leases, retries and caps are of --mode queue and keyed; a stream has none");
    }
    if (spec.mode != FERRY_MODE_KEYED && args_has(cli->args, OPT_KEY_POLICY)) {
        return cli_fail(cli, FERRY_ERR_INVALID_ARGUMENT, name_of(cli),
                        "--key-policy is of --mode keyed");
    }
    enum cli_exit code = take_from(cli, &spec);
    if (code == CLI_EXIT_OK) {
        code = take_settings(cli, &spec);
    }
    if (code == CLI_EXIT_OK) {
        code = cli_connect(cli, NULL, NULL);
    }
    if (code != CLI_EXIT_OK) {
        return code;
    }
    enum ferry_err err =
        ferry_subscription_make(cli->client, topic_of(cli), name_of(cli), &spec, cli->timeout_ms);
    return err != FERRY_OK ? fail(cli, err)
                           : cli_tell_done(cli, "subscription", name_of(cli), "created");
}

enum cli_exit cmd_subscription_alter(struct cli *cli)
{
    struct ferry_subscription_spec spec = {.mode = 0};
    if (!has_settings(cli)) {
        return cli_fail(cli, FERRY_ERR_INVALID_ARGUMENT, name_of(cli),
                        "nothing to alter: name a setting, see ferry subscription alter --help");
    }
    enum cli_exit code = take_settings(cli, &spec);
    if (code == CLI_EXIT_OK) {
        code = cli_connect(cli, NULL, NULL);
    }
    if (code != CLI_EXIT_OK) {
        return code;
    }
    enum ferry_err err =
        ferry_subscription_alter(cli->client, topic_of(cli), name_of(cli), &spec, cli->timeout_ms);
    return err != FERRY_OK ? fail(cli, err)
                           : cli_tell_done(cli, "subscription", name_of(cli), "altered");
}

/* ---- Pausing and deleting ------------------------------------------------------------------- */

static enum cli_exit pause_or_resume(struct cli *cli, bool pause)
{
    enum cli_exit code = cli_connect(cli, NULL, NULL);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    enum ferry_err err =
        ferry_subscription_pause(cli->client, topic_of(cli), name_of(cli), pause, cli->timeout_ms);
    return err != FERRY_OK
               ? fail(cli, err)
               : cli_tell_done(cli, "subscription", name_of(cli), pause ? "paused" : "resumed");
}

enum cli_exit cmd_subscription_pause(struct cli *cli)
{
    return pause_or_resume(cli, true);
}

enum cli_exit cmd_subscription_resume(struct cli *cli)
{
    return pause_or_resume(cli, false);
}

enum cli_exit cmd_subscription_delete(struct cli *cli)
{
    enum cli_exit code = cli_connect(cli, NULL, NULL);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    enum ferry_err err =
        ferry_subscription_delete(cli->client, topic_of(cli), name_of(cli), cli->timeout_ms);
    return err != FERRY_OK ? fail(cli, err)
                           : cli_tell_done(cli, "subscription", name_of(cli), "deleted");
}

/* ---- Reset ---------------------------------------------------------------------------------- */

static void print_reset_table(const struct ferry_reset_partition *partitions, size_t count)
{
    struct output_table table;
    output_table_init(&table, ">partition|>from|>to|>messages|state");
    for (size_t i = 0; i < count; i++) {
        const struct ferry_reset_partition *p = &partitions[i];
        output_table_cell(&table, "%d", p->partition);
        if (p->err != FERRY_OK) {
            for (int j = 0; j < 3; j++) {
                output_table_cell(&table, "unknown");
            }
            output_table_cell(&table, "%s", ferry_err_name(p->err));
            continue;
        }
        output_table_cell(&table, "%lld", (long long)p->from);
        output_table_cell(&table, "%lld", (long long)p->to);
        output_table_count(&table, p->to - p->from);
        output_table_cell(&table, p->to < p->from   ? "come again"
                                  : p->to > p->from ? "skipped"
                                                    : "as it was");
    }
    output_table_print(&table);
    output_table_fini(&table);
}

static void print_reset_json(const struct cli *cli, const struct ferry_reset_partition *partitions,
                             size_t count)
{
    json_t *object = output_object();
    json_t *array = json_array();
    for (size_t i = 0; i < count; i++) {
        const struct ferry_reset_partition *p = &partitions[i];
        bool known = p->err == FERRY_OK;
        json_t *row = output_object();
        output_set_int(row, "partition", p->partition);
        output_set_text(row, "error", known ? NULL : ferry_err_name(p->err));
        output_set(row, "from", known ? json_integer(p->from) : json_null());
        output_set(row, "to", known ? json_integer(p->to) : json_null());
        json_array_append_new(array, row);
    }
    output_set_text(object, "subscription", name_of(cli));
    output_set_bool(object, "dry_run", args_has(cli->args, OPT_DRY_RUN));
    output_set(object, "partitions", array);
    output_json(object);
}

/* The first partition that failed decides the exit code; the table has told which did. */
static enum cli_exit tell_reset(const struct cli *cli,
                                const struct ferry_reset_partition *partitions, size_t count)
{
    enum ferry_err err = FERRY_OK;
    for (size_t i = 0; i < count && err == FERRY_OK; i++) {
        err = partitions[i].err;
    }
    if (cli->json) {
        print_reset_json(cli, partitions, count);
    } else {
        print_reset_table(partitions, count);
    }
    if (err != FERRY_OK) {
        cli_warn(cli, err, name_of(cli), "not all partitions were reset: run it again");
        return cli_exit_of(err);
    }
    if (!cli->quiet && !cli->json && args_has(cli->args, OPT_DRY_RUN)) {
        fputs("nothing was changed (--dry-run)\n", stderr);
    } else if (!cli->quiet && !cli->json) {
        fprintf(stderr, "subscription %s reset\n", name_of(cli));
    }
    return CLI_EXIT_OK;
}

enum cli_exit cmd_subscription_reset(struct cli *cli)
{
    struct place to;
    const char *text = args_text(cli->args, OPT_TO, NULL);
    if (text == NULL) {
        return cli_fail(cli, FERRY_ERR_INVALID_ARGUMENT, name_of(cli),
                        "--to is needed; it " PLACE_FORMS);
    }
    if (!place_parse(text, clock_wall_ms(), &to)) {
        return cli_fail(cli, FERRY_ERR_BAD_OPTION_VALUE, text, "--to " PLACE_FORMS);
    }
    enum cli_exit code = cli_connect(cli, NULL, NULL);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    struct ferry_reset_partition *partitions = NULL;
    size_t count = 0;
    enum ferry_err err = ferry_subscription_reset(
        cli->client, topic_of(cli), name_of(cli), to.offset, to.is_time ? to.time_ms : -1,
        args_has(cli->args, OPT_DRY_RUN), cli->timeout_ms, &partitions, &count);
    if (err != FERRY_OK) {
        return fail(cli, err);
    }
    code = tell_reset(cli, partitions, count);
    ferry_reset_free(&partitions);
    return code;
}
