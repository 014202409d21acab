/*
 * Two quantized files of one model against the original: rate_error MODEL A B [STATS] prints, for each measure of the error,
 * A's as a part of B's, summed over every matrix that both quantized alike, and the largest such part of any one matrix.
 *
 *	plain       sum (x - value)^2
 *	weighted    sum h (x - value)^2, with STATS: h is the mean square of the channel
 *	ggml        the same with the weights that ggml's own search gives a type
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calib/stats/stats.h"
#include "codec/codec.h"
#include "formats/checkpoint.h"
#include "model/arch.h"

enum { PLAIN, WEIGHTED, GGML, MEASURES };
static const char *const measure_names[] = { "plain", "weighted", "ggml" };

/* What ggml multiplies h (or 1) by: without statistics, and with them. */
enum emphasis { ONE, SQUARE, MEAN_AND_SIZE, ROOT_ROW, ROOT_TWO };
static const struct ggml_weight {
	const char *codec;
	enum emphasis plain, weighted;
} ggml_weights[] = {
	{ "q4_0", ONE, ROOT_ROW }, { "q4_1", ONE, ROOT_ROW }, { "q5_0", ONE, ROOT_ROW }, { "q5_1", ONE, ROOT_ROW },
	{ "q4_k", MEAN_AND_SIZE, ROOT_TWO }, { "q5_k", MEAN_AND_SIZE, ROOT_TWO }, { "q6_k", SQUARE, ONE },
	{ "q3_k", SQUARE, ROOT_TWO },
};

static enum emphasis emphasis_of(const char *codec, bool weighted)
{
	for (size_t i = 0; i < sizeof ggml_weights / sizeof *ggml_weights; i++)
		if (!strcmp(codec, ggml_weights[i].codec))
			return weighted ? ggml_weights[i].weighted : ggml_weights[i].plain;
	return ONE;
}

static double mean_square(const float *x, size_t n)
{
	double sum = 0;
	for (size_t i = 0; i < n; i++)
		sum += (double)x[i] * x[i];
	return sum / (double)n;
}

/* Of element i in a row of n; blocks never cross rows. */
static double emphasis(enum emphasis e, const float *row, size_t i, double row_mean)
{
	double x = row[i];
	switch (e) {
	case ONE: return 1;
	case SQUARE: return x * x;
	case MEAN_AND_SIZE: return sqrt(mean_square(row + i / 32 * 32, 32)) + fabs(x);
	case ROOT_ROW: return sqrt(row_mean + x * x);
	case ROOT_TWO: return sqrt(2 * mean_square(row + i / 256 * 256, 256) + x * x);
	}
	return 1;
}

static void errors(const char *codec, const float *x, const float *q, const float *h, size_t rows, size_t n, double sums[MEASURES])
{
	enum emphasis how = emphasis_of(codec, h != NULL);
	for (size_t r = 0; r < rows; r++, x += n, q += n) {
		double row_mean = mean_square(x, n);
		for (size_t i = 0; i < n; i++) {
			double d = (double)x[i] - q[i], w = h ? h[i] : 1;
			d *= d;
			sums[PLAIN] += d;
			sums[WEIGHTED] += w * d;
			sums[GGML] += w * d * emphasis(how, x, i, row_mean);
		}
	}
}

struct files {
	struct checkpoint *model, *a, *b;
	struct config config;
	struct stats *stats;
	double a_sums[MEASURES], b_sums[MEASURES], worst[MEASURES];
	int matrices;
};

static int one(struct files *f, const struct tensor *t, struct err *e)
{
	const struct tensor *ta = source_find(f->a->source, t->name), *tb = source_find(f->b->source, t->name), *meta;
	uint32_t layer;
	enum role role = role_from_hf(f->config.arch, t->name, &layer);
	float *x = NULL, *a = NULL, *b = NULL;
	size_t n = 0;
	if (!ta || !tb || ta->codec != tb->codec || !codec_quantizes(ta->codec) || role >= ROLE_COUNT)
		return ERR_OK;
	/* without channels to weigh (the embedding) llama.cpp has none either */
	const float *h = f->stats ? stats_importance(f->stats, role, layer, &n) : NULL;
	if (f->stats && (!h || n != tensor_cols(t)))
		return ERR_OK;
	int rc = source_read_f32(f->model->source, t->name, &x, &meta, e);
	if (!rc)
		rc = source_read_f32(f->a->source, t->name, &a, &meta, e);
	if (!rc)
		rc = source_read_f32(f->b->source, t->name, &b, &meta, e);
	double sa[MEASURES] = { 0 }, sb[MEASURES] = { 0 };
	if (!rc) {
		errors(ta->codec->name, x, a, h, (size_t)tensor_rows(t), (size_t)tensor_cols(t), sa);
		errors(ta->codec->name, x, b, h, (size_t)tensor_rows(t), (size_t)tensor_cols(t), sb);
		f->matrices++;
	}
	for (int m = 0; m < MEASURES; m++) {
		f->a_sums[m] += sa[m];
		f->b_sums[m] += sb[m];
		if (sb[m] > 0 && sa[m] / sb[m] > f->worst[m])
			f->worst[m] = sa[m] / sb[m];
	}
	free(x);
	free(a);
	free(b);
	return rc;
}

int main(int argc, char **argv)
{
	struct files f = { 0 };
	struct err e = { 0 };
	if (argc < 4) {
		fprintf(stderr, "usage: rate_error MODEL A B [STATS]\n");
		return 2;
	}
	int rc = checkpoint_open(argv[1], &f.model, &e);
	if (!rc)
		rc = checkpoint_open(argv[2], &f.a, &e);
	if (!rc)
		rc = checkpoint_open(argv[3], &f.b, &e);
	if (!rc)
		rc = checkpoint_config(f.model, &f.config, &e);
	if (!rc && argc > 4)
		rc = stats_open(argv[4], &f.stats, &e);
	if (!rc && f.stats)
		rc = stats_check(f.stats, &f.config, f.model->source, NULL, &e);
	for (size_t i = 0; !rc && i < f.model->source->count; i++)
		rc = one(&f, &f.model->source->tensors[i], &e);
	printf("%d matrices", f.matrices);
	for (int m = 0; m < MEASURES; m++)
		if (m != WEIGHTED || f.stats)
			printf("  %s %.4f (%.4f)", measure_names[m], f.a_sums[m] / f.b_sums[m], f.worst[m]);
	printf("\n");
	if (rc)
		fprintf(stderr, "rate_error: %s\n", e.message);
	stats_close(f.stats);
	config_release(&f.config);
	checkpoint_close(f.b);
	checkpoint_close(f.a);
	checkpoint_close(f.model);
	return rc;
}
