#include "model/graph.h"

/* ---- making a list */

static value new_value(struct build *b, size_t width)
{
	struct block *k = b->block;
	if (k->values == BLOCK_VALUES) {
		k->full = true;
		return STREAM;
	}
	k->value[k->values] = (struct value_info){ .width = width, .maker = (uint8_t)k->ops };
	return (value)k->values++;
}

static size_t width_of(const struct build *b, value x)
{
	return b->block->value[x].width;
}

static void add_op(struct build *b, struct op op)
{
	struct block *k = b->block;
	if (k->ops == BLOCK_OPS) {
		k->full = true;
		return;
	}
	k->op[k->ops++] = op;
}

static void add_site(struct build *b, enum role r, bool required, uint32_t ndim, uint64_t rows, uint64_t cols)
{
	struct block *k = b->block;
	if (k->sites == BLOCK_SITES) {
		k->full = true;
		return;
	}
	k->site[k->sites++] = (struct site){ .role = r, .ndim = ndim, .dim = { rows, cols }, .required = required,
					     .count = role_rows[r].per_expert ? b->config->experts : 1 };
	k->site_of[r] = (uint8_t)k->sites;
}

static uint32_t heads_of(const struct build *b, size_t width)
{
	return (uint32_t)(width / b->config->head_dim);
}

static size_t rows_of(const struct build *b, enum role r)
{
	const struct config *c = b->config;
	switch (r) {
	case ROLE_Q: return (size_t)b->layer->heads * c->head_dim;
	case ROLE_K:
	case ROLE_V:
	case ROLE_K_NORM: return (size_t)b->layer->kv_heads * c->head_dim;
	case ROLE_GATE:
	case ROLE_UP: return b->layer->ffn;
	case ROLE_HEAD: return c->vocab;
	case ROLE_ROUTER: return c->experts;
	case ROLE_EXPERT_GATE:
	case ROLE_EXPERT_UP: return c->expert_ffn;
	default: return c->hidden;
	}
}

static bool biased(const struct config *c, enum role r)
{
	switch (r) {
	case ROLE_Q:
	case ROLE_K:
	case ROLE_V: return c->qkv_bias;
	case ROLE_O: return c->o_bias;
	case ROLE_GATE:
	case ROLE_UP:
	case ROLE_DOWN: return c->mlp_bias;
	case ROLE_HEAD: return c->arch->head_bias;
	default: return false;
	}
}

static bool of_keys_and_values(enum role r)
{
	return r == ROLE_K || r == ROLE_V || r == ROLE_K_NORM;
}

value op_linear(struct build *b, value x, enum role r)
{
	const struct config *c = b->config;
	if (x == NO_VALUE)
		return NO_VALUE;
	bool used = b->owner || !of_keys_and_values(r);
	size_t rows = rows_of(b, r);
	enum role bias = biased(c, r) ? role_rows[r].bias_role : ROLE_UNKNOWN;
	add_site(b, r, used && !(r == ROLE_HEAD && c->tied), 2, rows, width_of(b, x));
	if (bias != ROLE_UNKNOWN)
		add_site(b, bias, used, 1, rows, 0);
	if (!used)
		return NO_VALUE;
	value out = new_value(b, rows);
	add_op(b, (struct op){ .kind = OP_LINEAR, .in = { x, NO_VALUE, NO_VALUE }, .out = out, .role = r, .bias = bias });
	return out;
}

static value add_norm(struct build *b, enum op_kind kind, value x, enum role r, size_t dim)
{
	enum role bias = r < ROLE_COUNT && b->config->arch->norm == NORM_LAYER && !b->config->arch->plain_norms ? role_rows[r].bias_role : ROLE_UNKNOWN;
	bool used = b->owner || !of_keys_and_values(r);
	if (r < ROLE_COUNT)
		add_site(b, r, used, 1, dim, 0);
	if (bias != ROLE_UNKNOWN)
		add_site(b, bias, used, 1, dim, 0);
	if (x == NO_VALUE)
		return NO_VALUE;
	size_t width = width_of(b, x);
	value out = new_value(b, width);
	add_op(b, (struct op){ .kind = kind, .in = { x, NO_VALUE, NO_VALUE }, .out = out, .role = r, .bias = bias,
			       .heads = kind == OP_HEAD_NORM ? (uint32_t)(width / dim) : 1 });
	return out;
}

value op_norm(struct build *b, value x, enum role r)
{
	return add_norm(b, OP_NORM, x, r, x == NO_VALUE ? rows_of(b, r) : width_of(b, x));
}

value op_head_norm(struct build *b, value x, enum role r)
{
	return add_norm(b, OP_HEAD_NORM, x, r, b->config->head_dim);
}

static value without_weights(struct build *b, enum op_kind kind, value x, value y, value z, size_t width)
{
	value out = new_value(b, width);
	add_op(b, (struct op){ .kind = kind, .in = { x, y, z }, .out = out, .role = ROLE_UNKNOWN, .bias = ROLE_UNKNOWN,
			       .heads = heads_of(b, width) });
	return out;
}

value op_rope(struct build *b, value x)
{
	return x == NO_VALUE || !b->layer->rope ? x : without_weights(b, OP_ROPE, x, NO_VALUE, NO_VALUE, width_of(b, x));
}

value op_attend(struct build *b, value q, value k, value v)
{
	return without_weights(b, OP_ATTEND, q, k, v, width_of(b, q));
}

value op_act(struct build *b, value x)
{
	return without_weights(b, OP_ACT, x, NO_VALUE, NO_VALUE, width_of(b, x));
}

value op_glu(struct build *b, value gate, value up)
{
	return without_weights(b, OP_GLU, gate, up, NO_VALUE, width_of(b, gate));
}

void op_add(struct build *b, value x)
{
	add_op(b, (struct op){ .kind = OP_ADD, .in = { x, NO_VALUE, NO_VALUE }, .out = STREAM, .role = ROLE_UNKNOWN,
			       .bias = ROLE_UNKNOWN });
}

value op_scale(struct build *b, value x, float by)
{
	if (x == NO_VALUE || by == 1)
		return x;
	value out = without_weights(b, OP_SCALE, x, NO_VALUE, NO_VALUE, width_of(b, x));
	if (!b->block->full)
		b->block->op[b->block->ops - 1].scale = by;
	return out;
}

value op_temper(struct build *b, value x)
{
	return x == NO_VALUE || b->config->rope.temper == 0 ? x : without_weights(b, OP_TEMPER, x, NO_VALUE, NO_VALUE, width_of(b, x));
}

value op_route(struct build *b, value logits)
{
	return without_weights(b, OP_ROUTE, logits, NO_VALUE, NO_VALUE, width_of(b, logits));
}

value op_experts(struct build *b, value x, value weights)
{
	return without_weights(b, OP_EXPERTS, x, weights, NO_VALUE, width_of(b, x));
}

value op_merge(struct build *b, value x, value weights)
{
	return without_weights(b, OP_MERGE, x, weights, NO_VALUE, width_of(b, x));
}

/* norm: of queries and keys, or NULL */
static value attention(struct build *b, value x, value (*norm)(struct build *b, value x, enum role r))
{
	value q = op_linear(b, x, ROLE_Q), k = op_linear(b, x, ROLE_K), v = op_linear(b, x, ROLE_V);
	if (norm) {
		q = norm(b, q, ROLE_Q_NORM);
		k = norm(b, k, ROLE_K_NORM);
	}
	q = op_temper(b, op_rope(b, q));
	k = op_rope(b, k);
	return op_linear(b, op_attend(b, q, k, v), ROLE_O);
}

value common_attention(struct build *b, value x, bool head_norms)
{
	return attention(b, x, head_norms ? op_head_norm : NULL);
}

value common_attention_whole(struct build *b, value x)
{
	return attention(b, x, op_norm);
}

value common_feed_forward(struct build *b, value x)
{
	value gate = op_linear(b, x, ROLE_GATE), up = op_linear(b, x, ROLE_UP);
	return op_linear(b, op_glu(b, gate, up), ROLE_DOWN);
}

void common_sandwich(struct build *b, bool head_norms)
{
	value x = common_attention(b, op_norm(b, STREAM, ROLE_ATTN_NORM), head_norms);
	op_add(b, op_norm(b, x, ROLE_POST_ATTN_NORM));
	x = common_feed_forward(b, op_norm(b, STREAM, ROLE_FFN_NORM));
	op_add(b, op_norm(b, x, ROLE_POST_FFN_NORM));
}

value common_mixture(struct build *b, value x)
{
	value weights = op_route(b, op_linear(b, x, ROLE_ROUTER)), of_one = op_experts(b, x, weights);
	value gate = op_linear(b, of_one, ROLE_EXPERT_GATE), up = op_linear(b, of_one, ROLE_EXPERT_UP);
	return op_merge(b, op_linear(b, op_glu(b, gate, up), ROLE_EXPERT_DOWN), weights);
}

value common_mlp(struct build *b, value x)
{
	return op_linear(b, op_act(b, op_linear(b, x, ROLE_UP)), ROLE_DOWN);
}

void common_parallel(struct build *b, bool gated)
{
	value x = op_norm(b, STREAM, ROLE_ATTN_NORM);
	/* all that read it stand together, so that they are multiplied together */
	value q = op_linear(b, x, ROLE_Q), k = op_linear(b, x, ROLE_K), v = op_linear(b, x, ROLE_V);
	value gate = gated ? op_linear(b, x, ROLE_GATE) : NO_VALUE, up = op_linear(b, x, ROLE_UP);
	value attended = op_linear(b, op_attend(b, op_rope(b, q), op_rope(b, k), v), ROLE_O);
	value fed = op_linear(b, gated ? op_glu(b, gate, up) : op_act(b, up), ROLE_DOWN);
	op_add(b, attended);
	op_add(b, fed);
}

/* ---- what follows from a list */

unsigned block_merge(const struct block *b, unsigned i)
{
	while (i < b->ops && b->op[i].kind != OP_MERGE)
		i++;
	return i;
}

/* What an expert reads, made before it, the next one reads again. */
static void find_uses(struct block *b)
{
	unsigned begin = 0, end = 0;
	for (unsigned i = 0; i < b->ops; i++) {
		if (b->op[i].kind == OP_EXPERTS) {
			begin = i;
			end = block_merge(b, i);
		}
		for (int k = 0; k < 3; k++) {
			if (b->op[i].in[k] == NO_VALUE)
				continue;
			struct value_info *v = &b->value[b->op[i].in[k]];
			v->last = (uint8_t)(i < end && v->maker < begin ? end : i);
		}
	}
}

/*
 * Do operations i and k, k behind i, read one value? Every op_add makes another one of the stream, under the same number:
 * two halves that begin with linears on it do not read the same.
 */
static bool reads_same(const struct block *b, unsigned i, unsigned k)
{
	if (b->op[i].in[0] != b->op[k].in[0])
		return false;
	for (; b->op[k].in[0] == STREAM && i < k; i++)
		if (b->op[i].out == STREAM)
			return false;
	return true;
}

static void find_groups(struct block *b)
{
	for (unsigned i = 0, n; i < b->ops; i += n) {
		n = 1;
		if (b->op[i].kind != OP_LINEAR)
			continue;
		while (i + n < b->ops && b->op[i + n].kind == OP_LINEAR && reads_same(b, i, i + n))
			n++;
		b->op[i].group = (uint8_t)n;
	}
}

static bool in_place(enum op_kind k)
{
	return k != OP_LINEAR && k != OP_ATTEND && k != OP_EXPERTS && k != OP_MERGE;
}

static void give_room(struct block *b, bool taken[BLOCK_ROOMS], value v)
{
	unsigned room = 0;
	while (room < BLOCK_ROOMS && taken[room])
		room++;
	if (room == BLOCK_ROOMS) {
		b->full = true;
		return;
	}
	b->rooms = room + 1 > b->rooms ? room + 1 : b->rooms;
	b->value[v].room = (uint8_t)room;
	taken[room] = true;
}

/*
 * Values get rooms first come, first served. A group of linears reads its input until all its results are there. The sum
 * over experts has its room before the first of them.
 */
static void find_rooms(struct block *b)
{
	bool taken[BLOCK_ROOMS] = { false };
	for (unsigned i = 0; i < b->ops; i++) {
		const struct op *op = &b->op[i];
		unsigned merge = op->kind == OP_EXPERTS ? block_merge(b, i) : b->ops;
		if (merge < b->ops)
			give_room(b, taken, b->op[merge].out);
		const struct value_info *in = &b->value[op->in[0]];
		if (op->out != STREAM && in_place(op->kind) && op->in[0] != STREAM && in->last == i)
			b->value[op->out].room = in->room;
		else if (op->out != STREAM && op->kind != OP_MERGE)
			give_room(b, taken, op->out);
		if (b->full)
			return;
		for (int k = 0; k < 3; k++)
			if (op->in[k] != NO_VALUE && op->in[k] != STREAM && b->value[op->in[k]].last == i)
				taken[b->value[op->in[k]].room] = false;
		if (op->out != STREAM) {
			struct value_info *out = &b->value[op->out];
			taken[out->room] = true;
			b->room[out->room] = out->width > b->room[out->room] ? out->width : b->room[out->room];
		}
	}
}

static bool only_stream_passes(const struct block *b, unsigned at)
{
	for (unsigned v = STREAM + 1; v < b->values; v++)
		if (b->value[v].maker < at && b->value[v].last >= at)
			return false;
	return true;
}

static void find_parts(struct block *b)
{
	for (unsigned i = 0; i < b->ops; i++)
		if (b->op[i].kind == OP_ADD && (i + 1 == b->ops || only_stream_passes(b, i + 1)) && b->parts < BLOCK_PARTS)
			b->part[++b->parts] = (uint8_t)(i + 1);
}

/* The head of one that is tied is the embedding; GGUF's frequency divisors are taken where a file has them. */
static void outside(struct build *b)
{
	const struct config *c = b->config;
	add_site(b, ROLE_EMBED, true, 2, c->vocab, c->hidden);
	if (c->arch->learned_positions)
		add_site(b, ROLE_POSITIONS, true, 2, c->context + c->arch->position_offset, c->hidden);
	if (c->arch->embed_norm)
		op_norm(b, STREAM, ROLE_EMBED_NORM);
	add_site(b, ROLE_ROPE_FREQS, false, 1, c->rope.dims / 2, 0);
	op_linear(b, op_norm(b, STREAM, ROLE_FINAL_NORM), ROLE_HEAD);
}

void block_make(const struct config *c, uint32_t layer, struct block *b)
{
	struct build build = { .config = c, .block = b, .owner = true };
	*b = (struct block){ .values = 1, .value[STREAM].width = c->hidden };
	if (layer == OUTSIDE) {
		outside(&build);
	} else {
		build.layer = &c->layer[layer];
		build.owner = build.layer->kv_source == layer;
		c->arch->layer(&build);
	}
	find_uses(b);
	find_groups(b);
	find_rooms(b);
	find_parts(b);
}

/* ---- asking a list */

const struct site *block_site(const struct block *b, enum role r)
{
	return r < ROLE_COUNT && b->site_of[r] ? &b->site[b->site_of[r] - 1] : NULL;
}

const struct op *block_op(const struct block *b, enum role r)
{
	for (unsigned i = 0; i < b->ops && r < ROLE_COUNT; i++)
		if (b->op[i].role == r || b->op[i].bias == r)
			return &b->op[i];
	return NULL;
}

enum role block_leader(const struct block *b, enum role r)
{
	const struct op *of = block_op(b, r);
	for (unsigned i = 0; of && i <= (unsigned)(of - b->op); i++)
		if (b->op[i].kind == OP_LINEAR && reads_same(b, i, (unsigned)(of - b->op)))
			return b->op[i].role;
	return r;
}

bool block_has(const struct block *b, unsigned part, enum op_kind kind)
{
	unsigned end = part > b->parts ? 0 : b->part[part ? part : b->parts];
	for (unsigned i = end && part ? b->part[part - 1] : 0; i < end; i++)
		if (b->op[i].kind == kind)
			return true;
	return false;
}

bool block_adds(const struct block *b, enum role r)
{
	const struct op *op = block_op(b, r);
	return op && op->kind == OP_LINEAR && b->op[b->value[op->out].last].kind == OP_ADD;
}

size_t block_width(const struct block *b, enum role r)
{
	const struct op *op = block_op(b, r);
	return op ? b->value[op->in[0]].width : 0;
}

unsigned block_groups(const struct block *b, struct group out[BLOCK_GROUPS])
{
	unsigned n = 0, part = 1;
	for (unsigned i = 0; i < b->ops; i++) {
		const struct op *op = &b->op[i];
		while (part < b->parts && i >= b->part[part])
			part++;
		if (op->kind != OP_LINEAR || block_leader(b, op->role) != op->role || n == BLOCK_GROUPS)
			continue;
		struct group *g = &out[n++];
		*g = (struct group){ .part = part, .ends = true, .adds = block_adds(b, op->role),
				     .experts = role_rows[op->role].per_expert ? block_site(b, op->role)->count : 0 };
		for (unsigned k = i; k < b->ops && g->count < BLOCK_READERS; k++)
			if (b->op[k].kind == OP_LINEAR && reads_same(b, i, k))
				g->role[g->count++] = b->op[k].role;
		if (n > 1 && out[n - 2].part == part)
			out[n - 2].ends = false;
	}
	return n;
}

static unsigned reads(const struct block *b, value v)
{
	unsigned n = 0;
	for (unsigned i = 0; i < b->ops; i++)
		for (int k = 0; k < 3; k++)
			n += b->op[i].in[k] == v;
	return n;
}

static bool only_linears(const struct block *b, value v)
{
	for (unsigned i = 0; i < b->ops; i++)
		for (int k = 0; k < 3; k++)
			if (b->op[i].in[k] == v && b->op[i].kind != OP_LINEAR)
				return false;
	return true;
}

struct source_of block_source(const struct config *c, const struct block *b, enum role r)
{
	struct source_of s = { .role = ROLE_UNKNOWN, .bias = ROLE_UNKNOWN };
	const struct op *op = block_op(b, r);
	value x = op ? op->in[0] : NO_VALUE;
	if (x != STREAM && x != NO_VALUE && !only_linears(b, x)) {
		s.why = "what other operations read too";
		return s;
	}
	while (x != NO_VALUE && x != STREAM) {
		const struct op *maker = &b->op[b->value[x].maker];
		switch (maker->kind) {
		case OP_NORM:
			s.norm = true;
			/* fall through */
		case OP_LINEAR:
			s.role = maker->role;
			s.bias = maker->bias;
			s.why = s.norm && c->arch->norm == NORM_LAYER ? "a layer norm" : NULL;
			s.role = s.why ? ROLE_UNKNOWN : s.role;
			return s;
		case OP_GLU: x = maker->in[1]; break;
		case OP_ATTEND:
			x = maker->in[2];
			s.heads = true;
			break;
		case OP_ACT: s.why = "an activation"; return s;
		case OP_EXPERTS: s.why = "a norm that the router and all experts read"; return s;
		default: s.why = "a norm of each head"; return s;
		}
		if (x != NO_VALUE && reads(b, x) != 1)
			break;
	}
	s.why = x == NO_VALUE ? "values of another layer" : x == STREAM ? "the stream, which all layers add to" : "what other operations read too";
	return s;
}

/* The block that a role's tensors belong to, if the model has such a place. */
static const struct site *find_site(const struct config *c, enum role r, uint32_t place, struct block *b)
{
	if (site_id(c, r, place) == SIZE_MAX)
		return NULL;
	block_make(c, role_rows[r].per_layer ? role_layer(r, place) : OUTSIDE, b);
	return block_site(b, r);
}

uint32_t role_shape(const struct config *c, enum role r, uint32_t place, uint64_t dim[2])
{
	struct block b;
	const struct site *s = find_site(c, r, place, &b);
	dim[0] = s ? s->dim[0] : 0;
	dim[1] = s ? s->dim[1] : 0;
	return s ? s->ndim : 0;
}

bool role_required(const struct config *c, enum role r, uint32_t place)
{
	struct block b;
	const struct site *s = find_site(c, r, place, &b);
	return s && s->required;
}

uint32_t role_count(const struct config *c, enum role r, uint32_t layer)
{
	struct block b;
	if (r >= ROLE_COUNT || (role_rows[r].per_expert && !c->experts))
		return 0;
	const struct site *s = find_site(c, r, role_place(r, layer, 0), &b);
	return s && s->required ? s->count : 0;
}

/* Roles outside of layers, those of each layer, those of each expert. */
enum { EXPERT_ROLES = ROLE_EXPERT_DOWN - ROLE_EXPERT_GATE + 1 };

size_t site_id(const struct config *c, enum role r, uint32_t place)
{
	if (r >= ROLE_COUNT)
		return SIZE_MAX;
	if (!role_rows[r].per_layer)
		return r;
	if (!role_rows[r].per_expert)
		return place < c->layers ? ((size_t)place + 1) * ROLE_COUNT + r : SIZE_MAX;
	size_t layer = place_layer(place), expert = place_expert(place);
	if (layer >= c->layers || expert >= c->experts)
		return SIZE_MAX;
	return ((size_t)c->layers + 1) * ROLE_COUNT + (layer * c->experts + expert) * EXPERT_ROLES + (r - ROLE_EXPERT_GATE);
}

size_t site_count(const struct config *c)
{
	return ((size_t)c->layers + 1) * ROLE_COUNT + (size_t)c->layers * c->experts * EXPERT_ROLES;
}

static uint64_t parameters(const struct config *c, uint32_t experts)
{
	uint64_t sum = 0;
	struct block b;
	for (uint32_t i = 0; i <= c->layers; i++) {
		block_make(c, i < c->layers ? i : OUTSIDE, &b);
		for (unsigned k = 0; k < b.sites; k++) {
			const struct site *s = &b.site[k];
			if (s->required)
				sum += s->dim[0] * (s->ndim == 2 ? s->dim[1] : 1) * (role_rows[s->role].per_expert ? experts : 1);
		}
	}
	return sum;
}

uint64_t config_parameters(const struct config *c)
{
	return parameters(c, c->experts);
}

uint64_t config_active_parameters(const struct config *c)
{
	return parameters(c, c->experts_used);
}
