#include "model/rope.h"

#include <math.h>
#include <stdlib.h>

#include "model/model_impl.h"

static float keep(const struct rope *r, float f, size_t j)
{
	(void)j;
	return r->divisors ? f / r->divisors[j] : f;
}

static float linear(const struct rope *r, float f, size_t j)
{
	(void)j;
	return f / r->factor;
}

static float llama3(const struct rope *r, float f, size_t j)
{
	(void)j;
	const float turn = 6.28318530717958647693f, length = (float)r->original_context;
	float wave = turn / f;
	if (wave < length / r->high_freq)
		return f;
	if (wave > length / r->low_freq)
		return f / r->factor;
	float smooth = (length / wave - r->low_freq) / (r->high_freq - r->low_freq);
	return (1 - smooth) * f / r->factor + smooth * f;
}

/* The dimension that turns `rotations` times within the original context. */
static double yarn_dim(const struct rope *r, double rotations)
{
	return r->dims * log(r->original_context / (rotations * 6.28318530717958647693)) / (2 * log(r->theta));
}

static float yarn(const struct rope *r, float f, size_t j)
{
	double lo = yarn_dim(r, r->beta_fast), hi = yarn_dim(r, r->beta_slow);
	if (r->truncate) {
		lo = floor(lo);
		hi = ceil(hi);
	}
	lo = lo > 0 ? lo : 0;
	hi = hi < r->dims - 1 ? hi : r->dims - 1;
	if (lo == hi)
		hi += 0.001;
	float ramp = (float)(((double)j - lo) / (hi - lo));
	ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
	return f / r->factor * ramp + f * (1 - ramp);
}

static float (*const scalings[])(const struct rope *, float, size_t) = {
	[ROPE_NONE] = keep, [ROPE_LINEAR] = linear, [ROPE_LLAMA3] = llama3, [ROPE_YARN] = yarn, [ROPE_LONGROPE] = keep,
};

float rope_frequencies(const struct rope *r, float *inv)
{
	for (size_t j = 0; j < r->dims / 2; j++)
		inv[j] = scalings[r->scaling](r, 1.0f / powf(r->theta, (float)(2 * j) / (float)r->dims), j);
	return r->attention_factor;
}

float rope_temper(const struct rope *r, size_t position)
{
	return r->temper == 0 ? 1 : 1 + r->temper * logf(1 + floorf((float)position / (float)r->original_context));
}

void rope_table(const struct rope_angles *a, size_t first, size_t n, float *cosine, float *sine)
{
	for (size_t t = 0; t < n; t++)
		for (size_t j = 0; j < a->half; j++) {
			float angle = (float)(first + t) * a->inv[j];
			cosine[t * a->half + j] = cosf(angle) * a->scale;
			sine[t * a->half + j] = sinf(angle) * a->scale;
		}
}

void rope_rotate(float *x, size_t heads, size_t head_dim, size_t half, const float *cosine, const float *sine)
{
	for (size_t h = 0; h < heads; h++, x += head_dim)
		for (size_t j = 0; j < half; j++) {
			float a = x[j], b = x[j + half];
			x[j] = a * cosine[j] - b * sine[j];
			x[j + half] = b * cosine[j] + a * sine[j];
		}
}

void rope_rotate_back(float *x, size_t heads, size_t head_dim, size_t half, const float *cosine, const float *sine)
{
	for (size_t h = 0; h < heads; h++, x += head_dim)
		for (size_t j = 0; j < half; j++) {
			float a = x[j], b = x[j + half];
			x[j] = a * cosine[j] + b * sine[j];
			x[j + half] = b * cosine[j] - a * sine[j];
		}
}

int phase_table_fill(struct phase_table *t, const struct model *m, size_t first, size_t n, size_t reach, struct err *e)
{
	const struct rope *r = &m->config->rope;
	bool far = r->far && reach > r->original_context;
	size_t half = m->config->rope.dims / 2, tables = m->config->local_theta > 0 ? 2 : 1, size;
	if (t->model == m && t->count >= n && t->first == first && t->far == far)
		return ERR_OK;
	phase_table_release(t);
	if (__builtin_mul_overflow(n, tables * half, &size) || size > SIZE_MAX / sizeof(float) / 2)
		return err_nomem(e);
	t->cosine = malloc((size + 1) * sizeof(float));
	t->sine = malloc((size + 1) * sizeof(float));
	if (!t->cosine || !t->sine) {
		phase_table_release(t);
		return err_nomem(e);
	}
	t->model = m;
	t->first = first;
	t->count = n;
	t->far = far;
	rope_table(&(struct rope_angles){ m->inv_freq + (far ? half : 0), half, m->rope_scale }, first, n, t->cosine, t->sine);
	if (tables > 1)
		rope_table(&(struct rope_angles){ m->inv_freq + half, half, 1 }, first, n, t->cosine + n * half, t->sine + n * half);
	return ERR_OK;
}

void phase_table_release(struct phase_table *t)
{
	free(t->cosine);
	free(t->sine);
	*t = (struct phase_table){ 0 };
}

struct phases phases_of(const struct phase_table *t, uint32_t layer)
{
	const struct config *c = t->model ? t->model->config : NULL;
	if (!c || !c->layer[layer].rope)
		return (struct phases){ NULL, NULL };
	size_t at = c->layer[layer].local ? t->count * (c->rope.dims / 2) : 0;
	return (struct phases){ t->cosine + at, t->sine + at };
}
