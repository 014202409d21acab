#include "calib/run/loaded.h"

int loaded_open(struct loaded *l, const char *path, struct err *e)
{
	*l = (struct loaded){ 0 };
	int rc = checkpoint_open(path, &l->checkpoint, e);
	if (rc)
		return rc;
	rc = checkpoint_config(l->checkpoint, &l->config, e);
	if (!rc)
		rc = checkpoint_tokenizer(l->checkpoint, &l->tokenizer, e);
	if (!rc) {
		rc = model_open(&l->config, l->checkpoint->source, &l->model, e);
		if (!rc)
			rc = vocabulary_check(l->tokenizer, &l->config, e);
		if (rc)
			err_prefix(e, "%s", path);
	}
	if (rc)
		loaded_close(l);
	return rc;
}

void loaded_close(struct loaded *l)
{
	model_close(l->model);
	tokenizer_close(l->tokenizer);
	config_release(&l->config);
	checkpoint_close(l->checkpoint);
	*l = (struct loaded){ 0 };
}
