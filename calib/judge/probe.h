#ifndef QUIRE_CALIB_JUDGE_PROBE_H
#define QUIRE_CALIB_JUDGE_PROBE_H
/* Measurements beside the main one: drafting, copying, decoding against prefill, the machine's own noise. */
#include "calib/run/evaluate.h"
#include "calib/run/loaded.h"
#include "calib/judge/measure.h"

/*
 * Speculative decoding (Leviathan, Kalman, Matias 2023, arXiv 2211.17192): a draft proposes `length` tokens, the target
 * takes each with probability sum min(p, q) given the ones before were taken, and adds one of its own.
 */
struct draft_row {
	unsigned length;
	double tokens_iid;        /* (1 - a^(length+1)) / (1 - a), a the mean acceptance: the paper's formula */
	double tokens;            /* the same with the acceptances of the text in their order: runs of easy tokens count */
	double speedup;           /* tokens / (length * cost + 1) */
};
struct draft_summary {
	double acceptance, acceptance_error;  /* clustered by window */
	double cost;                          /* of a draft's step, in steps of the target */
	unsigned best;                        /* index of the row with the largest speed-up */
};
/* m needs accept; rows[i] gets length from + i for i < count. */
void draft_summarise(const struct measurement *m, unsigned from, unsigned count, double cost, struct draft_summary *s,
		     struct draft_row *rows);

/* Seconds per token of token-by-token decoding of tokens[n], the best of several rounds. */
int decode_seconds(struct model *m, const int32_t *tokens, size_t n, double *seconds, struct err *e);

/*
 * Copying: windows of random ordinary tokens said twice; the loss on the second half, which a model with working
 * attention can copy. Few windows suffice. first: on the first half, where nothing can be known.
 */
struct copy_figures {
	double first, second, reference_first, reference_second;
	size_t windows, length;
};
int copy_test(struct model *const *models, size_t count, const struct tokenizer *t, size_t ctx, struct copy_figures *out, struct err *e);

/* Prefill against token-by-token decoding with a cache, over the first tokens of a text. */
struct decode_figures {
	size_t tokens;
	double kl_max;            /* KL(prefill || decoding) */
	double relative_error;    /* largest difference of logits over their largest magnitude */
	bool agree;               /* relative_error below DECODE_TOLERANCE */
};
#define DECODE_TOLERANCE 1e-3
int decode_check(struct model *m, const int32_t *tokens, size_t n, struct decode_figures *out, struct err *e);

/* The same weights with other kernels and batch size: what of a difference is the machine's. */
struct noise_figures {
	const char *kernels, *other_kernels;
	size_t windows;
	struct summary summary;   /* other against usual */
};
int noise_measure(struct model *m, const struct windows *w, size_t windows, struct noise_figures *out, struct err *e);

#endif
