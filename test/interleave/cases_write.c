#include "interleave.h"
const struct interleave_case write_cases[] = {{0}};
const struct interleave_case memory_cases[] = {{0}};
