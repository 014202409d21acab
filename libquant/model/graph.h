#ifndef QUIRE_MODEL_GRAPH_H
#define QUIRE_MODEL_GRAPH_H
/*
 * A layer as a list of operations on values. Its family writes the list (model/family/), everything else reads it: the
 * forward pass runs it; shapes, required tensors and parameter counts are its sites; which matrices share an input, where
 * a layer can be cut and where a scale may move are found by walking it.
 *
 * Each operation makes one new value, so who made what another one reads is never in doubt. The list follows from the
 * config alone and takes less time to make than to keep in step with a config that a fold changes: make it where it is
 * asked.
 */
#include "model/arch.h"

enum op_kind {
	OP_NORM,      /* out = norm(in[0]), per token */
	OP_HEAD_NORM, /* the same per head */
	OP_LINEAR,    /* out = W in[0] + bias */
	OP_ROPE,      /* heads of in[0], turned by their positions */
	OP_ATTEND,    /* queries in[0] over keys in[1] and values in[2]; without these over those of the layer's kv_source */
	OP_ACT,       /* out = act(in[0]) */
	OP_GLU,       /* out = act(in[0]) * in[1] */
	OP_ADD,       /* the stream += in[0] */
	OP_SCALE,     /* out = in[0] times a number */
	OP_TEMPER,    /* out = in[0] times what its position makes of it, see rope_temper */
	OP_ROUTE,     /* out = the weight of each expert, 0 of those that are not chosen, from logits in[0] */
	OP_EXPERTS,   /* out = tokens of in[0] that in[1] gives to an expert; from here to OP_MERGE once for each expert */
	OP_MERGE,     /* out = per token the sum of what its experts made, in[0], by the weights in[1] */
};

typedef uint8_t value; /* a number in the list of values */
enum { STREAM = 0 /* the residual stream */, NO_VALUE = UINT8_MAX };
enum { BLOCK_OPS = 48, BLOCK_VALUES = 48, BLOCK_SITES = 48, BLOCK_ROOMS = 12, BLOCK_PARTS = 8 };

struct op {
	enum op_kind kind;
	value in[3], out;
	enum role role, bias; /* the weights it reads, or ROLE_UNKNOWN */
	uint8_t group;        /* the first of linears in a row that read one value: how many they are; else 0 */
	uint32_t heads;       /* of in[0], where it is taken apart into heads */
	float scale;          /* OP_SCALE */
};

struct value_info {
	size_t width;         /* per token */
	uint8_t maker, last;  /* the operation that makes it (no meaning for the stream), the last one that reads it */
	uint8_t room;         /* the buffer it lies in; values that do not live at the same time share one */
};

/* A tensor that the layer has a place for. */
struct site {
	enum role role;
	uint32_t ndim;
	uint64_t dim[2];
	bool required;        /* else accepted, and not read */
	uint32_t count;       /* of the layer: 1, or one for each expert */
};

struct block {
	unsigned ops, values, sites, rooms, parts;
	struct op op[BLOCK_OPS];
	struct value_info value[BLOCK_VALUES];
	struct site site[BLOCK_SITES];
	size_t room[BLOCK_ROOMS];     /* width of each buffer */
	uint8_t part[BLOCK_PARTS + 1];/* part i is operations part[i] to part[i + 1]: nothing but the stream passes between */
	uint8_t site_of[ROLE_COUNT];  /* 1 + its number, 0: no such tensor */
	bool full;                    /* the family wrote more than there is room for */
};

/* What lies outside of the layers: embedding, final norm, head. */
#define OUTSIDE UINT32_MAX
void block_make(const struct config *c, uint32_t layer, struct block *b);
/* NULL: the block has no such tensor. */
const struct site *block_site(const struct block *b, enum role r);
/* The operation that reads this matrix or vector; NULL: none does. */
const struct op *block_op(const struct block *b, enum role r);
/* The first matrix that reads what this one reads. */
enum role block_leader(const struct block *b, enum role r);
/* Of what this matrix reads. */
size_t block_width(const struct block *b, enum role r);
/* The OP_MERGE of the OP_EXPERTS that is operation i. */
unsigned block_merge(const struct block *b, unsigned i);
/* Is there such an operation in part i of the layer, from 1; 0: anywhere? */
bool block_has(const struct block *b, unsigned part, enum op_kind kind);
/* Does what this matrix puts out go to the stream as it is? */
bool block_adds(const struct block *b, enum role r);

/* Matrices that read one value. */
enum { BLOCK_GROUPS = 12, BLOCK_READERS = 8 };
struct group {
	enum role role[BLOCK_READERS]; /* the first leads */
	unsigned count;
	unsigned part;     /* of the layer, from 1 */
	bool ends;         /* no matrix of that part comes after it */
	bool adds;         /* what it puts out goes to the stream as it is */
	uint32_t experts;  /* 0: the layer has it once; else each of so many experts has it */
};
static inline uint32_t group_places(const struct group *g)
{
	return g->experts ? g->experts : 1;
}
/* The place of a group's matrices; i: the expert, or 0. */
static inline uint32_t group_place(const struct group *g, uint32_t layer, uint32_t i)
{
	return g->experts ? place_of(layer, i) : layer;
}
/* In the order the layer runs them: their number. */
unsigned block_groups(const struct block *b, struct group out[BLOCK_GROUPS]);

/* What can take the inverse when the channels that a matrix reads are scaled: found by walking back from its input. */
struct source_of {
	enum role role;    /* a norm, or a matrix whose rows these channels are; ROLE_UNKNOWN: nothing */
	enum role bias;    /* that is added there, or ROLE_UNKNOWN */
	bool norm;
	bool heads;        /* rows are those of V, which several heads read: see config_v_row */
	const char *why;   /* nothing can */
};
struct source_of block_source(const struct config *c, const struct block *b, enum role r);

/* ---- for families: each appends an operation and gives the value it makes; one on NO_VALUE gives NO_VALUE */
struct build {
	const struct config *config;
	const struct layer_config *layer;
	bool owner;                   /* the layer has keys and values of its own */
	struct block *block;
};
value op_norm(struct build *b, value x, enum role r);
value op_head_norm(struct build *b, value x, enum role r); /* ROLE_UNKNOWN: without weights */
/* Keys and values of a layer that reads another one's: NO_VALUE. */
value op_linear(struct build *b, value x, enum role r);
value op_rope(struct build *b, value x);
value op_attend(struct build *b, value q, value k, value v);
value op_act(struct build *b, value x);
value op_glu(struct build *b, value gate, value up);
void op_add(struct build *b, value x);
value op_scale(struct build *b, value x, float by); /* nothing, if by one */
value op_temper(struct build *b, value x);
value op_route(struct build *b, value logits);
/* What is appended between these two is run by each expert, over its tokens. */
value op_experts(struct build *b, value x, value weights);
value op_merge(struct build *b, value x, value weights);

/* What most families are made of: x -> what is added to the stream. */
value common_attention(struct build *b, value x, bool head_norms);
value common_attention_whole(struct build *b, value x); /* queries and keys are normed over all of their heads at once */
value common_feed_forward(struct build *b, value x);
value common_mlp(struct build *b, value x); /* without a gate */
/* The same of a layer that is a mixture of such: each token goes to those that a router chooses. */
value common_mixture(struct build *b, value x);
/* A whole layer in which attention and feed-forward read one norm and are added to the stream together. */
void common_parallel(struct build *b, bool gated);
/* A whole layer of the first two, with a norm in front of each and one behind it. */
void common_sandwich(struct build *b, bool head_norms);

#endif
