/* Which heads are folded together. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fold/fold_map.h"

/* Up to so many heads a group's loss is worked out as it is; above, it is the sum over its pairs. */
enum { EXACT_HEADS = 16 };

struct search {
	const struct attention_weights *w;
	const struct fold_moments *m;
	uint32_t g, groups;
	double *pair;            /* [kv, kv][2] losses of keys and values of pairs */
	float (*seen)[2];        /* [1 << kv] losses by set of heads, negative: not known yet; NULL above EXACT_HEADS */
	double scale[2];         /* loss of keys and values of neighbours: what makes the two comparable */
};

static int measure(const struct search *s, const uint32_t *group, uint32_t g, double loss[2], struct err *e)
{
	struct fold_view v = { s->w, s->m, group, g };
	int rc = fold_keys_pca(&v, NULL, &loss[0], e);
	return rc ? rc : fold_values_pca(&v, NULL, &loss[1], e);
}

static int ascending(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return (x > y) - (x < y);
}

static int group_loss(const struct search *s, const uint32_t *group, double loss[2], struct err *e)
{
	loss[0] = loss[1] = 0;
	if (s->seen) {
		uint32_t sorted[EXACT_HEADS], set = 0;
		memcpy(sorted, group, s->g * sizeof *group);
		qsort(sorted, s->g, sizeof *sorted, ascending);
		for (uint32_t i = 0; i < s->g; i++)
			set |= 1u << sorted[i];
		if (s->seen[set][0] < 0) {
			int rc = measure(s, sorted, s->g, loss, e);
			if (rc)
				return rc;
			s->seen[set][0] = (float)loss[0];
			s->seen[set][1] = (float)loss[1];
		}
		loss[0] = s->seen[set][0];
		loss[1] = s->seen[set][1];
		return ERR_OK;
	}
	for (uint32_t i = 0; i < s->g; i++)
		for (uint32_t j = 0; j < i; j++)
			for (int k = 0; k < 2; k++)
				loss[k] += s->pair[2 * ((size_t)group[i] * s->w->kv_heads + group[j]) + (size_t)k];
	return ERR_OK;
}

static int total(const struct search *s, const uint32_t *order, uint32_t a, uint32_t b, double *sum, struct err *e)
{
	uint32_t which[2] = { a, b };
	*sum = 0;
	for (int i = 0; i < 2; i++) {
		double loss[2];
		int rc = group_loss(s, order + which[i] * s->g, loss, e);
		if (rc)
			return rc;
		*sum += loss[0] / s->scale[0] + loss[1] / s->scale[1];
	}
	return ERR_OK;
}

static int prepare(struct search *s, struct err *e)
{
	uint32_t n = s->w->kv_heads;
	if (n <= EXACT_HEADS) {
		s->seen = malloc((1ul << n) * sizeof *s->seen);
		for (size_t i = 0; s->seen && i < 1ul << n; i++)
			s->seen[i][0] = s->seen[i][1] = -1;
		return s->seen ? ERR_OK : err_nomem(e);
	}
	s->pair = calloc(2 * (size_t)n * n, sizeof *s->pair);
	int rc = s->pair ? ERR_OK : err_nomem(e);
	for (uint32_t i = 0; i < n; i++)
		for (uint32_t j = 0; j < i && !rc; j++) {
			double *p = s->pair + 2 * ((size_t)i * n + j);
			rc = measure(s, (uint32_t[]){ j, i }, 2, p, e);
			memcpy(s->pair + 2 * ((size_t)j * n + i), p, 2 * sizeof *p);
		}
	return rc;
}

/* Swaps heads between two groups while that helps. */
static int swap_two(const struct search *s, uint32_t *order, uint32_t a, uint32_t b, bool *better, struct err *e)
{
	double best, now;
	int rc = total(s, order, a, b, &best, e);
	for (uint32_t x = 0; x < s->g && !rc; x++)
		for (uint32_t y = 0; y < s->g && !rc; y++) {
			uint32_t *p = &order[a * s->g + x], *q = &order[b * s->g + y], t = *p;
			*p = *q;
			*q = t;
			rc = total(s, order, a, b, &now, e);
			if (!rc && now < best * (1 - 1e-6)) {
				best = now;
				*better = true;
				continue;
			}
			*q = *p;
			*p = t;
		}
	return rc;
}

static int improve(struct search *s, uint32_t *order, struct err *e)
{
	int rc = prepare(s, e);
	for (uint32_t i = 0; i < s->groups && !rc; i++) {
		double loss[2];
		rc = group_loss(s, order + i * s->g, loss, e);
		s->scale[0] += rc ? 0 : loss[0];
		s->scale[1] += rc ? 0 : loss[1];
	}
	for (int k = 0; k < 2; k++)
		s->scale[k] = s->scale[k] > 0 ? s->scale[k] : 1;
	bool better = !rc;
	for (int round = 0; better && !rc && round < 100; round++) {
		better = false;
		for (uint32_t a = 0; a < s->groups && !rc; a++)
			for (uint32_t b = a + 1; b < s->groups && !rc; b++)
				rc = swap_two(s, order, a, b, &better, e);
	}
	free(s->pair);
	free(s->seen);
	return rc;
}

int fold_group(const struct attention_weights *w, const struct fold_moments *m, const struct head_groups *g, bool search,
	       struct err *e)
{
	uint32_t size = w->kv_heads / g->count;
	for (uint32_t i = 0; i < w->kv_heads; i++)
		g->order[i] = i;
	if (!search || !m || g->count == 1 || size == 1)
		return ERR_OK;
	struct search s = { .w = w, .m = m, .g = size, .groups = g->count };
	int rc = improve(&s, g->order, e);
	for (uint32_t i = 0; i < g->count && !rc; i++)
		qsort(g->order + i * size, size, sizeof *g->order, ascending);
	return rc;
}
