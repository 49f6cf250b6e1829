#include "cli/relay_view.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "cli/database.h"
#include "cli/format.h"
#include "outbox/relay/relay_kept.h"

#define PATIENCE_MS 3000 /* A person waits for the database's part, too. */

static enum ferry_err ask_lanes(struct cli *cli, const struct ferry_id *source_id,
                                struct relay_view *view)
{
    int timeout_ms = args_has(cli->args, OPT_TIMEOUT) || cli->timeout_ms < PATIENCE_MS
                         ? cli->timeout_ms
                         : PATIENCE_MS;
    enum ferry_err err = FERRY_OK;
    view->infos = mem_zalloc(view->lanes, sizeof(view->infos[0]));
    if (view->infos == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    for (uint32_t lane = 0; err == FERRY_OK && lane < view->lanes; lane++) {
        err = ferry_source_show(cli->client, source_id, lane, timeout_ms, &view->infos[lane]);
    }
    return err;
}

enum cli_exit relay_view_ask(struct cli *cli, const struct ferry_id *source_id, uint32_t lanes,
                             struct relay_view *view)
{
    *view = (struct relay_view){.asked = true, .lanes = lanes};
    if (cli->client == NULL) {
        enum cli_exit code = cli_connect(cli, NULL, NULL);
        if (code != CLI_EXIT_OK) {
            return code;
        }
    }
    view->err = ask_lanes(cli, source_id, view);
    if (view->err != FERRY_OK) {
        ferry_error_detail(cli->client, view->detail, sizeof(view->detail));
        relay_view_fini(view);
    }
    return CLI_EXIT_OK;
}

void relay_view_fini(struct relay_view *view)
{
    mem_free(view->infos);
    view->infos = NULL;
}

size_t relay_view_checkpoints(const struct relay_view *view,
                              struct bytes checkpoints[SOURCE_LANES_MAX])
{
    if (view->infos == NULL || view->lanes > SOURCE_LANES_MAX) {
        return 0;
    }
    for (uint32_t lane = 0; lane < view->lanes; lane++) {
        const struct ferry_source_info *info = &view->infos[lane];
        struct relay_kept kept;
        struct err_text ignored;
        checkpoints[lane] = bytes_of(info->checkpoint, info->checkpoint_bytes);
        if (relay_kept_decode(checkpoints[lane], &kept, &ignored) == FERRY_OK) {
            checkpoints[lane] = kept.checkpoint;
        } /* Else the driver says the same of it. */
    }
    return view->lanes;
}

static void print_lane(const struct relay_view *view, uint32_t lane)
{
    const struct ferry_source_info *info = &view->infos[lane];
    char text[sizeof(info->holder) + 128], left[FORMAT_TEXT_BYTES], what[32] = "relay";
    if (view->lanes > 1) {
        (void)snprintf(what, sizeof(what), "relay of lane %u", lane);
    }
    format_duration_us(info->left_ms * 1000, left);
    if (!info->known) {
        (void)snprintf(text, sizeof(text), "none was ever here: start ferry-outbox");
    } else if (info->left_ms <= 0) {
        (void)snprintf(text, sizeof(text), "none is active; the last was %s (epoch %llu)",
                       info->holder, (unsigned long long)info->epoch);
    } else {
        (void)snprintf(text, sizeof(text), "%s is active, epoch %llu, lease %s", info->holder,
                       (unsigned long long)info->epoch, left);
    }
    database_print_line(what, text);
}

void relay_view_print(const struct relay_view *view)
{
    char text[sizeof(view->detail) + 128];
    if (view->infos == NULL) {
        (void)snprintf(text, sizeof(text), "unknown: %s",
                       !view->asked              ? "no broker was asked"
                       : view->detail[0] != '\0' ? view->detail
                                                 : ferry_err_text(view->err));
        database_print_line("relay", text);
        return;
    }
    for (uint32_t lane = 0; lane < view->lanes; lane++) {
        print_lane(view, lane);
    }
}

json_t *relay_view_json(const struct relay_view *view)
{
    if (view->infos == NULL) {
        return json_null();
    }
    json_t *array = json_array();
    for (uint32_t lane = 0; lane < view->lanes; lane++) {
        const struct ferry_source_info *info = &view->infos[lane];
        json_t *object = output_object();
        output_set_int(object, "lane", lane);
        output_set_bool(object, "active", info->known && info->left_ms > 0);
        output_set_text(object, "holder", info->known ? info->holder : NULL);
        output_set(object, "epoch", database_known(info->known, (int64_t)info->epoch));
        output_set(object, "lease_left_ms", database_known(info->known, info->left_ms));
        json_array_append_new(array, object);
    }
    return array;
}
