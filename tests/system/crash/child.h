/* child: a process that the crash test starts, kills and starts again. Its output goes to NAME.log
 * in the run's folder. Ends only what it started. One thread. */
#ifndef FERRY_TESTS_CRASH_CHILD_H
#define FERRY_TESTS_CRASH_CHILD_H

#include <stdbool.h>
#include <sys/types.h>

#define CHILD_ARGS_MAX 20

struct child {
    const char *name;
    const char *args[CHILD_ARGS_MAX]; /* Borrowed; the last is NULL. */
    char log[64];                     /* Its output, in the current folder. */
    pid_t pid;                        /* 0: it does not run. */
    int kills;
};

/* `args` end with NULL; they and the name are borrowed. */
void child_describe(struct child *c, const char *name, const char *const *args);
void child_start(struct child *c);
void child_kill(struct child *c); /* kill -9, and waits until it is gone. */
void child_stop(struct child *c); /* SIGTERM; SIGKILL when it does not follow. */
/* Ended although nobody killed it. */
bool child_has_died(struct child *c);

#endif
