#if defined(__AVX512F__)
#define SEARCH_NAME(x) x##_avx512
#include "kernel/search_template.h"
#else
extern int search_no_avx512;
#endif
