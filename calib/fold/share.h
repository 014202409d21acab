#ifndef QUIRE_CALIB_FOLD_SHARE_H
#define QUIRE_CALIB_FOLD_SHARE_H
/*
 * Shares KV caches between layers: a reader has no keys and values of its own, its queries and its output projection
 * are made to fit the cache of an earlier layer, the owner. Two streams run over the same text, as in fold.h; targets
 * are what the original puts out on its own stream, and what the streams differ by.
 */
#include "calib/fold/fold_job.h"
#include "calib/fold/refit.h"
#include "calib/run/stream.h"

/* Each goes on from where the one before it ends. */
enum share_method {
	SHARE_REUSE,             /* the owner's cache as it is, nothing adapted */
	SHARE_MATCH,             /* heads assigned, queries turned and values mapped in closed form, W_O by least squares */
	SHARE_REFIT,             /* W_Q and W_O by gradient descent */
	SHARE_JOINT,             /* before that the owner's W_K and W_V as well, for itself and its readers together */
};
struct share_method_row {
	enum share_method method;
	const char *name, *summary;
};
extern const struct share_method_row share_method_rows[];
extern const unsigned share_method_row_count;

struct share_options {
	enum share_method method;
	struct refit_options refit;
	double residual;         /* how much of the difference of the two residual streams a layer is to take back */
	bool ffn;                /* refit the down projections from the first shared layer on */
};

struct share_report {
	uint32_t source;         /* the layer itself, unless it is a reader */
	uint32_t *heads;         /* readers: own KV head that each of the owner's stands for now; NULL with plain reuse */
	struct refit_report attention; /* readers: mean squared error of the output on held-out windows; NaN: not measured */
	double joint_before, joint_after; /* owners: the same of its own and its readers' outputs together */
	double ffn_before, ffn_after;
};

/*
 * A map by its name: "suffix:N" (the last N layers read the last layer before them), "pairs" (every second layer reads
 * the one before; the first stays alone when the count is odd), or "0,1,1,3,3". source: [layers]. ERR_USAGE.
 */
int share_map_parse(const char *spec, uint32_t layers, uint32_t *source, struct err *e);
/*
 * ERR_USAGE for cycles, forward references and owners that are readers themselves; ERR_UNSUPPORTED for layers of unlike
 * windows or head counts, and quantized weights. The message names both layers.
 */
int share_check(const struct config *c, struct tensor_source *source, const uint32_t *map, struct err *e);

/*
 * The job's configuration has kv_source set; the readers' K and V are removed. Its text is NULL only with SHARE_REUSE. report
 * [layers], zeroed; release with share_report_release.
 * Memory: hidden states of the text, and inputs and targets of an owner's readers at a time.
 */
int share_run(const struct fold_job *job, const struct share_options *o, struct share_report *report, struct err *e);
void share_report_release(struct share_report *r, size_t layers);

/* When a search is done: with so many readers, once the cache is small enough, or before KL gets above a limit. */
struct share_goal {
	uint32_t readers;        /* 0: not counted */
	uint64_t bytes, tokens;  /* of the cache at so many tokens, f16; tokens 0: not counted */
	double max_kl;           /* in closed form; 0: no limit */
};
struct share_steps {
	uint32_t *map;           /* [layers]; the search goes on from what it holds */
	double *kl;              /* [layers], or NULL: what each step measured */
	uint32_t count;
};
/*
 * Finds a map: one more layer that reads another one's cache at a time, that of least measured KL after the closed form,
 * the layers shared so far included. Owners tried for a layer are the nearest ones before it; a layer that is read takes
 * its readers along. Layer 0 never reads. What a step added in an earlier round stands for what it adds now, unless it is
 * the least: then it is measured again (Minoux 1978; exact where steps never cost less than before). ERR_USAGE when the
 * goal cannot be met: the message says how far it goes. c: the configuration that is tried out, as it was afterwards; the
 * job's `to` and `out` are not looked at.
 */
int share_search(const struct fold_job *job, struct config *c, const struct share_goal *goal, struct share_steps *out, struct err *e);

#endif
