#include "algo/adam.h"

#include <math.h>
#include <stdlib.h>

#include "base/thread.h"

static const double beta1 = 0.9, beta2 = 0.99;

int adam_init(struct adam *a, size_t room, int steps, double rate, struct err *e)
{
	*a = (struct adam){ .room = room, .steps = steps, .rate = rate };
	a->matrix = calloc(room ? room : 1, sizeof *a->matrix);
	return a->matrix ? ERR_OK : err_nomem(e);
}

void adam_release(struct adam *a)
{
	for (size_t i = 0; i < a->count; i++) {
		free(a->matrix[i].first);
		free(a->matrix[i].second);
	}
	free(a->matrix);
	*a = (struct adam){ 0 };
}

int adam_add(struct adam *a, float *w, float *grad, size_t n, struct err *e)
{
	if (a->count == a->room)
		return err_set(e, ERR_BUG, "no room for another matrix");
	struct adam_matrix *m = &a->matrix[a->count++];
	*m = (struct adam_matrix){ .w = w, .grad = grad, .n = n };
	m->first = calloc(n, sizeof *m->first);
	m->second = calloc(n, sizeof *m->second);
	double sum = 0;
	for (size_t i = 0; i < n; i++)
		sum += (double)w[i] * w[i];
	m->scale = sqrt(sum / (double)n);
	return m->first && m->second ? ERR_OK : err_nomem(e);
}

enum { SLICE = 1 << 14 };

struct slices {
	struct adam *a;
	double rate;
	float bias1, bias2;
};

static void slice(void *arg, size_t item, int worker)
{
	const struct slices *s = arg;
	struct adam_matrix *m = s->a->matrix;
	(void)worker;
	for (size_t n; item >= (n = (m->n + SLICE - 1) / SLICE); m++)
		item -= n;
	size_t from = item * SLICE, to = m->n - from < SLICE ? m->n : from + SLICE;
	float rate = (float)(s->rate * m->scale), b1 = (float)beta1, b2 = (float)beta2;
	for (size_t k = from; k < to; k++) {
		float g = m->grad[k];
		m->first[k] = b1 * m->first[k] + (1 - b1) * g;
		m->second[k] = b2 * m->second[k] + (1 - b2) * g * g;
		m->w[k] -= rate * (m->first[k] * s->bias1) / (sqrtf(m->second[k] * s->bias2) + 1e-20f);
	}
}

void adam_step(struct adam *a)
{
	int warm = a->steps / 10 + 1;
	double at = a->steps ? (double)a->step / a->steps : 0;
	struct slices s = { .a = a };
	s.rate = a->rate * (a->step < warm ? (double)(a->step + 1) / warm : 0.5 * (1 + cos(3.14159265358979323846 * at)));
	s.bias1 = (float)(1 / (1 - pow(beta1, a->step + 1)));
	s.bias2 = (float)(1 / (1 - pow(beta2, a->step + 1)));
	size_t items = 0;
	for (size_t i = 0; i < a->count; i++)
		items += (a->matrix[i].n + SLICE - 1) / SLICE;
	thread_for(items, slice, &s);
	a->step++;
}
