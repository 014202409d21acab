#include "calib/judge/attribute.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calib/judge/variants.h"
#include "codec/codec.h"

const struct attribute_row attribute_rows[] = {
	{ ATTRIBUTE_LAYERS, "layers", "all weights of a layer together" },
	{ ATTRIBUTE_TENSORS, "tensors", "every tensor on its own" },
	{ ATTRIBUTE_ROLES, "roles", "the same matrix of all layers together" },
};
const unsigned attribute_row_count = sizeof attribute_rows / sizeof *attribute_rows;

/* Models run side by side: the reference's pass is shared by this many, and each holds the logits of a window. */
enum { SIDE_BY_SIDE = 8 };

int attribute_find(const char *name, enum attribute_by *out, struct err *e)
{
	for (unsigned i = 0; i < attribute_row_count; i++)
		if (!strcmp(name, attribute_rows[i].name)) {
			*out = attribute_rows[i].by;
			return ERR_OK;
		}
	return err_set(e, ERR_USAGE, "cannot attribute by '%.40s'; use layers, tensors or roles", name);
}

void attribution_release(struct attribution *a)
{
	free(a->groups);
	*a = (struct attribution){ 0 };
}

struct place {
	enum role role;
	uint32_t layer;      /* as model_weight takes it */
	size_t group;
};

struct work {
	const struct attribute_job *job;
	struct place *places;
	size_t place_count;
	struct attribution *out;
	struct measurement base;     /* of the model as it is */
	uint64_t done, total;        /* tokens: of the runs before this one, of all */
};

static void group_name(enum attribute_by by, enum role r, uint32_t layer, char out[ATTRIBUTE_NAME])
{
	if (!role_rows[r].per_layer || by == ATTRIBUTE_ROLES)
		snprintf(out, ATTRIBUTE_NAME, "%s", role_rows[r].name);
	else if (by == ATTRIBUTE_LAYERS)
		snprintf(out, ATTRIBUTE_NAME, "layer %u", layer);
	else
		snprintf(out, ATTRIBUTE_NAME, "layers.%u.%s", layer, role_rows[r].name);
}

/* The experts of a layer are one group: there may be thousands, of which one changes next to nothing. */
static size_t group_of(struct work *k, enum role r, uint32_t place)
{
	struct attribution *a = k->out;
	char name[ATTRIBUTE_NAME];
	uint32_t layer = role_layer(r, place);
	group_name(k->job->by, r, layer, name);
	for (size_t i = 0; i < a->count; i++)
		if (!strcmp(a->groups[i].name, name))
			return i;
	struct attribute_group *g = &a->groups[a->count];
	*g = (struct attribute_group){ .layer = role_rows[r].per_layer && k->job->by != ATTRIBUTE_ROLES ? layer : UINT32_MAX };
	memcpy(g->name, name, sizeof name);
	return a->count++;
}

static bool same_shape(const struct tensor *a, const struct tensor *b)
{
	return a->ndim == b->ndim && !memcmp(a->dim, b->dim, a->ndim * sizeof *a->dim);
}

/* Rows that have nothing to do with each other: then channels have another order. */
static int rows_moved(const struct weight *a, const struct weight *b, bool *moved, struct err *e)
{
	enum { ROWS = 16 };
	size_t n = (size_t)tensor_cols(a->tensor), rows = (size_t)tensor_rows(a->tensor);
	rows = rows < ROWS ? rows : ROWS;
	float *x = malloc(2 * n * sizeof *x);
	double difference = 0, square = 0;
	if (!x)
		return err_nomem(e);
	float *y = x + n;
	for (size_t r = 0; r < rows; r++) {
		a->tensor->codec->decode(a->tensor->codec, a->bytes.data + r * (size_t)codec_row_bytes(a->tensor->codec, n), x, n);
		b->tensor->codec->decode(b->tensor->codec, b->bytes.data + r * (size_t)codec_row_bytes(b->tensor->codec, n), y, n);
		for (size_t i = 0; i < n; i++) {
			difference += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
			square += (double)y[i] * y[i];
		}
	}
	free(x);
	*moved = difference > square;
	return ERR_OK;
}

/* By value: a norm may be f32 in one file and bf16 in the other. */
static bool vector_differs(const struct loaded *model, const struct loaded *reference, enum role r, uint32_t layer)
{
	size_t n = (size_t)model_weight(model->model, r, layer)->tensor->dim[0];
	return memcmp(model_vector(model->model, r, layer), model_vector(reference->model, r, layer), n * sizeof(float)) != 0;
}

/* One matrix can be put back only where its neighbours mean the same channels. */
static int check_channels(const struct loaded *model, const struct loaded *reference, enum role r, uint32_t layer, struct err *e)
{
	const struct weight *x = model_weight(model->model, r, layer), *y = model_weight(reference->model, r, layer);
	bool moved = false;
	if (!x->bytes.data)
		return ERR_OK;
	if (x->tensor->ndim == 1 && vector_differs(model, reference, r, layer))
		return err_set(e, ERR_NOT_COMPARABLE,
			       "%s of layer %u differs from the reference's, so scales were moved between tensors and one alone cannot be put back; attribute by layers",
			       role_rows[r].name, role_layer(r, layer));
	int rc = (r == ROLE_UP || r == ROLE_EXPERT_UP) ? rows_moved(x, y, &moved, e) : ERR_OK;
	if (!rc && moved)
		rc = err_set(e, ERR_NOT_COMPARABLE, "channels of layer %u have another order than the reference's, so no matrix alone can be put "
			     "back; attribute by layers, or quantize with --keep-channels", role_layer(r, layer));
	return rc;
}

static int check_place(const struct loaded *model, const struct loaded *reference, enum role r, uint32_t layer, struct err *e)
{
	const struct weight *x = model_weight(model->model, r, layer), *y = model_weight(reference->model, r, layer);
	char where[32] = "";
	if ((!x->bytes.data && !y->bytes.data) || (x->bytes.data && y->bytes.data && same_shape(x->tensor, y->tensor)))
		return ERR_OK;
	if (role_rows[r].per_layer)
		snprintf(where, sizeof where, " of layer %u", role_layer(r, layer));
	return err_set(e, ERR_NOT_COMPARABLE, "attribution swaps tensors of the reference in, and %s%s is not of the same shape in both models",
		       role_rows[r].name, where);
}

int attribute_check(const struct loaded *model, const struct loaded *reference, enum attribute_by by, struct err *e)
{
	uint32_t layers = model->config.layers, other = reference->config.layers;
	int rc = ERR_OK;
	if (layers != other)
		return err_set(e, ERR_NOT_COMPARABLE, "the models have %u and %u layers; attribution needs the same", layers, other);
	if (model->config.experts != reference->config.experts)
		return err_set(e, ERR_NOT_COMPARABLE, "the models have %u and %u experts; attribution needs the same", model->config.experts,
			       reference->config.experts);
	for (unsigned r = 0; r < ROLE_COUNT && !rc; r++)
		for (uint32_t l = 0; l < (role_rows[r].per_layer ? layers : 1) && !rc; l++)
			for (uint32_t i = 0; i < role_places(&model->config, (enum role)r) && !rc; i++)
				rc = check_place(model, reference, (enum role)r, role_place((enum role)r, l, i), e);
	for (unsigned r = 0; r < ROLE_COUNT && !rc && by != ATTRIBUTE_LAYERS; r++)
		for (uint32_t l = 0; l < (role_rows[r].per_layer ? layers : 1) && !rc; l++)
			for (uint32_t i = 0; i < role_places(&model->config, (enum role)r) && !rc; i++)
				rc = check_channels(model, reference, (enum role)r, role_place((enum role)r, l, i), e);
	return rc;
}

static void add_place(struct work *k, enum role r, uint32_t layer)
{
	const struct weight *x = model_weight(k->job->model->model, r, layer), *y = model_weight(k->job->reference->model, r, layer);
	if (!x->bytes.data)
		return;
	bool same = x->tensor->ndim == 1 ? !vector_differs(k->job->model, k->job->reference, r, layer)
					 : x->tensor->codec == y->tensor->codec && !memcmp(x->bytes.data, y->bytes.data, (size_t)x->tensor->nbytes);
	if (same)
		return;
	size_t g = group_of(k, r, layer);
	k->out->groups[g].bytes += x->tensor->nbytes;
	k->out->groups[g].reference_bytes += y->tensor->nbytes;
	k->places[k->place_count++] = (struct place){ .role = r, .layer = layer, .group = g };
}

static int find_places(struct work *k, struct err *e)
{
	uint32_t layers = k->job->model->config.layers;
	int rc = attribute_check(k->job->model, k->job->reference, k->job->by, e);
	if (rc)
		return rc;
	size_t room = site_count(&k->job->model->config);
	k->places = calloc(room, sizeof *k->places);
	k->out->groups = calloc(room, sizeof *k->out->groups);
	if (!k->places || !k->out->groups)
		return err_nomem(e);
	for (unsigned r = 0; r < ROLE_COUNT; r++)
		for (uint32_t l = 0; l < (role_rows[r].per_layer ? layers : 1); l++)
			for (uint32_t i = 0; i < role_places(&k->job->model->config, (enum role)r); i++)
				add_place(k, (enum role)r, role_place((enum role)r, l, i));
	return ERR_OK;
}

/* A second model over the same bytes, with one group taken from the reference. */
static int open_swapped(const struct work *k, size_t group, struct model **out, struct err *e)
{
	int rc = model_open(&k->job->model->config, k->job->model->checkpoint->source, out, e);
	if (!rc && !(rc = model_set_arithmetic(*out, model_arithmetic(k->job->model->model), e)))
		model_set_kv(*out, model_kv(k->job->model->model));
	for (size_t i = 0; i < k->place_count && !rc; i++) {
		const struct place *p = &k->places[i];
		const struct weight *w = model_weight(k->job->reference->model, p->role, p->layer);
		if (p->group == group)
			rc = model_replace(*out, p->role, p->layer, w->tensor, w->bytes.data, e);
	}
	return rc;
}

static bool step(void *arg, uint64_t done, uint64_t total)
{
	(void)total;
	const struct work *k = arg;
	return progress_tell(k->job->progress, k->done + done, k->total);
}

static void set_group(struct attribute_group *g, const struct measurement *base, const struct measurement *m, float *work)
{
	size_t n = m->windows * m->scored;
	for (size_t i = 0; i < n; i++)
		work[i] = base->kl[i] - m->kl[i];
	g->gain = clustered_mean(work, m->windows, m->scored, &g->gain_error);
	g->kl = clustered_mean(m->kl, m->windows, m->scored, NULL);
}

/* Groups [from, from + n) side by side; with the first of them the model as it is. */
static int run_groups(struct work *k, size_t from, size_t n, struct err *e)
{
	const struct windows *w = k->job->windows;
	struct model *models[SIDE_BY_SIDE + 2] = { k->job->reference->model };
	struct measurement m[SIDE_BY_SIDE] = { { 0 } }, *view[SIDE_BY_SIDE + 1];
	size_t extra = from == 0, count = 1 + extra + n;
	float *work = malloc(w->count * windows_scored(w) * sizeof *work);
	int rc = work ? ERR_OK : err_nomem(e);
	if (extra) {
		models[1] = k->job->model->model;
		view[0] = &k->base;
	}
	for (size_t i = 0; i < n && !rc; i++) {
		rc = open_swapped(k, from + i, &models[1 + extra + i], e);
		if (!rc)
			rc = measurement_init(&m[i], w->count, windows_scored(w), true, e);
		view[extra + i] = &m[i];
	}
	struct compare_arg arg = { view, count - 1, 0 };
	struct evaluation all = { .models = models, .count = count, .windows = w, .to = w->count, .visit = compare_visit, .arg = &arg,
				  .progress = &(struct progress){ step, k } };
	if (!rc)
		rc = evaluate(&all, e);
	k->done += (uint64_t)w->count * w->ctx * count;
	for (size_t i = 0; i < n; i++) {
		if (!rc)
			set_group(&k->out->groups[from + i], &k->base, &m[i], work);
		model_close(models[1 + extra + i]);
		measurement_release(&m[i]);
	}
	free(work);
	return rc;
}

static int by_gain(const void *a, const void *b)
{
	const struct attribute_group *x = a, *y = b;
	return x->gain != y->gain ? (x->gain < y->gain ? 1 : -1) : strcmp(x->name, y->name);
}

int attribute(const struct attribute_job *job, struct attribution *out, struct err *e)
{
	const struct windows *w = job->windows;
	*out = (struct attribution){ .by = job->by, .windows = w->count, .tokens = w->count * windows_scored(w) };
	struct work k = { .job = job, .out = out };
	int rc = find_places(&k, e);
	if (!rc)
		rc = measurement_init(&k.base, w->count, windows_scored(w), true, e);
	size_t runs = (out->count + SIDE_BY_SIDE - 1) / SIDE_BY_SIDE;
	k.total = (uint64_t)w->count * w->ctx * (out->count + (runs ? runs : 1) + 1);
	for (size_t i = 0; i < (runs ? runs : 1) && !rc; i++) {
		size_t from = i * SIDE_BY_SIDE, n = out->count - from < SIDE_BY_SIDE ? out->count - from : SIDE_BY_SIDE;
		rc = run_groups(&k, from, n, e);
	}
	if (!rc) {
		out->kl = clustered_mean(k.base.kl, k.base.windows, k.base.scored, &out->kl_error);
		qsort(out->groups, out->count, sizeof *out->groups, by_gain);
	}
	measurement_release(&k.base);
	free(k.places);
	if (rc)
		attribution_release(out);
	return rc;
}

void attribution_text(const struct attribution *a, size_t most, struct strbuf *out)
{
	strbuf_printf(out, "KL that goes when one group is put back (of %.3g)\n", a->kl);
	for (size_t i = 0; i < a->count && i < most; i++)
		strbuf_printf(out, "  %-24s  %9.3g +/- %-8.2g  %6.1f %%\n", a->groups[i].name, a->groups[i].gain, a->groups[i].gain_error,
			      a->kl > 0 ? 100 * a->groups[i].gain / a->kl : 0);
	if (!a->count)
		strbuf_puts(out, "  no weight differs\n");
	if (a->count > most)
		strbuf_printf(out, "  and %zu more (--json lists all)\n", a->count - most);
}

void attribution_json(const struct attribution *a, const char *key, struct json_writer *w)
{
	jw_object(w, key);
	jw_string(w, "by", attribute_rows[a->by].name);
	jw_uint(w, "chunks", a->windows);
	jw_uint(w, "tokens", a->tokens);
	jw_double(w, "kl_mean", a->kl);
	jw_double(w, "kl_mean_error", a->kl_error);
	jw_array(w, "groups");
	for (size_t i = 0; i < a->count; i++) {
		const struct attribute_group *g = &a->groups[i];
		jw_object(w, NULL);
		jw_string(w, "name", g->name);
		if (g->layer != UINT32_MAX)
			jw_uint(w, "layer", g->layer);
		jw_double(w, "gain", g->gain);
		jw_double(w, "gain_error", g->gain_error);
		jw_double(w, "share", a->kl > 0 ? g->gain / a->kl : (double)NAN);
		jw_double(w, "kl_without", g->kl);
		jw_uint(w, "bytes", g->bytes);
		jw_uint(w, "reference_bytes", g->reference_bytes);
		jw_end_object(w);
	}
	jw_end_array(w);
	jw_end_object(w);
}

static bool read_size(const struct json *j, const char *key, uint64_t *out)
{
	int64_t v;
	if (!json_int(json_get(j, key), &v) || v < 0)
		return false;
	*out = (uint64_t)v;
	return true;
}

static bool read_number(const struct json *j, const char *key, double *out)
{
	const struct json *x = json_get(j, key);
	*out = (double)NAN; /* written as null */
	return x && (json_is_null(x) || json_number(x, out));
}

static bool read_group(const struct json *j, struct attribute_group *g)
{
	const char *name = json_string(json_get(j, "name"));
	uint64_t layer = UINT32_MAX;
	if (!name || strlen(name) >= ATTRIBUTE_NAME || (json_get(j, "layer") && !read_size(j, "layer", &layer)) || layer > UINT32_MAX)
		return false;
	memcpy(g->name, name, strlen(name) + 1);
	g->layer = (uint32_t)layer;
	return read_number(j, "gain", &g->gain) && read_number(j, "gain_error", &g->gain_error) && read_number(j, "kl_without", &g->kl) &&
	       read_size(j, "bytes", &g->bytes) && read_size(j, "reference_bytes", &g->reference_bytes);
}

bool attribution_read(const struct json *j, enum attribute_by by, struct attribution *out)
{
	const char *name = json_string(json_get(j, "by"));
	const struct json *groups = json_get(j, "groups");
	uint64_t windows, tokens;
	size_t n = 0;
	*out = (struct attribution){ .by = by };
	if (!name || strcmp(name, attribute_rows[by].name) || !groups || !read_size(j, "chunks", &windows) || !read_size(j, "tokens", &tokens) ||
	    !read_number(j, "kl_mean", &out->kl) || !read_number(j, "kl_mean_error", &out->kl_error))
		return false;
	for (const struct json *x = json_first(groups); x; x = json_next(x))
		n++;
	out->windows = (size_t)windows;
	out->tokens = (size_t)tokens;
	out->groups = calloc(n + 1, sizeof *out->groups);
	for (const struct json *x = json_first(groups); x && out->groups; x = json_next(x))
		if (!read_group(x, &out->groups[out->count++]))
			break;
		else if (out->count == n)
			return true;
	if (out->groups && !n)
		return true;
	attribution_release(out);
	return false;
}
