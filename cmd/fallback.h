#ifndef QUIRE_CMD_FALLBACK_H
#define QUIRE_CMD_FALLBACK_H
/* Matrices that got another codec than the scheme's, because its blocks do not divide their rows. */
#include "cmd/command.h"
#include "formats/checkpoint.h"
#include "plan/plan.h"

/* What a plan is made from. */
struct fallback_source {
	const struct format *format;
	const struct config *config;
	struct tensor_source *tensors;
	const struct method *method;
};

/* What a format wants of any recipe: norms in f32, scales in the model's type. */
void fallback_recipe(struct recipe *r, const struct fallback_source *s);
/* "180 of 210 matrices have rows of 576, which q4_k's 256 do not divide: q5_0; int4-g64 would make 77 MiB"; or nothing. */
void fallback_text(const struct plan *p, const struct fallback_source *s, struct strbuf *out);

#endif
