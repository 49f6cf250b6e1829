/* ferry_broker.h: a broker inside your own process (embedded mode).
 *
 * Same files, same protocol and same guarantees as `ferryd`; the client of the same process reaches
 * it over inproc:// without a socket. The data folder may be opened with ferryd afterwards.
 *
 *   struct ferry_broker *broker;
 *   ferry_broker_start(&broker, options, count, detail, sizeof(detail));
 *   ferry_conf_new(&conf);
 *   ferry_broker_conf(broker, conf);         // servers, and the shared context
 *   ferry_open(&client, &conf, detail, sizeof(detail));
 *   ...
 *   ferry_close(&client, 5000);
 *   ferry_broker_stop(&broker);              // after its clients are closed
 */
#ifndef FERRY_BROKER_H
#define FERRY_BROKER_H

#include "ferry.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ferry_broker;

/* Starts a broker on threads of its own and returns when it serves. `options` are `count`
 * assignments "section.key=value" as in conf/ferryd.conf; "node.data=DIR" is required. Unless
 * "listen.endpoint" is given it listens on inproc:// only. Topics are created on first use
 * ("topic.auto_create=true" is the default here). Errors, with a detail: UNKNOWN_OPTION,
 * BAD_OPTION_VALUE, and those of opening a data folder: LOCKED, WRONG_NODE, NEWER_FORMAT, CORRUPT,
 * STORAGE_FULL, IO, NO_MEMORY. */
enum ferry_err ferry_broker_start(struct ferry_broker **broker, const char *const *options,
                                  size_t count, char *detail, size_t detail_bytes);
/* Points a client's configuration at the broker. */
enum ferry_err ferry_broker_conf(const struct ferry_broker *broker, struct ferry_conf *conf);
/* Where it listens, with ports resolved. */
const char *ferry_broker_endpoint(const struct ferry_broker *broker);
/* FERRY_OK while it serves; the error that ended it otherwise (STORE_FAILED, …). */
enum ferry_err ferry_broker_error(const struct ferry_broker *broker);
/* Finishes the turn it is in, writes what is applied, closes. Clients must be closed before. */
void ferry_broker_stop(struct ferry_broker **broker);

#ifdef __cplusplus
}
#endif

#endif
