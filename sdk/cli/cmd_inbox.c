/* cmd_inbox: inbox status. No broker is asked. */
#include <stdio.h>

#include "cli/database.h"
#include "cli/output.h"

struct listing {
    struct output_table table;
    json_t *chains; /* NULL unless --json. */
};

static bool list_chain(const struct inbox_status *status, void *arg)
{
    struct listing *listing = arg;
    if (listing->chains != NULL) {
        json_t *object = output_object();
        output_set_text(object, "group", status->group);
        output_set_id(object, "topic_id", &status->topic_id);
        output_set_int(object, "partition", status->partition);
        output_set_int(object, "position", status->position);
        output_set_int(object, "rows", status->rows);
        output_set_int(object, "holes", status->holes);
        output_set_int(object, "skips", status->skips);
        output_set_int(object, "dead", status->dead);
        json_array_append_new(listing->chains, object);
        return true;
    }
    char id[FERRY_ID_TEXT_BYTES];
    ferry_id_format(&status->topic_id, id);
    output_table_cell(&listing->table, "%s", status->group);
    output_table_cell(&listing->table, "%s", id);
    output_table_cell(&listing->table, "%d", status->partition);
    output_table_cell(&listing->table, "%lld", (long long)status->position);
    output_table_cell(&listing->table, "%lld", (long long)status->rows);
    output_table_cell(&listing->table, "%lld", (long long)status->holes);
    output_table_cell(&listing->table, "%lld", (long long)status->skips);
    output_table_cell(&listing->table, "%lld", (long long)status->dead);
    return true;
}

enum cli_exit cmd_inbox_status(struct cli *cli)
{
    struct database db;
    struct err_text e = {.text = ""};
    struct listing listing = {.chains = NULL};
    enum cli_exit code = database_open(cli, cli->args->positionals[0], &db);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    listing.chains = cli->json ? json_array() : NULL;
    output_table_init(&listing.table,
                      "group|topic id|>partition|>position|>rows|>holes|>skips|>dead");
    enum ferry_err err = db.admin->inbox(db.url, list_chain, &listing, &e);
    if (err != FERRY_OK) {
        code = database_fail(cli, &db, err, &e);
    } else if (cli->json) {
        json_t *object = output_object();
        output_set_text(object, "db", db.shown);
        output_set(object, "chains", json_incref(listing.chains));
        output_json(object);
    } else {
        output_table_print(&listing.table);
    }
    json_decref(listing.chains);
    output_table_fini(&listing.table);
    return code;
}
