#include "power.h"
const struct scenario power_scripts[] = {{0}};
const uint32_t power_script_count = 0;
