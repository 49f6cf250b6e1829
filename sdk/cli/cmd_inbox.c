/* cmd_inbox: inbox status. No broker is asked. */
#include <stdio.h>

#include "cli/database.h"
#include "cli/output.h"

struct listing {
    struct output_table table;
    json_t *chains; /* NULL unless --json. */
};

static void chain_json(struct listing *listing, const struct inbox_status *status)
{
    json_t *object = output_object();
    bool chain = !status->by_id;
    output_set_text(object, "group", status->group);
    output_set_text(object, "by", chain ? "chain" : "id");
    output_set_id(object, "topic_id", &status->topic_id);
    output_set(object, "partition", database_known(chain, status->partition));
    output_set(object, "position", database_known(chain, status->position));
    output_set_int(object, "rows", status->rows);
    output_set(object, "holes", database_known(chain, status->holes));
    output_set(object, "skips", database_known(chain, status->skips));
    output_set(object, "dead", database_known(chain, status->dead));
    json_array_append_new(listing->chains, object);
}

static void cell_of_chain(struct output_table *table, bool chain, int64_t n)
{
    if (chain) {
        output_table_cell(table, "%lld", (long long)n);
    } else {
        output_table_cell(table, "-");
    }
}

static bool list_chain(const struct inbox_status *status, void *arg)
{
    struct listing *listing = arg;
    if (listing->chains != NULL) {
        chain_json(listing, status);
        return true;
    }
    char id[FERRY_ID_TEXT_BYTES];
    bool chain = !status->by_id;
    ferry_id_format(&status->topic_id, id);
    output_table_cell(&listing->table, "%s", status->group);
    output_table_cell(&listing->table, "%s", chain ? id : "(by message id)");
    cell_of_chain(&listing->table, chain, status->partition);
    cell_of_chain(&listing->table, chain, status->position);
    output_table_cell(&listing->table, "%lld", (long long)status->rows);
    cell_of_chain(&listing->table, chain, status->holes);
    cell_of_chain(&listing->table, chain, status->skips);
    cell_of_chain(&listing->table, chain, status->dead);
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
