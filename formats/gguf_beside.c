/*
 * Keys that loaders of some architectures want beside those that say what a model is: values that follow from the others, or
 * that must be there for what is not there. A file in which they say anything else is another kind of model.
 */
#include <stdio.h>
#include <string.h>

#include "formats/gguf_model.h"
#include "model/config_differ.h"

static uint32_t twice_dims(const struct config *c)
{
	return 2 * c->rope.dims; /* layers of full attention turn half of it */
}

static uint32_t dims(const struct config *c)
{
	return c->rope.dims;
}

static uint32_t width(const struct config *c)
{
	return c->ffn;
}

static uint32_t head_dim(const struct config *c)
{
	return c->head_dim;
}

static uint32_t none(const struct config *c)
{
	(void)c;
	return 0;
}

static const struct beside {
	const char *arch, *key;
	uint32_t (*value)(const struct config *c);
	bool any;            /* read, it may be what it will */
} rows[] = {
	{ "step35", "rope.dimension_count", twice_dims, false },
	{ "step35", "rope.dimension_count_swa", dims, false },
	{ "step35", "expert_feed_forward_length", width, true },
	{ "gemma4", "attention.key_length_swa", head_dim, false },
	{ "gemma4", "attention.value_length_swa", head_dim, false },
	{ "gemma4", "rope.dimension_count_swa", dims, false },
	{ "gemma4", "attention.shared_kv_layers", config_suffix, false },
	{ "gemma4", "embedding_length_per_layer_input", none, false },
};
enum { ROWS = sizeof rows / sizeof *rows };

bool gguf_beside(const char *arch, const char *key)
{
	for (int i = 0; i < ROWS; i++)
		if (!strcmp(rows[i].arch, arch) && !strcmp(rows[i].key, key))
			return true;
	return false;
}

void gguf_put_beside(struct gguf_writer *w, const struct config *c)
{
	char key[160];
	for (int i = 0; i < ROWS; i++)
		if (!strcmp(rows[i].arch, c->arch->gguf)) {
			snprintf(key, sizeof key, "%s.%s", c->arch->gguf, rows[i].key);
			gguf_put_u32(w, key, rows[i].value(c));
		}
}

int gguf_check_beside(const struct gguf_model *m, const char *text, size_t len, struct err *e)
{
	struct config c;
	bool some = false;
	for (int i = 0; i < ROWS && !some; i++)
		some = !strcmp(rows[i].arch, m->arch_name);
	/* a text that does not parse is refused where it is wanted */
	if (!some || !m->part[0].g.tensor_count || config_parse(&c, text, len, NULL))
		return ERR_OK;
	int rc = ERR_OK;
	for (int i = 0; i < ROWS && !rc; i++) {
		const struct gguf_kv *kv = strcmp(rows[i].arch, m->arch_name) ? NULL : gguf_model_key(m, rows[i].key);
		uint64_t v;
		if (kv && !rows[i].any && (!gguf_uint(kv, 0, &v) || kv->type == GGUF_ARRAY || v != rows[i].value(&c)))
			rc = err_set(e, ERR_UNSUPPORTED, "key '%s.%s' is not %u: such models of that architecture are not supported", m->arch_name,
				     rows[i].key, rows[i].value(&c));
	}
	config_release(&c);
	return rc;
}
