/* cmd_verify: what was committed, the log and the effects, compared id by id.
 *
 * Places are the log and each subscriber's effects. In a place, an id that was committed and is not
 * there is lost; one that is there more than once is doubled; one that is there and was not
 * committed is unexpected. The verdict is good when none of these and no hole in an inbox was
 * found. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/database.h"
#include "cli/format.h"
#include "cli/id_list.h"
#include "cli/lines.h"
#include "cli/log_ids.h"
#include "cli/output.h"

#define SUBSCRIBERS_MAX 32
#define NAMED_MAX       20 /* Ids printed of each kind in each place; JSON has as many. */
#define TOPIC_BYTES     256

struct place {
    const char *name; /* "log", or the subscriber's. */
    struct id_list ids;
    int64_t records; /* With those without an id. */
    int64_t lost, doubled, unexpected;
};

struct inbox {
    const char *name;
    int64_t chains, holes, skips;
};

struct verifying {
    struct cli *cli;
    struct id_list committed, rolled_back;
    int64_t dropped;    /* Records of the log that retention took before they could be compared. */
    int64_t without_id; /* Records of the log that carry no id; they count as unexpected. */
    bool with_log;      /* False: no topic was named, so only databases are compared. */
    struct place places[1 + SUBSCRIBERS_MAX]; /* The log first, empty when it is not compared. */
    size_t place_count;
    struct inbox inboxes[SUBSCRIBERS_MAX];
    size_t inbox_count;
    json_t *findings; /* NULL unless --json. */
};

/* ---- Gathering ------------------------------------------------------------------------------ */

struct gathering {
    const struct verifying *v;
    struct id_list *list;
    const char *url; /* As it may be shown. */
    struct output_progress progress;
    int64_t read;
    bool out_of_memory;
};

#define PROGRESS_EVERY 1024 /* Ids. */

static bool gather_id(const struct ferry_id *id, void *arg)
{
    struct gathering *g = arg;
    g->out_of_memory = !id_list_add(g->list, id);
    if (++g->read % PROGRESS_EVERY == 0) {
        char text[2 * FORMAT_TEXT_BYTES + 64], count[FORMAT_TEXT_BYTES];
        format_count(g->read, count);
        (void)snprintf(text, sizeof(text), "%s ids of %.60s", count, g->url);
        output_progress_show(&g->progress, clock_monotonic_us(), -1, text);
    }
    return !g->out_of_memory && !cli_is_interrupted(g->v->cli);
}

static enum cli_exit gather_sql(struct verifying *v, const char *url, const char *sql,
                                struct id_list *list)
{
    struct gathering g = {.v = v, .list = list, .url = url};
    struct database db;
    struct err_text e = {.text = ""};
    enum cli_exit code = database_open(v->cli, url, &db);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    g.url = db.shown;
    output_progress_init(&g.progress, !v->cli->json && !v->cli->quiet);
    enum ferry_err err = db.admin->ids(db.url, sql, gather_id, &g, &e);
    output_progress_clear(&g.progress);
    if (err == FERRY_OK && g.out_of_memory) {
        err = FERRY_ERR_NO_MEMORY;
    }
    if (err != FERRY_OK) {
        return database_fail(v->cli, &db, err, &e);
    }
    if (cli_is_interrupted(v->cli)) {
        fputs("ferry: interrupted before all was read: nothing was compared\n", stderr);
        return CLI_EXIT_FAILED;
    }
    return CLI_EXIT_OK;
}

/* One line of --rolled-back-file; empty lines are passed over. */
static enum ferry_err take_file_line(struct bytes line, void *arg)
{
    struct id_list *list = arg;
    char text[FERRY_ID_TEXT_BYTES] = {0};
    struct ferry_id id;
    if (line.size > 0 && line.data[line.size - 1] == '\r') {
        line.size--;
    }
    if (line.size == 0) {
        return FERRY_OK;
    }
    if (line.size >= sizeof(text)) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    memcpy(text, line.data, line.size);
    if (!ferry_id_parse(text, &id)) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    return id_list_add(list, &id) ? FERRY_OK : FERRY_ERR_NO_MEMORY;
}

static enum cli_exit gather_file(struct verifying *v, const char *path, struct id_list *list)
{
    enum { LINE_MAX_BYTES = 1000 };
    char detail[ERR_TEXT_MAX];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return cli_fail(v->cli, FERRY_ERR_IO, path, strerror(errno));
    }
    struct lines lines;
    lines_init(&lines, fd, LINE_MAX_BYTES);
    enum ferry_err err = lines_each(&lines, FERRY_ERR_INVALID_ARGUMENT, take_file_line, list);
    snprintf(detail, sizeof(detail), "line %llu: %s", (unsigned long long)lines.number,
             err == FERRY_ERR_IO ? strerror(errno) : "not a UUID: write one a line");
    lines_fini(&lines);
    close(fd);
    if (err == FERRY_ERR_NO_MEMORY) {
        return cli_fail(v->cli, err, path, NULL);
    }
    return err != FERRY_OK ? cli_fail(v->cli, err, path, detail) : CLI_EXIT_OK;
}

static enum cli_exit gather_option(struct verifying *v, enum option_id id, struct id_list *list)
{
    enum cli_exit code = CLI_EXIT_OK;
    const struct args_option *option;
    for (size_t i = 0; code == CLI_EXIT_OK; i++) {
        option = args_find(v->cli->args, id, i);
        if (option == NULL) {
            break;
        }
        code = id == OPT_ROLLED_BACK_FILE
                   ? gather_file(v, option->values[0], list)
                   : gather_sql(v, option->values[0], option->values[1], list);
    }
    return code;
}

/* The place of that subscriber, a new one when it is not there; NULL: there are too many. */
static struct place *effects_place(struct verifying *v, const char *name)
{
    for (size_t i = 1; i < v->place_count; i++) {
        if (strcmp(v->places[i].name, name) == 0) {
            return &v->places[i];
        }
    }
    if (v->place_count == sizeof(v->places) / sizeof(v->places[0])) {
        return NULL;
    }
    v->places[v->place_count].name = name;
    return &v->places[v->place_count++];
}

static enum cli_exit gather_effects(struct verifying *v)
{
    enum cli_exit code = CLI_EXIT_OK;
    const struct args_option *option;
    for (size_t i = 0; code == CLI_EXIT_OK; i++) {
        option = args_find(v->cli->args, OPT_EFFECTS, i);
        if (option == NULL) {
            break;
        }
        struct place *place = effects_place(v, option->values[0]);
        if (place == NULL) {
            return cli_fail(v->cli, FERRY_ERR_LIMIT_REACHED, "--effects", "at most 32 subscribers");
        }
        code = gather_sql(v, option->values[1], option->values[2], &place->ids);
        place->records = (int64_t)place->ids.count;
    }
    return code;
}

/* Topics parted by commas are one log. */
static enum cli_exit read_topics(struct verifying *v, const char *topics, struct log_ids *log)
{
    char topic[TOPIC_BYTES];
    enum cli_exit code = cli_connect(v->cli, NULL, NULL);
    while (code == CLI_EXIT_OK && *topics != '\0') {
        size_t bytes = strcspn(topics, ",");
        if (bytes == 0 || bytes >= sizeof(topic)) {
            return cli_fail(v->cli, FERRY_ERR_BAD_NAME, "--topic", NULL);
        }
        memcpy(topic, topics, bytes);
        topic[bytes] = '\0';
        topics += bytes + (topics[bytes] == ',');
        code = log_ids_read(v->cli, topic, log);
    }
    return code;
}

static enum cli_exit gather_log(struct verifying *v)
{
    struct log_ids log = {.records = 0};
    struct place *place = &v->places[v->place_count++];
    const char *topics = args_text(v->cli->args, OPT_TOPIC, NULL);
    place->name = "log";
    v->with_log = topics != NULL;
    if (topics == NULL) {
        return CLI_EXIT_OK;
    }
    enum cli_exit code = read_topics(v, topics, &log);
    place->ids = log.ids; /* Taken over. */
    place->records = log.records;
    place->unexpected = log.without_id;
    v->dropped = log.dropped;
    v->without_id = log.without_id;
    return code;
}

static bool count_chain(const struct inbox_status *status, void *arg)
{
    struct inbox *inbox = arg;
    inbox->chains += !status->by_id;
    inbox->holes += status->holes;
    inbox->skips += status->skips;
    return true;
}

static enum cli_exit gather_inboxes(struct verifying *v)
{
    const struct args_option *option;
    while ((option = args_find(v->cli->args, OPT_INBOX, v->inbox_count)) != NULL) {
        if (v->inbox_count == SUBSCRIBERS_MAX) {
            return cli_fail(v->cli, FERRY_ERR_LIMIT_REACHED, "--inbox", "at most 32 inboxes");
        }
        struct inbox *inbox = &v->inboxes[v->inbox_count++];
        struct err_text e = {.text = ""};
        struct database db;
        enum cli_exit code = database_open(v->cli, option->values[1], &db);
        if (code != CLI_EXIT_OK) {
            return code;
        }
        inbox->name = option->values[0];
        enum ferry_err err = db.admin->inbox(db.url, count_chain, inbox, &e);
        if (err != FERRY_OK) {
            return database_fail(v->cli, &db, err, &e);
        }
    }
    return CLI_EXIT_OK;
}

/* Meant for a system at rest. The outbox is read last, so that a commit of this very moment shows
 * as lost for now and not as unexpected. */
static enum cli_exit gather(struct verifying *v)
{
    v->place_count = 0;
    enum cli_exit code = gather_log(v);
    code = code == CLI_EXIT_OK ? gather_effects(v) : code;
    code = code == CLI_EXIT_OK ? gather_inboxes(v) : code;
    code = code == CLI_EXIT_OK ? gather_option(v, OPT_ROLLED_BACK, &v->rolled_back) : code;
    code = code == CLI_EXIT_OK ? gather_option(v, OPT_ROLLED_BACK_FILE, &v->rolled_back) : code;
    return code == CLI_EXIT_OK ? gather_option(v, OPT_COMMITTED, &v->committed) : code;
}

/* ---- Comparing ------------------------------------------------------------------------------ */

struct naming {
    const struct verifying *v;
    const struct place *place;
    const char *kind;
    int named;
};

static const char *explain(const struct naming *n, const struct ferry_id *id)
{
    bool in_log = n->place == &n->v->places[0];
    switch (n->kind[0]) {
    case 'l':
        return in_log ? "committed, but not in the log" : "committed, but without an effect";
    case 'd':
        return in_log ? "more than once in the log" : "more than one effect";
    default:
        return id_list_has(&n->v->rolled_back, id) ? "rolled back, but there"
                                                   : "there, but never committed";
    }
}

static void name_finding(const struct ferry_id *id, void *arg)
{
    struct naming *n = arg;
    char text[FERRY_ID_TEXT_BYTES];
    if (n->named++ >= NAMED_MAX) {
        return;
    }
    ferry_id_format(id, text);
    if (n->v->findings == NULL) {
        printf("%-10s  %s  %s: %s\n", n->kind, text, n->place->name, explain(n, id));
        return;
    }
    json_t *object = output_object();
    output_set_text(object, "kind", n->kind);
    output_set_text(object, "place", n->place->name);
    output_set_text(object, "id", text);
    output_set_text(object, "text", explain(n, id));
    json_array_append_new(n->v->findings, object);
}

static void name_rest(const struct naming *n)
{
    if (n->named > NAMED_MAX && n->v->findings == NULL) {
        printf("%-10s  and %d more in %s\n", n->kind, n->named - NAMED_MAX, n->place->name);
    }
}

static size_t first_place(const struct verifying *v)
{
    return v->with_log ? 0 : 1;
}

static void compare_place(struct verifying *v, struct place *place)
{
    struct naming lost = {.v = v, .place = place, .kind = "lost"};
    struct naming doubled = {.v = v, .place = place, .kind = "doubled"};
    struct naming unexpected = {.v = v, .place = place, .kind = "unexpected"};
    id_list_sort(&place->ids);
    place->lost += (int64_t)id_list_missing(&v->committed, &place->ids, name_finding, &lost);
    name_rest(&lost);
    place->doubled += (int64_t)id_list_repeated(&place->ids, name_finding, &doubled);
    name_rest(&doubled);
    place->unexpected +=
        (int64_t)id_list_missing(&place->ids, &v->committed, name_finding, &unexpected);
    name_rest(&unexpected);
}

/* An id in both lists: the question itself is wrong, and no answer may be called good. */
static enum cli_exit check_contradiction(struct verifying *v)
{
    struct place lists = {.name = "the lists"};
    struct naming both = {.v = v, .place = &lists, .kind = "unexpected"};
    both.named = NAMED_MAX; /* Counted, not named. */
    size_t count = id_list_shared(&v->committed, &v->rolled_back, name_finding, &both);
    if (count == 0) {
        return CLI_EXIT_OK;
    }
    char detail[ERR_TEXT_MAX];
    snprintf(detail, sizeof(detail),
             "%zu ids are both committed and rolled back: check the two "
             "queries",
             count);
    return cli_fail(v->cli, FERRY_ERR_INVALID_ARGUMENT, "--rolled-back", detail);
}

/* ---- The verdict ---------------------------------------------------------------------------- */

struct totals {
    int64_t lost, doubled, unexpected, holes;
};

static struct totals totals_of(const struct verifying *v)
{
    struct totals t = {0};
    for (size_t i = 0; i < v->place_count; i++) {
        t.lost += v->places[i].lost;
        t.doubled += v->places[i].doubled;
        t.unexpected += v->places[i].unexpected;
    }
    for (size_t i = 0; i < v->inbox_count; i++) {
        t.holes += v->inboxes[i].holes;
    }
    return t;
}

static bool is_good(const struct totals *t)
{
    return t->lost == 0 && t->doubled == 0 && t->unexpected == 0 && t->holes == 0;
}

static void print_counts(struct output_table *table, int64_t lost, int64_t doubled,
                         int64_t unexpected)
{
    output_table_count(table, lost);
    output_table_count(table, doubled);
    output_table_count(table, unexpected);
}

static void print_row(struct output_table *table, const char *what, int64_t count)
{
    output_table_cell(table, "%s", what);
    output_table_count(table, count);
    for (int i = 0; i < 3; i++) {
        output_table_cell(table, "%s", "");
    }
}

static void print_table(const struct verifying *v, const struct totals *t)
{
    struct output_table table;
    output_table_init(&table, "|>messages|>lost|>doubled|>unexpected");
    print_row(&table, "committed", (int64_t)id_list_distinct(&v->committed));
    print_row(&table, "rolled back", (int64_t)id_list_distinct(&v->rolled_back));
    for (size_t i = first_place(v); i < v->place_count; i++) {
        const struct place *place = &v->places[i];
        output_table_cell(&table, "%s%s", i == 0 ? "in the " : "effects at ", place->name);
        output_table_count(&table, place->records);
        print_counts(&table, place->lost, place->doubled, place->unexpected);
    }
    output_table_cell(&table, "total");
    output_table_cell(&table, "%s", "");
    print_counts(&table, t->lost, t->doubled, t->unexpected);
    output_table_print(&table);
    output_table_fini(&table);
}

static void print_verdict(const struct verifying *v, const struct totals *t)
{
    for (size_t i = 0; i < v->inbox_count; i++) {
        const struct inbox *inbox = &v->inboxes[i];
        printf("inbox of %s: %lld chains, %lld holes, %lld skips\n", inbox->name,
               (long long)inbox->chains, (long long)inbox->holes, (long long)inbox->skips);
    }
    if (v->dropped > 0) {
        printf("note: %lld records were dropped from the log by retention: they show as lost\n",
               (long long)v->dropped);
    }
    if (v->without_id > 0) {
        printf("note: %lld records in the log carry no message id: they show as unexpected\n",
               (long long)v->without_id);
    }
    puts(!is_good(t)   ? "NOT good: see above"
         : v->with_log ? "good: every committed transaction is in the log once, with one effect at "
                         "every subscriber; nothing else is there"
                       : "good: every committed transaction has one effect at every subscriber; "
                         "nothing else is there");
}

static json_t *place_json(const struct place *place)
{
    json_t *object = output_object();
    output_set_text(object, "name", place->name);
    output_set_int(object, "records", place->records);
    output_set_int(object, "lost", place->lost);
    output_set_int(object, "doubled", place->doubled);
    output_set_int(object, "unexpected", place->unexpected);
    return object;
}

static json_t *inboxes_json(const struct verifying *v)
{
    json_t *array = json_array();
    for (size_t i = 0; i < v->inbox_count; i++) {
        json_t *object = output_object();
        output_set_text(object, "name", v->inboxes[i].name);
        output_set_int(object, "chains", v->inboxes[i].chains);
        output_set_int(object, "holes", v->inboxes[i].holes);
        output_set_int(object, "skips", v->inboxes[i].skips);
        json_array_append_new(array, object);
    }
    return array;
}

static void print_json(const struct verifying *v, const struct totals *t)
{
    json_t *object = output_object();
    json_t *effects = json_array();
    for (size_t i = 1; i < v->place_count; i++) {
        json_array_append_new(effects, place_json(&v->places[i]));
    }
    output_set_bool(object, "good", is_good(t));
    output_set_int(object, "committed", (int64_t)id_list_distinct(&v->committed));
    output_set_int(object, "rolled_back", (int64_t)id_list_distinct(&v->rolled_back));
    output_set(object, "log", v->with_log ? place_json(&v->places[0]) : json_null());
    output_set(object, "effects", effects);
    output_set(object, "inboxes", inboxes_json(v));
    output_set_int(object, "lost", t->lost);
    output_set_int(object, "doubled", t->doubled);
    output_set_int(object, "unexpected", t->unexpected);
    output_set_int(object, "holes", t->holes);
    output_set_int(object, "dropped_by_retention", v->dropped);
    output_set_int(object, "without_id", v->without_id);
    output_set(object, "findings", json_incref(v->findings));
    output_json(object);
}

static enum cli_exit verify(struct verifying *v)
{
    enum cli_exit code = gather(v);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    id_list_sort(&v->committed);
    id_list_sort(&v->rolled_back);
    code = check_contradiction(v);
    if (code != CLI_EXIT_OK) {
        return code;
    }
    for (size_t i = first_place(v); i < v->place_count; i++) {
        compare_place(v, &v->places[i]);
    }
    struct totals totals = totals_of(v);
    if (v->cli->json) {
        print_json(v, &totals);
    } else {
        print_table(v, &totals);
        print_verdict(v, &totals);
    }
    return is_good(&totals) ? CLI_EXIT_OK : CLI_EXIT_FAILED;
}

enum cli_exit cmd_verify_effects(struct cli *cli)
{
    if (!args_has(cli->args, OPT_COMMITTED) ||
        (!args_has(cli->args, OPT_TOPIC) && !args_has(cli->args, OPT_EFFECTS))) {
        return cli_fail(cli, FERRY_ERR_INVALID_ARGUMENT, NULL,
                        "needs --committed URL SQL, and --topic TOPIC or --effects NAME URL SQL; "
                        "see ferry verify effects --help");
    }
    struct verifying v = {.cli = cli, .findings = cli->json ? json_array() : NULL};
    enum cli_exit code = verify(&v);
    for (size_t i = 0; i < v.place_count; i++) {
        id_list_fini(&v.places[i].ids);
    }
    id_list_fini(&v.committed);
    id_list_fini(&v.rolled_back);
    json_decref(v.findings);
    return code;
}
