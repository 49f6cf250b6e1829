#include "cli/log_ids.h"

#include "base/id.h"
#include "cli/log_walk.h"

void log_ids_fini(struct log_ids *log)
{
    id_list_fini(&log->ids);
    *log = (struct log_ids){0};
}

static enum ferry_err take_id(const struct ferry_record *record, void *arg)
{
    struct log_ids *log = arg;
    if (id_is_zero(&record->id)) {
        log->without_id++;
        return FERRY_OK;
    }
    return id_list_add(&log->ids, &record->id) ? FERRY_OK : FERRY_ERR_NO_MEMORY;
}

enum cli_exit log_ids_read(struct cli *cli, const char *topic, struct log_ids *log)
{
    struct log_walk walk = {.from_ms = 0};
    enum cli_exit code = log_walk(cli, topic, "nothing was compared", take_id, log, &walk);
    log->records += walk.records;
    log->dropped += walk.dropped;
    return code;
}
