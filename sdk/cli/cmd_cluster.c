/* cmd_cluster: cluster status, plan, apply, abort. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/cluster_view.h"
#include "cli/cluster_watch.h"
#include "cli/format.h"
#include "cli/nodes_table.h"
#include "cli/output.h"

#define TROUBLES_SHOWN 20
/* What the estimate of a plan assumes: a disk that is busy with other things too. */
#define PLAN_BYTES_A_SECOND (INT64_C(50) << 20)

/* ---- Status ------------------------------------------------------------------------------------
 */

struct counts {
    size_t healthy, under_replicated, no_leader, unknown;
};

static struct counts count_all(const struct cluster_view *view)
{
    struct counts counts = {0};
    char why[VIEW_WORDS_BYTES];
    for (size_t i = 0; i < view->count; i++) {
        enum view_health health = view_health_of(view, &view->partitions[i], why);
        counts.healthy += health == VIEW_HEALTHY;
        counts.under_replicated += health == VIEW_UNDER_REPLICATED;
        counts.no_leader += health == VIEW_NO_LEADER;
        counts.unknown += health == VIEW_UNKNOWN;
    }
    return counts;
}

static void print_troubles(const struct cluster_view *view)
{
    char name[VIEW_WORDS_BYTES];
    char why[VIEW_WORDS_BYTES];
    size_t shown = 0, more = 0;
    for (size_t i = 0; i < view->count; i++) {
        if (view_health_of(view, &view->partitions[i], why) == VIEW_HEALTHY) {
            continue;
        }
        if (shown == TROUBLES_SHOWN) {
            more++;
            continue;
        }
        view_name(&view->partitions[i], name);
        printf("%s  %s: %s\n", shown == 0 ? "\n" : "", name, why);
        shown++;
    }
    if (more > 0) {
        printf("  and %zu more (--json lists all)\n", more);
    }
}

static void print_summary(const struct cluster_view *view, const struct ferry_moves *moves)
{
    struct counts counts = count_all(view);
    printf("\npartitions  %zu, and the metadata group\n", view->count - 1);
    printf("healthy     %zu of %zu\n", counts.healthy, view->count);
    if (counts.under_replicated > 0) {
        printf("under-replicated  %zu\n", counts.under_replicated);
    }
    if (counts.no_leader > 0) {
        printf("without leader    %zu\n", counts.no_leader);
    }
    if (counts.unknown > 0) {
        printf("unknown           %zu\n", counts.unknown);
    }
    if (moves == NULL) {
        puts("moves       unknown");
    } else if (moves->count > 0) {
        printf("moves       %zu left, %" PRIu64 " done\n", moves->count, moves->done);
    }
    print_troubles(view);
}

static void print_head(const struct cluster_view *view)
{
    char id[FERRY_ID_TEXT_BYTES];
    ferry_id_format(&view->nodes->cluster_id, id);
    printf("cluster   %s\n", id);
    if (view->nodes->leader_node != 0) {
        printf("metadata  led by node %u\n\n", view->nodes->leader_node);
    } else {
        puts("metadata  its leader is unknown\n");
    }
}

static const char *health_name(enum view_health health)
{
    static const char *const names[] = {[VIEW_HEALTHY] = "healthy",
                                        [VIEW_UNDER_REPLICATED] = "under_replicated",
                                        [VIEW_NO_LEADER] = "no_leader",
                                        [VIEW_UNKNOWN] = "unknown"};
    return names[health];
}

static json_t *troubles_json(const struct cluster_view *view)
{
    json_t *array = json_array();
    for (size_t i = 0; i < view->count; i++) {
        const struct view_partition *p = &view->partitions[i];
        char why[VIEW_WORDS_BYTES];
        enum view_health health = view_health_of(view, p, why);
        if (health == VIEW_HEALTHY) {
            continue;
        }
        json_t *object = output_object();
        output_set_text(object, "topic", p->placement != NULL ? p->topic : NULL);
        output_set(object, "partition",
                   p->placement != NULL ? json_integer(p->partition) : json_null());
        output_set_text(object, "state", health_name(health));
        output_set_text(object, "reason", why);
        json_array_append_new(array, object);
    }
    return array;
}

static void print_status_json(const struct cluster_view *view, const struct ferry_moves *moves)
{
    struct counts counts = count_all(view);
    uint32_t leader = view->nodes->leader_node;
    json_t *object = output_object();
    output_set_id(object, "cluster_id", &view->nodes->cluster_id);
    output_set(object, "metadata_leader", leader != 0 ? json_integer(leader) : json_null());
    output_set(object, "nodes", nodes_json(view->nodes, view));
    output_set_int(object, "partitions", (int64_t)view->count - 1);
    output_set_int(object, "healthy", (int64_t)counts.healthy);
    output_set_int(object, "under_replicated", (int64_t)counts.under_replicated);
    output_set_int(object, "without_leader", (int64_t)counts.no_leader);
    output_set_int(object, "unknown", (int64_t)counts.unknown);
    output_set(object, "moves_left",
               moves != NULL ? json_integer((json_int_t)moves->count) : json_null());
    output_set(object, "moves_done",
               moves != NULL ? json_integer((json_int_t)moves->done) : json_null());
    output_set(object, "troubles", troubles_json(view));
    output_json(object);
}

enum cli_exit cmd_cluster_status(struct cli *cli)
{
    struct cluster_view view;
    struct ferry_moves *moves = NULL;
    enum cli_exit code = cli_connect(cli, NULL, NULL);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    enum ferry_err err = view_collect(cli->client, NULL, cli->timeout_ms, &view);
    if (err != FERRY_OK) {
        return cli_fail(cli, err, NULL, NULL);
    }
    (void)!ferry_moves_list(cli->client, cli->timeout_ms, &moves); /* Else unknown. */
    if (cli->json) {
        print_status_json(&view, moves);
    } else {
        print_head(&view);
        nodes_print(view.nodes, &view);
        print_summary(&view, moves);
    }
    ferry_moves_free(&moves);
    view_fini(&view);
    return CLI_EXIT_OK;
}

/* ---- Plan --------------------------------------------------------------------------------------
 */

static void format_set(const uint32_t *nodes, uint32_t count, char text[OUTPUT_CELL_MAX])
{
    size_t used = 0;
    text[0] = '\0';
    for (uint32_t i = 0; i < count && used < OUTPUT_CELL_MAX - 8; i++) {
        int n = snprintf(text + used, OUTPUT_CELL_MAX - used, "%s%u", i > 0 ? " " : "", nodes[i]);
        used += n > 0 ? (size_t)n : 0;
    }
}

static void print_moves(const struct ferry_moves *plan)
{
    struct output_table table;
    output_table_init(&table, "TOPIC|>PARTITION|FROM|TO|>BYTES");
    for (size_t i = 0; i < plan->count; i++) {
        const struct ferry_move *m = &plan->moves[i];
        char from[OUTPUT_CELL_MAX], to[OUTPUT_CELL_MAX], size[FORMAT_TEXT_BYTES];
        format_set(m->from, m->from_count, from);
        format_set(m->to, m->to_count, to);
        format_size((int64_t)m->bytes, size);
        output_table_cell(&table, "%s", m->topic);
        output_table_cell(&table, "%d", m->partition);
        output_table_cell(&table, "%s", from);
        output_table_cell(&table, "%s", to);
        output_table_cell(&table, "%s", size);
    }
    output_table_print(&table);
    output_table_fini(&table);
}

static int64_t estimate_s(uint64_t bytes)
{
    return (int64_t)(bytes / (uint64_t)PLAN_BYTES_A_SECOND) + 1;
}

static void print_plan(const struct ferry_moves *plan)
{
    char size[FORMAT_TEXT_BYTES], time[FORMAT_TEXT_BYTES];
    if (plan->count == 0) {
        puts("nothing to move: the load is as even as it gets");
        return;
    }
    print_moves(plan);
    format_size((int64_t)plan->total_bytes, size);
    format_duration_us(estimate_s(plan->total_bytes) * 1000000, time);
    printf("\n%zu moves, %s to copy: about %s at 50 MiB/s\n", plan->count, size, time);
    printf("to do it: ferry cluster apply --plan %016" PRIx64 "\n", plan->plan_id);
}

static json_t *set_json(const uint32_t *nodes, uint32_t count)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < count; i++) {
        json_array_append_new(array, json_integer(nodes[i]));
    }
    return array;
}

static void print_plan_json(const struct ferry_moves *plan)
{
    char id[20];
    json_t *object = output_object();
    json_t *moves = json_array();
    for (size_t i = 0; i < plan->count; i++) {
        const struct ferry_move *m = &plan->moves[i];
        json_t *move = output_object();
        output_set_text(move, "topic", m->topic);
        output_set_int(move, "partition", m->partition);
        output_set(move, "from", set_json(m->from, m->from_count));
        output_set(move, "to", set_json(m->to, m->to_count));
        output_set_int(move, "bytes", (int64_t)m->bytes);
        json_array_append_new(moves, move);
    }
    (void)snprintf(id, sizeof(id), "%016" PRIx64, plan->plan_id);
    output_set_text(object, "plan", id);
    output_set_int(object, "total_bytes", (int64_t)plan->total_bytes);
    output_set_int(object, "estimate_seconds", plan->count > 0 ? estimate_s(plan->total_bytes) : 0);
    output_set(object, "moves", moves);
    output_json(object);
}

enum cli_exit cmd_cluster_plan(struct cli *cli)
{
    struct ferry_moves *plan;
    enum cli_exit code = cli_connect(cli, NULL, NULL);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    enum ferry_err err = ferry_cluster_plan(cli->client, cli->timeout_ms, &plan);
    if (err != FERRY_OK) {
        return cli_fail(cli, err, NULL, NULL);
    }
    if (cli->json) {
        print_plan_json(plan);
    } else {
        print_plan(plan);
    }
    ferry_moves_free(&plan);
    return CLI_EXIT_OK;
}

/* ---- Apply, abort ------------------------------------------------------------------------------
 */

/* Sixteen hexadecimal digits, as they are printed. */
static bool parse_plan_id(const char *text, uint64_t *plan_id)
{
    char *end;
    size_t digits = strspn(text, "0123456789abcdefABCDEF");
    if (digits == 0 || digits > 16 || text[digits] != '\0') {
        return false;
    }
    *plan_id = strtoull(text, &end, 16);
    return *end == '\0';
}

static enum cli_exit tell_applied(const struct cli *cli, uint32_t moves)
{
    if (cli->json) {
        json_t *object = output_object();
        output_set_int(object, "moves", moves);
        output_json(object);
    } else if (moves == 0) {
        puts("nothing to move");
    } else {
        printf("%u moves begin; the cluster goes on by itself: see `ferry cluster status`\n",
               moves);
    }
    return CLI_EXIT_OK;
}

static enum cli_exit apply(struct cli *cli, const struct ferry_moves *plan)
{
    uint32_t moves = 0;
    const char *wanted = args_text(cli->args, OPT_PLAN, NULL);
    uint64_t plan_id = plan->plan_id;
    if (wanted != NULL && !parse_plan_id(wanted, &plan_id)) {
        return cli_fail(cli, FERRY_ERR_INVALID_ARGUMENT, wanted,
                        "--plan takes what `ferry cluster plan` has printed");
    }
    if (plan_id == plan->plan_id && plan->count == 0) {
        return tell_applied(cli, 0);
    }
    enum ferry_err err = ferry_cluster_apply(cli->client, plan_id, cli->timeout_ms, &moves);
    if (err != FERRY_OK) {
        return cli_fail(cli, err, NULL, NULL);
    }
    if (moves == 0 || args_has(cli->args, OPT_NO_WAIT)) {
        return tell_applied(cli, moves);
    }
    return watch_moves(cli, 0, moves, plan->total_bytes);
}

enum cli_exit cmd_cluster_apply(struct cli *cli)
{
    struct ferry_moves *plan;
    enum cli_exit code = cli_connect(cli, NULL, NULL);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    enum ferry_err err = ferry_cluster_plan(cli->client, cli->timeout_ms, &plan);
    if (err != FERRY_OK) {
        return cli_fail(cli, err, NULL, NULL);
    }
    code = apply(cli, plan);
    ferry_moves_free(&plan);
    return code;
}

enum cli_exit cmd_cluster_abort(struct cli *cli)
{
    uint32_t dropped, reverting;
    enum cli_exit code = cli_connect(cli, NULL, NULL);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    enum ferry_err err = ferry_cluster_abort(cli->client, cli->timeout_ms, &dropped, &reverting);
    if (err != FERRY_OK) {
        return cli_fail(cli, err, NULL, NULL);
    }
    if (cli->json) {
        json_t *object = output_object();
        output_set_int(object, "dropped", dropped);
        output_set_int(object, "reverting", reverting);
        output_json(object);
    } else if (dropped + reverting == 0) {
        puts("nothing was under way");
    } else {
        printf("%u moves dropped, %u on their way back\n", dropped, reverting);
    }
    return CLI_EXIT_OK;
}
