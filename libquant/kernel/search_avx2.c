#if defined(__AVX2__)
#define SEARCH_NAME(x) x##_avx2
#include "kernel/search_template.h"
#else
extern int search_no_avx2;
#endif
