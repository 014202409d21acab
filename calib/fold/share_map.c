#include <stdlib.h>
#include <string.h>

#include "calib/fold/attention_fit.h"
#include "calib/fold/share.h"
#include "codec/codec.h"

const struct share_method_row share_method_rows[] = {
	{ SHARE_REUSE, "reuse", "the other layer's cache as it is" },
	{ SHARE_MATCH, "match", "heads assigned and turned in closed form, W_O by least squares" },
	{ SHARE_REFIT, "refit", "then W_Q and W_O by gradient descent" },
	{ SHARE_JOINT, "joint", "the shared keys and values fitted to all layers that read them" },
};
const unsigned share_method_row_count = sizeof share_method_rows / sizeof *share_method_rows;

static bool number(const char **at, uint32_t *out)
{
	uint64_t v = 0;
	const char *p = *at;
	for (; *p >= '0' && *p <= '9' && v < UINT32_MAX; p++)
		v = v * 10 + (uint64_t)(*p - '0');
	if (p == *at || v >= UINT32_MAX)
		return false;
	*out = (uint32_t)v;
	*at = p;
	return true;
}

static int parse_list(const char *spec, uint32_t layers, uint32_t *source, struct err *e)
{
	const char *at = spec;
	uint32_t n = 0;
	while (n < layers && number(&at, &source[n])) {
		n++;
		if (*at != ',')
			break;
		at++;
	}
	if (*at || n != layers)
		return err_set(e, ERR_USAGE, "map '%.80s': give suffix:N, pairs, auto:N, or %u layer numbers with commas between", spec,
			       layers);
	return ERR_OK;
}

int share_map_parse(const char *spec, uint32_t layers, uint32_t *source, struct err *e)
{
	uint32_t n;
	if (!strcmp(spec, "pairs")) {
		for (uint32_t i = 0; i < layers; i++)
			source[i] = i == 0 || (layers - i) % 2 == 0 ? i : i - 1;
		return ERR_OK;
	}
	if (strncmp(spec, "suffix:", 7))
		return parse_list(spec, layers, source, e);
	const char *at = spec + strlen("suffix:");
	if (!number(&at, &n) || *at || !n || n >= layers)
		return err_set(e, ERR_USAGE, "map '%.80s': suffix:N takes N from 1 to %u in a model of %u layers", spec, layers - 1, layers);
	for (uint32_t i = 0; i < layers; i++)
		source[i] = i < layers - n ? i : layers - 1 - n;
	return ERR_OK;
}

static int check_codecs(const struct config *c, struct tensor_source *source, uint32_t layer, struct err *e)
{
	static const enum role roles[] = { ROLE_Q, ROLE_K, ROLE_V, ROLE_O, ROLE_DOWN };
	for (size_t k = 0; k < sizeof roles / sizeof *roles; k++) {
		char name[96];
		const struct tensor *t = source_find(source, role_hf_name(c->arch, roles[k], layer, name));
		if (t && t->codec->kind != CODEC_FLOAT)
			return err_set(e, ERR_UNSUPPORTED, "tensor %s is quantized to %s; share layers of the original first, then quantize",
				       name, t->codec->name);
	}
	return ERR_OK;
}

int share_check(const struct config *c, struct tensor_source *source, const uint32_t *map, struct err *e)
{
	for (uint32_t i = 0; i < c->layers; i++) {
		uint32_t s = map[i];
		int rc = check_codecs(c, source, i, e);
		if (rc || (s != i && (rc = attention_fit_possible(c, i, e))))
			return rc;
		if (c->layer[i].kv_source != i)
			return err_set(e, ERR_UNSUPPORTED, "layer %u reads the KV cache of layer %u already; start from the original", i,
				       c->layer[i].kv_source);
		if (s > i)
			return err_set(e, ERR_USAGE, "layer %u cannot read layer %u: %s", i, s,
				       s >= c->layers ? "there is no such layer" : "it comes later");
		if (map[s] != s)
			return err_set(e, ERR_USAGE, "layer %u cannot read layer %u, which itself reads layer %u; name the owner", i, s, map[s]);
		const struct layer_config *a = &c->layer[i], *b = &c->layer[s];
		if (a->window != b->window)
			return err_set(e, ERR_UNSUPPORTED, "layer %u cannot read layer %u: their windows differ (%u and %u)", i, s, a->window,
				       b->window);
		if (a->kv_heads != b->kv_heads || a->heads != b->heads)
			return err_set(e, ERR_UNSUPPORTED, "layer %u cannot read layer %u: they have %u and %u KV heads", i, s, a->kv_heads,
				       b->kv_heads);
		if (a->rope != b->rope)
			return err_set(e, ERR_UNSUPPORTED, "layer %u cannot read layer %u: only one of them has positions", i, s);
		if (a->local != b->local)
			return err_set(e, ERR_UNSUPPORTED, "layer %u cannot read layer %u: their positions turn at different rates", i, s);
	}
	return ERR_OK;
}
