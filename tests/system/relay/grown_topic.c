/* A relay that is told of fewer partitions than its topics have: brokers let no topic grow yet, but
 * the relay has to be right when one does.
 *
 * Linked into a relay with --wrap=ferry_topic_partitions and --wrap=ferry_topic_info. The number is
 * in the file that FERRY_PARTITIONS_FILE names; so it may change while the relay runs. */
#include <stdio.h>
#include <stdlib.h>

#include "ferry.h"

enum ferry_err __real_ferry_topic_partitions(struct ferry_client *client, const char *topic,
                                             int timeout_ms, int32_t *partitions);
enum ferry_err __wrap_ferry_topic_partitions(struct ferry_client *client, const char *topic,
                                             int timeout_ms, int32_t *partitions);

enum ferry_err __real_ferry_topic_info(struct ferry_client *client, const char *name,
                                       int timeout_ms, struct ferry_topic_info **info);
enum ferry_err __wrap_ferry_topic_info(struct ferry_client *client, const char *name,
                                       int timeout_ms, struct ferry_topic_info **info);

/* So many, or fewer if there are fewer. */
static int32_t told(int32_t partitions)
{
    const char *path = getenv("FERRY_PARTITIONS_FILE");
    int32_t wanted = 0;
    FILE *file = path == NULL ? NULL : fopen(path, "r");
    if (file != NULL) {
        if (fscanf(file, "%d", &wanted) != 1) {
            wanted = 0;
        }
        fclose(file);
    }
    return wanted > 0 && wanted < partitions ? wanted : partitions;
}

enum ferry_err __wrap_ferry_topic_partitions(struct ferry_client *client, const char *topic,
                                             int timeout_ms, int32_t *partitions)
{
    enum ferry_err err = __real_ferry_topic_partitions(client, topic, timeout_ms, partitions);
    if (err == FERRY_OK) {
        *partitions = told(*partitions);
    }
    return err;
}

enum ferry_err __wrap_ferry_topic_info(struct ferry_client *client, const char *name,
                                       int timeout_ms, struct ferry_topic_info **info)
{
    enum ferry_err err = __real_ferry_topic_info(client, name, timeout_ms, info);
    if (err == FERRY_OK) {
        (*info)->partition_count = (size_t)told((int32_t)(*info)->partition_count);
    }
    return err;
}
