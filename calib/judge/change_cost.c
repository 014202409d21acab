#include "calib/judge/change_cost.h"

#include <math.h>

#include "calib/judge/measure.h"

int change_cost_measure(struct model *original, const struct change *change, const struct windows *text, struct change_cost *out,
			struct err *e)
{
	struct model *changed = NULL;
	struct measurement m = { 0 };
	struct summary sum;
	int rc = model_open(change->config, change->source, &changed, e);
	if (!rc)
		rc = measurement_init(&m, text->count, windows_scored(text), true, e);
	if (!rc && change->kv)
		model_set_kv(changed, *change->kv);
	struct measure_arg arg = { .m = &m, .model = 0, .reference = 1 };
	if (!rc)
		rc = evaluate(&(struct evaluation){ .models = (struct model *[]){ changed, original }, .count = 2, .windows = text,
						    .to = text->count, .visit = measure_visit, .arg = &arg }, e);
	if (!rc && !(rc = measurement_summary(&m, &sum, e)))
		*out = (struct change_cost){ log(sum.perplexity_ratio), sum.perplexity_ratio_error / sum.perplexity_ratio, sum.kl_mean };
	measurement_release(&m);
	model_close(changed);
	return rc;
}
