/*
 * deci is Llama with counts per layer; step35 has windows and norms of heads too. Nothing changes but names of keys.
 *
 * gemma4 has norms that other families lack: of queries, keys, values, and of what attention and feed-forward put out. They
 * become identities. The residual stream is multiplied by c and eps by c^2, which real norms do not see; what enters a norm
 * that should do nothing is multiplied by s, so small beside sqrt(eps) that its own size is lost in the sum under the root:
 * s x / sqrt(s^2 x^2 + c^2 eps) = m x (1 - m^2 x^2 / 2 ...) with m = s / (c sqrt(eps)), and the norm's weights take 1 / m. That
 * of values has no weights: the cache holds m v, and W_O takes 1 / m. Where it can be so, factors are powers of two.
 */
#include "model/recast.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "codec/codec.h"
#include "model/config_differ.h"
#include "model/family/family.h"

/* Where a tensor comes from: value * scale + add, of a tensor of the source or of nothing. */
struct origin {
	size_t from;                 /* SIZE_MAX: every value is `add` */
	float scale, add;
};

struct recast {
	struct tensor_source base;   /* first: the source is cast back to this */
	struct recast_request want;
	struct config config;
	struct tensor *tensor;       /* base.tensors */
	struct origin *origin;
	size_t room;
	uint32_t shift;              /* layers put in front */
	bool near;
	/* gemma4 */
	float stream, embed;         /* c, and what the embedding takes */
	float in, in_v, in_o;        /* s; of the norm of values another one, and what W_O takes */
	float pass, pass_v;          /* m */
	float gate;                  /* into the activation, and out of it again */
};

/* Of the families that others know: which of the targets can say them. */
static const struct kin {
	const struct arch *from;
	bool deci, step35, gemma4;
} kin[] = {
	{ &family_llama, true, true, true }, { &family_mistral, true, true, true }, { &family_qwen2, true, true, true },
	{ &family_qwen3, false, true, true }, { &family_gemma, false, false, true }, { &family_gemma2, false, false, true },
	{ &family_gemma3, false, false, true },
};

static bool is_kin(const struct recast_request *r)
{
	for (size_t i = 0; i < sizeof kin / sizeof *kin; i++)
		if (kin[i].from == r->config->arch)
			return (kin[i].deci && r->as == &family_deci) || (kin[i].step35 && r->as == &family_step35) ||
			       (kin[i].gemma4 && r->as == &family_gemma4);
	return false;
}

static bool has_norms(const struct config *c, enum role r)
{
	struct block b;
	block_make(c, 0, &b);
	return block_site(&b, r) != NULL;
}

/* silu(x) is near gelu(x g) / g. */
static const float GELU_OF_SILU = 0.5875f;

static int check_gemma4(const struct recast_request *r, struct err *e)
{
	const struct config *c = r->config;
	uint32_t n = config_suffix(c);
	if (c->attn_softcap > 0)
		return err_set(e, ERR_UNSUPPORTED, "gemma4 has no cap on the scores of attention, which %s has", c->arch->name);
	for (uint32_t i = 1; i < c->layers && !r->gguf; i++)
		if (c->layer[i].kv_heads != c->layer[0].kv_heads)
			return err_set(e, ERR_UNSUPPORTED, "Gemma4ForCausalLM has one count of KV heads for all layers");
	if (c->mlp_bias || (r->gguf && (c->qkv_bias || c->o_bias)))
		return err_set(e, ERR_UNSUPPORTED, "gemma4 has no biases%s, which this model has", c->mlp_bias ? " in the feed-forward" : " in GGUF");
	if (r->gguf && c->act != ACT_SILU && c->act != ACT_GELU_TANH)
		return err_set(e, ERR_UNSUPPORTED, "gemma4 in GGUF knows gelu in its tanh form only");
	for (uint32_t i = c->layers - n; i < c->layers; i++)
		if (config_suffix_source(c, n, i) != c->layer[i].kv_source)
			return err_set(e, ERR_UNSUPPORTED, "of shared caches gemma4 knows one form: the last layers read the last one before them "
				       "(--share-layers suffix:N); layer %u reads layer %u", i, c->layer[i].kv_source);
	for (uint32_t i = 0; i < c->layers - n; i++)
		if (c->layer[i].kv_source != i)
			return err_set(e, ERR_UNSUPPORTED, "of shared caches gemma4 knows one form: the last layers read the last one before them "
				       "(--share-layers suffix:N); layer %u reads layer %u", i, c->layer[i].kv_source);
	return ERR_OK;
}

int recast_check(const struct recast_request *r, struct err *e)
{
	const struct config *c = r->config;
	bool windows = false;
	uint32_t window = 0;
	if (!is_kin(r))
		return err_set(e, ERR_UNSUPPORTED, "%s is not written as %s", c->arch->name, r->as->gguf);
	for (uint32_t i = 0; i < c->layers; i++) {
		windows |= c->layer[i].window != 0;
		if (c->layer[i].window && window && c->layer[i].window != window)
			return err_set(e, ERR_UNSUPPORTED, "%s has one length for all windows", r->as->gguf);
		window = c->layer[i].window ? c->layer[i].window : window;
		if (r->as != &family_gemma4 && c->layer[i].kv_source != i)
			return err_set(e, ERR_UNSUPPORTED, "%s has no shared caches", r->as->gguf);
	}
	if (r->as == &family_deci && windows)
		return err_set(e, ERR_UNSUPPORTED, "deci has no windows");
	if (r->as != &family_deci && windows && !c->arch->local_theta && (c->rope.scaling != ROPE_NONE || c->rope.divisors))
		return err_set(e, ERR_UNSUPPORTED, "%s does not scale the positions of layers with a window", r->as->gguf);
	if (r->gguf && r->as != &family_deci && c->rope.scaling != ROPE_NONE && c->rope.scaling != ROPE_LLAMA3)
		return err_set(e, ERR_UNSUPPORTED, "llama.cpp scales the positions of all layers of %s, or of none", r->as->gguf);
	if (r->as == &family_step35 && (c->o_bias || c->mlp_bias))
		return err_set(e, ERR_UNSUPPORTED, "step35 has biases of queries, keys and values only");
	return r->as == &family_gemma4 ? check_gemma4(r, e) : ERR_OK;
}

/* ---- the configuration */

static int copy_config(struct recast *r, struct err *e)
{
	const struct config *from = r->want.config;
	struct config *c = &r->config;
	*c = *from;
	c->arena = (struct arena){ 0 };
	c->arch = r->want.as;
	c->layers = from->layers + r->shift;
	c->layer = arena_array(&c->arena, c->layers, sizeof *c->layer);
	if (!c->layer)
		return err_nomem(e);
	for (uint32_t i = 0; i < from->layers; i++) {
		c->layer[i + r->shift] = from->layer[i];
		c->layer[i + r->shift].kv_source += r->shift;
	}
	return ERR_OK;
}

/* A window is wanted by who reads the file; one as long as texts are does nothing. */
static void need_window(struct config *c)
{
	for (uint32_t i = 0; i < c->layers; i++)
		if (c->layer[i].window)
			return;
	c->layer[0].window = c->context > 1 << 20 ? c->context : 1 << 20;
}

static int make_config(struct recast *r, struct err *e)
{
	const struct config *from = r->want.config;
	struct config *c = &r->config;
	bool gemma4 = r->want.as == &family_gemma4;
	r->shift = 0;
	for (uint32_t i = 0; gemma4 && r->want.gguf && !r->shift; i++) {
		if (i == from->layers)
			r->shift = 1; /* a window is needed, and nothing may read it */
		else if (from->layer[i].window)
			break;
	}
	int rc = copy_config(r, e);
	if (rc)
		return rc;
	if (r->shift)
		c->layer[0] = (struct layer_config){ .heads = c->heads, .kv_heads = 1, .window = 1, .rope = true, .ffn = 32 };
	c->head_norms = has_norms(from, ROLE_Q_NORM);
	if (r->want.as == &family_step35 && r->want.gguf) {
		need_window(c);
		c->tied = false;
	}
	c->local_theta = !c->arch->local_theta ? 0 : from->local_theta > 0 ? from->local_theta : from->rope.theta;
	for (uint32_t i = 0; i < c->layers; i++)
		c->layer[i].local = c->arch->local_theta && c->layer[i].window;
	if (!gemma4)
		return ERR_OK;
	r->near = r->want.gguf && from->act == ACT_SILU;
	c->act = r->want.gguf ? ACT_GELU_TANH : from->act;
	c->query_scalar = 1;
	c->o_bias = c->qkv_bias || c->o_bias;
	c->qkv_bias = c->o_bias;
	c->norm_eps = from->norm_eps * r->stream * r->stream;
	return ERR_OK;
}

/* ---- the tensors */

static int put(struct recast *r, const struct tensor *t, struct origin o, struct err *e)
{
	if (r->base.count == r->room) {
		size_t room = 2 * r->room + 64;
		struct tensor *tensor = realloc(r->tensor, room * sizeof *tensor);
		if (tensor)
			r->tensor = tensor;
		struct origin *origin = realloc(r->origin, room * sizeof *origin);
		if (origin)
			r->origin = origin;
		if (!tensor || !origin)
			return err_nomem(e);
		r->room = room;
	}
	struct tensor *mine = &r->tensor[r->base.count];
	*mine = *t;
	mine->name = arena_strdup(&r->config.arena, t->name);
	r->origin[r->base.count++] = o;
	return mine->name ? tensor_measure(mine, e) : err_nomem(e);
}

/* A tensor of the target that the source has none of: in f32, for the norms' weights are no numbers that fewer bits hold. */
static int put_made(struct recast *r, enum role role, uint32_t layer, float fill, struct err *e)
{
	char name[96];
	struct tensor t = { .name = role_hf_name(r->config.arch, role, layer, name), .codec = codec_find("f32") };
	t.ndim = role_shape(&r->config, role, layer, t.dim);
	return put(r, &t, (struct origin){ SIZE_MAX, 0, fill }, e);
}

static struct origin scaled(size_t from, float scale)
{
	return (struct origin){ from, scale, 0 };
}

/* What becomes of a tensor in gemma4; layer: in the source. */
static struct origin as_gemma4(const struct recast *r, enum role role, size_t from)
{
	const struct config *c = r->want.config;
	bool heads = has_norms(c, ROLE_Q_NORM), behind = has_norms(c, ROLE_POST_ATTN_NORM);
	float one = c->arch->norm == NORM_RMS_PLUS_ONE ? 1 : 0, score = config_score_scale(c);
	/* what a real norm reads is of the stream's size */
	float to_heads = heads ? r->stream : r->in, to_stream = behind ? r->stream : r->in;
	float head = c->tied ? 1 / r->embed : 1;
	switch (role) {
	case ROLE_EMBED: return scaled(from, r->embed);
	case ROLE_FINAL_NORM: return (struct origin){ from, head, one * head };
	case ROLE_ATTN_NORM:
	case ROLE_FFN_NORM:
	case ROLE_K_NORM: return (struct origin){ from, 1, one };
	case ROLE_Q_NORM: return (struct origin){ from, score, one * score };
	case ROLE_POST_ATTN_NORM:
	case ROLE_POST_FFN_NORM: return (struct origin){ from, r->stream, one * r->stream };
	case ROLE_Q:
	case ROLE_K:
	case ROLE_Q_BIAS:
	case ROLE_K_BIAS: return scaled(from, to_heads);
	case ROLE_V:
	case ROLE_V_BIAS: return scaled(from, r->in_v);
	case ROLE_O: return scaled(from, behind ? r->stream / r->pass_v : r->in_o);
	case ROLE_O_BIAS: return scaled(from, behind ? r->stream : r->in_o * r->pass_v);
	case ROLE_GATE: return scaled(from, r->gate);
	case ROLE_DOWN: return scaled(from, to_stream / r->gate);
	default: return scaled(from, 1);
	}
}

/* The norms that do nothing, and biases of what has none. */
static int put_passing(struct recast *r, uint32_t i, struct err *e)
{
	const struct config *c = r->want.config, *to = &r->config;
	uint32_t layer = i + r->shift;
	bool owner = c->layer[i].kv_source == i;
	int rc = ERR_OK;
	if (!has_norms(c, ROLE_Q_NORM)) {
		rc = put_made(r, ROLE_Q_NORM, layer, config_score_scale(c) / r->pass, e);
		if (!rc && owner)
			rc = put_made(r, ROLE_K_NORM, layer, 1 / r->pass, e);
	}
	if (!rc && !has_norms(c, ROLE_POST_ATTN_NORM)) {
		rc = put_made(r, ROLE_POST_ATTN_NORM, layer, r->stream * r->in / (r->pass * r->in_o * r->pass_v), e);
		if (!rc)
			rc = put_made(r, ROLE_POST_FFN_NORM, layer, r->stream / r->pass, e);
	}
	if (!rc && to->o_bias && !c->o_bias)
		rc = put_made(r, ROLE_O_BIAS, layer, 0, e);
	return rc;
}

/* A layer that adds nothing to the stream. */
static int put_empty(struct recast *r, struct err *e)
{
	struct block b;
	int rc = ERR_OK;
	block_make(&r->config, 0, &b);
	for (unsigned i = 0; i < b.sites && !rc; i++)
		if (b.site[i].required)
			rc = put_made(r, b.site[i].role, 0, role_rows[b.site[i].role].norm ? 1 : 0, e);
	return rc;
}

/* Halves would lose what the factors take from them. */
static const struct codec *kept(const struct recast *r, const struct codec *was)
{
	return r->want.as == &family_gemma4 && !strcmp(was->name, "f16") ? codec_find("f32") : was;
}

static int put_all(struct recast *r, struct err *e)
{
	const struct config *c = r->want.config;
	const struct tensor_source *s = r->want.source;
	bool gemma4 = r->want.as == &family_gemma4;
	int rc = ERR_OK;
	for (size_t i = 0; i < s->count && !rc; i++) {
		struct tensor t = s->tensors[i];
		char name[96];
		uint32_t layer;
		enum role role = role_from_hf(c->arch, t.name, &layer);
		bool inside = role != ROLE_UNKNOWN && role_rows[role].per_layer;
		if (role == ROLE_UNKNOWN) {
			rc = put(r, &t, scaled(i, 1), e);
			continue;
		}
		if (role == ROLE_HEAD && c->tied)
			continue;
		if (gemma4 && t.codec->kind != CODEC_FLOAT)
			return err_set(e, ERR_UNSUPPORTED, "tensor %s is quantized to %s; write the original as gemma4, then quantize", t.name,
				       t.codec->name);
		t.codec = kept(r, t.codec);
		t.name = role_hf_name(r->config.arch, role, inside ? layer + r->shift : layer, name);
		rc = put(r, &t, gemma4 ? as_gemma4(r, role, i) : scaled(i, 1), e);
		/* whoever reads step35 looks for a head of its own */
		if (!rc && role == ROLE_EMBED && c->tied && !r->config.tied) {
			t.name = role_hf_name(r->config.arch, ROLE_HEAD, UINT32_MAX, name);
			rc = put(r, &t, scaled(i, 1), e);
		}
	}
	for (uint32_t i = 0; i < c->layers && gemma4 && !rc; i++)
		rc = put_passing(r, i, e);
	if (!rc && r->shift)
		rc = put_empty(r, e);
	r->base.tensors = r->tensor;
	return rc ? rc : source_index(&r->base, e);
}

/* In f32 and back; one value at a time is not what takes time here. */
static int recast_get(struct tensor_source *base, size_t i, struct tensor_bytes *out, struct err *e)
{
	struct recast *r = (struct recast *)base;
	const struct tensor *t = &r->tensor[i];
	const struct origin *o = &r->origin[i];
	struct tensor_source *s = r->want.source;
	if (o->from != SIZE_MAX && o->scale == 1 && o->add == 0 && t->codec == s->tensors[o->from].codec)
		return s->get(s, o->from, out, e);
	struct tensor_bytes was = { 0 };
	uint64_t cols = tensor_cols(t), rows = tensor_rows(t), step = codec_row_bytes(t->codec, cols);
	float *row = malloc((size_t)(cols + 1) * sizeof *row);
	uint8_t *bytes = malloc((size_t)t->nbytes + 1);
	int rc = row && bytes ? ERR_OK : err_nomem(e);
	if (!rc && o->from != SIZE_MAX)
		rc = s->get(s, o->from, &was, e);
	for (uint64_t k = 0; k < rows && !rc; k++) {
		if (o->from != SIZE_MAX) {
			const struct codec *codec = s->tensors[o->from].codec;
			codec->decode(codec, was.data + k * codec_row_bytes(codec, cols), row, (size_t)cols);
		}
		for (uint64_t j = 0; j < cols; j++)
			row[j] = (o->from != SIZE_MAX ? row[j] * o->scale : 0) + o->add;
		t->codec->encode(t->codec, row, bytes + k * step, (size_t)cols);
	}
	if (was.data)
		source_drop(s, was.data, was.size);
	tensor_bytes_release(&was);
	free(row);
	if (rc)
		free(bytes);
	else
		*out = (struct tensor_bytes){ .data = bytes, .size = (size_t)t->nbytes, .owned = bytes };
	return rc;
}

static void recast_drop(struct tensor_source *base, const void *data, size_t size)
{
	source_drop(((const struct recast *)base)->want.source, data, size);
}

/* ---- factors */

static int largest(struct tensor_source *s, const char *name, float *out, struct err *e)
{
	float *v;
	const struct tensor *meta;
	int rc = source_read_f32(s, name, &v, &meta, e);
	*out = 0;
	for (uint64_t i = 0; !rc && i < tensor_elements(meta); i++)
		*out = fabsf(v[i]) > *out ? fabsf(v[i]) : *out;
	if (!rc)
		free(v);
	return rc;
}

/*
 * The stream is as large as halves can hold the embedding; then the small factors need not be so small that halves, or the scales of
 * quantized blocks, which are halves, lose them.
 */
static int find_factors(struct recast *r, struct err *e)
{
	enum { ROOM = 14 /* log2 of the largest embedding */, PASS = -13, PASS_V = -8 };
	const struct config *c = r->want.config;
	char name[96];
	float most;
	int rc = largest(r->want.source, role_hf_name(c->arch, ROLE_EMBED, UINT32_MAX, name), &most, e), exponent;
	if (rc)
		return rc;
	frexpf(most > 0 ? most : 1, &exponent);
	/* what is multiplied by sqrt(hidden) takes a power of two */
	r->embed = ldexpf(1, ROOM - exponent);
	r->stream = c->arch->scale_embedding ? r->embed : r->embed * sqrtf((float)c->hidden);
	float root = r->stream * sqrtf(c->norm_eps);
	if (!(root > 0))
		return err_set(e, ERR_UNSUPPORTED, "norms without an eps cannot be made to do nothing");
	frexpf(root, &exponent);
	r->in = ldexpf(1, exponent + PASS);
	r->in_v = ldexpf(1, exponent + PASS_V);
	r->pass = r->in / root;
	r->pass_v = r->in_v / root;
	frexpf(r->in / r->pass_v, &exponent);
	r->in_o = ldexpf(1, exponent - 1);
	r->gate = r->want.gguf && c->act == ACT_SILU ? GELU_OF_SILU : 1;
	return ERR_OK;
}

int recast_new(const struct recast_request *want, struct recast **out, struct err *e)
{
	*out = NULL;
	int rc = recast_check(want, e);
	if (rc)
		return rc;
	struct recast *r = calloc(1, sizeof *r);
	if (!r)
		return err_nomem(e);
	r->want = *want;
	r->base.get = recast_get;
	r->base.drop = recast_drop;
	r->base.copies = want->as == &family_gemma4;
	if (want->as == &family_gemma4)
		rc = find_factors(r, e);
	if (!rc)
		rc = make_config(r, e);
	if (!rc)
		rc = put_all(r, e);
	if (rc)
		recast_free(r);
	else
		*out = r;
	return rc;
}

const struct config *recast_config(const struct recast *r)
{
	return &r->config;
}

struct tensor_source *recast_source(struct recast *r)
{
	return &r->base;
}

bool recast_approximates(const struct recast *r)
{
	return r->near;
}

void recast_free(struct recast *r)
{
	if (!r)
		return;
	map_release(&r->base.index);
	free(r->tensor);
	free(r->origin);
	config_release(&r->config);
	free(r);
}
