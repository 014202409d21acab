#ifndef QUIRE_CMD_QUANTIZE_REPORT_H
#define QUIRE_CMD_QUANTIZE_REPORT_H
/* quantize --report: errors per tensor as JSON or as one self-contained page. */
#include "cmd/calibration.h"
#include "formats/proof.h"

/* Is this a name for a report? ERR_USAGE. */
int quantize_report_check(const char *path, struct err *e);
/* Reads the result back from path, measures every quantized matrix and writes p->report. proof: for times; may be NULL. */
int quantize_report(const struct produce *p, const char *path, const struct plan *plan, struct tensor_source *source,
		    const struct calibrated *c, const struct proof *proof, struct err *e);

#endif
