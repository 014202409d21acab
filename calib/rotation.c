#include "calib/rotation.h"

#include <stdlib.h>

#include "model/rope.h"

int rotation_init(struct rotation *out, const struct model *m, size_t ctx, struct err *e)
{
	struct rope r = model_config(m)->rope;
	size_t half = r.dims / 2;
	const float *divisors = model_vector(m, ROLE_ROPE_FREQS, 0);
	if (divisors && r.scaling == ROPE_NONE && !r.divisors)
		r.divisors = divisors;
	float *inverse = malloc((half + 1) * sizeof *inverse);
	out->cosine = malloc((ctx * half + 1) * sizeof *out->cosine);
	out->sine = malloc((ctx * half + 1) * sizeof *out->sine);
	bool ok = inverse && out->cosine && out->sine;
	if (ok)
		rope_table(inverse, half, rope_frequencies(&r, inverse), 0, ctx, out->cosine, out->sine);
	free(inverse);
	return ok ? ERR_OK : err_nomem(e);
}

void rotation_release(struct rotation *r)
{
	free(r->cosine);
	free(r->sine);
	*r = (struct rotation){ 0 };
}
