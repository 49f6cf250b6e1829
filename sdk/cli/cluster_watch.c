#include "cli/cluster_watch.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/clock.h"
#include "cli/cluster_view.h"
#include "cli/format.h"
#include "cli/output.h"
#include "cli/progress_text.h"

#define ASK_EVERY_MS 500
#define ASK_MS       3000               /* One try; the next asks another node if need be. */
#define GIVE_UP_US   INT64_C(600000000) /* Without any answer. */
#define STUCK_US     INT64_C(30000000)  /* A node not drained though nothing moves. */

/* ---- Looking. */

struct watch {
    struct cli *cli;
    uint32_t node_id; /* 0: none. */
    int64_t started_us, answered_us, moving_us;
    struct progress state;
    struct output_progress bar;
    uint64_t asked; /* Moves that were decided. */
    bool begun, drained;
    uint32_t silent_node; /* The first that is silent; 0: none is. */
};

/* What has been copied of the moves that are not done: snapshots that are being installed. */
static uint64_t copied_bytes(const struct ferry_moves *moves, const struct ferry_groups *groups)
{
    uint64_t sum = 0;
    for (size_t m = 0; m < moves->count; m++) {
        uint64_t copied = 0;
        for (size_t i = 0; i < groups->count; i++) {
            for (size_t k = 0; k < groups->shards[i].count; k++) {
                const struct ferry_group *g = &groups->shards[i].groups[k];
                bool of_move =
                    g->group == moves->moves[m].group && g->state == FERRY_GROUP_INSTALLING;
                copied += of_move ? g->copied_bytes : 0;
            }
        }
        sum += copied < moves->moves[m].bytes ? copied : moves->moves[m].bytes;
    }
    return sum;
}

static void take_moves(struct watch *w, const struct ferry_moves *moves, uint64_t copied)
{
    struct progress *s = &w->state;
    uint64_t left = moves->count;
    if (left > s->moves_total) {
        s->moves_total = left; /* More were planned meanwhile. */
    }
    if (moves->total_bytes > s->bytes_total) {
        s->bytes_total = moves->total_bytes;
    }
    s->moves_done = s->moves_total - left;
    /* Never back: a snapshot that was taken is no longer told, and its move not yet done. */
    uint64_t done = s->bytes_total - moves->total_bytes + copied;
    s->bytes_done = done > s->bytes_done ? done : s->bytes_done;
}

static bool is_drained(const struct ferry_nodes *nodes, uint32_t node_id)
{
    for (size_t i = 0; i < nodes->count; i++) {
        const struct ferry_node *node = &nodes->nodes[i];
        if (node->node_id == node_id) {
            return node->state == FERRY_NODE_DRAINED || (node->draining && node->replicas == 0);
        }
    }
    return true; /* Removed meanwhile. */
}

/* Moves from or to it wait: the reason a person looks for first. */
static uint32_t find_silent(const struct ferry_nodes *nodes)
{
    for (size_t i = 0; i < nodes->count; i++) {
        if (nodes->nodes[i].state == FERRY_NODE_SILENT) {
            return nodes->nodes[i].node_id;
        }
    }
    return 0;
}

/* True when all has moved. */
static enum ferry_err look(struct watch *w, bool *done)
{
    struct ferry_client *client = w->cli->client;
    struct ferry_moves *moves = NULL;
    struct ferry_nodes *nodes = NULL;
    struct ferry_groups *groups = NULL;
    uint64_t copied = 0;
    enum ferry_err err = ferry_moves_list(client, ASK_MS, &moves);
    if (err == FERRY_OK) {
        err = ferry_nodes_list(client, ASK_MS, &nodes);
    }
    if (err != FERRY_OK) {
        ferry_moves_free(&moves);
        return err;
    }
    if (moves->count > 0 && ferry_groups_list(client, nodes, ASK_EVERY_MS, &groups) == FERRY_OK) {
        copied = copied_bytes(moves, groups);
    }
    take_moves(w, moves, copied);
    w->silent_node = find_silent(nodes);
    w->drained = w->node_id == 0 || is_drained(nodes, w->node_id);
    /* A broker may be behind: what was asked for has begun, or has ended. */
    w->begun = w->begun || moves->count > 0 || moves->done >= w->asked;
    *done = moves->count == 0 && w->drained && w->begun;
    if (moves->count > 0) {
        w->moving_us = clock_monotonic_us();
    }
    ferry_groups_free(&groups);
    ferry_nodes_free(&nodes);
    ferry_moves_free(&moves);
    return FERRY_OK;
}

static void show(struct watch *w, enum ferry_err err)
{
    char text[PROGRESS_TEXT_BYTES];
    char trouble[64] = "";
    char line[PROGRESS_TEXT_BYTES + sizeof(trouble)];
    int64_t now_us = clock_monotonic_us();
    w->state.elapsed_us = now_us - w->started_us;
    progress_describe(&w->state, text);
    if (err != FERRY_OK) {
        (void)snprintf(trouble, sizeof(trouble), " (no answer: %s)", ferry_err_name(err));
    } else if (w->silent_node != 0) {
        (void)snprintf(trouble, sizeof(trouble), " (node %u is silent)", w->silent_node);
    }
    (void)snprintf(line, sizeof(line), "%s%s", text, trouble);
    output_progress_show(&w->bar, now_us, progress_part(&w->state), line);
}

static enum cli_exit tell_end(struct watch *w, bool finished)
{
    char text[PROGRESS_TEXT_BYTES];
    char took[FORMAT_TEXT_BYTES];
    output_progress_clear(&w->bar);
    progress_describe(&w->state, text);
    format_duration_us(clock_monotonic_us() - w->started_us, took);
    if (w->cli->json) {
        json_t *object = output_object();
        output_set_bool(object, "finished", finished);
        output_set_int(object, "moves_done", (int64_t)w->state.moves_done);
        output_set_int(object, "moves_total", (int64_t)w->state.moves_total);
        output_set_int(object, "bytes_done", (int64_t)w->state.bytes_done);
        output_set_int(object, "bytes_total", (int64_t)w->state.bytes_total);
        output_set_real(object, "seconds", (double)(clock_monotonic_us() - w->started_us) / 1e6);
        output_json(object);
    } else if (finished) {
        printf("done: %" PRIu64 " moves in %s\n", w->state.moves_total, took);
    } else {
        printf("%s; the cluster goes on by itself: see `ferry cluster status`\n", text);
    }
    return CLI_EXIT_OK;
}

static enum cli_exit give_up(struct watch *w, enum ferry_err err, const char *detail)
{
    output_progress_clear(&w->bar);
    return cli_fail(w->cli, err, NULL, detail);
}

enum cli_exit watch_moves(struct cli *cli, uint32_t node_id, uint64_t moves, uint64_t bytes)
{
    int64_t now_us = clock_monotonic_us();
    struct watch w = {.cli = cli,
                      .node_id = node_id,
                      .asked = moves,
                      .started_us = now_us,
                      .answered_us = now_us,
                      .moving_us = now_us,
                      .state = {.moves_total = moves, .bytes_total = bytes}};
    output_progress_init(&w.bar, !cli->quiet && !cli->json);
    while (!cli_is_interrupted(cli)) {
        bool done = false;
        enum ferry_err err = look(&w, &done);
        now_us = clock_monotonic_us();
        if (done) {
            return tell_end(&w, true);
        }
        if (err == FERRY_OK) {
            w.answered_us = now_us;
        } else if (!ferry_err_is_retriable(err) || now_us - w.answered_us > GIVE_UP_US) {
            return give_up(&w, err, "the moves go on by themselves, if the cluster lives");
        }
        if (err == FERRY_OK && now_us - w.moving_us > STUCK_US) {
            return give_up(&w, FERRY_ERR_LIMIT_REACHED,
                           "nothing moves, and the node is not empty: `ferry cluster status` and "
                           "`ferry cluster plan` show why");
        }
        show(&w, err);
        cli_pause(ASK_EVERY_MS);
    }
    return tell_end(&w, false);
}
