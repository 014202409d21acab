#ifndef QUIRE_CMD_QUANTIZE_REPORT_H
#define QUIRE_CMD_QUANTIZE_REPORT_H
/* quantize --report: errors per tensor as JSON or as one self-contained page. */
#include "cmd/calibration.h"
#include "formats/proof.h"

/* Is this a name for a report? ERR_USAGE. */
int quantize_report_check(const char *path, struct err *e);
/* What was made of what. */
struct produced {
	const char *path;                /* of the result */
	const struct plan *plan;
	struct tensor_source *source;
	const struct calibrated *calibrated;
	const struct proof *proof;       /* for times; may be NULL */
};
/* Reads the result back, measures every quantized matrix and writes p->report. */
int quantize_report(const struct produce *p, const struct produced *made, struct err *e);

#endif
