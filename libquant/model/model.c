#include "model/model.h"

#include <stdlib.h>
#include <string.h>

#include "base/strbuf.h"
#include "codec/codec.h"
#include "model/model_impl.h"
#include "model/rope.h"
#include "model/weight.h"

const struct config *model_config(const struct model *m)
{
	return m->config;
}

void model_set_streaming(struct model *m, bool on)
{
	m->streaming = on;
}

void model_set_kv(struct model *m, struct kv_codecs codecs)
{
	m->kv = codecs;
}

struct kv_codecs model_kv(const struct model *m)
{
	return m->kv;
}

const struct weight *model_weight(const struct model *m, enum role r, uint32_t place)
{
	static const struct weight none;
	size_t id = site_id(m->config, r, place);
	return id == SIZE_MAX ? &none : &m->weight[id];
}

const float *model_vector(const struct model *m, enum role r, uint32_t place)
{
	size_t id = site_id(m->config, r, place);
	return id == SIZE_MAX ? NULL : m->vector[id];
}

/* What is wrong with a checkpoint, collected so that one message names everything. */
struct complaints {
	struct strbuf missing, unknown, shape;
	size_t missing_count, unknown_count;
	bool carried;               /* not to be run: unknown tensors and a missing head are no matter */
	bool no_head;
};

/* Lists longer than this would push the rest out of the message. */
enum { LIST = 300 };

static void complain(struct strbuf *b, const char *text)
{
	if (b->len < 2 * (size_t)LIST) /* a config can name far more tensors than a message has room for */
		strbuf_printf(b, "%s%s", b->len ? ", " : "", text);
}

static bool shape_is(const struct tensor *t, uint32_t ndim, const uint64_t dim[2])
{
	if (t->ndim != ndim)
		return false;
	for (uint32_t i = 0; i < ndim; i++)
		if (t->dim[i] != dim[i])
			return false;
	return true;
}

static void check_shape(struct complaints *x, const struct tensor *t, uint32_t ndim, const uint64_t dim[2])
{
	struct tensor want = { .ndim = ndim, .dim = { dim[0], dim[1] } };
	char have[160], need[160];
	if (shape_is(t, ndim, dim))
		return;
	strbuf_printf(&x->shape, "%s%s is %s, not %s", x->shape.len ? ", " : "", t->name, tensor_shape_text(t, have),
		      tensor_shape_text(&want, need));
}

/* The site of a tensor and its shape, if the model has a place for it. GGUF's frequency divisors have no Hugging Face name. */
static size_t find_place(const struct config *c, const char *name, uint64_t dim[2], uint32_t *ndim)
{
	uint32_t place;
	enum role r = role_from_hf(c->arch, name, &place);
	if (r == ROLE_UNKNOWN)
		r = role_from_gguf(c->arch, name, &place) == ROLE_ROPE_FREQS ? ROLE_ROPE_FREQS : ROLE_UNKNOWN;
	return r != ROLE_UNKNOWN && (*ndim = role_shape(c, r, place, dim)) ? site_id(c, r, place) : SIZE_MAX;
}

static void find_missing(struct model *m, struct complaints *x)
{
	const struct config *c = m->config;
	for (int r = 0; r < ROLE_COUNT; r++)
		for (uint32_t l = 0; l < (role_rows[r].per_layer ? c->layers : 1); l++) {
			uint32_t count = x->carried && r == ROLE_HEAD ? 0 : role_count(c, (enum role)r, l);
			for (uint32_t i = 0; i < count; i++) {
				char name[96];
				uint32_t place = role_place((enum role)r, l, i);
				if (model_weight(m, (enum role)r, place)->tensor)
					continue;
				x->missing_count++;
				x->no_head |= r == ROLE_HEAD;
				complain(&x->missing, role_hf_name(c->arch, (enum role)r, place, name) ? name : role_rows[r].name);
			}
		}
}

static void bind_names(struct model *m, struct complaints *x)
{
	const struct config *c = m->config;
	for (size_t i = 0; i < m->source->count; i++) {
		const struct tensor *t = &m->source->tensors[i];
		uint32_t ndim = 0;
		uint64_t dim[2];
		size_t id = find_place(c, t->name, dim, &ndim);
		if (id != SIZE_MAX) {
			check_shape(x, t, ndim, dim);
			m->weight[id].tensor = t;
		} else if (!x->carried && !tensor_name_ignored(t->name)) {
			x->unknown_count++;
			complain(&x->unknown, t->name);
		}
	}
	find_missing(m, x);
}

static int report(struct complaints *x, struct err *e)
{
	struct strbuf b = { 0 };
	if (x->missing_count)
		strbuf_printf(&b, "%zu missing tensors: %.*s%s", x->missing_count, LIST, x->missing.data,
			      x->missing.len > LIST ? " ..." : "");
	if (x->no_head)
		strbuf_puts(&b, " (saved without its output head, a base model has no next tokens to judge)");
	if (x->shape.len)
		strbuf_printf(&b, "%swrong shapes: %.*s%s", b.len ? "; " : "", LIST, x->shape.data,
			      x->shape.len > LIST ? " ..." : "");
	if (x->unknown_count)
		strbuf_printf(&b, "%s%zu unknown tensors: %.*s%s", b.len ? "; " : "", x->unknown_count, LIST, x->unknown.data,
			      x->unknown.len > LIST ? " ..." : "");
	bool failed = b.failed || x->missing.failed || x->unknown.failed || x->shape.failed;
	int rc = failed ? err_nomem(e) : b.len ? err_set(e, ERR_INPUT, "%s", b.data) : ERR_OK;
	strbuf_release(&b);
	return rc;
}

/* Views of matrices, decoded copies of vectors. */
static int load(struct model *m, size_t id, struct err *e)
{
	struct weight *w = &m->weight[id];
	const struct tensor *t = w->tensor;
	uint64_t rows = tensor_rows(t), cols = tensor_cols(t), bytes = codec_row_bytes(t->codec, cols);
	if (!t->codec->decode || t->codec->kind == CODEC_INTEGER)
		return err_set(e, ERR_UNSUPPORTED, "%s is stored as %s, which the model cannot compute with", t->name,
			       t->codec->name);
	int rc = m->source->get(m->source, source_position(m->source, t), &w->bytes, e);
	if (rc)
		return rc;
	if (!bytes || w->bytes.size / bytes < rows)
		return err_set(e, ERR_INPUT, "%s has %zu bytes, too few for its shape", t->name, w->bytes.size);
	if (t->ndim != 1)
		return ERR_OK;
	float *v = m->vector[id] = malloc((size_t)cols * sizeof *v);
	if (!v)
		return err_nomem(e);
	weight_row(w, 0, v);
	return ERR_OK;
}

static int load_all(struct model *m, struct err *e)
{
	const struct config *c = m->config;
	int rc;
	for (size_t i = 0; i < site_count(c); i++)
		if (m->weight[i].tensor && (rc = load(m, i, e)))
			return rc;
	struct rope r = c->rope;
	const float *divisors = model_vector(m, ROLE_ROPE_FREQS, 0);
	if (divisors && r.scaling == ROPE_NONE && !r.divisors)
		r.divisors = divisors;
	m->inv_freq = malloc(2 * ((size_t)r.dims / 2) * sizeof *m->inv_freq + 1);
	if (!m->inv_freq)
		return err_nomem(e);
	m->rope_scale = rope_frequencies(&r, m->inv_freq);
	const struct rope local = { .theta = c->local_theta, .dims = r.dims, .attention_factor = 1 };
	if (c->local_theta > 0)
		rope_frequencies(&local, m->inv_freq + r.dims / 2);
	r.divisors = r.far;
	if (r.far)
		rope_frequencies(&r, m->inv_freq + r.dims / 2);
	return ERR_OK;
}

/* A model whose tensors have their places, nothing read yet. */
static int bind(const struct config *c, struct tensor_source *s, bool carried, struct model **out, struct err *e)
{
	size_t sites = site_count(c);
	struct complaints x = { .carried = carried };
	struct model *m = calloc(1, sizeof *m);
	*out = m;
	if (!m)
		return err_nomem(e);
	m->config = c;
	m->source = s;
	m->weight = calloc(sites, sizeof *m->weight);
	m->vector = calloc(sites, sizeof *m->vector);
	m->replaced = calloc(sites, sizeof *m->replaced);
	if (!m->weight || !m->vector || !m->replaced)
		return err_nomem(e);
	bind_names(m, &x);
	int rc = report(&x, e);
	strbuf_release(&x.missing);
	strbuf_release(&x.unknown);
	strbuf_release(&x.shape);
	return rc;
}

int model_check(const struct config *c, struct tensor_source *s, struct err *e)
{
	struct model *m;
	int rc = bind(c, s, true, &m, e);
	model_close(m);
	return rc;
}

int model_open(const struct config *c, struct tensor_source *s, struct model **out, struct err *e)
{
	int rc = bind(c, s, false, out, e);
	if (!rc)
		rc = load_all(*out, e);
	if (!rc)
		return ERR_OK;
	model_close(*out);
	*out = NULL;
	return rc;
}

int model_replace(struct model *m, enum role r, uint32_t place, const struct tensor *t, const void *bytes, struct err *e)
{
	size_t id = site_id(m->config, r, place);
	struct weight *w = id != SIZE_MAX ? &m->weight[id] : NULL;
	if (!w || !w->tensor || !shape_is(t, w->tensor->ndim, w->tensor->dim))
		return err_set(e, ERR_BUG, "%s cannot take the place of a tensor of another shape", t->name);
	tensor_bytes_release(&w->bytes);
	m->replaced[id] = *t;
	w->tensor = &m->replaced[id];
	w->bytes = (struct tensor_bytes){ .data = bytes, .size = (size_t)t->nbytes };
	if (t->ndim == 1)
		weight_row(w, 0, m->vector[id]);
	return ERR_OK;
}

void model_close(struct model *m)
{
	if (!m)
		return;
	size_t sites = site_count(m->config);
	for (size_t i = 0; m->weight && i < sites; i++)
		tensor_bytes_release(&m->weight[i].bytes);
	for (size_t i = 0; m->vector && i < sites; i++)
		free(m->vector[i]);
	free(m->weight);
	free(m->vector);
	free(m->replaced);
	free(m->inv_freq);
	free(m);
}
