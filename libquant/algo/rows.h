#ifndef QUIRE_ALGO_ROWS_H
#define QUIRE_ALGO_ROWS_H
/* What the rows of the method table run; for method.c and the files that define them. */
#include "algo/quantize.h"

int rtn_run(const struct quantize_job *job, struct err *e);
int search_run(const struct quantize_job *job, struct err *e);
int gptq_run(const struct quantize_job *job, struct err *e);

#endif
