#include "lib/database_server.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <pwd.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define START_WAIT_MS 60000
#define STEP_MS       20
#define POSTGRES_BIN  "/usr/lib/postgresql/15/bin"

struct server {
    char folder[64];
    pid_t pid;   /* 0: it does not run. */
    pid_t owner; /* The process that started it: a forked child must not stop it. */
    bool made;
};

/* For the handler at exit. */
static struct server servers[DATABASE_KINDS];

static const struct passwd *unprivileged(void)
{
    const struct passwd *user = getpwnam("postgres");
    return user == NULL ? getpwnam("nobody") : user;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static void stop(struct server *s, int how)
{
    if (s->pid > 0 && s->owner == getpid()) {
        kill(s->pid, how);
        waitpid(s->pid, NULL, 0);
    }
    s->pid = 0;
}

static void stop_all(void)
{
    for (size_t i = 0; i < DATABASE_KINDS; i++) {
        struct server *s = &servers[i];
        if (s->made && s->owner == getpid()) {
            stop(s, i == DATABASE_POSTGRESQL ? SIGQUIT : SIGKILL);
            nftw(s->folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
        }
    }
}

/* In the child. The log is kept beside the data for whoever looks into a failure. */
static void become(const char *folder, const char *const *arguments)
{
    char log[96];
    snprintf(log, sizeof(log), "%s/log", folder);
    if (getuid() == 0) {
        const struct passwd *user = unprivileged();
        if (user == NULL || setgroups(0, NULL) != 0 || setgid(user->pw_gid) != 0 ||
            setuid(user->pw_uid) != 0) {
            _exit(126);
        }
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    int out = open(log, O_WRONLY | O_CREAT | O_APPEND, 0644);
    int in = open("/dev/null", O_RDONLY);
    dup2(in, 0);
    dup2(out, 1);
    dup2(out, 2);
    setpgid(0, 0); /* A ^C is the test's to handle. */
    if (chdir(folder) != 0) {
        _exit(126);
    }
    execv(arguments[0], (char *const *)(uintptr_t)arguments);
    _exit(127);
}

static pid_t spawn(const char *folder, const char *const *arguments)
{
    pid_t pid = fork();
    if (pid == 0) {
        become(folder, arguments);
    }
    assert_true(pid > 0);
    return pid;
}

static void run(const char *folder, const char *const *arguments)
{
    int status = 0;
    pid_t pid = spawn(folder, arguments);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (status != 0) {
        fail_msg("%s ended with status %d: see %s/log", arguments[0], status, folder);
    }
}

static bool answers(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%.100s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool yes = fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0;
    close(fd);
    return yes;
}

static void wait_for(struct server *s, const char *socket_name)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", s->folder, socket_name);
    for (int ms = 0; ms < START_WAIT_MS; ms += STEP_MS) {
        if (answers(path)) {
            return;
        }
        if (waitpid(s->pid, NULL, WNOHANG) == s->pid) {
            s->pid = 0;
            break;
        }
        usleep(STEP_MS * 1000);
    }
    fail_msg("the database server in %s does not answer: see %s/log", s->folder, s->folder);
}

static bool sync_wanted(void)
{
    const char *wish = getenv("FERRY_TEST_FSYNC");
    return wish != NULL && strcmp(wish, "1") == 0;
}

static void make_folder(struct server *s)
{
    snprintf(s->folder, sizeof(s->folder), "/tmp/ferry-db-XXXXXX");
    assert_non_null(mkdtemp(s->folder));
    s->made = true;
    s->owner = getpid();
    assert_int_equal(chmod(s->folder, 0755), 0);
    const struct passwd *user = unprivileged();
    if (getuid() == 0 && user != NULL) {
        assert_int_equal(chown(s->folder, user->pw_uid, user->pw_gid), 0);
    }
}

static void postgresql_make(struct server *s)
{
    char data[96];
    snprintf(data, sizeof(data), "%s/data", s->folder);
    const char *const initdb[] = {
        POSTGRES_BIN "/initdb", "-D",        data, "-U", "ferry", "-A", "trust", "-E", "UTF8",
        "--locale=C.UTF-8",     "--no-sync", NULL};
    run(s->folder, initdb);
}

static void postgresql_start(struct server *s)
{
    char data[96];
    char lock[128];
    snprintf(data, sizeof(data), "%s/data", s->folder);
    snprintf(lock, sizeof(lock), "%s/data/postmaster.pid", s->folder);
    unlink(lock); /* Of one that was killed. */
    const char *fsync_set = sync_wanted() ? "fsync=on" : "fsync=off";
    const char *const postgres[] = {POSTGRES_BIN "/postgres",
                                    "-D",
                                    data,
                                    "-k",
                                    s->folder,
                                    "-c",
                                    "listen_addresses=",
                                    "-c",
                                    fsync_set,
                                    "-c",
                                    "shared_buffers=32MB",
                                    "-c",
                                    "max_connections=400",
                                    NULL};
    s->pid = spawn(s->folder, postgres);
    wait_for(s, ".s.PGSQL.5432");
}

static void mariadb_make(struct server *s)
{
    char data[96];
    snprintf(data, sizeof(data), "--datadir=%s/data", s->folder);
    const char *const install[] = {"/usr/bin/mariadb-install-db",
                                   "--no-defaults",
                                   data,
                                   "--auth-root-authentication-method=normal",
                                   "--skip-test-db",
                                   "--innodb-flush-method=nosync",
                                   NULL};
    run(s->folder, install);
}

static void mariadb_start(struct server *s)
{
    char data[96];
    char socket_path[96];
    char pid_file[96];
    snprintf(data, sizeof(data), "--datadir=%s/data", s->folder);
    snprintf(socket_path, sizeof(socket_path), "--socket=%s/socket", s->folder);
    snprintf(pid_file, sizeof(pid_file), "--pid-file=%s/pid", s->folder);
    const char *const mariadbd[] = {"/usr/sbin/mariadbd",
                                    "--no-defaults",
                                    data,
                                    socket_path,
                                    pid_file,
                                    "--skip-networking",
                                    "--innodb-buffer-pool-size=32M",
                                    "--character-set-server=utf8mb4",
                                    sync_wanted() ? "--innodb-flush-method=fsync"
                                                  : "--innodb-flush-method=nosync",
                                    NULL};
    s->pid = spawn(s->folder, mariadbd);
    wait_for(s, "socket");
}

static void start(enum database_kind kind)
{
    struct server *s = &servers[kind];
    bool fresh = !s->made;
    if (fresh) {
        atexit(stop_all);
        make_folder(s);
    }
    if (kind == DATABASE_POSTGRESQL) {
        if (fresh) {
            postgresql_make(s);
        }
        postgresql_start(s);
    } else {
        if (fresh) {
            mariadb_make(s);
        }
        mariadb_start(s);
    }
}

bool server_installed(enum database_kind kind)
{
    return kind == DATABASE_POSTGRESQL ? access(POSTGRES_BIN "/initdb", X_OK) == 0
           : kind == DATABASE_MARIADB  ? access("/usr/sbin/mariadbd", X_OK) == 0 &&
                                            access("/usr/bin/mariadb-install-db", X_OK) == 0
                                      : true;
}

const char *server_folder(enum database_kind kind)
{
    assert_true(kind == DATABASE_POSTGRESQL || kind == DATABASE_MARIADB);
    if (servers[kind].pid == 0) {
        start(kind);
    }
    return servers[kind].folder;
}

void database_server_crash(enum database_kind kind)
{
    stop(&servers[kind], kind == DATABASE_POSTGRESQL ? SIGQUIT : SIGKILL);
}

void database_server_start(enum database_kind kind)
{
    start(kind);
}

int database_server_pid(enum database_kind kind)
{
    return servers[kind].pid;
}

void server_make_folder(char folder[64])
{
    struct server made = {.pid = 0};
    make_folder(&made);
    memcpy(folder, made.folder, sizeof(made.folder));
}

int server_spawn(const char *folder, const char *const *arguments)
{
    return spawn(folder, arguments);
}

void server_run(const char *folder, const char *const *arguments)
{
    run(folder, arguments);
}
