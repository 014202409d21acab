#include "fold/fold_heads.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fold/fold_map.h"

const struct fold_method_row fold_method_rows[] = {
	{ FOLD_MEAN, "mean", "the average of the group's heads", false },
	{ FOLD_WEIGHTED, "weighted", "averages weighted by query and output energy", true },
	{ FOLD_MEDOID, "medoid", "the head nearest to the others of its group", true },
	{ FOLD_ALIGN, "align", "averages of heads that were rotated to fit each other", true },
	{ FOLD_PCA, "pca", "the closed-form optimum per rotary pair and value space", true },
	{ FOLD_REFIT, "refit", "pca, then every layer is refitted to what the original puts out", true },
};
const unsigned fold_method_row_count = sizeof fold_method_rows / sizeof *fold_method_rows;

size_t attention_weights_count(const struct attention_weights *w, int part)
{
	size_t dim = w->dim;
	return part == 0 ? w->heads * dim * w->cols : part == 3 ? w->heads * dim * w->hidden : w->kv_heads * dim * w->cols;
}

int attention_weights_new(struct attention_weights *w, const struct attention_weights *like, uint32_t kv_heads, struct err *e)
{
	*w = *like;
	w->kv_heads = kv_heads;
	float **part[] = { &w->q, &w->k, &w->v, &w->o };
	bool ok = true;
	for (int i = 0; i < 4; i++)
		ok &= (*part[i] = calloc(attention_weights_count(w, i), sizeof(float))) != NULL;
	if (ok)
		return ERR_OK;
	attention_weights_release(w);
	return err_nomem(e);
}

void attention_weights_release(struct attention_weights *w)
{
	free(w->q);
	free(w->k);
	free(w->v);
	free(w->o);
	w->q = w->k = w->v = w->o = NULL;
}

void fold_moments_release(struct fold_moments *m)
{
	free(m->kk);
	free(m->vv);
	free(m->qq);
	*m = (struct fold_moments){ 0 };
}

int fold_map_init(struct fold_map *m, uint32_t g, uint32_t dim, struct err *e)
{
	*m = (struct fold_map){ .g = g, .dim = dim, .pairs = fold_pairs(dim) };
	m->c = calloc((size_t)g * m->pairs, sizeof *m->c);
	m->a = calloc((size_t)g * m->pairs, sizeof *m->a);
	m->f = calloc((size_t)g * dim * dim, sizeof *m->f);
	m->b = calloc((size_t)g * dim * dim, sizeof *m->b);
	if (m->c && m->a && m->f && m->b)
		return ERR_OK;
	fold_map_release(m);
	return err_nomem(e);
}

void fold_map_release(struct fold_map *m)
{
	free(m->c);
	free(m->a);
	free(m->f);
	free(m->b);
}

double complex fold_key_moment(const struct fold_view *v, uint32_t l, uint32_t i, uint32_t j)
{
	const struct attention_weights *w = v->w;
	size_t n = (size_t)w->kv_heads * w->dim, a = (size_t)v->group[i] * w->dim, b = (size_t)v->group[j] * w->dim;
	uint32_t re, im;
	fold_pair(w->dim, w->rope, l, &re, &im);
	const double *kk = v->m->kk;
	if (re == im)
		return kk[(a + re) * n + b + re];
	double real = kk[(a + re) * n + b + re] + kk[(a + im) * n + b + im];
	double imag = kk[(a + im) * n + b + re] - kk[(a + re) * n + b + im];
	return real + imag * I;
}

double fold_query_energy(const struct fold_view *v, uint32_t l, uint32_t i)
{
	const struct attention_weights *w = v->w;
	uint32_t r = w->heads / w->kv_heads, re, im;
	double sum = 0;
	fold_pair(w->dim, w->rope, l, &re, &im);
	for (uint32_t h = v->group[i] * r; h < (v->group[i] + 1) * r; h++)
		sum += v->m->qq[(size_t)h * w->dim + re] + (im != re ? v->m->qq[(size_t)h * w->dim + im] : 0);
	return sum;
}

void fold_output_gram(const struct fold_view *v, uint32_t i, double *out)
{
	const struct attention_weights *w = v->w;
	size_t d = w->dim, width = (size_t)w->heads * d;
	uint32_t r = w->heads / w->kv_heads;
	memset(out, 0, d * d * sizeof *out);
	for (uint32_t h = v->group[i] * r; h < (v->group[i] + 1) * r; h++)
		for (size_t row = 0; row < w->hidden; row++) {
			const float *o = w->o + row * width + h * d;
			for (size_t a = 0; a < d; a++)
				for (size_t b = 0; b < d; b++)
					out[a * d + b] += (double)o[a] * o[b];
		}
}

const double *fold_value_moment(const struct fold_view *v, uint32_t i, uint32_t j)
{
	return v->m->vv + (size_t)v->group[i] * v->w->dim * fold_stride(v) + (size_t)v->group[j] * v->w->dim;
}

static double trace_product(const double *m, const double *x, size_t ld, size_t d)
{
	double sum = 0;
	for (size_t a = 0; a < d; a++)
		for (size_t b = 0; b < d; b++)
			sum += m[a * d + b] * x[b * ld + a];
	return sum;
}

static void share_keys(struct fold_map *m, const double *weight)
{
	for (uint32_t i = 0; i < m->g; i++)
		for (uint32_t l = 0; l < m->pairs; l++) {
			m->c[i * m->pairs + l] = weight[i];
			m->a[i * m->pairs + l] = 1;
		}
}

static void share_values(struct fold_map *m, const double *weight)
{
	size_t d = m->dim;
	for (uint32_t i = 0; i < m->g; i++)
		for (size_t a = 0; a < d; a++) {
			m->f[(i * d + a) * d + a] = weight[i];
			m->b[(i * d + a) * d + a] = 1;
		}
}

/* What each head's keys and values put into scores and outputs, as shares of one. */
static int energies(const struct fold_view *v, double *key, double *value, struct err *e)
{
	size_t d = v->w->dim, ld = fold_stride(v);
	double *gram = malloc(d * d * sizeof *gram), keys = 0, values = 0;
	if (!gram)
		return err_nomem(e);
	for (uint32_t i = 0; i < v->g; i++) {
		key[i] = 0;
		for (uint32_t l = 0; l < fold_pairs(v->w->dim); l++)
			key[i] += fold_query_energy(v, l, i);
		fold_output_gram(v, i, gram);
		const double *vv = fold_value_moment(v, i, i);
		value[i] = trace_product(gram, vv, ld, d);
		keys += key[i];
		values += value[i];
	}
	for (uint32_t i = 0; i < v->g; i++) {
		key[i] = keys > 0 ? key[i] / keys : 1.0 / v->g;
		value[i] = values > 0 ? value[i] / values : 1.0 / v->g;
	}
	free(gram);
	return ERR_OK;
}

/* Distance of member i as a stand-in for all others: of keys weighted by query energy, of values as outputs. */
static double key_distance(const struct fold_view *v, uint32_t i)
{
	double sum = 0;
	for (uint32_t j = 0; j < v->g; j++)
		for (uint32_t l = 0; l < fold_pairs(v->w->dim); l++)
			sum += fold_query_energy(v, l, j) * creal(fold_key_moment(v, l, i, i) + fold_key_moment(v, l, j, j) -
								  2 * fold_key_moment(v, l, i, j));
	return sum;
}

static int medoids(const struct fold_view *v, double *key, double *value, struct err *e)
{
	size_t d = v->w->dim, ld = fold_stride(v);
	double *gram = malloc(d * d * sizeof *gram), best_key = INFINITY, best_value = INFINITY;
	double *distance = calloc(v->g, sizeof *distance);
	uint32_t k = 0, x = 0;
	if (!gram || !distance) {
		free(gram);
		free(distance);
		return err_nomem(e);
	}
	for (uint32_t j = 0; j < v->g; j++) {
		fold_output_gram(v, j, gram);
		for (uint32_t i = 0; i < v->g; i++) {
			distance[i] += trace_product(gram, fold_value_moment(v, i, i), ld, d);
			distance[i] += trace_product(gram, fold_value_moment(v, j, j), ld, d);
			distance[i] -= 2 * trace_product(gram, fold_value_moment(v, i, j), ld, d);
		}
	}
	for (uint32_t i = 0; i < v->g; i++) {
		double dk = key_distance(v, i);
		key[i] = value[i] = 0;
		if (dk < best_key) {
			best_key = dk;
			k = i;
		}
		if (distance[i] < best_value) {
			best_value = distance[i];
			x = i;
		}
	}
	key[k] = value[x] = 1;
	free(gram);
	free(distance);
	return ERR_OK;
}

static int make_map(const struct fold_view *v, enum fold_method method, struct fold_map *m, struct err *e)
{
	double *key = calloc(2 * (size_t)v->g, sizeof *key), *value = key + v->g;
	int rc = key ? ERR_OK : err_nomem(e);
	for (uint32_t i = 0; i < v->g && !rc; i++)
		key[i] = value[i] = 1.0 / v->g;
	if (!rc && method == FOLD_WEIGHTED)
		rc = energies(v, key, value, e);
	/* a norm per head would undo what align and pca do to keys */
	if (!rc && (method == FOLD_MEDOID || (method > FOLD_MEDOID && v->w->qk_norm)))
		rc = medoids(v, key, value, e);
	if (!rc) {
		share_keys(m, key);
		if (method < FOLD_ALIGN)
			share_values(m, value);
	}
	if (!rc && method == FOLD_ALIGN && !v->w->qk_norm)
		rc = fold_keys_align(v, m, e);
	if (!rc && method == FOLD_ALIGN)
		rc = fold_values_align(v, m, e);
	if (!rc && method > FOLD_ALIGN && !v->w->qk_norm)
		rc = fold_keys_pca(v, m, NULL, e);
	if (!rc && method > FOLD_ALIGN)
		rc = fold_values_pca(v, m, NULL, e);
	free(key);
	return rc;
}

/* dst += z src, for a pair of rows as one row of complex numbers. */
static void add_pair(const float *src, float *dst, const struct attention_weights *w, uint32_t l, double complex z)
{
	uint32_t re, im;
	fold_pair(w->dim, w->rope, l, &re, &im);
	const float *sr = src + (size_t)re * w->cols, *si = src + (size_t)im * w->cols;
	float *dr = dst + (size_t)re * w->cols, *di = dst + (size_t)im * w->cols;
	for (size_t j = 0; j < w->cols; j++) {
		if (re == im) {
			dr[j] += (float)(creal(z) * sr[j]);
			continue;
		}
		double a = sr[j], b = si[j];
		dr[j] += (float)(creal(z) * a - cimag(z) * b);
		di[j] += (float)(creal(z) * b + cimag(z) * a);
	}
}

/* dst[d, cols] += f src[d, cols] */
static void add_rows(const float *src, float *dst, const double *f, size_t d, size_t cols)
{
	for (size_t a = 0; a < d; a++)
		for (size_t b = 0; b < d; b++)
			for (size_t j = 0; f[a * d + b] != 0 && j < cols; j++)
				dst[a * cols + j] += (float)(f[a * d + b] * src[b * cols + j]);
}

/* One head's columns of W_O: dst = src b */
static void turn_output(const float *src, float *dst, const double *b, size_t hidden, size_t d, size_t width)
{
	for (size_t row = 0; row < hidden; row++)
		for (size_t j = 0; j < d; j++) {
			double sum = 0;
			for (size_t a = 0; a < d; a++)
				sum += src[row * width + a] * b[a * d + j];
			dst[row * width + j] = (float)sum;
		}
}

static void apply(const struct fold_view *v, const struct fold_map *m, uint32_t group, struct attention_weights *out)
{
	const struct attention_weights *w = v->w;
	size_t d = w->dim, head = d * w->cols, width = (size_t)w->heads * d;
	uint32_t r = w->heads / w->kv_heads;
	for (uint32_t i = 0; i < v->g; i++) {
		for (uint32_t l = 0; l < m->pairs; l++)
			add_pair(w->k + v->group[i] * head, out->k + group * head, w, l, m->c[i * m->pairs + l]);
		add_rows(w->v + v->group[i] * head, out->v + group * head, m->f + i * d * d, d, w->cols);
		for (uint32_t k = 0; k < r; k++) {
			uint32_t from = v->group[i] * r + k, to = (group * v->g + i) * r + k;
			for (uint32_t l = 0; l < m->pairs; l++)
				add_pair(w->q + from * head, out->q + to * head, w, l, conj(m->a[i * m->pairs + l]));
			turn_output(w->o + from * d, out->o + to * d, m->b + i * d * d, w->hidden, d, width);
		}
	}
}

int fold_heads(const struct attention_weights *w, const struct fold_moments *m, enum fold_method method,
	       const struct head_groups *g, struct attention_weights *out, struct err *e)
{
	uint32_t size = w->kv_heads / g->count;
	int rc = attention_weights_new(out, w, g->count, e);
	for (uint32_t i = 0; i < g->count && !rc; i++) {
		struct fold_view v = { w, m, g->order + i * size, size };
		struct fold_map map;
		if ((rc = fold_map_init(&map, size, w->dim, e)))
			break;
		rc = make_map(&v, method, &map, e);
		if (!rc)
			apply(&v, &map, i, out);
		fold_map_release(&map);
	}
	if (rc)
		attention_weights_release(out);
	return rc;
}

void fold_change_basis(struct attention_weights *w, uint32_t kv_head, const struct fold_basis *b)
{
	size_t d = w->dim, head = d * w->cols, width = (size_t)w->heads * d;
	uint32_t r = w->heads / w->kv_heads;
	size_t room = head > w->hidden * width ? head : w->hidden * width;
	float *copy = malloc(room * sizeof *copy);
	if (!copy)
		return;
	memcpy(copy, w->k + kv_head * head, head * sizeof *copy);
	memset(w->k + kv_head * head, 0, head * sizeof *copy);
	for (uint32_t l = 0; l < fold_pairs(w->dim); l++)
		add_pair(copy, w->k + kv_head * head, w, l, b->phase[2 * l] + b->phase[2 * l + 1] * I);
	memcpy(copy, w->v + kv_head * head, head * sizeof *copy);
	memset(w->v + kv_head * head, 0, head * sizeof *copy);
	add_rows(copy, w->v + kv_head * head, b->value, d, w->cols);
	for (uint32_t h = kv_head * r; h < (kv_head + 1) * r; h++) {
		memcpy(copy, w->q + h * head, head * sizeof *copy);
		memset(w->q + h * head, 0, head * sizeof *copy);
		for (uint32_t l = 0; l < fold_pairs(w->dim); l++)
			add_pair(copy, w->q + h * head, w, l, 1 / conj(b->phase[2 * l] + b->phase[2 * l + 1] * I));
		memcpy(copy, w->o, w->hidden * width * sizeof *copy);
		turn_output(copy + h * d, w->o + h * d, b->inverse, w->hidden, d, width);
	}
	free(copy);
}
