#ifndef QUIRE_CALIB_QUANT_SEQUENTIAL_H
#define QUIRE_CALIB_QUANT_SEQUENTIAL_H
/*
 * Calibrated quantization, layer after layer. Two streams run over the same
 * tokens: the original model and the model quantized so far. Each group of
 * matrices that share an input is rounded against the second moments of what it
 * will really see, and aimed at what the original layer would have put out
 * (GPTAQ, arXiv 2504.02692; QEP, arXiv 2504.09629).
 */
#include <stdbool.h>

#include "algo/feedback.h"
#include "calib/quant/arrange.h"

struct sequential_options {
	double damping;      /* relative to the mean of the moments' diagonal */
	int sweeps;          /* of coordinate descent; 0 is plain GPTQ */
	bool sequential;     /* false: moments of the original model alone */
	/*
	 * How much of the error of earlier layers the target takes back: `input` of the change of this layer's input,
	 * `residual` of the difference that the residual stream already carries (output projections only).
	 */
	double input, residual;
	/*
	 * One window of so many, the last ones, is kept out while it is found out for each matrix how much of that target
	 * holds on other tokens, and whether error feedback does; the codes are then fitted to all of them. 0: none is.
	 */
	unsigned held_out;
};

/* What became of an item of the plan. */
struct sequential_report {
	double before, after;   /* output error of the importance-weighted search and of the result, relative to the output's energy */
	double seconds;
	const char *choice;     /* "feedback", "imatrix", or "shared": feedback with moments of all experts of the layer; NULL: the item is not one that is quantized here */
	double aim;             /* how much of the correction was taken */
	bool judged;            /* on held-out tokens: error of a sample of rows, less that of not rounding, relative to the output's energy */
	double held_before, held_after;
};

/* Bytes that experts take beyond the matrices of one: of batches of so many tokens. 0 without experts. */
uint64_t sequential_experts_memory(const struct config *c, uint64_t batch);

/*
 * Quantizes the items of the job's plan whose role is linear and whose codec quantizes; the rest of the plan is left to
 * plan_execute. Results go to `out` as tensors in the plan's codec, over the arrangement's source or, without one (NULL),
 * over the job's. report: one per item of the plan, zeroed.
 */
int sequential_quantize(const struct quant_job *job, struct arrangement *arrangement, const struct sequential_options *o,
			struct overlay *out, struct sequential_report *report, struct err *e);

#endif
