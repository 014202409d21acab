#ifndef QUIRE_CMD_COMPARE_H
#define QUIRE_CMD_COMPARE_H
/*
 * The parts of `quire compare`: its variants (compare_variant.c), the plan file they come from
 * (compare_plan.c), folding them (compare_fold.c), what is kept of them in the work folder
 * (compare_work.c), the table, CSV and JSON (compare_print.c) and the page (compare_html.c).
 */
#include "calib/judge/attribute.h"
#include "calib/judge/variants.h"
#include "calib/judge/interval.h"
#include "calib/run/loaded.h"
#include "calib/judge/measure.h"
#include "calib/judge/records.h"
#include "cmd/running.h"

struct compare_options {
	struct common common;
	const char *data, *stats, *schemes, *plan, *method, *work, *to, *protocol, *csv, *html, *attribute, *kv_type, *as;
	int64_t ctx, chunks, distill;
	double confidence, max_kl;
	uint64_t budget;
	bool fastest, force;
	struct string_list calib;
};

struct variant {
	char *name;                      /* as shown; one of a kind */
	char *scheme, *method, *file;    /* file: a checkpoint that exists; else scheme and method (NULL: the default) */
	char *from;                      /* a checkpoint to quantize instead of the original (a folded one) */
	char *kv, *kv_v;                 /* codecs of keys and values in the cache; NULL: f32 in the run, --kv-type in sizes */
	char *kv_rotate;                 /* "yes": Hadamard matrix per head before coding */
	char *recipe;                    /* a file of PATTERN = CODEC, before those of tensor */
	struct string_list tensor;       /* PATTERN=CODEC; items are malloc'ed */
	struct string_list fold;         /* options of fold: "--kv-heads=2"; items are malloc'ed */
	char *folded;                    /* the folded checkpoint in the work folder */
	char *path, *stem;               /* where the checkpoint is; the same without suffix (in the work folder) */
	char key[IDENTITY_SIZE];         /* hash of all that it is made from */
	char *kept;                      /* its measurement in the work folder, without suffix */
	struct loaded *loaded;           /* apart: its model points into it, and variants are sorted */
	uint64_t bytes;
	double bits, kv_bytes;           /* per weight; per token */
	double make_seconds, run_seconds;
	bool made, measured;             /* in this run; else found in the work folder */
	struct measurement m;
	struct summary s;
	struct interval kl, ratio, top1; /* two-sided at the confidence asked for */
	double *layer;                   /* [layers] of the reference: see compare_layers; NULL: not the same layers */
	bool front;
	struct attribution attribution;  /* count 0: not asked for */
};

struct compare {
	const struct compare_options *o;
	const char *model, *work, *default_method;
	struct loaded reference;
	uint64_t bytes;                  /* the reference's */
	double bits, kv_bytes, kv_element;
	char identity[IDENTITY_SIZE], stats_key[IDENTITY_SIZE], calib_key[IDENTITY_SIZE];
	enum protocol protocol;
	struct windows w;
	struct variant *variants;
	size_t count;
	struct compare_pair *pairs;      /* by compare_pair_index of positions in variants */
	size_t pair_count;
	bool asked;                      /* a limit or --fastest was given */
	struct choice choice;
	double seconds;                  /* the run that measured, all variants and the reference */
};

static inline struct kv_choice variant_kv(const struct variant *v)
{
	return (struct kv_choice){ v->kv, v->kv_v, v->kv_rotate != NULL };
}

/* From --schemes, --plan and the further arguments. ERR_USAGE: nothing to compare, a name twice, an unknown scheme or method. */
int compare_variants(struct compare *c, const char *const *files, size_t count, struct err *e);
/* Checks --stats and finds the method that goes with it; before compare_variants. */
int compare_stats(struct compare *c, struct err *e);
/* Adds a large file by its ends: a statistics file is gigabytes, and they hold what it was made from and the last sums. */
int compare_add_ends(struct sha256 *h, const char *path, struct err *e);
void variant_release(struct variant *v);
struct running variant_running(const struct compare *c, const struct variant *v);
int variant_add(struct compare *c, struct variant **out, struct err *e);
int variant_text(char **field, const char *s, size_t n, struct err *e);
/* Adds the variants of a --plan file; an error names file and line. */
int compare_plan(struct compare *c, const char *path, struct err *e);
int compare_plan_text(struct compare *c, const char *text, size_t len, const char *name, struct err *e);

/* Folded variants. NAME is fold's option, or "fold-" and fold's option where quantize has one of that name; NULL: neither. */
const char *fold_option(const char *name, size_t n);
/* What `fold` itself would refuse about the words, and a text that is missing. */
int fold_check_words(const struct compare *c, const struct variant *v, struct err *e);
/* The hash of --calib; of a folded checkpoint whose original is `base`. The latter sets v->folded. out may be base. */
int fold_text_key(struct compare *c, struct err *e);
int fold_key(const struct compare *c, struct variant *v, const char *base, char out[IDENTITY_SIZE], struct err *e);
int fold_make(const struct compare *c, const struct variant *v, struct err *e);

/* Fills key and path of every variant; then makes those that the work folder lacks. */
int compare_keys(struct compare *c, struct err *e);
int compare_make(struct compare *c, struct err *e);

/* Bytes of a checkpoint's file, or of its tensors when it is a folder; its bits per weight. */
void compare_size(const struct loaded *l, const char *path, uint64_t *bytes, double *bits);

/* Measurements in the work folder: *is_kept is false when there is none of this very run. */
int compare_kept(const struct compare *c, struct variant *v, bool *is_kept, struct err *e);
int compare_keep(const struct compare *c, struct variant *v, struct err *e);
/* There is something in the work folder by now: an interruption says so. */
void compare_goes_on(const struct compare *c);
/* The same of attributions, by what --attribute says. */
bool compare_kept_attribution(const struct compare *c, struct variant *v, enum attribute_by by);
int compare_keep_attribution(const struct variant *v, struct err *e);
/* How long making took, kept beside the checkpoint. */
int compare_keep_made(const struct variant *v, struct err *e);
void compare_kept_made(struct variant *v);

void compare_table(const struct compare *c, struct strbuf *out);
void compare_json(const struct compare *c, struct strbuf *out);
void compare_csv(const struct compare *c, struct strbuf *out);
void compare_html(const struct compare *c, struct strbuf *out);
/* "take NAME: why", or how far off the nearest ones are. */
void compare_verdict(const struct compare *c, struct strbuf *out);
/* Variants whose KL cannot be told from this one's: "2, 3", by position from 1. */
void compare_alike(const struct compare *c, size_t v, struct strbuf *out);

#endif
