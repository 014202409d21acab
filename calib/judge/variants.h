#ifndef QUIRE_CALIB_JUDGE_VARIANTS_H
#define QUIRE_CALIB_JUDGE_VARIANTS_H
/*
 * Several variants of one model, judged on the same tokens against the same
 * reference: their figures in one run, which differences between them are more
 * than chance, which of them no other beats, and which one to take.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "calib/run/loaded.h"
#include "calib/judge/measure.h"

/*
 * A visitor for evaluate(): its first model is the reference, the others are the variants, one measurement each. The
 * reference's distribution is worked out once for all of them; the figures are those of measure_visit.
 */
struct compare_arg {
	struct measurement *const *m;   /* [variants] */
	size_t variants, first_window;
};
eval_visit compare_visit;

/* Mean KL of variant a minus that of b: paired by token, clustered by window, Student's t, two-sided. */
struct compare_pair {
	size_t a, b;                    /* a < b */
	double difference, error;       /* nats per token, and its standard error */
	double p, p_holm;               /* p_holm: over all pairs (Holm 1979); NaN with fewer than two windows */
	bool significant;               /* p_holm <= alpha */
};
/* All count * (count - 1) / 2 pairs, malloc'ed, (0,1) (0,2) ... (1,2) ...; *out is NULL for fewer than two variants. */
int compare_pairs(const struct measurement *const *m, size_t count, double alpha, struct compare_pair **out, size_t *pairs,
		  struct err *e);
/* The pair of a and b, in any order, of `count` variants. */
size_t compare_pair_index(size_t a, size_t b, size_t count);
/* Holm's step-down adjusted p-values: reject those <= alpha, and no true hypothesis is rejected with more than that chance. */
int holm_adjust(const double *p, size_t n, double *adjusted, struct err *e);

struct candidate {
	double size;                    /* bytes */
	double kl, kl_bound;            /* mean KL; its upper confidence bound (NaN: not known) */
	double seconds;                 /* per token, of the measured run; 0: not known */
};
/* front[i]: no other is as small and as near, and better in one of the two. */
void pareto_front(const struct candidate *c, size_t n, bool *front);

/*
 * Which one to take. Limits of 0 are not set. A KL limit is held against kl_bound. Among those inside every limit:
 * with `fastest` the fastest; with a KL limit the smallest; with a size limit alone the nearest to the original.
 */
struct choice_limits {
	double max_size, max_kl;
	bool fastest;
};
enum { CHOICE_NONE = -1 };
struct choice {
	long index;                     /* CHOICE_NONE: nothing is inside the limits */
	/* then: the least excess over the limits that can be had (the smallest file; the least bound), 0 when that one can be met alone */
	double size_excess, kl_excess;
	long smallest, nearest;         /* of all candidates */
};
struct choice choose(const struct candidate *c, size_t n, const struct choice_limits *limits);

/*
 * How far the hidden states of a variant are from the reference's after each layer, over windows [0, windows): squared
 * distance over squared length, its root. out is [layers]; both models have as many layers and the same width.
 */
int compare_layers(const struct loaded *model, const struct loaded *reference, const struct windows *w, size_t windows, double *out,
		   struct err *e);

#endif
