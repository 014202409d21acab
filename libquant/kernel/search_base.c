/* The search for any machine: four lanes at a time, which every 64-bit instruction set has. */
#define SEARCH_NAME(x) x##_base
#include "kernel/search_template.h"
