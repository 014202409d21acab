#ifndef QUIRE_FORMATS_PACKING_H
#define QUIRE_FORMATS_PACKING_H
/*
 * Writing what other programs keep as whole numbers in several tensors: a packing is one kind of folder, with the layouts
 * (codes.h) that its matrices may have and what its config.json says of them. Our group codecs hold the same codes, scales and
 * zero points, so nothing is rounded either way. A format of checkpoints that is written as a packing is a row in hf.c.
 */
#include "base/json.h"
#include "formats/codes.h"
#include "plan/plan.h"

struct packing {
	const char *name;                               /* as in messages */
	const struct codes_layout *const *layouts;      /* the last is NULL */
	const char *metadata;                           /* what its safetensors say of their format */
	const char *const *keys;                        /* of config.json, the last is NULL: the same object under each */
	const char *file;                               /* another file with the same object, or NULL */
	bool embedding;                                 /* of embeddings as well, not of linear layers only */
	bool head;                                      /* of output heads as well */
	/* The members of that object. ERR_UNSUPPORTED: it cannot say what the plan holds. */
	int (*config)(const struct packing *k, const struct plan *p, struct json_writer *w, struct err *e);
};
extern const struct packing packing_ct, packing_gptq, packing_awq, packing_mlx;

/* The layout of a tensor of the plan; NULL: it is written as it is. */
const struct codes_layout *packing_layout(const struct packing *k, const struct plan *p, const struct codec *c);
bool packing_holds(const struct packing *k, const struct codec *c);
/* Does the plan hold codecs that are written in these layouts? */
bool packing_wanted(const struct packing *k, const struct plan *p);
/* Have some of them zero points, or biases? */
bool packing_zeros(const struct packing *k, const struct plan *p);
/*
 * Writing: *parts becomes the plan of the tensors that are really written; *out, a sink for p that passes them on to
 * inner, which the sink then owns. Free parts with plan_release after closing.
 */
int packing_plan(const struct packing *k, const struct plan *p, struct plan *parts, struct err *e);
int packing_sink(const struct packing *k, const struct plan *p, struct tensor_sink *inner, struct tensor_sink **out, struct err *e);
/* Puts what the configuration says of quantized weights into a config.json's text; object: the same alone. */
int packing_config(const struct packing *k, const struct plan *p, struct strbuf *text, struct strbuf *object, struct err *e);

/* Length of the module's name in front of ".weight"; 0 when a tensor has another name. */
size_t packing_module(const char *name);

#endif
