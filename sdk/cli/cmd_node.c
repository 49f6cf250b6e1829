/* cmd_node: node list, drain, undrain, remove, check safe-to-stop. */
#include <stdio.h>

#include "cli/cli.h"
#include "cli/cluster_view.h"
#include "cli/cluster_watch.h"
#include "cli/nodes_table.h"
#include "cli/output.h"

#define NODE_ID_MAX 65535

/* Connects, and reads NODE. */
static enum cli_exit begin(struct cli *cli, uint32_t *node_id)
{
    int64_t n;
    if (!cli_number(cli, 0, "NODE", 1, NODE_ID_MAX, &n)) {
        return CLI_EXIT_USAGE;
    }
    *node_id = (uint32_t)n;
    return cli_connect(cli, NULL, NULL);
}

enum cli_exit cmd_node_list(struct cli *cli)
{
    struct ferry_nodes *nodes;
    enum cli_exit code = cli_connect(cli, NULL, NULL);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    enum ferry_err err = ferry_nodes_list(cli->client, cli->timeout_ms, &nodes);
    if (err != FERRY_OK) {
        return cli_fail(cli, err, NULL, NULL);
    }
    if (cli->json) {
        json_t *object = output_object();
        output_set(object, "nodes", nodes_json(nodes, NULL));
        output_json(object);
    } else {
        nodes_print(nodes, NULL);
    }
    ferry_nodes_free(&nodes);
    return CLI_EXIT_OK;
}

static enum cli_exit tell_done(const struct cli *cli, uint32_t node_id, const char *done)
{
    if (cli->json) {
        json_t *object = output_object();
        output_set_int(object, "node", node_id);
        output_set_bool(object, done, true);
        output_json(object);
    } else if (!cli->quiet) {
        fprintf(stderr, "node %u %s\n", node_id, done);
    }
    return CLI_EXIT_OK;
}

static enum cli_exit change(struct cli *cli, enum ferry_node_change what, uint32_t *node_id)
{
    enum cli_exit code = begin(cli, node_id);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    enum ferry_err err = ferry_node_change(cli->client, *node_id, what, 0, cli->timeout_ms);
    return err != FERRY_OK ? cli_fail(cli, err, cli->args->positionals[0], NULL) : CLI_EXIT_OK;
}

enum cli_exit cmd_node_drain(struct cli *cli)
{
    uint32_t node_id;
    enum cli_exit code = change(cli, FERRY_NODE_DRAIN, &node_id);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    if (args_has(cli->args, OPT_NO_WAIT)) {
        return tell_done(cli, node_id, "draining");
    }
    return watch_moves(cli, node_id, 0, 0);
}

enum cli_exit cmd_node_undrain(struct cli *cli)
{
    uint32_t node_id;
    enum cli_exit code = change(cli, FERRY_NODE_UNDRAIN, &node_id);
    return code != CLI_EXIT_OK ? code : tell_done(cli, node_id, "undrained");
}

enum cli_exit cmd_node_remove(struct cli *cli)
{
    uint32_t node_id;
    enum cli_exit code = change(cli, FERRY_NODE_REMOVE, &node_id);
    return code != CLI_EXIT_OK ? code : tell_done(cli, node_id, "removed");
}

/* ---- Check -------------------------------------------------------------------------------------
 */

struct verdict {
    size_t not_safe, unknown;
    json_t *reasons; /* With --json. */
};

static void add_reason(const struct cli *cli, struct verdict *v, const struct view_partition *p,
                       enum view_safety safety, const char *why)
{
    char name[VIEW_WORDS_BYTES];
    view_name(p, name);
    if (!cli->json) {
        printf("%s: %s%s\n", name, safety == VIEW_SAFETY_UNKNOWN ? "unknown: " : "", why);
        return;
    }
    json_t *object = output_object();
    output_set_text(object, "topic", p->placement != NULL ? p->topic : NULL);
    output_set(object, "partition",
               p->placement != NULL ? json_integer(p->partition) : json_null());
    output_set(object, "safe", safety == VIEW_SAFETY_UNKNOWN ? json_null() : json_false());
    output_set_text(object, "reason", why);
    json_array_append_new(v->reasons, object);
}

static enum cli_exit tell_verdict(const struct cli *cli, uint32_t node_id, struct verdict *v)
{
    enum cli_exit code = v->not_safe > 0  ? CLI_EXIT_NOT_SAFE
                         : v->unknown > 0 ? CLI_EXIT_UNKNOWN
                                          : CLI_EXIT_OK;
    if (cli->json) {
        json_t *object = output_object();
        output_set_int(object, "node", node_id);
        output_set(object, "safe",
                   code == CLI_EXIT_UNKNOWN ? json_null() : json_boolean(code == CLI_EXIT_OK));
        output_set(object, "reasons", v->reasons);
        output_json(object);
    } else if (code == CLI_EXIT_OK) {
        printf("node %u may be stopped\n", node_id);
    } else if (code == CLI_EXIT_NOT_SAFE) {
        printf("node %u must not be stopped now: %zu would lose their quorum\n", node_id,
               v->not_safe);
    } else {
        printf("it is not known whether node %u may be stopped: do not\n", node_id);
    }
    return code;
}

static enum cli_exit judge(const struct cli *cli, const struct cluster_view *view, uint32_t node_id)
{
    struct verdict v = {.reasons = cli->json ? json_array() : NULL};
    char why[VIEW_WORDS_BYTES];
    for (size_t i = 0; i < view->count; i++) {
        const struct view_partition *p = &view->partitions[i];
        enum view_safety safety = view_safety_of(view, p, node_id, why);
        v.not_safe += safety == VIEW_NOT_SAFE;
        v.unknown += safety == VIEW_SAFETY_UNKNOWN;
        if (safety != VIEW_SAFE) {
            add_reason(cli, &v, p, safety, why);
        }
    }
    return tell_verdict(cli, node_id, &v);
}

/* What cannot be asked is not known: a script must not take it for safe, nor for a failure of its
 * own. */
static enum cli_exit tell_unknown(const struct cli *cli, enum ferry_err err)
{
    enum cli_exit code = cli_fail(cli, err, cli->args->positionals[0], NULL);
    return ferry_err_is_retriable(err) ? CLI_EXIT_UNKNOWN : code;
}

enum cli_exit cmd_node_check(struct cli *cli)
{
    uint32_t node_id;
    struct cluster_view view;
    enum cli_exit code = begin(cli, &node_id);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    enum ferry_err err = view_collect(cli->client, NULL, cli->timeout_ms, &view);
    if (err != FERRY_OK) {
        return tell_unknown(cli, err);
    }
    if (view_node(&view, node_id) == NULL) {
        code = cli_fail(cli, FERRY_ERR_UNKNOWN_NODE, cli->args->positionals[0], NULL);
    } else {
        code = judge(cli, &view, node_id);
    }
    view_fini(&view);
    return code;
}
