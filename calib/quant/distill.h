#ifndef QUIRE_CALIB_QUANT_DISTILL_H
#define QUIRE_CALIB_QUANT_DISTILL_H
/*
 * Trains the codes and scales of a quantized model towards the original's logits: the KL divergence on the calibration
 * text (Hinton et al., arXiv 1503.02531) by gradient descent through the rounding, which the gradient passes as if it were
 * not there (straight-through, Bengio et al., arXiv 1308.3432; learned steps, Esser et al., arXiv 1902.08153). After every
 * step the model is one that the file can hold. The text is stretched by the job's `more`, or else by what the original
 * writes (own_text.h), unless that is soon seen not to help.
 */
#include "calib/quant/quant_job.h"

struct distill_options {
	unsigned passes;     /* of as many windows as the text has */
	size_t batch;        /* windows per step */
	double rate;         /* step length of codes, relative to the distance of neighbours */
	double scale_rate;   /* what a step of scales moves a block's largest weight by, as a part of a code's step; of offsets likewise */
	unsigned written;    /* windows that the original writes itself, for each of the text that is fitted to */
	uint64_t seed;       /* order of windows, and of what is written */
};
extern const struct distill_options distill_defaults;

struct distill_report {
	double before, after; /* mean KL per token on the windows that were held out */
	uint64_t codes, moved;
	unsigned kept;        /* the pass that was kept; 0: none helped */
};

/* ERR_UNSUPPORTED: this is not done for this model and so many windows of text; the message says why. */
int distill_check(const struct config *c, const struct plan *p, uint64_t windows, struct err *e);
/* Passes over so many tokens that are worth their time when nobody has asked; 0: the model is too large, the text too short. */
unsigned distill_passes(const struct config *c, const struct plan *p, uint64_t tokens);
struct distill_text {
	uint64_t tokens, more, ctx; /* of the calibration text, of the job's `more`, of a window */
};
/* Bytes. */
uint64_t distill_memory(const struct config *c, const struct plan *p, const struct distill_text *text);

/*
 * The windows, from the first, that codes should be fitted to which will be trained. Those at the end judge the training;
 * where codes were fitted to them they look better there than they are, and every change looks worse (SmolLM2-135M, q4_0:
 * KL 0.048 on such windows, 0.075 on others; trained 0.050 and 0.062).
 */
size_t distill_fitted(const struct windows *text);

/* out: an overlay over the job's source with the plan's quantized matrices, which get new codes and scales. ERR_IO: interrupted. */
int distill(const struct quant_job *job, const struct distill_options *o, struct overlay *out, struct distill_report *r, struct err *e);

#endif
