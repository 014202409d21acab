#include "calib/quant/equalize.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "codec/codec.h"
#include "model/graph.h"

/* Beyond 2^+-12 a half-precision weight could leave its range; a channel that needs more is dead anyway. */
enum { MAX_SHIFT = 12 };
#define DEAD_ZONE 1.5

/* Matrices that read what one producer writes. */
struct job {
	const struct config *config;
	struct tensor_source *base;
	struct overlay *out;
	uint32_t layer, place;   /* place: the layer, or the expert */
	const struct block *block;
	struct source_of producer;
	struct group readers;
	size_t n, channels;      /* columns of the readers; what the producer writes (fewer when heads share V) */
};

/* The producer's channel that a column reads. */
static size_t channel_of(const struct job *j, size_t column)
{
	return j->producer.heads ? config_v_row(j->config, j->layer, column) : column;
}

/* As it is now: what an earlier site put into the overlay, or the source's. */
static int read_role(const struct job *j, enum role r, float **out, const struct tensor **meta, struct err *e)
{
	char name[96];
	if (!role_hf_name(j->config->arch, r, j->place, name))
		return err_set(e, ERR_BUG, "no name for role %s", role_rows[r].name);
	return source_read_f32(overlay_source(j->out), name, out, meta, e);
}

/* Writes a matrix back in the codec it has, or in f32 when that one could lose bits. */
static int write_back(const struct job *j, const struct tensor *meta, float *x, struct err *e)
{
	struct tensor t = *meta;
	size_t rows = (size_t)tensor_rows(&t), cols = (size_t)tensor_cols(&t);
	/* half precision has too little range to be shifted without loss */
	if (t.codec->kind != CODEC_FLOAT || t.codec == codec_find("f16"))
		t.codec = codec_find("f32");
	int rc = tensor_measure(&t, e);
	uint8_t *bytes = rc ? NULL : malloc((size_t)t.nbytes);
	if (!rc && !bytes)
		rc = err_nomem(e);
	for (size_t r = 0; r < rows && !rc; r++)
		t.codec->encode(t.codec, x + r * cols, bytes + r * (size_t)codec_row_bytes(t.codec, cols), cols);
	return rc ? rc : overlay_put(j->out, &t, bytes, e);
}

static int column_squares(const struct job *j, double *sum, struct err *e)
{
	for (unsigned i = 0; i < j->readers.count; i++) {
		const struct tensor *meta;
		float *w;
		int rc = read_role(j, j->readers.role[i], &w, &meta, e);
		if (rc)
			return rc;
		size_t rows = (size_t)tensor_rows(meta);
		for (size_t r = 0; r < rows; r++)
			for (size_t k = 0; k < j->n; k++)
				sum[channel_of(j, k)] += (double)w[r * j->n + k] * w[r * j->n + k];
		free(w);
	}
	return ERR_OK;
}

static void choose_scales(const struct job *j, const double *sum, float *scale)
{
	double mean = 0;
	size_t live = 0;
	for (size_t k = 0; k < j->channels; k++)
		if (sum[k] > 0) {
			mean += log2(sum[k]);
			live++;
		}
	mean = live ? mean / (double)live : 0;
	for (size_t k = 0; k < j->channels; k++) {
		double shift = sum[k] > 0 ? 0.5 * (mean - log2(sum[k])) : 0;
		/* what training leaves between channels is best left alone (measured); what is far out is brought in */
		if (fabs(shift) < DEAD_ZONE)
			shift = 0;
		shift = shift > MAX_SHIFT ? MAX_SHIFT : shift < -MAX_SHIFT ? -MAX_SHIFT : shift;
		scale[k] = (float)ldexp(1, (int)lround(shift));
	}
}

static int scale_readers(const struct job *j, const float *scale, struct err *e)
{
	int rc = ERR_OK;
	for (unsigned i = 0; i < j->readers.count && !rc; i++) {
		const struct tensor *meta;
		float *w;
		rc = read_role(j, j->readers.role[i], &w, &meta, e);
		if (rc)
			return rc;
		size_t rows = (size_t)tensor_rows(meta);
		for (size_t r = 0; r < rows; r++)
			for (size_t k = 0; k < j->n; k++)
				w[r * j->n + k] *= scale[channel_of(j, k)];
		rc = write_back(j, meta, w, e);
		free(w);
	}
	return rc;
}

static int scale_producer(const struct job *j, enum role r, const float *scale, struct err *e)
{
	const struct tensor *meta;
	float *w;
	int rc = read_role(j, r, &w, &meta, e);
	if (rc)
		return rc;
	size_t per_channel = meta->ndim == 1 ? 1 : (size_t)tensor_cols(meta);
	for (size_t k = 0; k < j->channels; k++)
		for (size_t i = 0; i < per_channel; i++)
			w[k * per_channel + i] /= scale[k];
	rc = write_back(j, meta, w, e);
	free(w);
	return rc;
}

static bool has_role(const struct job *j, enum role r)
{
	char name[96];
	return role_hf_name(j->config->arch, r, j->place, name) && source_find(overlay_source(j->out), name);
}

static int one_producer(struct job *j, const struct site *site, struct err *e)
{
	j->n = (size_t)block_width(j->block, j->readers.role[0]);
	j->channels = (size_t)site->dim[0];
	double *sum = calloc(j->channels, sizeof *sum);
	float *scale = calloc(j->channels, sizeof *scale);
	int rc = sum && scale ? column_squares(j, sum, e) : err_nomem(e);
	if (!rc)
		choose_scales(j, sum, scale);
	bool moved = false;
	for (size_t k = 0; k < j->channels && !rc; k++)
		moved |= scale[k] != 1;
	if (moved)
		rc = scale_readers(j, scale, e);
	if (!rc && moved)
		rc = scale_producer(j, j->producer.role, scale, e);
	if (!rc && moved && has_role(j, j->producer.bias))
		rc = scale_producer(j, j->producer.bias, scale, e);
	free(sum);
	free(scale);
	return rc;
}

/* Every matrix that reads what the producer writes must be there to be scaled, and no other layer may read it. NULL: so it is. */
static const char *obstacle(const struct job *j, char text[160])
{
	const struct source_of *s = &j->producer;
	if (s->why)
		return skips_source(s, text);
	if (!has_role(j, s->role))
		return "the tensor before them is missing";
	for (unsigned i = 0; i < j->readers.count; i++)
		if (!has_role(j, j->readers.role[i]))
			return "one of them is missing";
	if (s->heads && !config_kv_alone(j->config, j->layer))
		return "another layer reads the same values";
	/* no power of two of that is one of the weight */
	if (s->norm && j->config->arch->norm != NORM_RMS)
		return "the norm before them multiplies by one more than its weight";
	/* a norm whose keys and values are read elsewhere has always been left alone */
	if (j->readers.role[0] == ROLE_Q && j->config->layer[j->layer].kv_source != j->layer)
		return "the layer reads keys and values of another one";
	return NULL;
}

int equalize(const struct config *c, struct tensor_source *source, struct overlay *out, struct skips *skips, struct err *e)
{
	char what[64], text[160];
	struct job j = { .config = c, .base = source, .out = out };
	struct group group[BLOCK_GROUPS];
	struct block b;
	int rc = ERR_OK;
	for (j.layer = 0; j.layer < c->layers && !rc; j.layer++) {
		block_make(c, j.layer, &b);
		j.block = &b;
		unsigned count = block_groups(&b, group);
		for (unsigned i = 0; i < count && !rc; i++) {
			if (!role_rows[group[i].role[0]].linear) /* a router, which nothing rounds */
				continue;
			j.readers = group[i];
			j.producer = block_source(c, &b, group[i].role[0]);
			skips_name(&group[i], what);
			for (uint32_t k = 0; k < group_places(&group[i]) && !rc; k++) {
				j.place = group_place(&group[i], j.layer, k);
				const char *why = obstacle(&j, text);
				skips_see(skips, "equalization", what, why);
				if (!why)
					rc = one_producer(&j, block_site(&b, j.producer.role), e);
			}
		}
	}
	return rc;
}
