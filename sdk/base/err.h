/* err: how a function of Ferry says that it failed.
 *
 * The codes, names, classes and texts come from one table, FERRY_ERR_MAP in ferry.h. A function
 * that can fail returns `enum ferry_err`; where the caller needs to tell a person which thing is
 * wrong and what to do, it also fills a `struct err_text`. Nothing here allocates. */
#ifndef FERRY_BASE_ERR_H
#define FERRY_BASE_ERR_H

#include "base/must.h"
#include "ferry.h"

#define ERR_TEXT_MAX 512

/* The detail of an error for a person: names the thing and the remedy. Empty: nothing
 * failed. */
struct err_text {
    char text[ERR_TEXT_MAX];
};

/* Writes the detail and returns `err`, so that a failing path is one line. `e` may be NULL. */
enum ferry_err err_set(struct err_text *e, enum ferry_err err, const char *format, ...)
    PRINTF(3, 4);

/* True when `code`, a number from the wire, is one of the table. */
bool err_is_known(uint32_t code);

#endif
