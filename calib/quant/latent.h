#ifndef QUIRE_CALIB_QUANT_LATENT_H
#define QUIRE_CALIB_QUANT_LATENT_H
/*
 * A quantized matrix in training: real numbers whose rounding gives its codes, and real scales and offsets whose storing
 * gives its parameters. The gradient by the weights is theirs as if nothing were rounded (straight-through, Bengio et al.,
 * arXiv 1308.3432; scales likewise, Esser et al., arXiv 1902.08153).
 */
#include "algo/adam.h"
#include "plan/plan.h"

/* What all matrices share. */
struct latent_shared {
	int steps;                  /* of gradient descent */
	double rate, scale_rate;    /* see distill.h */
	float follow;               /* what a step moves the means by towards it, as a part of the distance */
	float *flat, *flat_scales;  /* scratch for gradients: [rows, cols], [2, rows, blocks] of the largest */
};

/* A quantized matrix: what its codes are rounded from. */
struct latent {
	const struct plan_item *item;
	const struct codec *codec;
	const uint8_t *bytes;    /* as quantized, the overlay's */
	size_t rows, n;
	size_t sub, subs, block, blocks; /* lengths, and how many a row has */
	float *scale, *offset;   /* [rows, subs] as stored */
	float *scale0, *offset0; /* [rows, subs] as error feedback left them */
	float *u;                /* [rows, n] in units of levels: rounds to the code */
	float *turn;             /* [2, rows, blocks] scales over scale0; what offsets gained: in units of `reach` scales, or of themselves */
	float *mean_u, *mean_turn; /* of the steps so far, the last ones most: they waver less, and are what is judged and kept */
	float reach;             /* half the span of the levels */
	uint8_t *best;           /* bytes of the last latent_keep, or NULL */
	float *value, *grad;     /* [rows, stride] the layer's weights and their gradient */
	size_t stride;
	const struct latent_shared *shared;
	struct adam codes, scales;
};

/* Where the layer keeps the matrix; the caller's. */
struct latent_room {
	float *value, *grad;        /* [rows, stride] */
	size_t stride;
	const struct latent_shared *shared;
};
/*
 * The matrix as the source `quantized` holds it, which must outlive the latent, leaning to where `original` has it. The
 * room's values become the weights.
 */
int latent_open(struct latent *l, const struct plan_item *item, struct tensor_source *quantized, struct tensor_source *original,
		const struct latent_room *room, struct err *e);
/* Bytes: itself, its moments, and what latent_keep takes. */
uint64_t latent_memory(const struct plan_item *item);
void latent_close(struct latent *l);
/* One step against grad; value gets the new weights. */
int latent_step(struct latent *l, struct err *e);
/* value gets the weights of the means, or those of the last step again. */
int latent_show(struct latent *l, bool means, struct err *e);
/* Packs what the means stand for into l->best; *moved gets the number of codes that are not the first ones. */
int latent_keep(struct latent *l, uint64_t *moved, struct err *e);

#endif
