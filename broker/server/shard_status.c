/* What the broker is and on what it stands, as one JSON object: for `ferry bench`, whose figures
 * mean nothing without it, and for people. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/utsname.h>
#include <sys/vfs.h>

#include "server/shard_internal.h"

struct fs_name {
    unsigned long magic;
    const char *name;
};

static const char *file_system(const char *path)
{
    static const struct fs_name names[] = {
        {0xEF53, "ext4"},        {0x58465342, "xfs"}, {0x9123683E, "btrfs"}, {0x01021994, "tmpfs"},
        {0x794c7630, "overlay"}, {0x2FC12FC1, "zfs"}, {0x6969, "nfs"}};
    struct statfs fs;
    if (statfs(path, &fs) != 0) {
        return NULL;
    }
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (names[i].magic == (unsigned long)fs.f_type) {
            return names[i].name;
        }
    }
    return "other";
}

static json_t *text_or_unknown(const char *text)
{
    return text != NULL ? json_string(text) : json_null();
}

static json_t *describe_store(const struct shard *s)
{
    struct store_stats st;
    store_stats(s->store, &st);
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "file_bytes", (json_int_t)st.file_bytes,
                     "used_bytes", (json_int_t)st.used_bytes, "free_page_bytes",
                     (json_int_t)st.free_page_bytes, "commits", (json_int_t)st.commits,
                     "commit_us_total", (json_int_t)st.commit_us_total, "commit_us_max",
                     (json_int_t)st.commit_us_max, "written_bytes", (json_int_t)st.written_bytes);
}

static json_t *describe_connections(const struct shard *s)
{
    struct net_server_stats st;
    net_server_stats(s->server, &st);
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "open", (json_int_t)st.connections_open,
                     "accepted", (json_int_t)st.connections_accepted, "cut_hoarding",
                     (json_int_t)st.cut_hoarding, "cut_multipart", (json_int_t)st.cut_multipart,
                     "cut_not_reading", (json_int_t)st.cut_not_reading, "cut_limit",
                     (json_int_t)st.cut_limit, "cut_protocol", (json_int_t)st.cut_protocol);
}

static json_t *describe_counters(const struct shard *s)
{
    const struct shard_counters *c = &s->counters;
    return json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "requests", (json_int_t)c->requests,
        "errors", (json_int_t)c->errors, "batches_in", (json_int_t)c->batches_in, "bytes_in",
        (json_int_t)c->bytes_in, "fetch_bytes_out", (json_int_t)c->fetch_bytes_out, "duplicates",
        (json_int_t)c->duplicates, "throttled", (json_int_t)c->throttled, "throttled_by_quota",
        (json_int_t)c->throttled_by_quota, "turns", (json_int_t)c->turns);
}

static json_t *describe_delivery(const struct shard *s)
{
    const struct shard_counters *c = &s->counters;
    struct partition_totals sum = {0};
    size_t at = 0;
    for (const struct seat *seat; (seat = map_next(&s->seats, &at)) != NULL;) {
        if (seat->partition != NULL) {
            struct partition_totals one = partition_totals(seat->partition);
            sum.leases_ended += one.leases_ended;
            sum.died += one.died;
        }
    }
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "hand_outs",
                     (json_int_t)c->hand_outs, "handed_out", (json_int_t)c->handed_out, "bytes_out",
                     (json_int_t)c->receive_bytes_out, "settlements", (json_int_t)c->settlements,
                     "settlements_refused", (json_int_t)c->settlements_refused, "leases_ended",
                     (json_int_t)sum.leases_ended, "dead_letters", (json_int_t)sum.died,
                     "receives_waiting", (json_int_t)s->receive_deadlines.count);
}

static json_t *describe_peers(const struct shard *s)
{
    const struct shard_counters *c = &s->counters;
    return json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "frames_in", (json_int_t)c->peer_frames_in,
        "bytes_in", (json_int_t)c->peer_bytes_in, "frames_out", (json_int_t)c->peer_frames_out,
        "bytes_out", (json_int_t)c->peer_bytes_out, "refused", (json_int_t)c->peer_refused,
        "dropped", (json_int_t)c->peer_dropped, "no_room", (json_int_t)c->peer_no_room);
}

/* Shards of other nodes that have not been heard for longer than an election takes. */
static json_int_t count_silent(const struct shard *s)
{
    json_int_t silent = 0;
    for (size_t i = 0; i < s->node_count; i++) {
        const struct node *n = s->nodes[i];
        for (uint32_t k = 0; n->member != s->self && k < n->shards; k++) {
            silent += n->far[k].silent ? 1 : 0;
        }
    }
    return silent;
}

static json_int_t count_led(const struct shard *s)
{
    json_int_t led = 0;
    for (const struct list *n = s->led.next; n != &s->led; n = n->next) {
        led++;
    }
    return led;
}

static json_t *describe_cluster(const struct shard *s)
{
    char member[32];
    (void)snprintf(member, sizeof(member), "%016llx", (unsigned long long)s->self);
    json_int_t led = count_led(s);
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:b, s:b, s:o}", "member", member, "nodes",
                     (json_int_t)s->node_count, "groups_led", led, "groups_followed",
                     (json_int_t)s->seats.count - led, "peers_silent", count_silent(s),
                     "groups_being_filled", (json_int_t)s->filling, "ready",
                     (int)atomic_load(&s->peers[0]->ready), "leaving",
                     (int)atomic_load(&s->leaving), "peers", describe_peers(s));
}

static const char *durability(const struct shard *s)
{
    return s->node_count > 1 ? "acked after fsync on a quorum of the partition's replicas"
                             : "acked after fsync on a quorum (1 of 1 node)";
}

static json_t *describe(const struct shard *s)
{
    const struct broker_options *o = s->config.options;
    struct utsname system;
    bool known = uname(&system) == 0;
    char cluster[ID_TEXT_BYTES];
    id_format(&s->cluster_id, cluster);
    return json_pack(
        "{s:s, s:I, s:s, s:I, s:I, s:I, s:s, s:s, s:o, s:o, s:s, s:s, s:o, s:o, s:o, s:o, s:o, "
        "s:o}",
        "version", FERRY_VERSION, "node", (json_int_t)o->node_id, "cluster_id", cluster, "shard",
        (json_int_t)s->config.index, "shards", (json_int_t)o->shards, "uptime_ms",
        (json_int_t)((s->now_us - s->started_us) / 1000), "durability", durability(s), "data",
        o->data, "file_system", text_or_unknown(file_system(o->data)), "kernel",
        text_or_unknown(known ? system.release : NULL), "lmdb", store_library_version(), "zeromq",
        net_library_version(), "store", describe_store(s), "connections", describe_connections(s),
        "counters", describe_counters(s), "delivery", describe_delivery(s), "cluster",
        describe_cluster(s), "partitions", json_integer((json_int_t)s->seats.count));
}

void shard_handle_status(struct shard *s, struct request *r)
{
    json_t *object = describe(s);
    char *text = object != NULL ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    if (text == NULL) {
        shard_reply_error(s, r, FERRY_ERR_NO_MEMORY, "");
        return;
    }
    struct broker_status_reply reply = {.json = bytes_of_string(text)};
    struct buf b;
    shard_begin_reply(r, &b, FERRY_OK);
    broker_status_reply_encode(&b, &reply);
    shard_send_reply(s, r, &b);
    free(text);
}
