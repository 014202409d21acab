/* Which entry serves a site, and what experts that saw too few tokens take from the others of their layer. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "calib/stats/stats_file.h"
#include "model/graph.h"
#include "model/stored.h"

const struct stats_entry *stats_site(const struct stats *s, enum role r, uint32_t place)
{
	size_t id = s->at ? site_id(s->config, r, place) : SIZE_MAX;
	return id == SIZE_MAX ? NULL : s->at[id];
}

/* One expert's part of an entry of all of them, as an entry of its own. The older form is of one long row and one count. */
static int part_of(struct stats *s, struct stats_entry *all, uint32_t i, struct stats_entry **out, struct err *e)
{
	size_t experts = s->config->experts, n = all->mats == 1 && all->n % experts == 0 ? all->n / experts : all->n;
	if (all->n * all->mats != n * experts) {
		*out = all; /* its size is complained about */
		return ERR_OK;
	}
	struct stats_entry *x = arena_alloc(&s->arena, sizeof *x);
	if (!x)
		return err_nomem(e);
	*x = (struct stats_entry){ .key = all->key, .n = n, .mats = 1, .importance = all->importance + i * n };
	x->count = all->mats > 1 ? (uint64_t)all->counts[i] : all->count;
	*out = x;
	return ERR_OK;
}

static struct stats_entry *entry(struct stats *s, const char *key)
{
	uint64_t at;
	return map_get(&s->index, key, strlen(key), &at) ? &s->entries[at] : NULL;
}

/* An importance matrix has an entry for each weight, ours one for each input. */
static int find(struct stats *s, enum role r, enum role leader, uint32_t place, struct stats_entry **out, struct err *e)
{
	const struct arch *a = s->config->arch;
	char name[96];
	if (!s->info.foreign) {
		*out = entry(s, stats_key(leader, place, name));
		return ERR_OK;
	}
	unsigned part;
	struct stats_entry *x = stored_gguf_name(a, r, place, name, &part) ? entry(s, name) : NULL;
	x = x || !stored_gguf_name(a, leader, place, name, &part) ? x : entry(s, name);
	*out = x;
	return x && role_rows[r].per_expert ? part_of(s, x, place_expert(place), out, e) : ERR_OK;
}

static struct stats_entry *of_expert(const struct stats *s, enum role r, uint32_t layer, uint32_t i)
{
	return s->at[site_id(s->config, r, place_of(layer, i))];
}

const float *stats_own(const struct stats_entry *x)
{
	return x->own ? x->own : x->importance;
}

/* What is lacking of STATS_FEW tokens is the mean of all that the layer's experts saw. */
static int fill_importance(struct stats *s, enum role r, uint32_t layer, struct err *e)
{
	struct stats_entry *x = of_expert(s, r, layer, 0);
	size_t n = x ? x->n : 0;
	double *sum = calloc(n + 1, sizeof *sum), tokens = 0;
	int rc = sum ? ERR_OK : err_nomem(e);
	for (uint32_t i = 0; i < s->config->experts && !rc; i++) {
		x = of_expert(s, r, layer, i);
		for (size_t k = 0; x && x->n == n && k < n; k++)
			sum[k] += (double)x->count * (double)stats_own(x)[k];
		tokens += x && x->n == n ? (double)x->count : 0;
	}
	for (uint32_t i = 0; i < s->config->experts && tokens > 0 && !rc; i++) {
		x = of_expert(s, r, layer, i);
		if (!x || x->n != n || x->count >= STATS_FEW)
			continue;
		x->own = x->own ? x->own : x->importance;
		x->importance = arena_array(&s->arena, n, sizeof *x->importance);
		rc = x->importance ? ERR_OK : err_nomem(e);
		double own = (double)x->count / STATS_FEW;
		for (size_t k = 0; k < n && !rc; k++)
			x->importance[k] = (float)(own * (double)x->own[k] + (1 - own) * sum[k] / tokens);
	}
	free(sum);
	return rc;
}

static int index_layer(struct stats *s, uint32_t layer, struct err *e)
{
	struct block b;
	int rc = ERR_OK;
	block_make(s->config, layer, &b);
	for (unsigned k = 0; k < b.sites && !rc; k++) {
		enum role r = b.site[k].role, leader = block_op(&b, r) ? block_leader(&b, r) : stats_leader(s->config, r);
		/* the older form of importance matrices counts chunks of a size it does not say */
		bool own = s->info.foreign ? s->info.ctx > 0 : r == leader;
		if (b.site[k].ndim != 2)
			continue;
		for (uint32_t i = 0; i < role_places(s->config, r) && !rc; i++) {
			uint32_t place = role_place(r, layer, i);
			rc = find(s, r, leader, place, &s->at[site_id(s->config, r, place)], e);
		}
		/* matrices that read one value have one entry in our own form, which is filled up once */
		if (!rc && role_rows[r].per_expert && own)
			rc = fill_importance(s, r, layer, e);
	}
	return rc;
}

int stats_index(struct stats *s, struct err *e)
{
	const struct config *c = s->config;
	size_t count = site_count(c);
	int rc = ERR_OK;
	s->at = arena_array(&s->arena, count, sizeof *s->at);
	if (!s->at)
		return err_nomem(e);
	for (size_t i = 0; i < count; i++)
		s->at[i] = NULL;
	for (uint32_t layer = 0; layer < c->layers && !rc; layer++)
		rc = index_layer(s, layer, e);
	if (!rc)
		rc = find(s, ROLE_HEAD, ROLE_HEAD, UINT32_MAX, &s->at[ROLE_HEAD], e);
	if (!rc && c->tied)
		rc = find(s, ROLE_EMBED, ROLE_HEAD, UINT32_MAX, &s->at[ROLE_EMBED], e);
	return rc;
}

int stats_add_moment(const struct stats *s, const struct stats_entry *x, double scale, double **out, struct err *e)
{
	const struct st_entry *t = x->field[FIELD_MOMENT];
	size_t size = x->n;
	double *m = *out ? *out : size <= SIZE_MAX / size / sizeof *m ? calloc(size * size, sizeof *m) : NULL;
	if (!m)
		return err_nomem(e);
	*out = m;
	const uint8_t *data = stats_data(s, t);
	bool wide = t->dtype->bits == 64;
	for (size_t i = 0; i < size; i++)
		for (size_t j = 0; j <= i; j++) {
			size_t at = triangle(i) + j;
			double v = wide ? load_f64_at(data, at) : (double)load_f32_at(data, at);
			if (!isfinite(v))
				return err_set(e, ERR_INPUT, "'%s.moment': the value of channels %zu and %zu is not finite", x->key, i, j);
			m[i * size + j] += v * scale;
			m[j * size + i] = m[i * size + j];
		}
	if (s->map)
		mapped_drop(s->map, data, (size_t)(t->end - t->begin));
	return ERR_OK;
}

/* E[x x^T] of an entry. */

/* Mean moments over all tokens of a layer's experts; those of two roles are kept, which take turns. */
static int pool(struct stats *s, enum role r, uint32_t layer, size_t n, const double **out, struct err *e)
{
	struct pooled *p = &s->pooled[r == ROLE_EXPERT_DOWN];
	double tokens = 0;
	int rc = ERR_OK;
	*out = p->m;
	if (p->m && p->layer == layer && p->role == r)
		return ERR_OK;
	free(p->m);
	*p = (struct pooled){ .layer = layer, .role = r };
	for (uint32_t i = 0; i < s->config->experts; i++) {
		const struct stats_entry *x = stats_site(s, r, place_of(layer, i));
		tokens += x && x->n == n ? (double)x->count : 0;
	}
	for (uint32_t i = 0; i < s->config->experts && !rc; i++) {
		const struct stats_entry *x = stats_site(s, r, place_of(layer, i));
		if (x && x->n == n && x->count && x->field[FIELD_MOMENT])
			rc = stats_add_moment(s, x, 1 / tokens, &p->m, e);
	}
	if (!rc && !p->m)
		rc = err_set(e, ERR_INPUT, "no expert of layer %u saw a token", layer);
	*out = p->m;
	return rc;
}

int stats_borrow(struct stats *s, const struct stats_entry *x, enum role r, uint32_t place, double *m, struct err *e)
{
	const double *all;
	double own = (double)x->count / (double)x->n;
	int rc = pool(s, stats_leader(s->config, r), place_layer(place), x->n, &all, e);
	for (size_t i = 0; i < x->n * x->n && !rc; i++)
		m[i] = own * m[i] + (1 - own) * all[i];
	return rc;
}
