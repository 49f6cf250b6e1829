/* Replicas of one partition, on real stores, over a network that delays and loses: election,
 * replication, restart, truncation, membership, transfer; and that all of them keep the same rows.
 */
#include "lib/replica_cluster.h"

#include <stdio.h>

#include "lib/partition_fixture.h"

#define CONTENTS_MAX 20000

static uint64_t contents[2][CONTENTS_MAX];

static struct cluster *started(int count, uint64_t seed)
{
    struct cluster *c = cluster_new(count, seed);
    for (int i = 0; i < count; i++) {
        cluster_start(c, i);
    }
    return c;
}

/* Three members elect one; what it is given is on all of them. */
static void a_batch_acknowledged_by_the_leader_is_on_every_replica(void **state)
{
    (void)state;
    struct cluster *c = started(3, 1);
    for (uint64_t i = 0; i < 50; i++) {
        cluster_produce(c, &(struct cluster_batch){.content = 1000 + i});
    }
    cluster_settle(c);
    cluster_compare(c);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(cluster_contents(c, i, contents[0], CONTENTS_MAX), 50);
        assert_int_equal(contents[0][49], 1049);
    }
    cluster_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_batch_acknowledged_by_the_leader_is_on_every_replica),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
