/* worker: the snowflake worker id that the cluster gives this client, with snowflake.worker_id =
 * -1.
 *
 * The number is a lease: it is asked for at once, asked for again long before it ends, and not used
 * past its end, which is counted from when it was asked for. The holder's name is drawn once for
 * the life of the client. The io thread's; `worker_until_us` and the generator are under the lock.
 */
#ifndef FERRY_CLIENT_WORKER_H
#define FERRY_CLIENT_WORKER_H

#include <stdbool.h>

#define WORKER_TTL_MS   60000
#define WORKER_RENEW_MS 15000

struct ferry_client;

/* Before the io thread runs. False: no memory. */
bool worker_start(struct ferry_client *c);
void worker_fini(struct ferry_client *c); /* After calls_fail. */

#endif
