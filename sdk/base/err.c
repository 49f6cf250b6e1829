#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>

struct err_row {
    enum ferry_err err;
    enum ferry_class class_;
    const char *name;
    const char *text;
};

static const struct err_row rows[] = {{FERRY_OK, FERRY_CLASS_NONE, "OK", "no error"},
#define ROW(name, number, class_, text) {FERRY_ERR_##name, FERRY_CLASS_##class_, #name, text},
                                      FERRY_ERR_MAP(ROW)
#undef ROW
};

static const struct err_row *find_row(uint32_t code)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if ((uint32_t)rows[i].err == code) {
            return &rows[i];
        }
    }
    return NULL;
}

bool err_is_known(uint32_t code)
{
    return find_row(code) != NULL;
}

const char *ferry_err_name(enum ferry_err err)
{
    const struct err_row *row = find_row((uint32_t)err);
    return row != NULL ? row->name : "UNKNOWN_ERROR";
}

const char *ferry_err_text(enum ferry_err err)
{
    const struct err_row *row = find_row((uint32_t)err);
    return row != NULL ? row->text : "an error of a newer Ferry: upgrade this side";
}

enum ferry_class ferry_err_class(enum ferry_err err)
{
    const struct err_row *row = find_row((uint32_t)err);
    return row != NULL ? row->class_ : FERRY_CLASS_FATAL;
}

bool ferry_err_is_retriable(enum ferry_err err)
{
    enum ferry_class class_ = ferry_err_class(err);
    return class_ == FERRY_CLASS_RETRIABLE || class_ == FERRY_CLASS_THROTTLED;
}

enum ferry_err err_set(struct err_text *e, enum ferry_err err, const char *format, ...)
{
    if (e != NULL) {
        va_list args;
        va_start(args, format);
        (void)vsnprintf(e->text, sizeof(e->text), format, args);
        va_end(args);
    }
    return err;
}
