#include "model/runtime.h"

#include <string.h>

#include "model/family/family.h"
#include "model/recast.h"

const struct runtime_row runtime_rows[RUNTIME_COUNT] = {
	[RUNTIME_QUIRE] = { "quire", NULL },
	[RUNTIME_LLAMA_CPP] = { "llama.cpp", "gguf" },
	[RUNTIME_TRANSFORMERS] = { "transformers", "hf" },
	[RUNTIME_VLLM] = { "vllm", "hf" },
};

int runtime_find(const char *name, enum runtime *out, struct err *e)
{
	for (int i = 0; i < RUNTIME_COUNT; i++)
		if (!strcmp(runtime_rows[i].name, name)) {
			*out = (enum runtime)i;
			return ERR_OK;
		}
	struct strbuf known = { 0 };
	for (int i = 0; i < RUNTIME_COUNT; i++)
		strbuf_printf(&known, "%s%s", i ? ", " : "", runtime_rows[i].name);
	err_set(e, ERR_USAGE, "unknown program '%.40s'; --for takes one of: %s", name, known.data ? known.data : "");
	strbuf_release(&known);
	return ERR_USAGE;
}

/* What a family's own keys cannot say. */
struct traits {
	bool differ;    /* KV heads of layers */
	bool shared;
	bool windows;   /* of single layers, and the family's class has a key for them ... */
	bool mixed;     /* ... or has none */
};

static struct traits traits_of(const struct config *c)
{
	struct traits t = { 0 };
	uint32_t with = 0;
	for (uint32_t i = 0; i < c->layers; i++) {
		t.differ |= c->layer[i].kv_heads != c->layer[0].kv_heads;
		t.shared |= c->layer[i].kv_source != i;
		with += c->layer[i].window != 0;
	}
	bool all = with == c->layers && (c->arch->window == WINDOW_ALL || c->arch->window == WINDOW_SWITCHED);
	bool own = c->arch->window == WINDOW_FROM_LAYER || c->arch->window == WINDOW_PERIOD;
	t.windows = with && own;
	t.mixed = with && !own && !all;
	return t;
}

static const char *plain_loaders(const struct config *c)
{
	if (c->arch->equal_heads && c->layer[0].heads != c->layer[0].kv_heads)
		return "quire itself, and llama.cpp from GGUF: the model's class has as many heads of keys and values as of queries";
	return "everything that loads the original: only the count of KV heads differs";
}

static int as(const struct config *c, const struct arch *a, bool gguf, struct runtime_route *out, struct err *e)
{
	out->as = a;
	return recast_check(&(struct recast_request){ .config = c, .as = a, .gguf = gguf }, e);
}

static int for_quire(const struct config *c, const struct traits *t, struct runtime_route *out)
{
	out->loaded_by = t->shared ? "quire itself only: the model's own class has no key for layers that read another layer's KV cache "
				     "(kv_source_layers); --for writes what other programs load"
			 : t->differ ? "quire itself only: the model's own class has no key for head counts that differ between layers "
				       "(kv_heads_per_layer); --for writes what other programs load"
			 : t->mixed ? "quire itself only: the model's own class has no key for windows of single layers (window_per_layer); "
				      "--for writes what other programs load"
			 : t->windows ? "quire itself, and runtimes that take layer_types for this architecture"
				      : plain_loaders(c);
	return ERR_OK;
}

static int for_llama_cpp(const struct config *c, const struct traits *t, struct runtime_route *out, struct err *e)
{
	struct block b;
	block_make(c, 0, &b);
	bool norms = block_site(&b, ROLE_Q_NORM) != NULL, windows = t->mixed || (t->windows && c->arch->window != WINDOW_PERIOD);
	if (t->shared) {
		out->loaded_by = "llama.cpp, as gemma4 with shared_kv_layers";
		return as(c, &family_gemma4, true, out, e);
	}
	if (windows || (t->differ && norms)) {
		out->loaded_by = "llama.cpp, as step35: KV heads and windows of single layers";
		return as(c, &family_step35, true, out, e);
	}
	if (t->differ) {
		out->loaded_by = "llama.cpp, as deci: KV heads of single layers";
		return as(c, &family_deci, true, out, e);
	}
	out->loaded_by = "llama.cpp, as what it was";
	return ERR_OK;
}

static int for_transformers(const struct config *c, const struct traits *t, bool with_code, struct runtime_route *out, struct err *e)
{
	if (!t->shared && !t->differ && !t->mixed) {
		out->loaded_by = t->windows ? "transformers and what reads its layer_types" : plain_loaders(c);
		return ERR_OK;
	}
	out->loaded_by = "transformers from version 5.24, as Gemma4ForCausalLM";
	int rc = as(c, &family_gemma4, false, out, e);
	if (!rc || rc != ERR_UNSUPPORTED)
		return rc;
	struct err why = e ? *e : (struct err){ 0 };
	out->as = NULL;
	bool plain = c->arch == &family_llama || c->arch == &family_mistral || c->arch == &family_qwen2 || c->arch == &family_qwen3;
	if (!plain)
		return rc;
	if (!with_code)
		return err_set(e, ERR_UNSUPPORTED, "transformers has no class for it (%.300s); --with-code writes one beside the weights, which it loads "
			       "with trust_remote_code", why.message);
	if (e)
		*e = (struct err){ 0 };
	out->code = true;
	out->loaded_by = "transformers with trust_remote_code: the class is in the folder";
	return ERR_OK;
}

static int for_vllm(const struct config *c, const struct traits *t, struct runtime_route *out, struct err *e)
{
	if (!t->shared && !t->differ && !t->mixed && !t->windows) {
		out->loaded_by = plain_loaders(c);
		return ERR_OK;
	}
	if (t->differ && (t->shared || t->mixed || t->windows))
		return err_set(e, ERR_UNSUPPORTED, "vLLM has no model with head counts that differ between layers and %s besides",
			       t->shared ? "shared caches" : "windows");
	if (t->differ) {
		out->code = true;
		out->loaded_by = "vLLM with --trust-remote-code, as DeciLMForCausalLM";
		return as(c, &family_deci, false, out, e);
	}
	if (t->windows && c->arch->window == WINDOW_PERIOD && !t->shared) {
		out->loaded_by = "vLLM, as what it was";
		return ERR_OK;
	}
	out->loaded_by = "vLLM and transformers, as Gemma4ForCausalLM";
	return as(c, &family_gemma4, false, out, e);
}

int runtime_route(const struct config *c, enum runtime r, bool with_code, struct runtime_route *out, struct err *e)
{
	struct traits t = traits_of(c);
	int rc = ERR_OK;
	*out = (struct runtime_route){ .runtime = r };
	switch (r) {
	case RUNTIME_LLAMA_CPP: rc = for_llama_cpp(c, &t, out, e); break;
	case RUNTIME_TRANSFORMERS: rc = for_transformers(c, &t, with_code, out, e); break;
	case RUNTIME_VLLM: rc = for_vllm(c, &t, out, e); break;
	default: return for_quire(c, &t, out);
	}
	return rc ? err_prefix(e, "--for %s", runtime_rows[r].name) : ERR_OK;
}
