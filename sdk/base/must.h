/* must: the assertion that stays on.
 *
 * Never compiled out, never used on bytes from a wire, a disk, a configuration or SQL: those are
 * errors with names (err.h). A failed `must` is a bug of ours; it prints where and aborts, so that
 * a broken invariant stops the process before it reaches a disk or a peer. */
#ifndef FERRY_BASE_MUST_H
#define FERRY_BASE_MUST_H

_Noreturn void must_fail(const char *expression, const char *file, int line);

#define must(x)      ((x) ? (void)0 : must_fail(#x, __FILE__, __LINE__))
#define MUST_CHECK   __attribute__((warn_unused_result))
#define PRINTF(f, a) __attribute__((format(printf, f, a)))

#endif
