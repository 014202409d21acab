/*
 * What GGUF, or the loader of the one program that defines it, has no way to say: refused where nothing would load the
 * file or every answer would be another one, noted where answers differ only behind some length.
 */
#include <string.h>

#include "formats/gguf_model.h"
#include "model/config_differ.h"
#include "model/keys.h"

enum { MOST_LAYERS = 512 };

/* A layer that reads another one's cache: the last ones may, of the last before them, or with a window that before it. */
static int reads_cache(const struct config *c, bool shares, struct err *e)
{
	uint32_t first = c->layers - config_suffix(c);
	for (uint32_t i = 0; i < c->layers; i++) {
		uint32_t source = i < first || !shares ? i : first - (c->layer[i].window ? 2 : 1);
		if (c->layer[i].kv_source != source)
			return err_set(e, ERR_UNSUPPORTED, "GGUF cannot say that layer %u of %s reads the KV cache of layer %u; 'quire fold MODEL --for "
				       "llama.cpp -o OUT.gguf' writes what can be read so", i, c->arch->gguf, c->layer[i].kv_source);
	}
	return 0;
}

static int loads(const struct config *c, struct err *e)
{
	const struct gguf_loader *l = &c->arch->gguf_loader;
	const struct rope *r = &c->rope;
	const char *arch = c->arch->gguf;
	int rc = reads_cache(c, l->shares, e);
	if (rc)
		return rc;
	if ((c->o_bias && !l->o_bias) || (c->mlp_bias && !l->mlp_bias))
		return err_set(e, ERR_UNSUPPORTED, "GGUF: no program loads %s with biases of %s", arch,
			       c->o_bias && !l->o_bias ? "the attention's output (attention_bias)" : "the feed-forward (mlp_bias)");
	if (l->only_tied && !c->tied)
		return err_set(e, ERR_UNSUPPORTED, "GGUF: no program loads %s with a head of its own beside the embedding", arch);
	if (!l->head_dim && (uint64_t)c->heads * c->head_dim != c->hidden)
		return err_set(e, ERR_UNSUPPORTED, "GGUF: no program loads %s with %u heads of %u in a width of %u", arch, c->heads,
			       c->head_dim, c->hidden);
	if (l->only_own && c->tied)
		return err_set(e, ERR_UNSUPPORTED, "GGUF: no program loads %s without a head of its own beside the embedding", arch);
	if (l->biases && !(c->qkv_bias && c->o_bias && c->mlp_bias))
		return err_set(e, ERR_UNSUPPORTED, "GGUF: no program loads %s without biases of attention", arch);
	if (r->dims != c->head_dim && !l->partial)
		return err_set(e, ERR_UNSUPPORTED, "GGUF: no program runs %s with positions in %u of %u dimensions of a head", arch, r->dims,
			       c->head_dim);
	for (uint32_t i = 0; i < c->layers && c->arch->turning == TURN_LISTED; i++)
		if (c->layer[i].rope != ((i + 1) % l->unturned != 0))
			return err_set(e, ERR_UNSUPPORTED, "GGUF: %s has no positions in every %uth layer; no key says that layer %u has %s", arch,
				       l->unturned, i, c->layer[i].rope ? "some" : "none");
	for (uint32_t i = 0; i < c->layers && c->experts; i++)
		if (!c->layer[i].mixture)
			return err_set(e, ERR_UNSUPPORTED, "GGUF: no program loads %s with a layer without experts (layer %u); write a Hugging "
				       "Face folder or .quire file", arch, i);
	if (c->experts && c->experts_sum_to_one == c->arch->mixture->gguf_shares)
		return err_set(e, ERR_UNSUPPORTED, "GGUF has no key for experts of %s whose weights %s (norm_topk_prob %s); "
			       "write a Hugging Face folder or .quire file", arch, c->experts_sum_to_one ? "add up to one" : "do not add up to one",
			       c->experts_sum_to_one ? "true" : "false");
	if (l->full_kv && c->kv_heads != c->heads)
		return err_set(e, ERR_UNSUPPORTED, "GGUF: no program loads %s with fewer KV heads (%u) than heads (%u)", arch, c->kv_heads, c->heads);
	if (l->unscaled && (r->scaling == ROPE_LINEAR || r->scaling == ROPE_YARN))
		return err_set(e, ERR_UNSUPPORTED, "GGUF: no program runs %s with layers whose positions are not scaled beside others", arch);
	for (uint32_t i = 1; i < c->layers && !l->differ; i++)
		if (c->layer[i].kv_heads != c->layer[0].kv_heads || c->layer[i].heads != c->layer[0].heads ||
		    c->layer[i].ffn != c->layer[0].ffn)
			return err_set(e, ERR_UNSUPPORTED, "GGUF: no program loads %s with layers of different heads or widths (layer %u); "
				       "'quire fold MODEL --for llama.cpp -o OUT.gguf' writes an architecture that some program does", arch, i);
	return 0;
}

static void note_differences(const struct config *c, struct notes *n)
{
	const struct rope *r = &c->rope;
	uint32_t least = 0, count = 0;
	for (uint32_t i = 0; i < c->layers && c->arch->window != WINDOW_PERIOD; i++) {
		uint32_t window = c->layer[i].window;
		if (!window || window >= c->context)
			continue;
		least = !count || window < least ? window : least;
		count++;
	}
	if (count)
		notes_add(n, "%u of %u layers have a sliding window of %u tokens; llama.cpp gives %s full attention, so its answers differ behind "
			  "that many tokens", count, c->layers, least, c->arch->gguf);
	if (c->act == ACT_GELU_ERF)
		notes_add(n, "llama.cpp computes gelu in its tanh form, which differs by up to 0.0005 from what %s is meant to have", c->arch->name);
	if (r->scaling == ROPE_YARN && !c->arch->gguf_loader.betas && (r->beta_fast != 32 || r->beta_slow != 1))
		notes_add(n, "yarn has beta_fast %g and beta_slow %g; llama.cpp takes 32 and 1 for %s, so its positions differ", r->beta_fast,
			  r->beta_slow, c->arch->gguf);
}

int gguf_expressible(const struct config *c, struct notes *n, struct err *e)
{
	const struct rope *r = &c->rope;
	if (c->layers > MOST_LAYERS)
		return err_set(e, ERR_UNSUPPORTED, "GGUF models have at most %d layers, this one has %u", MOST_LAYERS, c->layers);
	if (c->act != c->arch->act)
		return err_set(e, ERR_UNSUPPORTED, "GGUF has no key for another activation of %s", c->arch->name);
	bool windows = c->arch->window != WINDOW_PERIOD;
	for (uint32_t i = 0; i < c->layers; i++)
		windows |= c->layer[i].window != 0;
	if (!windows)
		return err_set(e, ERR_UNSUPPORTED, "GGUF cannot say that no layer of %s has a window", c->arch->name);
	for (const struct config_key *k = c->arch->keys; k && k->kind != KEY_END; k++)
		if (!k->gguf && k->implied && config_key_value(c, k) != k->implied(c))
			return err_set(e, ERR_UNSUPPORTED, "GGUF has no key for %s %g of %s", k->json, config_key_value(c, k),
				       c->arch->name);
	for (uint32_t i = 0; i < c->layers; i++) {
		if (!config_turning_said(c, i))
			return err_set(e, ERR_UNSUPPORTED, "GGUF has no key for layer %u without positions", i);
	}
	/* only the loaders of the families with interleaved rotation look for rope_freqs.weight */
	bool longrope = r->scaling == ROPE_LONGROPE, by_dimension = (r->divisors && !longrope) || r->scaling == ROPE_LLAMA3;
	if (by_dimension && role_gguf_layout(c->arch, ROLE_Q) != LAYOUT_ROPE_PAIRS && !c->arch->gguf_divisors)
		return err_set(e, ERR_UNSUPPORTED, "GGUF cannot hold frequency scaling by dimension for %s", c->arch->name);
	if (longrope && !c->arch->gguf_loader.longrope)
		return err_set(e, ERR_UNSUPPORTED, "GGUF: no program runs %s with positions of type longrope", c->arch->gguf);
	if (r->scaling == ROPE_YARN && !r->truncate)
		return err_set(e, ERR_UNSUPPORTED, "GGUF has no key for yarn without truncation");
	int rc = loads(c, e);
	if (!rc)
		note_differences(c, n);
	return rc;
}
