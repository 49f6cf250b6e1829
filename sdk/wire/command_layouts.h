/* command_layouts: the table of every struct in command.h, for the code that treats all of them
 * alike: command.c itself, the test vectors and the fuzz targets. */
#ifndef FERRY_WIRE_COMMAND_LAYOUTS_H
#define FERRY_WIRE_COMMAND_LAYOUTS_H

#include "wire/command.h"
#include "wire/layout.h"

enum command_struct {
#define COMMAND_STRUCT_ENUM(name) COMMAND_STRUCT_##name,
    COMMAND_STRUCT_MAP(COMMAND_STRUCT_ENUM)
#undef COMMAND_STRUCT_ENUM
        COMMAND_STRUCTS
};

extern const struct layout command_layouts[COMMAND_STRUCTS];

#endif
