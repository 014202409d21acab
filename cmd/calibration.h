#ifndef QUIRE_CMD_CALIBRATION_H
#define QUIRE_CMD_CALIBRATION_H
/* Statistics for quantize: from a file, or gathered on the way. */
#include "calib/quant/quantizer.h"
#include "cmd/produce.h"

enum { MOST_PASSES = 1000 }; /* of training */
enum { CALIBRATION_SAMPLES = 128 }; /* windows, unless told */

/* Tokens per window; asked 0: as many as the model was made for, and no more than a default. */
size_t calibration_ctx(const struct config *c, size_t asked);

/* ERR_USAGE with the names of all methods, plain and calibrated. */
int method_unknown(const char *name, struct err *e);

/* What the command line asks for. */
struct calibration {
	const struct quantizer_row *row;   /* NULL: what the statistics allow */
	const char *stats;                 /* file, or NULL: gather from texts */
	const char *const *texts;
	size_t text_count, samples, ctx;   /* ctx 0: the default */
	uint64_t seed;
	const char *const *more;           /* texts to train on besides */
	size_t more_count;
	struct quantizer_options options;
};

struct calibrated {
	const struct quantizer_row *row;
	struct stats *stats;               /* NULL in a dry run with texts */
	struct quantizer *q;
	struct windows more;               /* of the texts to train on */
	uint64_t memory;                   /* peak, estimated */
	uint64_t gathering, tokens, ctx;   /* peak of gathering; what is gathered over */
};

/* Opens the statistics or gathers them, and checks that they are the model's (ERR_NOT_COMPARABLE). */
int calibrated_open(struct calibrated *c, const struct produce *p, const struct config *config, struct checkpoint *in, struct err *e);
/* Fits the method to the plan; config and plan must stay where they are. */
int calibrated_plan(struct calibrated *c, const struct produce *p, const struct config *config, struct checkpoint *in,
		    struct plan *plan, struct err *e);
int calibrated_prepare(struct calibrated *c, const struct produce *p, struct err *e);
void calibrated_close(struct calibrated *c);

#endif
