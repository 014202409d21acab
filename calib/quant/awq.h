#ifndef QUIRE_CALIB_QUANT_AWQ_H
#define QUIRE_CALIB_QUANT_AWQ_H
/*
 * Activation-aware weight scaling (Lin et al., arXiv 2306.00978): input channels
 * that carry large activations are scaled up before rounding, so that they lose
 * less, and the inverse goes into the tensor before: the norm in front of Q, K, V
 * and of GATE, UP; the rows of V in front of O; the rows of UP in front of DOWN.
 * The model's function stays the same to f32 rounding: scales are chosen so that
 * the divided norm is exactly representable in its own type.
 */
#include "calib/quant/quant_job.h"
#include "calib/stats/stats.h"

struct awq;

/* Chooses scales for the items of the job's plan that are quantized; it needs no text. Progress counts groups of matrices. */
int awq_new(const struct quant_job *job, struct stats *stats, struct awq **out, struct err *e);
void awq_free(struct awq *a); /* NULL is fine */
/* The scaled model: tensors in the source's order, scaled matrices as f32, made when asked for. */
struct tensor_source *awq_source(struct awq *a);
/* Columns are multiplied by these, [cols]; NULL: not scaled. */
const float *awq_columns(const struct awq *a, enum role r, uint32_t place);
/* Rows are divided by these, [rows]; NULL: not scaled. */
const float *awq_rows(const struct awq *a, enum role r, uint32_t place);
uint64_t awq_memory(const struct plan *plan);

#endif
