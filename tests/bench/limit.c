/* limit: what ZeroMQ and LMDB allow with nothing of Ferry in between.
 *
 *   client --> leader --> followers        each its own process, over tcp://127.0.0.1
 *
 * The client keeps `in-flight` batches of `batch-bytes` on their way. The leader takes all that has
 * arrived (up to TURN_BYTES), hands it to the followers, writes it in one LMDB transaction, and
 * answers what a quorum has on disk. That is the least that any broker built on these two must do,
 * so Ferry's figures are told as a share of it. Batches are not opened, checked or indexed.
 *
 * The log is trimmed as a queue is: oldest first, once `window` bytes are held, so that freed pages
 * are used again. Files live in a new folder below --dir and are removed at the end. Prints one
 * JSON object. It measures the parts, so it includes their headers, which no other test does. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <lmdb.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

#define REPLICAS_MAX   3
#define ENDPOINT_BYTES 64
#define PATH_BYTES     512
#define TURN_BYTES     (4u << 20) /* The most that one commit carries. */
#define MAP_BYTES      (UINT64_C(2) << 30)
#define FILE_BYTES_MAX                                                                             \
    (UINT64_C(512) << 20) /* Preallocated: growing a file costs more than writing. */
#define WINDOW_BYTES (UINT64_C(300) << 20)
#define POLL_MS      20000      /* Nobody is silent for so long unless something broke. */
#define GOODBYE      UINT64_MAX /* A follower's last answer. */

struct options {
    const char *folder; /* Where the temporary folder is made. */
    uint64_t batch_bytes, batches, in_flight;
    uint64_t replicas;   /* 1 or 3. */
    uint64_t partitions; /* Batches go to them in turn. */
};

/* ---- Errors: a measurement that went wrong is no measurement -------------------------------- */

static _Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));

static _Noreturn void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("limit: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

static void check_lmdb(int rc, const char *what)
{
    if (rc != 0) {
        die("%s: %s", what, mdb_strerror(rc));
    }
}

/* For zmq calls, which answer -1 and errno. */
static void check_zmq(int rc, const char *what)
{
    if (rc < 0) {
        die("%s: %s", what, zmq_strerror(zmq_errno()));
    }
}

static int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void *allocate(size_t bytes)
{
    void *p = malloc(bytes);
    if (p == NULL) {
        die("out of memory (%zu bytes)", bytes);
    }
    return p;
}

/* ---- The log: one table, key (partition, index), oldest first out --------------------------- */

struct log {
    MDB_env *env;
    MDB_dbi table;
    MDB_txn *txn; /* Open between the first put and the commit of a turn. */
    uint64_t partitions;
    uint64_t next, first; /* Batch numbers; batch n is index n / partitions of n % partitions. */
    uint64_t held_bytes;
    uint64_t turn_bytes;
    uint64_t commits;
};

/* All that will be held at once, twice, for pages are freed a transaction late. */
static uint64_t file_bytes(const struct options *o)
{
    uint64_t bytes = 2 * o->batches * o->batch_bytes + (UINT64_C(16) << 20);
    return bytes < FILE_BYTES_MAX ? bytes : FILE_BYTES_MAX;
}

static void preallocate(const char *folder, uint64_t bytes)
{
    char path[PATH_BYTES + 64];
    snprintf(path, sizeof(path), "%s/data.mdb", folder);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    int failed = fd < 0 ? errno : posix_fallocate(fd, 0, (off_t)bytes);
    if (failed != 0) {
        die("%s: %s (each replica needs %" PRIu64 " bytes)", path, strerror(failed), bytes);
    }
    close(fd);
}

static void log_open(struct log *l, const char *folder, const struct options *o)
{
    *l = (struct log){.partitions = o->partitions};
    check_lmdb(mdb_env_create(&l->env), "mdb_env_create");
    check_lmdb(mdb_env_set_mapsize(l->env, MAP_BYTES), "mdb_env_set_mapsize");
    check_lmdb(mdb_env_open(l->env, folder, MDB_NOTLS, 0600), folder);
    preallocate(folder, file_bytes(o));
    check_lmdb(mdb_txn_begin(l->env, NULL, 0, &l->txn), "mdb_txn_begin");
    check_lmdb(mdb_dbi_open(l->txn, NULL, 0, &l->table), "mdb_dbi_open");
    check_lmdb(mdb_txn_commit(l->txn), "mdb_txn_commit");
    l->txn = NULL;
}

static void make_key(const struct log *l, uint64_t n, uint64_t key[2])
{
    key[0] = __builtin_bswap64(n % l->partitions);
    key[1] = __builtin_bswap64(n / l->partitions);
}

static void log_put(struct log *l, void *data, size_t bytes)
{
    uint64_t key[2];
    MDB_val k = {sizeof(key), key}, v = {bytes, data};
    if (l->txn == NULL) {
        check_lmdb(mdb_txn_begin(l->env, NULL, 0, &l->txn), "mdb_txn_begin");
    }
    make_key(l, l->next++, key);
    check_lmdb(mdb_put(l->txn, l->table, &k, &v, l->partitions == 1 ? MDB_APPEND : 0), "mdb_put");
    l->held_bytes += bytes;
    l->turn_bytes += bytes;
    while (l->held_bytes > WINDOW_BYTES) {
        make_key(l, l->first++, key);
        check_lmdb(mdb_del(l->txn, l->table, &k, NULL), "mdb_del");
        l->held_bytes -= bytes; /* All batches have one size. */
    }
}

/* On disk when it returns. */
static void log_commit(struct log *l)
{
    if (l->txn != NULL) {
        check_lmdb(mdb_txn_commit(l->txn), "mdb_txn_commit");
        l->txn = NULL;
        l->turn_bytes = 0;
        l->commits++;
    }
}

static void log_close(struct log *l)
{
    mdb_env_close(l->env);
}

/* ---- Sockets -------------------------------------------------------------------------------- */

static void *new_socket(void *context, int type)
{
    int none = 0, patience_ms = POLL_MS;
    void *socket = zmq_socket(context, type);
    if (socket == NULL) {
        die("zmq_socket: %s", zmq_strerror(zmq_errno()));
    }
    check_zmq(zmq_setsockopt(socket, ZMQ_RCVHWM, &none, sizeof(none)), "ZMQ_RCVHWM");
    check_zmq(zmq_setsockopt(socket, ZMQ_SNDHWM, &none, sizeof(none)), "ZMQ_SNDHWM");
    check_zmq(zmq_setsockopt(socket, ZMQ_RCVTIMEO, &patience_ms, sizeof(patience_ms)),
              "ZMQ_RCVTIMEO");
    return socket;
}

/* Binds to a port of the system's choice and tells it through the pipe. */
static void *bind_and_tell(void *context, int pipe_fd)
{
    char endpoint[ENDPOINT_BYTES] = {0};
    size_t bytes = sizeof(endpoint);
    void *socket = new_socket(context, ZMQ_ROUTER);
    check_zmq(zmq_bind(socket, "tcp://127.0.0.1:*"), "zmq_bind");
    check_zmq(zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, endpoint, &bytes), "ZMQ_LAST_ENDPOINT");
    if (write(pipe_fd, endpoint, sizeof(endpoint)) != (ssize_t)sizeof(endpoint)) {
        die("telling the endpoint: %s", strerror(errno));
    }
    close(pipe_fd);
    return socket;
}

static void *connect_to(void *context, const char *endpoint)
{
    void *socket = new_socket(context, ZMQ_DEALER);
    check_zmq(zmq_connect(socket, endpoint), endpoint);
    return socket;
}

/* Receives identity and batch of a ROUTER; false when nothing is there. */
static bool receive_batch(void *router, zmq_msg_t *identity, zmq_msg_t *batch, int flags)
{
    if (zmq_msg_recv(identity, router, flags) < 0) {
        if (zmq_errno() != EAGAIN || flags != ZMQ_DONTWAIT) {
            die("receiving: %s", zmq_strerror(zmq_errno()));
        }
        return false;
    }
    check_zmq(zmq_msg_recv(batch, router, 0), "receiving");
    return true;
}

static void reply(void *router, zmq_msg_t *identity, uint64_t done)
{
    zmq_msg_t copy;
    check_zmq(zmq_msg_init(&copy), "zmq_msg_init");
    check_zmq(zmq_msg_copy(&copy, identity), "zmq_msg_copy");
    check_zmq(zmq_msg_send(&copy, router, ZMQ_SNDMORE), "sending");
    check_zmq(zmq_send(router, &done, sizeof(done), 0), "sending");
}

/* ---- Follower and leader -------------------------------------------------------------------- */

/* One turn's receipt: batches go to the log and, with `followers`, to them first. A message of one
 * byte ends it all. */
struct turn {
    void *router;
    void **followers;
    size_t follower_count;
    zmq_msg_t identity; /* Of the sender, for the reply. */
    bool stop;
    size_t goodbyes; /* Of followers. */
};

static void take_batch(struct turn *t, struct log *l, zmq_msg_t *batch)
{
    t->stop = zmq_msg_size(batch) == 1;
    for (size_t i = 0; i < t->follower_count; i++) {
        zmq_msg_t copy; /* Shares the bytes. */
        check_zmq(zmq_msg_init(&copy), "zmq_msg_init");
        check_zmq(zmq_msg_copy(&copy, batch), "zmq_msg_copy");
        check_zmq(zmq_msg_send(&copy, t->followers[i], 0), "sending");
    }
    if (!t->stop) {
        log_put(l, zmq_msg_data(batch), zmq_msg_size(batch));
    }
}

/* Takes what has arrived; with `flags` 0 it waits for the first. */
static void receive_turn(struct turn *t, struct log *l, int flags)
{
    zmq_msg_t identity, batch;
    check_zmq(zmq_msg_init(&identity), "zmq_msg_init");
    check_zmq(zmq_msg_init(&batch), "zmq_msg_init");
    while (!t->stop && l->turn_bytes < TURN_BYTES &&
           receive_batch(t->router, &identity, &batch, flags)) {
        take_batch(t, l, &batch);
        check_zmq(zmq_msg_move(&t->identity, &identity), "zmq_msg_move");
        flags = ZMQ_DONTWAIT;
    }
    zmq_msg_close(&identity);
    zmq_msg_close(&batch);
}

static void run_follower(const char *folder, const struct options *o, int pipe_fd)
{
    struct log l;
    struct turn t = {.follower_count = 0};
    void *context = zmq_ctx_new();
    log_open(&l, folder, o);
    check_zmq(zmq_msg_init(&t.identity), "zmq_msg_init");
    t.router = bind_and_tell(context, pipe_fd);
    while (!t.stop) {
        receive_turn(&t, &l, 0);
        log_commit(&l);
        reply(t.router, &t.identity, t.stop ? GOODBYE : l.next);
    }
    zmq_msg_close(&t.identity);
    zmq_close(t.router);
    zmq_ctx_term(context);
    log_close(&l);
}

/* The middle one of three. */
static uint64_t quorum_of(const uint64_t m[REPLICAS_MAX])
{
    uint64_t low = m[0] < m[1] ? m[0] : m[1];
    uint64_t high = m[0] < m[1] ? m[1] : m[0];
    return m[2] < low ? low : m[2] > high ? high : m[2];
}

/* Takes a follower's answer; how many of its batches are on disk, which a goodbye does not say. */
static void hear(struct turn *t, uint64_t n, uint64_t *on_disk)
{
    if (n == GOODBYE) {
        t->goodbyes++;
    } else {
        *on_disk = n;
    }
}

static void hear_followers(struct turn *t, uint64_t on_disk[REPLICAS_MAX])
{
    for (size_t i = 0; i < t->follower_count; i++) {
        uint64_t n;
        while (zmq_recv(t->followers[i], &n, sizeof(n), ZMQ_DONTWAIT) == (int)sizeof(n)) {
            hear(t, n, &on_disk[i + 1]);
        }
    }
    for (size_t i = t->follower_count + 1; i < REPLICAS_MAX; i++) {
        on_disk[i] = on_disk[0];
    }
}

/* The connections stay until the followers have read "stop": one that answers to a closed one loses
 * what it has not read yet. */
static void await_goodbyes(struct turn *t, zmq_pollitem_t *items, uint64_t on_disk[REPLICAS_MAX])
{
    while (t->goodbyes < t->follower_count) {
        if (zmq_poll(items, (int)t->follower_count, POLL_MS) <= 0) {
            die("a follower did not stop in %d ms", POLL_MS);
        }
        hear_followers(t, on_disk);
    }
}

static void lead(struct turn *t, struct log *l)
{
    uint64_t on_disk[REPLICAS_MAX] = {0};
    uint64_t told = 0;
    zmq_pollitem_t items[REPLICAS_MAX] = {{.socket = t->router, .events = ZMQ_POLLIN}};
    for (size_t i = 0; i < t->follower_count; i++) {
        items[i + 1] = (zmq_pollitem_t){.socket = t->followers[i], .events = ZMQ_POLLIN};
    }
    while (!t->stop) {
        check_zmq(zmq_poll(items, (int)t->follower_count + 1, POLL_MS), "zmq_poll");
        receive_turn(t, l, ZMQ_DONTWAIT);
        log_commit(l);
        on_disk[0] = l->next;
        hear_followers(t, on_disk);
        if (quorum_of(on_disk) > told) {
            told = quorum_of(on_disk);
            reply(t->router, &t->identity, told);
        }
    }
    await_goodbyes(t, items + 1, on_disk);
    reply(t->router, &t->identity, l->commits); /* The answer to "stop". */
}

static void run_leader(const char *folder, const struct options *o, int pipe_fd,
                       char endpoints[][ENDPOINT_BYTES])
{
    struct log l;
    void *followers[REPLICAS_MAX] = {NULL};
    struct turn t = {.followers = followers, .follower_count = o->replicas - 1};
    void *context = zmq_ctx_new();
    log_open(&l, folder, o);
    check_zmq(zmq_msg_init(&t.identity), "zmq_msg_init");
    for (size_t i = 0; i < t.follower_count; i++) {
        followers[i] = connect_to(context, endpoints[i]);
    }
    t.router = bind_and_tell(context, pipe_fd);
    lead(&t, &l);
    zmq_msg_close(&t.identity);
    for (size_t i = 0; i < t.follower_count; i++) {
        zmq_close(followers[i]);
    }
    zmq_close(t.router);
    zmq_ctx_term(context);
    log_close(&l);
}

/* ---- The client ----------------------------------------------------------------------------- */

struct measured {
    int64_t elapsed_us;
    int64_t *latencies_us; /* By batch, then sorted. */
    uint64_t commits;
};

/* The socket waits POLL_MS at most: asking zmq_poll first would cost every answer some
 * microseconds. */
static uint64_t receive_number(void *socket)
{
    uint64_t n;
    int bytes = zmq_recv(socket, &n, sizeof(n), 0);
    if (bytes < 0) {
        die("no answer from the leader in %d ms: %s", POLL_MS, zmq_strerror(zmq_errno()));
    }
    if (bytes != (int)sizeof(n)) {
        die("a malformed answer");
    }
    return n;
}

static void run_client(const char *endpoint, const struct options *o, struct measured *m)
{
    void *context = zmq_ctx_new();
    void *socket = connect_to(context, endpoint);
    char *batch = allocate(o->batch_bytes);
    int64_t *sent_us = allocate(o->batches * sizeof(sent_us[0]));
    for (size_t i = 0; i < o->batch_bytes; i++) {
        batch[i] = (char)(i * 2654435761u >> 13);
    }
    uint64_t sent = 0, done = 0;
    int64_t began_us = now_us();
    while (done < o->batches) {
        while (sent < o->batches && sent - done < o->in_flight) {
            sent_us[sent++] = now_us();
            check_zmq(zmq_send(socket, batch, o->batch_bytes, 0), "sending");
        }
        uint64_t answered = receive_number(socket);
        int64_t at_us = now_us();
        for (; done < answered; done++) {
            m->latencies_us[done] = at_us - sent_us[done];
        }
    }
    m->elapsed_us = now_us() - began_us;
    check_zmq(zmq_send(socket, "x", 1, 0), "sending");
    m->commits = receive_number(socket);
    zmq_close(socket);
    zmq_ctx_term(context);
    free(batch);
    free(sent_us);
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static int64_t percentile(const struct measured *m, const struct options *o, double percent)
{
    return m->latencies_us[(size_t)((double)(o->batches - 1) * percent / 100)];
}

static void print_result(const struct options *o, struct measured *m)
{
    double seconds = (double)m->elapsed_us / 1e6;
    qsort(m->latencies_us, o->batches, sizeof(m->latencies_us[0]), by_value);
    printf("{\"bench\":\"limit\",\"replicas\":%" PRIu64 ",\"partitions\":%" PRIu64
           ",\"batch_bytes\":%" PRIu64 ",\"batches\":%" PRIu64 ",\"in_flight\":%" PRIu64 ",",
           o->replicas, o->partitions, o->batch_bytes, o->batches, o->in_flight);
    printf("\"seconds\":%.6f,\"batches_per_second\":%.1f,\"bytes_per_second\":%.1f,", seconds,
           (double)o->batches / seconds, (double)o->batches * (double)o->batch_bytes / seconds);
    printf("\"commits\":%" PRIu64 ",\"latency_us\":{\"p50\":%" PRId64 ",\"p90\":%" PRId64
           ",\"p99\":%" PRId64 ",\"max\":%" PRId64 "},\"lmdb\":\"%s\"}\n",
           m->commits, percentile(m, o, 50), percentile(m, o, 90), percentile(m, o, 99),
           percentile(m, o, 100), mdb_version(NULL, NULL, NULL));
}

/* ---- Processes and folders ------------------------------------------------------------------ */

struct cluster {
    char root[PATH_BYTES]; /* The temporary folder. */
    char folders[REPLICAS_MAX][PATH_BYTES + 32];
    pid_t processes[REPLICAS_MAX];
    size_t started;
    char endpoints[REPLICAS_MAX][ENDPOINT_BYTES]; /* The leader's last. */
};

static void make_folders(struct cluster *c, const struct options *o)
{
    snprintf(c->root, sizeof(c->root), "%.400s/ferry-limit-XXXXXX", o->folder);
    if (mkdtemp(c->root) == NULL) {
        die("%s: %s", c->root, strerror(errno));
    }
    for (size_t i = 0; i < o->replicas; i++) {
        snprintf(c->folders[i], sizeof(c->folders[i]), "%s/%d", c->root, (int)i);
        if (mkdir(c->folders[i], 0700) != 0) {
            die("%s: %s", c->folders[i], strerror(errno));
        }
    }
}

static void remove_folders(const struct cluster *c, const struct options *o)
{
    static const char *const files[] = {"data.mdb", "lock.mdb"};
    for (size_t i = 0; i < o->replicas; i++) {
        for (size_t j = 0; j < 2; j++) {
            char path[PATH_BYTES + 64];
            snprintf(path, sizeof(path), "%s/%s", c->folders[i], files[j]);
            unlink(path);
        }
        rmdir(c->folders[i]);
    }
    rmdir(c->root);
}

/* Starts the next replica, the leader last, and learns its endpoint. */
static void start_replica(struct cluster *c, const struct options *o)
{
    int ends[2];
    size_t i = c->started;
    if (pipe(ends) != 0) {
        die("pipe: %s", strerror(errno));
    }
    pid_t pid = fork();
    if (pid < 0) {
        die("fork: %s", strerror(errno));
    }
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* Nothing is left running however the parent ends. */
        close(ends[0]);
        if (i + 1 < o->replicas) {
            run_follower(c->folders[i], o, ends[1]);
        } else {
            run_leader(c->folders[i], o, ends[1], c->endpoints);
        }
        exit(0);
    }
    close(ends[1]);
    c->processes[c->started++] = pid;
    if (read(ends[0], c->endpoints[i], ENDPOINT_BYTES) != ENDPOINT_BYTES) {
        remove_folders(c, o);
        die("a replica did not start");
    }
    close(ends[0]);
}

static int wait_for_all(const struct cluster *c)
{
    int failed = 0;
    for (size_t i = 0; i < c->started; i++) {
        int status = 0;
        failed |= waitpid(c->processes[i], &status, 0) < 0 || status != 0;
    }
    return failed;
}

/* The client is a process too: when it fails, the folders are still removed. */
static int measure_in_child(const struct cluster *c, const struct options *o)
{
    int status = 0;
    pid_t pid = fork();
    if (pid < 0) {
        die("fork: %s", strerror(errno));
    }
    if (pid == 0) {
        struct measured m = {.latencies_us = allocate(o->batches * sizeof(int64_t))};
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        run_client(c->endpoints[o->replicas - 1], o, &m);
        print_result(o, &m);
        free(m.latencies_us);
        exit(0);
    }
    return waitpid(pid, &status, 0) < 0 || status != 0;
}

/* ---- Options -------------------------------------------------------------------------------- */

static _Noreturn void usage(void)
{
    fputs("usage: limit [--batch-bytes N] [--batches N] [--in-flight N] [--replicas 1|3]\n"
          "             [--partitions N] [--dir FOLDER]\n",
          stderr);
    exit(2);
}

static uint64_t number(const char *text, uint64_t min, uint64_t max)
{
    char *end;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || n < min || n > max) {
        fprintf(stderr, "limit: %s: must be a number from %" PRIu64 " to %" PRIu64 "\n", text, min,
                max);
        exit(2);
    }
    return n;
}

static void parse(struct options *o, int argc, char **argv)
{
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 == argc) {
            usage();
        }
        const char *value = argv[i + 1];
        if (strcmp(argv[i], "--dir") == 0) {
            o->folder = value;
        } else if (strcmp(argv[i], "--batch-bytes") == 0) {
            o->batch_bytes = number(value, 2, 1 << 24);
        } else if (strcmp(argv[i], "--batches") == 0) {
            o->batches = number(value, 1, 100000000);
        } else if (strcmp(argv[i], "--in-flight") == 0) {
            o->in_flight = number(value, 1, 1000000);
        } else if (strcmp(argv[i], "--partitions") == 0) {
            o->partitions = number(value, 1, 100000);
        } else if (strcmp(argv[i], "--replicas") == 0) {
            o->replicas = number(value, 1, REPLICAS_MAX);
        } else {
            usage();
        }
    }
    if (o->replicas == 2) {
        die("--replicas is 1 or 3");
    }
}

int main(int argc, char **argv)
{
    struct options o = {
        .folder = getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp",
        .batch_bytes = 64 << 10,
        .batches = 8000,
        .in_flight = 64,
        .replicas = 1,
        .partitions = 1,
    };
    struct cluster c = {.started = 0};
    parse(&o, argc, argv);
    make_folders(&c, &o);
    for (size_t i = 0; i < o.replicas; i++) {
        start_replica(&c, &o);
    }
    int failed = measure_in_child(&c, &o);
    for (size_t i = 0; failed && i < c.started; i++) {
        kill(c.processes[i], SIGKILL);
    }
    failed |= wait_for_all(&c);
    remove_folders(&c, &o);
    return failed ? 1 : 0;
}
