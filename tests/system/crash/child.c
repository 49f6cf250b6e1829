#include "system/crash/child.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/must.h"

#define STOP_PATIENCE_MS 10000
#define STOP_LOOK_MS     5

static _Noreturn void become(const struct child *c, pid_t parent)
{
    /* A test that dies takes its children with it. */
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    int out = open(c->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (getppid() != parent || out < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0) {
        _exit(126);
    }
    (void)execv(c->args[0], (char *const *)(void *)c->args);
    perror(c->args[0]);
    _exit(127);
}

void child_describe(struct child *c, const char *name, const char *const *args)
{
    *c = (struct child){.name = name};
    (void)snprintf(c->log, sizeof(c->log), "%s.log", name);
    for (int i = 0; args[i] != NULL; i++) {
        must(i + 1 < CHILD_ARGS_MAX);
        c->args[i] = args[i];
    }
}

void child_start(struct child *c)
{
    pid_t parent = getpid();
    c->pid = fork();
    if (c->pid < 0) {
        perror("fork");
        abort();
    }
    if (c->pid == 0) {
        become(c, parent);
    }
}

void child_kill(struct child *c)
{
    if (c->pid != 0) {
        (void)kill(c->pid, SIGKILL);
        (void)waitpid(c->pid, NULL, 0);
        c->pid = 0;
        c->kills++;
    }
}

bool child_has_died(struct child *c)
{
    if (c->pid == 0 || waitpid(c->pid, NULL, WNOHANG) == 0) {
        return false;
    }
    c->pid = 0;
    return true;
}

void child_stop(struct child *c)
{
    if (c->pid == 0) {
        return;
    }
    (void)kill(c->pid, SIGTERM);
    for (int waited_ms = 0; waited_ms < STOP_PATIENCE_MS; waited_ms += STOP_LOOK_MS) {
        if (child_has_died(c)) {
            return;
        }
        (void)poll(NULL, 0, STOP_LOOK_MS);
    }
    fprintf(stderr, "crash: %s does not stop when asked to\n", c->name);
    child_kill(c);
}
