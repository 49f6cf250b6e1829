#include "outbox/relay/admin_figures.h"

#include <stdio.h>
#include <string.h>

/* In the statements `T.` stands for the prefix of tables, `N` for the clock, `L` for the bound. */
static const char next_group_sql[] =
    "SELECT min(g) FROM (SELECT min(grp) AS g FROM T.inbox_chain WHERE grp > $1 UNION ALL "
    "SELECT min(grp) FROM T.inbox_id WHERE grp > $1 UNION ALL "
    "SELECT min(grp) FROM T.inbox_dead WHERE grp > $1) q";
static const char group_sql[] =
    "SELECT (SELECT count(*) FROM (SELECT 1 AS x FROM T.inbox_chain WHERE grp = $1 LIMIT L) a), "
    "(SELECT count(*) FROM (SELECT 1 AS x FROM T.inbox_id WHERE grp = $1 LIMIT L) b), "
    "(SELECT count(*) FROM (SELECT 1 AS x FROM T.inbox_dead WHERE grp = $1 LIMIT L) c)";
static const char states_sql[] =
    "SELECT (SELECT count(*) FROM (SELECT 1 AS x FROM T.saga WHERE state = 1 LIMIT L) a), "
    "(SELECT count(*) FROM (SELECT 1 AS x FROM T.saga WHERE state = 2 LIMIT L) b), "
    "(SELECT count(*) FROM (SELECT 1 AS x FROM T.saga WHERE state = 3 LIMIT L) c), "
    "(SELECT count(*) FROM (SELECT 1 AS x FROM T.saga WHERE state = 4 LIMIT L) d), "
    "(SELECT count(*) FROM (SELECT 1 AS x FROM T.saga WHERE state = 5 LIMIT L) f), "
    "(SELECT count(*) FROM (SELECT 1 AS x FROM T.saga WHERE state = 6 LIMIT L) g)";
static const char oldest_sql[] =
    "SELECT N - min(m) FROM (SELECT min(created_ms) AS m FROM T.saga WHERE state = 1 UNION ALL "
    "SELECT min(created_ms) FROM T.saga WHERE state = 2) q";
static const char steps_sql[] =
    "SELECT type, step, count(*), "
    "sum(CASE WHEN deadline_ms > 0 AND deadline_ms < N THEN 1 ELSE 0 END) FROM ("
    "SELECT * FROM (SELECT type, step, deadline_ms FROM T.saga WHERE state = 1 LIMIT L) a "
    "UNION ALL "
    "SELECT * FROM (SELECT type, step, deadline_ms FROM T.saga WHERE state = 2 LIMIT L) b) q "
    "GROUP BY type, step ORDER BY type, step";

_Static_assert(FERRY_SAGA_RUNNING == 1 && FERRY_SAGA_ABORTED == OUTBOX_SAGA_STATES,
               "the statements and the array count states from 1");

/* ---- Statements. */

static void expand(const struct admin_figures_asker *asker, const char *sql, struct buf *out)
{
    for (const char *c = sql; *c != '\0'; c++) {
        bool alone = c == sql || c[-1] == ' ' || c[-1] == '(';
        if (alone && c[0] == 'T' && c[1] == '.') {
            buf_printf(out, "%s", asker->prefix);
            c++;
        } else if (alone && c[0] == 'N' && (c[1] == ' ' || c[1] == ')')) {
            buf_printf(out, "%s", asker->now_ms);
        } else if (alone && c[0] == 'L' && c[1] == ')') {
            buf_printf(out, "%d", OUTBOX_FIGURES_ROWS_MAX + 1);
        } else {
            buf_append_u8(out, (uint8_t)*c);
        }
    }
    buf_append_u8(out, 0);
}

static enum ferry_err ask(const struct admin_figures_asker *asker, const char *sql,
                          const char *parameter, const char *kinds, admin_figures_row *row,
                          void *arg, struct err_text *e)
{
    struct buf text;
    buf_init(&text, ADMIN_FIGURES_SQL_MAX);
    expand(asker, sql, &text);
    enum ferry_err err = buf_ok(&text) ? asker->ask(asker->ctx, (const char *)text.data, parameter,
                                                    kinds, row, arg, e)
                                       : err_set(e, FERRY_ERR_NO_MEMORY, "out of memory");
    buf_fini(&text);
    return err;
}

/* ---- Rows. */

static bool take_text(char *to, size_t bytes, const struct admin_figures_value *value)
{
    if (!value->known || value->text.size == 0 || value->text.size >= bytes) {
        return false;
    }
    memcpy(to, value->text.data, value->text.size);
    to[value->text.size] = '\0';
    return true;
}

struct next_group {
    char name[OUTBOX_FIGURES_NAME_MAX + 1];
    bool found;
};

static bool take_group(const struct admin_figures_value *values, void *arg)
{
    struct next_group *next = arg;
    next->found = take_text(next->name, sizeof(next->name), &values[0]);
    return false;
}

static bool take_counts(const struct admin_figures_value *values, void *arg)
{
    struct outbox_group_figures *group = arg;
    group->chain_rows = values[0].number;
    group->id_rows = values[1].number;
    group->dead_rows = values[2].number;
    return false;
}

static bool take_states(const struct admin_figures_value *values, void *arg)
{
    struct outbox_figures *figures = arg;
    for (size_t i = 0; i < OUTBOX_SAGA_STATES; i++) {
        figures->sagas[i] = values[i].number;
    }
    return false;
}

static bool take_oldest(const struct admin_figures_value *values, void *arg)
{
    struct outbox_figures *figures = arg;
    figures->oldest_open_ms = values[0].known && values[0].number > 0 ? values[0].number : 0;
    return false;
}

static bool take_step(const struct admin_figures_value *values, void *arg)
{
    struct outbox_figures *figures = arg;
    figures->overdue += values[3].number;
    if (figures->step_count == OUTBOX_FIGURES_MAX) {
        figures->steps_more = true;
        return true;
    }
    struct outbox_step_figures *step = &figures->steps[figures->step_count];
    if (take_text(step->type, sizeof(step->type), &values[0])) {
        step->step = (int32_t)values[1].number;
        step->open = values[2].number;
        figures->step_count++;
    }
    return true;
}

static enum ferry_err groups(const struct admin_figures_asker *asker,
                             struct outbox_figures *figures, struct err_text *e)
{
    struct next_group next = {.found = true};
    for (;;) {
        char after[OUTBOX_FIGURES_NAME_MAX + 1];
        memcpy(after, next.name, sizeof(after));
        next.found = false;
        enum ferry_err err = ask(asker, next_group_sql, after, "t", take_group, &next, e);
        if (err != FERRY_OK || !next.found) {
            return err;
        }
        if (figures->group_count == OUTBOX_FIGURES_MAX) {
            figures->groups_more = true;
            return FERRY_OK;
        }
        struct outbox_group_figures *group = &figures->groups[figures->group_count++];
        memcpy(group->group, next.name, sizeof(group->group));
        err = ask(asker, group_sql, next.name, "nnn", take_counts, group, e);
        if (err != FERRY_OK) {
            return err;
        }
    }
}

enum ferry_err admin_figures_collect(const struct admin_figures_asker *asker,
                                     struct outbox_figures *figures, struct err_text *e)
{
    memset(figures, 0, sizeof(*figures));
    enum ferry_err err = groups(asker, figures, e);
    if (err == FERRY_OK) {
        err = ask(asker, states_sql, NULL, "nnnnnn", take_states, figures, e);
    }
    if (err == FERRY_OK) {
        err = ask(asker, oldest_sql, NULL, "n", take_oldest, figures, e);
    }
    if (err == FERRY_OK) {
        err = ask(asker, steps_sql, NULL, "tnnn", take_step, figures, e);
    }
    return err;
}
