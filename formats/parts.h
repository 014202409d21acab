#ifndef QUIRE_FORMATS_PARTS_H
#define QUIRE_FORMATS_PARTS_H
/* Tensors of a folder that hold several of the model's, or lie transposed there (model/stored.h): taken apart and put together. */
#include "model/stored.h"
#include "plan/plan.h"
#include "tensor/tensor.h"

/* Of the rows that lie together for each KV head: those of the part, what lies before them, all. */
struct part_group {
	uint64_t rows, before, all; /* rows 0: parts lie one after the other */
};

/* Which rows of a stored tensor a part is. */
struct part {
	unsigned count;          /* parts in the tensor; 0: all of it, as it lies */
	uint64_t first, rows;    /* where they begin, one part after the other */
	uint64_t all;            /* rows of all parts */
	struct part_group group;
	uint64_t head, turned;   /* rows of a head whose dimensions lie in pairs, and so many of them; head 0: they do not */
	bool transposed;
	uint64_t before;         /* bytes of other experts, which the tensor holds too */
};

/* Of a tensor of all experts that of one; as it is where it holds no experts. ERR_INPUT: it is not of so many. */
int part_expert(const struct stored *s, const struct tensor *t, uint32_t experts, struct tensor *out, struct err *e);
/* ERR_INPUT for a shape that cannot be such a tensor's, ERR_UNSUPPORTED for a type whose rows or values cannot be moved. */
int parts_of(const struct stored *s, const struct tensor *t, const struct config *c, uint32_t layer, struct part out[STORED_PARTS],
	     struct err *e);
/* Shape and size of a part; without a name. */
struct tensor part_tensor(const struct part *p, const struct tensor *stored);
/* From the stored tensor's bytes those of a part. */
int part_take(const struct part *p, const struct tensor *t, struct tensor_bytes *bytes, struct err *e);

/*
 * A plan of what a folder holds, and a sink for the plan of parts in front of the one for that. *out NULL: every tensor is
 * written as it is. ERR_UNSUPPORTED: the parts differ in type, or cannot lie as the class has them.
 */
struct together;
int together_new(const struct plan *parts, const struct config *config, struct together **out, struct err *e);
const struct plan *together_plan(const struct together *t);
/* Owns t and the sink behind it. */
struct tensor_sink *together_sink(struct together *t, struct tensor_sink *behind);
void together_free(struct together *t);

#endif
