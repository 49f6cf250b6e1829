/* The embedded mode: ferry_broker.h over the same broker that ferryd runs. */
#include <stdio.h>

#include "base/config.h"
#include "base/id.h"
#include "base/mem.h"
#include "ferry_broker.h"
#include "server/broker.h"

struct ferry_broker {
    struct broker *broker;
};

/* What differs from ferryd's defaults: nobody outside, and topics as they come. */
static enum ferry_err embedded_defaults(struct broker_options *o, struct err_text *e)
{
    struct id_gen ids;
    char name[ID_TEXT_BYTES], endpoint[ID_TEXT_BYTES + 16];
    enum ferry_err err = id_gen_init(&ids, 0);
    if (err != FERRY_OK) {
        return err;
    }
    struct ferry_id id = id_random(&ids);
    id_format(&id, name);
    (void)snprintf(endpoint, sizeof(endpoint), "inproc://ferry-%s", name);
    option_defaults(broker_option_table(), o);
    err = option_set(broker_option_table(), o, "listen.endpoint", endpoint, e);
    if (err == FERRY_OK) {
        err = option_set(broker_option_table(), o, "topic.auto_create", "true", e);
    }
    return err;
}

static enum ferry_err read_options(struct broker_options *o, const char *const *options,
                                   size_t count, struct err_text *e)
{
    struct config_problems problems;
    config_problems_init(&problems);
    for (size_t i = 0; i < count; i++) {
        config_set_assignment(broker_option_table(), o, options[i], &problems);
    }
    broker_options_check(o, &problems);
    enum ferry_err err = FERRY_OK;
    if (problems.count > 0) {
        err = err_set(e, FERRY_ERR_BAD_OPTION_VALUE, "%.*s", (int)problems.lines.size,
                      (const char *)problems.lines.data);
    }
    config_problems_fini(&problems);
    return err;
}

enum ferry_err ferry_broker_start(struct ferry_broker **out, const char *const *options,
                                  size_t count, char *detail, size_t detail_bytes)
{
    struct err_text e = {{0}};
    struct broker_options *o = mem_zalloc(1, sizeof(*o));
    struct ferry_broker *b = mem_zalloc(1, sizeof(*b));
    enum ferry_err err = o != NULL && b != NULL ? FERRY_OK : FERRY_ERR_NO_MEMORY;
    if (err == FERRY_OK) {
        err = embedded_defaults(o, &e);
    }
    if (err == FERRY_OK) {
        err = read_options(o, options, count, &e);
    }
    if (err == FERRY_OK) {
        err = broker_start(o, &b->broker, &e);
    }
    mem_free(o);
    if (err != FERRY_OK) {
        mem_free(b);
        if (detail != NULL && detail_bytes > 0) {
            (void)snprintf(detail, detail_bytes, "%s",
                           e.text[0] != '\0' ? e.text : ferry_err_text(err));
        }
        return err;
    }
    *out = b;
    return FERRY_OK;
}

enum ferry_err ferry_broker_conf(const struct ferry_broker *b, struct ferry_conf *conf)
{
    ferry_conf_set_context(conf, broker_context(b->broker));
    return ferry_conf_set(conf, "servers", broker_endpoint(b->broker), NULL, 0);
}

const char *ferry_broker_endpoint(const struct ferry_broker *b)
{
    return broker_endpoint(b->broker);
}

enum ferry_err ferry_broker_error(const struct ferry_broker *b)
{
    return broker_failure(b->broker);
}

void ferry_broker_stop(struct ferry_broker **b)
{
    if (*b == NULL) {
        return;
    }
    broker_stop(&(*b)->broker);
    mem_free(*b);
    *b = NULL;
}
