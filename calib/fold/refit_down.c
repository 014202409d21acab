#include "calib/fold/refit_down.h"

#include <stdlib.h>
#include <string.h>

#include "calib/run/attention_weights.h"
#include "algo/ridge.h"
#include "model/graph.h"

const char *refit_down_obstacle(const struct config *c, uint32_t layer)
{
	struct block b;
	block_make(c, layer, &b);
	if (!block_op(&b, ROLE_DOWN))
		return "the layer is a mixture of experts";
	return block_adds(&b, ROLE_DOWN) ? NULL : "it does not go to the stream as it is";
}

struct pass {
	const struct refit_down *r;
	struct ridge ridge;      /* aa NULL: only the error is measured */
	float *inputs;           /* [batch tokens, ffn] */
	float *missing;          /* [batch tokens, hidden] */
	double error, energy;
};

static void see(void *arg, enum role r, uint32_t layer, const float *x, size_t n, size_t dim)
{
	(void)layer;
	struct pass *p = arg;
	if (r == ROLE_DOWN && p->ridge.aa)
		memcpy(p->inputs, x, n * dim * sizeof *x);
}

/* The teacher is a layer ahead here: its hidden states are what the student's should be. */
static int done(void *arg, size_t first, size_t count, const float *output, struct err *e)
{
	(void)e;
	struct pass *p = arg;
	size_t width = p->r->to->hidden, n = count * p->r->text->ctx;
	const float *want = p->r->teacher->hidden + first * p->r->text->ctx * width;
	for (size_t i = 0; i < n * width; i++) {
		p->missing[i] = want[i] - output[i];
		p->error += (double)p->missing[i] * p->missing[i];
		p->energy += (double)want[i] * want[i];
	}
	if (p->ridge.aa)
		ridge_add(&p->ridge, p->inputs, p->missing, n);
	return ERR_OK;
}

static int run(struct pass *p, uint32_t layer, size_t from, size_t to, double *relative, struct err *e)
{
	struct model_tap tap = { .input = see, .arg = p };
	struct stream_visit v = { .done = done, .tap = &tap, .arg = p };
	p->error = p->energy = 0;
	int rc = stream_layer(p->r->student, layer, from, to, &v, e);
	*relative = p->energy > 0 ? p->error / p->energy : 0;
	return rc;
}

static int put(const struct refit_down *r, uint32_t layer, const float *w, struct err *e)
{
	return attention_weights_put(&(struct weights_sink){ r->to, r->source, r->out, r->student->model }, ROLE_DOWN, layer, w, e);
}

static int solve(struct pass *p, uint32_t layer, const char *name, double *before, double *after, struct err *e)
{
	const struct refit_down *r = p->r;
	size_t count = r->text->count, train = count - r->held;
	float *w = NULL, *was = NULL;
	const struct tensor *meta;
	double unused;
	int rc = run(p, layer, train, count, before, e);
	*after = *before;
	if (!rc)
		rc = ridge_init(&p->ridge, r->to->layer[layer].ffn, r->to->hidden, e);
	if (!rc)
		rc = run(p, layer, 0, train, &unused, e);
	if (!rc)
		rc = source_read_f32(r->source, name, &w, &meta, e);
	if (!rc)
		rc = source_read_f32(r->source, name, &was, &meta, e);
	if (!rc)
		rc = ridge_solve(&p->ridge, r->ridge, w, e);
	ridge_release(&p->ridge);
	if (!rc)
		rc = put(r, layer, w, e);
	if (!rc)
		rc = run(p, layer, train, count, after, e);
	if (!rc && !(*after < *before)) {
		rc = put(r, layer, was, e);
		*after = *before;
	}
	free(w);
	free(was);
	return rc;
}

int refit_down(const struct refit_down *r, uint32_t layer, double *before, double *after, struct err *e)
{
	struct pass p = { .r = r };
	size_t batch = r->student->batch * r->text->ctx;
	char name[96];
	role_hf_name(r->to->arch, ROLE_DOWN, layer, name);
	p.inputs = malloc(batch * r->to->layer[layer].ffn * sizeof *p.inputs);
	p.missing = malloc(batch * r->to->hidden * sizeof *p.missing);
	int rc = p.inputs && p.missing ? solve(&p, layer, name, before, after, e) : err_nomem(e);
	free(p.inputs);
	free(p.missing);
	return rc ? err_prefix(e, "%s", name) : ERR_OK;
}
