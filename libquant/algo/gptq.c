/* The method row of error feedback by itself: one matrix against the second moments of its inputs. */
#include "algo/feedback.h"
#include "algo/rows.h"

int gptq_run(const struct quantize_job *job, struct err *e)
{
	struct curvature *c = NULL;
	struct feedback_job f = { .codec = job->codec, .w = job->x, .rows = job->rows, .dst = job->dst };
	if (!job->hessian)
		return err_set(e, ERR_USAGE, "error feedback needs the second moments of the inputs");
	int rc = curvature_new(job->hessian, job->cols, 0.01, &c, e);
	f.curvature = c;
	if (!rc)
		rc = feedback_quantize(&f, e);
	curvature_free(c);
	return rc;
}
