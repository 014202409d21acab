#include "calib/judge/change_cost.h"

#include <math.h>

#include "calib/judge/measure.h"

int change_cost_measure(struct model *original, const struct config *c, struct tensor_source *s, const struct kv_codecs *kv,
		   const struct windows *text, size_t from, size_t to, struct change_cost *out, struct err *e)
{
	struct model *changed = NULL;
	struct measurement m = { 0 };
	struct windows part = *text;
	struct summary sum;
	part.tokens += from * part.ctx;
	part.count = to - from;
	int rc = model_open(c, s, &changed, e);
	if (!rc)
		rc = measurement_init(&m, part.count, windows_scored(&part), true, e);
	if (!rc && kv)
		model_set_kv(changed, *kv);
	struct measure_arg arg = { .m = &m, .model = 0, .reference = 1 };
	if (!rc)
		rc = evaluate((struct model *[]){ changed, original }, 2, &part, 0, part.count, measure_visit, &arg, NULL, NULL, e);
	if (!rc && !(rc = measurement_summary(&m, &sum, e)))
		*out = (struct change_cost){ log(sum.perplexity_ratio), sum.perplexity_ratio_error / sum.perplexity_ratio, sum.kl_mean };
	measurement_release(&m);
	model_close(changed);
	return rc;
}
