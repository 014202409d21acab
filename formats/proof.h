#ifndef QUIRE_FORMATS_PROOF_H
#define QUIRE_FORMATS_PROOF_H
/*
 * Proof after writing. A proof stands between a plan and its sink and keeps a
 * checksum of every tensor as the quantizer meant it; afterwards the file is
 * opened as any reader would open it and compared, tensor by tensor, in the
 * orientation and codec that the plan works in. Decoded values are looked at as
 * well: a block that came out constant where the source's was not is an alarm.
 */
#include "formats/checkpoint.h"

struct proof;

/* sink stays the caller's to finish and close; it must outlive the proof's sink. */
int proof_new(const struct plan *p, struct tensor_sink *sink, struct proof **out, struct err *e);
/* What plan_execute gets in place of the sink. finish and close do nothing. */
struct tensor_sink *proof_sink(struct proof *p);
/* Seconds between the first and the last byte of item i. */
double proof_seconds(const struct proof *p, size_t i);

struct proof_result {
	size_t tensors;
	uint64_t bytes;
	size_t quantized;          /* tensors whose values were decoded and looked at */
	uint64_t constant, blocks; /* blocks of one value whose source's were not; blocks looked at */
	uint64_t same;             /* blocks of one value as in the source: pruned channels, unused tokens */
	char first[160];           /* where the first of those is: "tensor NAME, row R, column C" */
};
/*
 * Compares the file at path, which a sealed sink gives, and checks all checksums of its format: it is read once. source: the
 * values that were to be stored, not yet quantized, in the plan's order. ERR_IO: the file does not hold what was meant (tensor
 * and reason); ERR_INPUT: a value is not finite. progress counts bytes.
 */
int proof_check(const struct proof *p, const char *path, struct tensor_source *source, struct proof_result *out,
		const struct progress *progress, struct err *e);
/* Where no proof was made: opens what was written, and checks what its format has checksums of. ERR_IO. */
int proof_checksums(const char *path, const struct progress *progress, struct err *e);
void proof_free(struct proof *p); /* NULL is fine */

#endif
