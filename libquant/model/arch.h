#ifndef QUIRE_MODEL_ARCH_H
#define QUIRE_MODEL_ARCH_H
/*
 * Architectures and tensor roles. An architecture is one file in family/: its row here, and the function that writes a
 * layer as a list of operations (graph.h).
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/config.h"

enum role {
	ROLE_EMBED, ROLE_FINAL_NORM, ROLE_HEAD,
	ROLE_ATTN_NORM, ROLE_Q, ROLE_K, ROLE_V, ROLE_O, ROLE_Q_NORM, ROLE_K_NORM,
	ROLE_FFN_NORM, ROLE_GATE, ROLE_UP, ROLE_DOWN,
	ROLE_Q_BIAS, ROLE_K_BIAS, ROLE_V_BIAS, ROLE_O_BIAS, ROLE_GATE_BIAS, ROLE_UP_BIAS, ROLE_DOWN_BIAS,
	ROLE_ROPE_FREQS,    /* GGUF only: frequency divisors */
	ROLE_POST_ATTN_NORM, ROLE_POST_FFN_NORM, /* sandwich norms, before the residual is added */
	ROLE_ATTN_NORM_BIAS, ROLE_FFN_NORM_BIAS, ROLE_FINAL_NORM_BIAS, /* NORM_LAYER */
	ROLE_EMBED_NORM, ROLE_EMBED_NORM_BIAS, /* over the embedding */
	ROLE_HEAD_BIAS,
	ROLE_POSITIONS,     /* a vector for each position, added to the embedding */
	ROLE_ROUTER, ROLE_EXPERT_GATE, ROLE_EXPERT_UP, ROLE_EXPERT_DOWN, /* the last three: of each expert */
	ROLE_COUNT, ROLE_UNKNOWN = ROLE_COUNT,
};

/*
 * Where a tensor of a layer lies: the number of the layer, with that of the expert above it where each expert has such a
 * tensor. A layer's number is its own place, so that nobody who deals with layers has to know of experts; whoever looks
 * into the layer's configuration takes place_layer.
 */
enum { PLACE_BITS = 12, MAX_LAYERS = 1 << PLACE_BITS, MAX_EXPERTS = 1 << 16 };
#define NO_EXPERT UINT32_MAX
static inline uint32_t place_of(uint32_t layer, uint32_t expert)
{
	return layer | (expert + 1) << PLACE_BITS;
}
static inline uint32_t place_layer(uint32_t place)
{
	return place & (MAX_LAYERS - 1);
}
static inline uint32_t place_expert(uint32_t place)
{
	return (place >> PLACE_BITS) - 1;
}

/* Facts of a role that do not depend on the architecture. */
struct role_row {
	enum role role;
	const char *name;      /* "attn_q", as in recipes and reports */
	enum role bias_role;   /* what is added to the result, where the model has it; ROLE_UNKNOWN: never */
	bool per_layer, linear /* a matrix that methods quantize */, norm, bias;
	bool per_expert;       /* in GGUF one tensor with the experts' matrices one after the other */
	enum role like;        /* the role that presets treat the same; of most roles itself */
	const char *hf;        /* "model.layers.%u.self_attn.q_proj.weight" */
	const char *gguf;      /* "blk.%u.attn_q.weight" */
};
extern const struct role_row role_rows[ROLE_COUNT];

enum norm_kind { NORM_RMS, NORM_RMS_PLUS_ONE, NORM_LAYER };
enum bias_rule {
	BIAS_NEVER, BIAS_ALWAYS, BIAS_CONFIG,
	BIAS_AS_QKV,  /* mlp_bias: one key says both */
	BIAS_OWN_KEY, /* o_bias: of the output alone */
};

/* How config.json says that layers differ in KV heads and width, or read another one's cache; see config_differ.c. */
enum differ_rule {
	DIFFER_OWN,       /* quire's own lists */
	DIFFER_BLOCKS,    /* block_configs */
	DIFFER_SUFFIX,    /* num_kv_shared_layers, and quire's own */
};
enum window_rule {
	WINDOW_NONE,
	WINDOW_ALL,        /* sliding_window */
	WINDOW_SWITCHED,   /* the same, if use_sliding_window */
	WINDOW_FROM_LAYER, /* max_window_layers, layer_types */
	WINDOW_PERIOD,     /* all but every window_period'th layer, or layer_types */
	WINDOW_UNTURNED,   /* layers without positions, if use_sliding_window; or layer_types */
};
static inline bool window_has_switch(enum window_rule w)
{
	return w == WINDOW_SWITCHED || w == WINDOW_FROM_LAYER || w == WINDOW_UNTURNED;
}
static inline bool window_has_types(enum window_rule w)
{
	return w == WINDOW_FROM_LAYER || w == WINDOW_PERIOD || w == WINDOW_UNTURNED;
}

/* Layers whose queries and keys are turned by their positions. */
enum turning_rule {
	TURN_ALL,
	TURN_NONE,
	TURN_WINDOWED,     /* those with a window */
	TURN_LISTED,       /* no_rope_layers, where 0 says that a layer is not; else all but every no_rope_layer_interval'th */
};

/* A tensor name that differs from role_rows; NULL: this architecture has no such tensor in that format. */
#define AS_ELSEWHERE "" /* the one that role_rows has */
struct role_name {
	enum role role;
	const char *hf, *gguf;
};

/* How a tensor lies in GGUF, as against Hugging Face files. */
enum layout {
	LAYOUT_SAME,
	LAYOUT_ROPE_PAIRS, /* row p*h/2 + j of each head of h rows is row 2j + p: dimensions that turn together are neighbours */
	LAYOUT_PLUS_ONE,   /* one is added to every value: the norm's own plus one */
};
struct role_layout {
	enum role role;
	enum layout layout;
};

struct build;

/* How config.json says that layers are mixtures of experts; see config_experts.c. */
struct mixture {
	const char *width_key;       /* of an expert's feed-forward; NULL: intermediate_size */
	uint32_t default_experts, default_used, default_width;
	bool renormalize;            /* the chosen experts' weights add up to one, always */
	bool keys;                   /* norm_topk_prob says so instead; decoder_sparse_step, mlp_only_layers: which layers are dense */
	bool norm_key;               /* norm_topk_prob alone */
	bool num_experts;            /* the key of their number is num_experts, also without a width_key */
	bool gguf_shares;            /* readers of GGUF leave the weights as they are; else they make them add up to one */
};

/* What llama.cpp's loader of a GGUF architecture (src/models) makes room for; a file with other tensors or shapes is not loaded. */
struct gguf_loader {
	bool o_bias, mlp_bias;       /* reads such biases where a file has them */
	bool biases;                 /* every linear has one, or it is not loaded */
	bool head_dim;               /* heads may be wider or narrower than hidden / heads */
	bool only_tied;              /* the head is the embedding, whatever else is stored */
	bool only_own;               /* the head is never the embedding */
	bool partial;                /* positions in a part of a head */
	bool longrope;               /* the two lists of divisors of longrope */
	bool full_kv;                /* as many KV heads as heads */
	bool betas;                  /* reads those of yarn */
	bool differ;                 /* layers may differ in KV heads and width */
	bool shares;                 /* the last layers may read the cache of the last one before them, or with a window that before it */
	bool unscaled;               /* windowed layers turn by what scales the others, if anything does */
	uint32_t unturned;           /* every so-manieth layer has no positions; 0: all have */
};

struct arch {
	const char *name;            /* model_type in config.json */
	const char *hf_class;        /* "LlamaForCausalLM" */
	const char *gguf;            /* general.architecture */
	struct gguf_loader gguf_loader;
	enum norm_kind norm;
	enum activation act;
	void (*layer)(struct build *b); /* writes the operations of a layer */
	enum bias_rule qkv_bias, o_bias, mlp_bias;
	enum window_rule window;
	uint32_t window_period;      /* WINDOW_PERIOD */
	bool local_theta;            /* layers with a window have a rotary base of their own */
	uint32_t default_window, default_kv_heads /* 0: = heads */, default_head_dim /* 0: hidden / heads */;
	float default_eps, default_theta;
	bool plain_norms;            /* NORM_LAYER without biases */
	bool scale_embedding;        /* times sqrt(hidden) */
	bool default_tied;
	uint32_t default_context;
	int32_t default_bos, default_eos; /* -1: none */
	bool learned_positions;      /* ROLE_POSITIONS */
	uint32_t position_offset;    /* position 0 is that row of ROLE_POSITIONS */
	bool alibi;                  /* scores fall with the distance of a key, see attention.h */
	bool embed_norm, head_bias;  /* ROLE_EMBED_NORM, ROLE_HEAD_BIAS */
	bool equal_heads;            /* its class has as many KV heads as heads */
	bool partial_rotary;         /* partial_rotary_factor is honoured */
	uint32_t default_original_context; /* original_max_position_embeddings is a key of the class itself; 0: it is not */
	bool only_longrope;          /* its class knows no other scaling of positions, and that one under older names too */
	enum turning_rule turning;
	bool temper;                 /* queries grow with their position: rope.temper */
	const struct config_key *keys; /* NULL, or ended by KEY_END: rows beside the common ones, or in their place (keys.h) */
	const struct role_name *names; /* NULL, or ended by ROLE_UNKNOWN */
	const struct stored *stored; /* NULL, or ended by one without names: tensors of files that hold several (stored.h) */
	const struct stored *also_stored; /* the same, of folders that other programs write: read, and never written */
	const struct role_layout *gguf_layouts; /* the same, of what does not lie as it does elsewhere */
	enum differ_rule differ;
	bool gguf_divisors;          /* GGUF has divisors of frequencies always, if of 1 */
	bool gelu_is_tanh;           /* config.json's "gelu" always meant the tanh form here */
	const struct mixture *mixture; /* NULL: no experts */
};
extern const struct arch *const arch_rows[];
extern const unsigned arch_row_count;
const struct arch *arch_find(const char *model_type);
/* Several architectures may share one GGUF name; the first row that matches wins (mistral reads back as llama). */
const struct arch *arch_from_gguf(const char *name, bool experts);

/* "llama, mistral, ..." for messages; returns buf. */
char *arch_list(char *buf, size_t size);

/*
 * Tensor name <-> role and place (UINT32_MAX for roles outside layers). ROLE_UNKNOWN when the name is not known. GGUF's
 * names are of a layer, for all of its experts.
 */
enum role role_from_hf(const struct arch *a, const char *name, uint32_t *place);
enum role role_from_gguf(const struct arch *a, const char *name, uint32_t *layer);
/* Writes the name into buf (>= 96 bytes) and returns it; NULL when the format has no such name. */
char *role_hf_name(const struct arch *a, enum role r, uint32_t place, char *buf);
char *role_gguf_name(const struct arch *a, enum role r, uint32_t layer, char *buf);

enum layout role_gguf_layout(const struct arch *a, enum role r);

/* Tensors that some checkpoints carry and nothing needs (saved rotary tables). */
bool tensor_name_ignored(const char *name);
/* The role whose role_rows name this is ("attn_q"); ROLE_UNKNOWN when there is none. */
enum role role_find(const char *name);

/* The shape a tensor of this role must have in this model: fills dim[2], returns ndim (0: the role is not used). */
uint32_t role_shape(const struct config *c, enum role r, uint32_t place, uint64_t dim[2]);
/* Does the model need this tensor? (Optional ones, e.g. a head when tied, are accepted but not required.) */
bool role_required(const struct config *c, enum role r, uint32_t place);
/* How many tensors of this role a layer has: 1, or as many as there are experts; 0: none is required. */
uint32_t role_count(const struct config *c, enum role r, uint32_t layer);

/* To go through the places of a role in a layer: i from 0 to role_places. A dense layer has no use for those of experts. */
static inline uint32_t role_places(const struct config *c, enum role r)
{
	return role_rows[r].per_expert ? c->experts : 1;
}
static inline uint32_t role_place(enum role r, uint32_t layer, uint32_t i)
{
	return role_rows[r].per_expert ? place_of(layer, i) : layer;
}
/* Of whatever role. */
static inline uint32_t role_layer(enum role r, uint32_t place)
{
	return r < ROLE_COUNT && role_rows[r].per_expert ? place_layer(place) : place;
}

/* Numbers from 0 to site_count() for every place of every role: what is kept for each tensor is an array of these. */
size_t site_id(const struct config *c, enum role r, uint32_t place); /* SIZE_MAX: there is no such place */
size_t site_count(const struct config *c);

#endif
