/* The methods that treat every row by itself: the codec's own fit, with or without search. */
#include <stdlib.h>

#include "algo/rows.h"

static int encode_rows(const struct quantize_job *job, const float *w, enum fit_effort effort, struct err *e)
{
	const struct codec *c = job->codec;
	uint64_t row = codec_row_bytes(c, job->cols);
	uint8_t block[CODEC_MAX_BLOCK], *scratch = block, *whole = NULL;

	if (!row)
		return err_set(e, ERR_UNSUPPORTED, "%s cannot hold rows of %zu elements", c->name, job->cols);
	if (c->kind == CODEC_INTEGER)
		return err_set(e, ERR_UNSUPPORTED, "%s is not a type to quantize to", c->name);
	if (!c->block) {
		whole = malloc(job->cols);
		if (!whole)
			return err_nomem(e);
		scratch = whole;
	}
	for (size_t r = 0; r < job->rows; r++) {
		struct row_job one = { job->x + r * job->cols, w, job->cols, effort };
		codec_encode_row(c, &one, scratch, job->dst + r * row);
	}
	free(whole);
	return 0;
}

int rtn_run(const struct quantize_job *job, struct err *e)
{
	return encode_rows(job, NULL, FIT_RTN, e);
}

int search_run(const struct quantize_job *job, struct err *e)
{
	return encode_rows(job, job->importance, FIT_SEARCH, e);
}
