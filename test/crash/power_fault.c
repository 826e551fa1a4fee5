#include "power.h"
const struct scenario power_faults[] = {{0}};
const uint32_t power_fault_count = 0;
