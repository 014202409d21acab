/* What is read of an open checkpoint: its configuration and its tokenizer, and whether they fit the tensors. */
#include "formats/checkpoint.h"

#include <string.h>

#include "model/model.h"

int checkpoint_config(const struct checkpoint *c, struct config *out, struct err *e)
{
	const struct side_file *f;
	int rc = checkpoint_file(c, "config.json", &f, e);
	if (rc)
		return rc;
	if (!f)
		return err_set(e, ERR_INPUT, "%.600s: has no config.json", c->path);
	return config_parse(out, f->data, f->size, e) ? err_prefix(e, "%.600s", c->path) : ERR_OK;
}

bool checkpoint_has_tokenizer(const struct checkpoint *c)
{
	return checkpoint_has(c, "tokenizer.json") || checkpoint_has(c, "tokenizer.model");
}

int checkpoint_tokenizer_known(const struct checkpoint *c, struct err *e)
{
	static const struct {
		const char *gguf, *name;
	} kinds[] = { { "bert", "WordPiece" }, { "t5", "unigram" }, { "rwkv", "RWKV" }, { "plamo2", "PLaMo-2" }, { "gemma4", "Gemma 4" } };
	const char *kind = NULL, *name = "another kind";
	for (size_t i = 0; i < c->fact_count; i++)
		if (!strcmp(c->facts[i].key, "tokenizer.ggml.model"))
			kind = c->facts[i].value;
	if (!kind || !strcmp(kind, "no_vocab") || !strcmp(kind, "none") || checkpoint_has_tokenizer(c))
		return ERR_OK;
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
		if (!strcmp(kinds[i].gguf, kind))
			name = kinds[i].name;
	return err_set(e, ERR_UNSUPPORTED, "%.600s: its tokenizer '%.60s' (%s) is not handled: only BPE is, byte-level or SentencePiece", c->path,
		       kind, name);
}

int checkpoint_tokenizer(const struct checkpoint *c, struct tokenizer **out, struct err *e)
{
	const struct side_file *json, *model, *config, *added;
	int rc = checkpoint_tokenizer_known(c, e);
	if (rc)
		return rc;
	if (!checkpoint_has_tokenizer(c))
		return err_set(e, ERR_INPUT, "%.600s: has no tokenizer.json or tokenizer.model", c->path);
	if ((rc = checkpoint_file(c, "tokenizer.json", &json, e)) || (rc = checkpoint_file(c, "tokenizer.model", &model, e)) ||
	    (rc = checkpoint_file(c, "tokenizer_config.json", &config, e)) || (rc = checkpoint_file(c, "added_tokens.json", &added, e)))
		return rc;
	struct tokenizer_files f = {
		.json = json ? json->data : NULL,       .json_len = json ? json->size : 0,
		.config = config ? config->data : NULL, .config_len = config ? config->size : 0,
		.model = model ? model->data : NULL,    .model_len = model ? model->size : 0,
		.added = added ? added->data : NULL,    .added_len = added ? added->size : 0,
	};
	return tokenizer_open(&f, out, e) ? err_prefix(e, "%.600s: tokenizer", c->path) : ERR_OK;
}

int vocabulary_check(const struct tokenizer *t, const struct config *config, struct err *e)
{
	if (tokenizer_size(t) <= config->vocab)
		return ERR_OK;
	return err_set(e, ERR_INPUT, "the tokenizer has %zu tokens, config.json a vocabulary of %u", tokenizer_size(t), config->vocab);
}

int checkpoint_check(const struct checkpoint *c, const struct config *config, struct tensor_source *source, struct err *e)
{
	struct tokenizer *t = NULL;
	int rc = model_check(config, source, e);
	if (!rc && checkpoint_has_tokenizer(c)) {
		rc = checkpoint_tokenizer(c, &t, e);
		if (rc == ERR_UNSUPPORTED)
			return ERR_OK;
		if (rc)
			return rc;
		rc = vocabulary_check(t, config, e);
		tokenizer_close(t);
	}
	return rc ? err_prefix(e, "%.600s", c->path) : ERR_OK;
}
