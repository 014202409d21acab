/* A container, and the configuration and tokenizer files made from it, which must parse or be refused in their turn. */
#include <stdlib.h>

#include "formats/gguf_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_all(const struct gguf *g)
{
	for (size_t i = 0; i < g->kv_count; i++) {
		struct cursor c = gguf_strings(&g->kv[i]);
		const char *s;
		size_t len, sum = 0;
		uint64_t u;
		double d;
		bool b;
		while (gguf_next_string(&c, &s, &len))
			sum += len ? (unsigned char)s[len - 1] : 0;
		s = gguf_string(&g->kv[i], &len);
		sum += s && len ? (unsigned char)s[len - 1] : 0;
		gguf_uint(&g->kv[i], g->kv[i].count - 1, &u);
		gguf_float(&g->kv[i], g->kv[i].count - 1, &d);
		gguf_bool(&g->kv[i], &b);
		if (sum == SIZE_MAX)
			abort();
	}
}

static void open_texts(const struct strbuf *config, const struct strbuf *model, const struct strbuf *json,
		       const struct strbuf *settings)
{
	struct config c;
	struct tokenizer *t;
	struct tokenizer_files f = {
		.json = json->len ? json->data : NULL, .json_len = json->len,
		.model = model->len ? model->data : NULL, .model_len = model->len,
		.config = settings->len ? settings->data : NULL, .config_len = settings->len,
	};
	struct err e;
	if (config->len && !config_parse(&c, config->data, config->len, &e))
		config_release(&c);
	if ((f.json || f.model) && !tokenizer_open(&f, &t, &e))
		tokenizer_close(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct gguf_part part = { .data = data, .size = size };
	struct gguf_model m = { .part = &part, .parts = 1 };
	struct strbuf config = { 0 }, model = { 0 }, json = { 0 }, settings = { 0 };
	struct err e;
	if (gguf_parse(&part.g, data, size, &e))
		return 0;
	read_all(&part.g);
	if (!gguf_model_init(&m, &e) && !gguf_config(&m, &config, &e) && !gguf_vocabulary(&m, &model, &json, &settings, &e))
		open_texts(&config, &model, &json, &settings);
	strbuf_release(&config);
	strbuf_release(&model);
	strbuf_release(&json);
	strbuf_release(&settings);
	gguf_release(&part.g);
	return 0;
}
