/* log: lines for the person who runs a process. One write(2) a line to standard error, so lines of
 * threads do not mix. Format: `2026-01-02T03:04:05.678Z warn area: text`. Thread-safe. No state:
 * what is too detailed to be always on is a metric or a command's answer, not a log level. */
#ifndef FERRY_BASE_LOG_H
#define FERRY_BASE_LOG_H

#include "base/must.h"

enum log_level { LOG_INFO, LOG_WARN, LOG_ERROR };

void log_line(enum log_level level, const char *area, const char *format, ...) PRINTF(3, 4);

#endif
