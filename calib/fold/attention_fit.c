#include "calib/fold/attention_fit.h"

#include <stdlib.h>

#include "base/thread.h"

int attention_fit_possible(const struct config *c, uint32_t layer, struct err *e)
{
	struct block b;
	block_make(c, layer, &b);
	const struct op *norm = block_op(&b, ROLE_K_NORM);
	if (norm && norm->kind == OP_NORM)
		return err_set(e, ERR_UNSUPPORTED, "layer %u norms the keys of all its heads at once, so that no head can change by itself; "
			       "only windows can be folded", layer);
	return ERR_OK;
}

/* The operations from the projections to W_O, whose bias is not in the target. */
static int find_stretch(struct attention_fit *f, const struct config *c, struct err *e)
{
	struct block *b = &f->block;
	block_make(c, f->layer, b);
	const struct op *q = block_op(b, ROLE_Q), *o = block_op(b, ROLE_O);
	if (!q || !o || q > o || !tape_keys_values(b, c, f->layer, f->kv))
		return err_set(e, ERR_UNSUPPORTED, "layer %u has no attention between W_Q and W_O that could be fitted", f->layer);
	f->from = (unsigned)(q - b->op);
	f->to = (unsigned)(o - b->op) + 1;
	f->x = f->x_kv = q->in[0];
	f->heads = o->in[0];
	f->out = o->out;
	b->op[f->to - 1].bias = ROLE_UNKNOWN;
	for (unsigned i = f->from; i < f->to; i++)
		if (b->op[i].kind == OP_ATTEND)
			f->q = b->op[i].in[0];
	return ERR_OK;
}

static value new_value(struct block *b, size_t width)
{
	b->value[b->values].width = width;
	return (value)b->values++;
}

/* Keys and values that are given, or projections that read another input. */
static void other_keys(struct attention_fit *f)
{
	struct block *b = &f->block;
	if (f->keys == FIT_OF_INPUT)
		f->x_kv = new_value(b, b->value[f->x].width);
	value given[2] = { f->kv[0], f->kv[1] };
	for (int k = 0; k < 2 && f->keys == FIT_GIVEN; k++)
		given[k] = new_value(b, b->value[f->kv[k]].width);
	for (unsigned i = f->from; i < f->to; i++) {
		struct op *op = &b->op[i];
		if (op->role == ROLE_K || op->role == ROLE_V)
			op->in[0] = f->x_kv;
		for (int k = 0; k < 2 && op->kind == OP_ATTEND; k++)
			op->in[1 + k] = given[k];
	}
	f->kv[0] = given[0];
	f->kv[1] = given[1];
}

int attention_fit_init(struct attention_fit *f, const struct attention_fit_layer *l, const struct attention_weights *shape, size_t seqs,
		       size_t ctx, struct err *e)
{
	*f = (struct attention_fit){ .shape = *shape, .ctx = ctx, .keys = l->keys, .layer = l->layer, .seqs = seqs };
	f->shape.q = f->shape.k = f->shape.v = f->shape.o = NULL;
	if (l->keys == FIT_OF_INPUT)
		f->key_norm = model_vector(l->model, ROLE_K_NORM, l->key_layer);
	int rc = find_stretch(f, l->config, e);
	if (rc)
		return rc;
	other_keys(f);
	f->y = malloc(seqs * ctx * shape->hidden * sizeof *f->y);
	f->loss = calloc(seqs, sizeof *f->loss);
	return f->y && f->loss ? tape_new(l->model, l->config, seqs, ctx, &f->tape, e) : err_nomem(e);
}

void attention_fit_release(struct attention_fit *f)
{
	tape_free(f->tape);
	free(f->y);
	free(f->loss);
	f->tape = NULL;
	f->y = NULL;
	f->loss = NULL;
}

const float *attention_fit_heads(const struct attention_fit *f)
{
	return tape_value(f->tape, f->heads);
}

const float *attention_fit_queries(const struct attention_fit *f)
{
	return tape_value(f->tape, f->q);
}

const float *attention_fit_keys(const struct attention_fit *f)
{
	return tape_value(f->tape, f->kv[0]);
}

const float *attention_fit_values(const struct attention_fit *f)
{
	return tape_value(f->tape, f->kv[1]);
}

const float *attention_fit_errors(const struct attention_fit *f)
{
	return f->y;
}

struct misfit {
	const struct attention_fit *f;
	const float *target;
};

static void misfit(void *arg, size_t seq, int worker)
{
	(void)worker;
	const struct misfit *m = arg;
	size_t size = m->f->ctx * m->f->shape.hidden;
	float *y = m->f->y + seq * size;
	const float *target = m->target + seq * size;
	double sum = 0;
	for (size_t i = 0; i < size; i++) {
		float error = y[i] - target[i];
		sum += (double)error * error;
		y[i] = 2 * error;
	}
	m->f->loss[seq] = sum;
}

static float *given(const float *x)
{
	return (float *)(uintptr_t)x;
}

int attention_fit_run(struct attention_fit *f, const struct attention_weights *w, const struct attention_batch *b,
		      struct attention_weights *grad, double *loss, struct err *e)
{
	size_t heads = (size_t)w->heads * w->dim;
	struct tape_matrix matrix[ROLE_COUNT] = {
		[ROLE_Q] = { w->q, grad ? grad->q : NULL, w->cols }, [ROLE_K] = { w->k, grad ? grad->k : NULL, w->cols },
		[ROLE_V] = { w->v, grad ? grad->v : NULL, w->cols }, [ROLE_O] = { w->o, grad ? grad->o : NULL, heads },
	};
	struct tape_job j = { .block = &f->block, .from = f->from, .to = f->to, .layer = f->layer, .key_norm = f->key_norm, .seqs = b->seqs,
			      .matrix = matrix, .back = grad && b->target };
	j.place[f->x].x = given(b->x);
	if (f->keys == FIT_OF_INPUT)
		j.place[f->x_kv].x = given(b->x_kv);
	j.place[f->q].kept = j.place[f->heads].kept = true;
	for (int k = 0; k < 2; k++) {
		j.place[f->kv[k]].kept = f->keys != FIT_GIVEN;
		j.place[f->kv[k]].x = f->keys != FIT_GIVEN ? NULL : given(k ? b->values : b->keys);
	}
	if (b->target)
		j.place[f->out] = (struct tape_place){ .x = f->y, .d = grad ? f->y : NULL };
	int rc = tape_forward(f->tape, &j, e);
	if (rc || !b->target)
		return rc;
	thread_for(b->seqs, misfit, &(struct misfit){ f, b->target });
	*loss = 0;
	for (size_t i = 0; i < b->seqs; i++)
		*loss += f->loss[i];
	return j.back ? tape_back(f->tape, &j, e) : ERR_OK;
}
