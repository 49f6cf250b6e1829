/* cmd_lease: lease acquire, renew, release, list. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/format.h"
#include "cli/output.h"

#define TTL_MS_DEFAULT 30000
#define HOLDER_BYTES   201
#define WAIT_SLICE_MS                                                                              \
    2000 /* To look whether the user has had enough; the place in line is kept.                    \
          */

/* The host's name, as far as a name may have its letters. */
static const char *holder_of(const struct cli *cli, char text[HOLDER_BYTES])
{
    const char *given = args_text(cli->args, OPT_HOLDER, NULL);
    if (given != NULL) {
        return given;
    }
    if (gethostname(text, HOLDER_BYTES) != 0 || text[0] == '\0') {
        (void)snprintf(text, HOLDER_BYTES, "localhost");
    }
    text[HOLDER_BYTES - 1] = '\0';
    text[strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")] = '\0';
    return text[0] != '\0' ? text : "host";
}

static json_t *lease_json(const struct ferry_lease *lease)
{
    json_t *object = output_object();
    output_set_text(object, "lease", lease->name);
    output_set_text(object, "holder", lease->holder);
    output_set_int(object, "token", (int64_t)lease->token);
    output_set_int(object, "ttl_ms", lease->ttl_ms);
    output_set_int(object, "left_ms", lease->left_ms);
    output_set_int(object, "waiting", lease->waiting);
    return object;
}

/* The token alone on standard output, so that a script can take it; the rest is for people. */
static enum cli_exit tell_held(const struct cli *cli, const struct ferry_lease *lease)
{
    char left[FORMAT_TEXT_BYTES];
    if (cli->json) {
        output_json(lease_json(lease));
        return CLI_EXIT_OK;
    }
    printf("%" PRIu64 "\n", lease->token);
    if (!cli->quiet) {
        format_duration_us(lease->left_ms * 1000, left);
        fprintf(stderr, "lease %s is held by %s for %s\n", lease->name, lease->holder, left);
    }
    return CLI_EXIT_OK;
}

/* Told with the present holder, so that a tired person knows whom to ask. */
static enum cli_exit tell_other(const struct cli *cli, const struct ferry_lease *lease)
{
    char left[FORMAT_TEXT_BYTES];
    char detail[512];
    if (lease->holder[0] == '\0') {
        return cli_fail(cli, FERRY_ERR_LEASE_HELD, cli->args->positionals[0], NULL);
    }
    format_duration_us(lease->left_ms * 1000, left);
    (void)snprintf(detail, sizeof(detail),
                   "held by %s for another %s, %u waiting: wait, or ask with a longer --wait",
                   lease->holder, left, lease->waiting);
    return cli_fail(cli, FERRY_ERR_LEASE_HELD, cli->args->positionals[0], detail);
}

/* Waits in line until the lease is there, the time is over, or an interrupt. */
static enum ferry_err wait_for(const struct cli *cli, const char *holder, struct ferry_lease *lease)
{
    int64_t left_ms = args_number(cli->args, OPT_WAIT, 0);
    enum ferry_err err = FERRY_ERR_LEASE_HELD;
    bool last = false;
    while (err == FERRY_ERR_LEASE_HELD && !last) {
        int64_t wait_ms = left_ms < WAIT_SLICE_MS ? left_ms : WAIT_SLICE_MS;
        err = ferry_lease_acquire(cli->client, cli->args->positionals[0], holder,
                                  args_number(cli->args, OPT_TTL, TTL_MS_DEFAULT), wait_ms,
                                  cli->timeout_ms, lease);
        left_ms -= wait_ms;
        last = left_ms <= 0 || cli_is_interrupted(cli);
    }
    return err;
}

enum cli_exit cmd_lease_acquire(struct cli *cli)
{
    char host[HOLDER_BYTES];
    struct ferry_lease lease = {.token = 0};
    enum cli_exit code = cli_connect(cli, NULL, NULL);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    enum ferry_err err = wait_for(cli, holder_of(cli, host), &lease);
    if (err == FERRY_ERR_LEASE_HELD) {
        return tell_other(cli, &lease);
    }
    return err != FERRY_OK ? cli_fail(cli, err, cli->args->positionals[0], NULL)
                           : tell_held(cli, &lease);
}

/* --token is needed where it proves who asks. */
static bool read_token(const struct cli *cli, uint64_t *token)
{
    *token = (uint64_t)args_number(cli->args, OPT_TOKEN, 0);
    if (*token == 0) {
        (void)cli_fail(cli, FERRY_ERR_INVALID_ARGUMENT, cli->args->positionals[0],
                       "needs --token N, as `ferry lease acquire` has printed it");
    }
    return *token != 0;
}

enum cli_exit cmd_lease_renew(struct cli *cli)
{
    char host[HOLDER_BYTES];
    uint64_t token;
    struct ferry_lease lease;
    if (!read_token(cli, &token)) {
        return CLI_EXIT_USAGE;
    }
    enum cli_exit code = cli_connect(cli, NULL, NULL);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    enum ferry_err err =
        ferry_lease_renew(cli->client, cli->args->positionals[0], holder_of(cli, host), token,
                          args_number(cli->args, OPT_TTL, TTL_MS_DEFAULT), cli->timeout_ms, &lease);
    return err != FERRY_OK ? cli_fail(cli, err, cli->args->positionals[0], NULL)
                           : tell_held(cli, &lease);
}

enum cli_exit cmd_lease_release(struct cli *cli)
{
    char host[HOLDER_BYTES];
    uint64_t token;
    const char *name = cli->args->positionals[0];
    if (!read_token(cli, &token)) {
        return CLI_EXIT_USAGE;
    }
    enum cli_exit code = cli_connect(cli, NULL, NULL);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    enum ferry_err err =
        ferry_lease_release(cli->client, name, holder_of(cli, host), token, cli->timeout_ms);
    if (err != FERRY_OK) {
        return cli_fail(cli, err, name, NULL);
    }
    if (cli->json) {
        json_t *object = output_object();
        output_set_text(object, "lease", name);
        output_set_bool(object, "released", true);
        output_json(object);
    } else if (!cli->quiet) {
        fprintf(stderr, "lease %s released\n", name);
    }
    return CLI_EXIT_OK;
}

static void print_leases(const struct ferry_lease *leases, size_t count)
{
    struct output_table table;
    char left[FORMAT_TEXT_BYTES];
    output_table_init(&table, "LEASE|HOLDER|>TOKEN|>LEFT|>WAITING");
    for (size_t i = 0; i < count; i++) {
        format_duration_us(leases[i].left_ms * 1000, left);
        output_table_cell(&table, "%s", leases[i].name);
        output_table_cell(&table, "%s", leases[i].holder);
        output_table_cell(&table, "%" PRIu64, leases[i].token);
        output_table_cell(&table, "%s", left);
        output_table_cell(&table, "%u", leases[i].waiting);
    }
    output_table_print(&table);
    output_table_fini(&table);
}

enum cli_exit cmd_lease_list(struct cli *cli)
{
    struct ferry_lease *leases;
    size_t count;
    enum cli_exit code = cli_connect(cli, NULL, NULL);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    enum ferry_err err = ferry_leases_list(cli->client, cli->timeout_ms, &leases, &count);
    if (err != FERRY_OK) {
        return cli_fail(cli, err, NULL, NULL);
    }
    if (cli->json) {
        json_t *object = output_object();
        json_t *array = json_array();
        for (size_t i = 0; i < count; i++) {
            json_array_append_new(array, lease_json(&leases[i]));
        }
        output_set(object, "leases", array);
        output_json(object);
    } else {
        print_leases(leases, count);
    }
    ferry_leases_free(&leases);
    return CLI_EXIT_OK;
}
