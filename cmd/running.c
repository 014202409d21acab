#include "cmd/running.h"

#include <stdio.h>

int running_set(const struct running *r, struct model *m, const char *path, struct err *e)
{
	enum arithmetic arithmetic = ARITHMETIC_EXACT;
	struct kv_codecs kv;
	int rc = r->as ? arithmetic_find(r->as, &arithmetic, e) : ERR_OK;
	if (!rc && (rc = model_set_arithmetic(m, arithmetic, e)))
		err_prefix(e, "%s", path);
	if (!rc)
		rc = kv_codecs_find(&r->kv, model_config(m)->head_dim, &kv, e);
	if (!rc && kv_chosen(&r->kv))
		model_set_kv(m, kv);
	return rc;
}

void running_note(const struct running *r, struct run_id *id)
{
	enum arithmetic arithmetic = ARITHMETIC_EXACT;
	struct err ignored;
	if (r->as && !arithmetic_find(r->as, &arithmetic, &ignored) && arithmetic != ARITHMETIC_EXACT)
		snprintf(id->as, sizeof id->as, "%s", r->as);
	run_id_kv(id, &r->kv);
}
