#include "cmd/produce.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "cmd/calibration.h"
#include "cmd/fallback.h"
#include "cmd/quantize_report.h"
#include "codec/codec.h"
#include "formats/file.h"
#include "formats/proof.h"
#include "formats/proof_tokenizer.h"
#include "plan/plan.h"

struct state {
	const struct produce *p;
	const struct format *format;     /* of the output; NULL with dry_run and no output */
	struct checkpoint *in;
	struct tensor_source *source;    /* of in, or what the command changed it to */
	struct config config;
	bool have_config;
	struct plan plan;
	struct source_hash *hash;
	struct calibrated calibrated;
	struct notes notes;              /* of reader, method and writer */
	size_t told;                     /* of these */
	struct tensor_sink *sink;        /* of the output while it has no name yet */
	struct proof *proof;
	struct proof_result proved;
	struct proof_tokens cut;
	double start;
};

int produce_format(const char *output, const char *to, const struct format **out, struct err *e)
{
	*out = NULL;
	if (to && !(*out = format_find(to))) {
		struct strbuf known = { 0 };
		for (unsigned i = 0; i < format_row_count; i++)
			if (format_rows[i]->create)
				strbuf_printf(&known, "%s%s", known.len ? ", " : "", format_rows[i]->name);
		err_set(e, ERR_USAGE, "unknown format '%.40s'; --to takes one of: %s", to, known.data ? known.data : "");
		strbuf_release(&known);
		return ERR_USAGE;
	}
	if (!*out && output)
		*out = format_for_output(output);
	if (*out && !(*out)->create)
		return err_set(e, ERR_UNSUPPORTED, "format %s is only read, not written", (*out)->name);
	return ERR_OK;
}

/* What cannot be written should be known before hours of work, not after. */
static int check_writable(const struct state *s, struct err *e)
{
	const struct produce *p = s->p;
	struct out_dir *folder;
	int rc;
	if (p->out.dry_run)
		return ERR_OK;
	if (s->format->suffix)
		rc = out_check(p->out.path, e);
	else if (!(rc = out_dir_open(p->out.path, &folder, e)))
		out_dir_abort(folder);
	return !rc && p->report ? out_check(p->report, e) : rc;
}

static int check_output(const struct state *s, struct err *e)
{
	const struct produce *p = s->p;
	if (!p->out.path)
		return p->out.dry_run ? ERR_OK : err_set(e, ERR_USAGE, "give the output with -o");
	if (p->out.compress && !s->format->deflates)
		return err_set(e, ERR_USAGE, "--compress is for .quire files");
	if (p->out.shard_size && s->format->suffix)
		return err_set(e, ERR_USAGE, "--shard-size is for Hugging Face folders");
	return check_writable(s, e);
}

/* Without a model that quire knows, tensors can still be carried; only formats that must describe the model cannot. */
static int read_config(struct state *s, struct err *e)
{
	s->source = s->p->source ? s->p->source : s->in->source;
	if (s->p->config || !checkpoint_has(s->in, "config.json"))
		return ERR_OK;
	int rc = checkpoint_config(s->in, &s->config, e);
	s->have_config = !rc;
	if (rc != ERR_UNSUPPORTED || (s->format && s->format->describes))
		return rc;
	if (!s->p->common->quiet)
		warn("%s; tensors are judged by their names", e->message);
	return ERR_OK;
}

/* The codec that the output holds with as many bits, or about as many, for rows of this length. */
static const struct codec *nearest(const struct format *f, const struct tensor *t)
{
	const struct codec *best = NULL;
	double least = HUGE_VAL, have = codec_bits_per_weight(t->codec, tensor_cols(t));
	for (unsigned i = 0; i < codec_row_count && codec_quantizes(t->codec); i++) {
		const struct codec *c = codec_rows[i];
		double miss = fabs(codec_bits_per_weight(c, tensor_cols(t)) - have) + (c->bits == t->codec->bits ? 0 : 1);
		if (codec_quantizes(c) && f->holds(c) && codec_row_bytes(c, tensor_cols(t)) && miss < least) {
			least = miss;
			best = c;
		}
	}
	return best;
}

/* What is advised must be possible: a format that holds the codec, or an option that makes another of it. */
static int cannot_hold(const struct state *s, const struct tensor *t, struct err *e)
{
	char formats[96] = "";
	for (unsigned i = 0; i < format_row_count; i++)
		if (format_rows[i]->create && format_rows[i]->holds(t->codec)) {
			size_t n = strlen(formats);
			snprintf(formats + n, sizeof formats - n, "%s%s", n ? " or " : "; write --to ", format_rows[i]->name);
		}
	bool floats = t->codec->kind != CODEC_INTEGER && s->p->cannot_hold;
	const struct codec *near = nearest(s->format, t);
	return err_set(e, ERR_UNSUPPORTED, "tensor %s would be %s, which %s cannot hold%s%s%s%s%s", t->name, t->codec->name, s->format->name,
		       near ? "; nearest: " : "", near ? near->name : "", formats, floats ? "; " : "", floats ? s->p->cannot_hold : "");
}

static int check_holds(const struct state *s, struct err *e)
{
	for (size_t i = 0; s->format && i < s->plan.count; i++)
		if (!s->format->holds(s->plan.items[i].out.codec))
			return cannot_hold(s, &s->plan.items[i].out, e);
	return ERR_OK;
}

/* Success would say that the model is smaller now. */
static int check_quantizes(const struct state *s, struct err *e)
{
	bool already = false;
	if (!s->p->method || recipe_is_float(s->p->recipe))
		return ERR_OK;
	for (size_t i = 0; i < s->plan.count; i++) {
		if (s->plan.items[i].method)
			return ERR_OK;
		already |= codec_quantizes(s->plan.items[i].out.codec);
	}
	return err_set(e, ERR_USAGE, "%.600s: nothing would be quantized by %.80s: %s", s->p->input, recipe_name(s->p->recipe),
		       already ? "its matrices are stored so already; 'quire convert' copies them" :
		       "no tensor is a matrix that it makes smaller; 'quire convert --dtype' changes types");
}

static const struct config *described(const struct state *s)
{
	return s->p->config ? s->p->config : s->have_config ? &s->config : NULL;
}

static int make_plan(struct state *s, struct err *e)
{
	const struct produce *p = s->p;
	const struct fallback_source from = { s->format, described(s), s->source, p->method };
	fallback_recipe(p->recipe, &from);
	const struct plan_request wanted = { described(s), s->source, p->recipe, p->method, p->allow_requantize,
					      s->format ? s->format->holds : NULL };
	int rc = plan_make(&s->plan, &wanted, e);
	if (rc)
		return err_prefix(e, "%.600s", p->input);
	if (!(rc = check_holds(s, e)) && s->format && p->method) {
		struct strbuf text = { 0 };
		fallback_text(&s->plan, &from, &text);
		if (text.len)
			note(p->common, "%s", text.data);
		strbuf_release(&text);
	}
	return rc ? rc : check_quantizes(s, e);
}

static void json_notes(const struct notes *n, struct json_writer *w)
{
	jw_array(w, "warnings");
	for (size_t i = 0; i < n->count; i++)
		jw_string(w, NULL, n->line[i]);
	jw_end_array(w);
}

static void plan_json(const struct state *s, struct strbuf *out)
{
	struct json_writer w = { .out = out, .indent = 2 };
	jw_document(&w, "quire-plan/1");
	jw_string(&w, "input", s->p->input);
	jw_string(&w, "recipe", recipe_name(s->p->recipe));
	jw_uint(&w, "bytes", s->plan.bytes);
	jw_double(&w, "bits_per_weight", plan_bits_per_weight(&s->plan));
	jw_uint(&w, "scratch_bytes", s->plan.scratch);
	if (s->p->say)
		s->p->say(s->p->say_arg, NULL, &w);
	if (s->calibrated.row) {
		jw_string(&w, "method", s->calibrated.row->name);
		jw_uint(&w, "peak_memory", s->calibrated.memory);
	}
	json_notes(&s->notes, &w);
	jw_array(&w, "tensors");
	for (size_t i = 0; i < s->plan.count; i++) {
		const struct plan_item *item = &s->plan.items[i];
		jw_object(&w, NULL);
		jw_string(&w, "name", item->out.name);
		jw_string(&w, "role", item->role < ROLE_COUNT ? role_rows[item->role].name : NULL);
		jw_array(&w, "shape");
		for (uint32_t d = 0; d < item->out.ndim; d++)
			jw_uint(&w, NULL, item->out.dim[d]);
		jw_end_array(&w);
		jw_string(&w, "from", s->source->tensors[item->source].codec->name);
		jw_string(&w, "to", item->out.codec->name);
		jw_uint(&w, "bytes", item->out.nbytes);
		jw_string(&w, "why", item->why);
		jw_end_object(&w);
	}
	jw_end_array(&w);
	jw_end_object(&w);
	strbuf_putc(out, '\n');
}

static void plan_table(const struct state *s, struct strbuf *out)
{
	char size[32], shape[160];
	int width = 6;
	for (size_t i = 0; i < s->plan.count; i++)
		if ((int)strlen(s->plan.items[i].out.name) > width)
			width = (int)strlen(s->plan.items[i].out.name);
	strbuf_printf(out, "%-*s  %-14s  %-9s -> %-9s  %10s  %s\n", width, "tensor", "shape", "from", "to", "size", "why");
	for (size_t i = 0; i < s->plan.count; i++) {
		const struct plan_item *item = &s->plan.items[i];
		safe_text(out, item->out.name);
		strbuf_printf(out, "%*s  %-14s  %-9s -> %-9s  %10s  %s\n", width - (int)strlen(item->out.name), "",
			      tensor_shape_text(&item->out, shape), s->source->tensors[item->source].codec->name, item->out.codec->name,
			      size_text(item->out.nbytes, size), item->why);
	}
	strbuf_printf(out, "%zu tensors, %s (%llu bytes), %.3f bits per weight", s->plan.count, size_text(s->plan.bytes, size),
		      (unsigned long long)s->plan.bytes, plan_bits_per_weight(&s->plan));
	strbuf_printf(out, ", %s of working memory\n", size_text(s->plan.scratch, size));
	if (s->calibrated.row)
		strbuf_printf(out, "method %s, peak memory %s\n", s->calibrated.row->name, size_text(s->calibrated.memory, size));
}

static int print_plan(const struct state *s, struct err *e)
{
	struct strbuf out = { 0 };
	if (s->p->common->json)
		plan_json(s, &out);
	else
		plan_table(s, &out);
	if (s->p->say && !s->p->common->json)
		s->p->say(s->p->say_arg, &out, NULL);
	int rc = out.failed ? err_nomem(e) : out_print(&out, e);
	strbuf_release(&out);
	return rc;
}

/* general.file_type of a file that keeps its codecs: that of the codec most weights are in. */
static int main_file_type(const struct plan *p, int *type, struct err *e)
{
	const struct codec *best = NULL;
	uint64_t most = 0;
	for (unsigned c = 0; c < codec_row_count; c++) {
		uint64_t n = 0;
		for (size_t i = 0; i < p->count; i++)
			if (p->items[i].out.codec == codec_rows[c])
				n += tensor_elements(&p->items[i].out);
		if (n > most) {
			best = codec_rows[c];
			most = n;
		}
	}
	struct recipe *r = NULL;
	struct err ignored; /* a codec that no recipe may ask for */
	int rc = best ? recipe_new(best->name, &r, &ignored) : ERR_OK;
	*type = rc || !best ? -1 : recipe_file_type(r);
	recipe_free(r);
	return rc == ERR_NOMEM ? err_nomem(e) : ERR_OK;
}

static const char *source_fact(const struct checkpoint *c, const char *key)
{
	for (size_t i = 0; i < c->fact_count; i++)
		if (!strcmp(c->facts[i].key, key))
			return c->facts[i].value;
	return NULL;
}

static int write_options(struct state *s, struct write_options *o, struct err *e)
{
	const struct produce *p = s->p;
	const char *before = p->keep ? source_fact(s->in, "recipe") : NULL;
	*o = (struct write_options){ .recipe = before ? before : recipe_name(p->recipe), .tool_version = "quire " QUIRE_VERSION,
				     .compress = p->out.compress, .shard_size = p->out.shard_size,
				     .code = p->code, .notes = &s->notes, .same_values = p->keep && !p->source && !p->config };
	o->gguf_file_type = p->keep ? -1 : recipe_file_type(p->recipe);
	return p->keep ? main_file_type(&s->plan, &o->gguf_file_type, e) : ERR_OK;
}

/* Before the work: whoever minds can stop it; with --quiet, too. */
static void tell(struct state *s)
{
	for (; s->told < s->notes.count; s->told++)
		warn("%s", s->notes.line[s->told]);
}

/* A method's; with --quiet they are in the report only. */
static void tell_method(struct state *s, const struct notes *n)
{
	for (size_t i = 0; i < n->count; i++)
		notes_add(&s->notes, "%s", n->line[i]);
	if (s->p->common->quiet)
		s->told = s->notes.count;
	tell(s);
}

/* What the writer will say and refuse is known before anything is worked out, or where nothing else is done. */
static int foresee(struct state *s, struct err *e)
{
	struct write_options o;
	struct tensor_sink *none;
	if (write_options(s, &o, e))
		return e->code;
	for (size_t i = 0; i < s->in->notes.count; i++)
		notes_add(&s->notes, "%s", s->in->notes.line[i]);
	if (s->format && (s->p->out.dry_run || s->p->calibration) &&
	    s->format->create(NULL, &(struct write_request){ s->in, described(s), &s->plan, &o }, &none, e))
		return err_prefix(e, "%.600s", s->p->out.path ? s->p->out.path : s->p->input);
	tell(s);
	if (s->p->notes)
		tell_method(s, s->p->notes);
	return ERR_OK;
}

static int open_output(struct state *s, struct err *e)
{
	struct write_options o;
	if (write_options(s, &o, e))
		return e->code;
	const struct write_request wanted = { s->in, described(s), &s->plan, &o };
	if (!s->p->out.no_source_hash && s->format->keeps_origin) {
		if (source_hash_start(s->p->input, &s->hash, e))
			return e->code;
		o.facts = source_hash_facts(s->hash, &o.fact_count);
	}
	int rc = s->format->create(s->p->out.path, &wanted, &s->sink, e);
	if (!rc)
		tell(s);
	return rc;
}

static int write_all(struct state *s, struct err *e)
{
	struct quantizer *q = s->calibrated.q;
	int rc = q ? calibrated_prepare(&s->calibrated, s->p, e) : ERR_OK;
	if (!rc && q)
		tell_method(s, quantizer_notes(q));
	if (!rc)
		rc = open_output(s, e);
	if (rc)
		return rc;
	if (s->p->proof)
		rc = proof_new(&s->plan, s->sink, &s->proof, e);
	progress_start(s->p->common, s->p->method ? "quantize" : "convert", "bytes", 0);
	if (!rc)
		rc = plan_execute(&s->plan, q ? quantizer_source(q) : s->source, s->proof ? proof_sink(s->proof) : s->sink,
				  q ? quantizer_stats(q) : NULL, &terminal, e);
	progress_end();
	if (rc)
		err_prefix(e, "%.600s", s->p->input);
	if (!rc && s->hash)
		rc = source_hash_join(s->hash, e);
	return rc;
}

/* What is on the disk, still under a temporary name, against what was meant, and what that cost each tensor. */
static int examine(struct state *s, struct err *e)
{
	const struct produce *p = s->p;
	struct tensor_source *source = s->calibrated.q ? quantizer_reference(s->calibrated.q) : s->source;
	const char *path;
	int rc = s->sink->seal(s->sink, &path, e);
	if (rc)
		return rc;
	progress_start(p->common, "proof", "bytes", 0);
	if (s->proof ? proof_check(s->proof, path, source, &s->proved, &terminal, e) || proof_tokenizer(s->in, path, &s->cut, e)
		     : proof_checksums(path, &terminal, e))
		rc = err_prefix(e, "%.600s: not kept, since it is not what was meant", p->out.path);
	progress_end();
	if (!rc && s->proved.constant)
		warn("%llu of %llu blocks came out as one value where the source's were not; the first: %s",
		     (unsigned long long)s->proved.constant, (unsigned long long)s->proved.blocks, s->proved.first);
	if (!rc && s->cut.differ)
		warn("%zu of %zu texts are cut into other tokens by readers of %s than by the source's tokenizer; the first: '%s'", s->cut.differ,
		     s->cut.strings, s->format->name, s->cut.first);
	if (!rc && p->report)
		rc = quantize_report(p, &(struct produced){ path, &s->plan, source, &s->calibrated, s->proof }, e);
	return rc ? rc : s->sink->finish(s->sink, e);
}

static long peak_kib(void)
{
	struct rusage u;
	return getrusage(RUSAGE_SELF, &u) ? 0 : u.ru_maxrss;
}

/* What there is to say of a result. */
struct outcome {
	double seconds, bits;                 /* bits per weight */
	uint64_t file;                        /* its size; 0: a folder */
	const struct distill_report *trained; /* NULL: nothing was */
};

static void outcome_json(const struct state *s, const struct outcome *o, struct strbuf *out)
{
	struct json_writer w = { .out = out, .indent = 2 };
	jw_document(&w, "quire-output/1");
	jw_string(&w, "output", s->p->out.path);
	jw_string(&w, "format", s->format->name);
	jw_string(&w, "recipe", recipe_name(s->p->recipe));
	jw_uint(&w, "tensors", s->plan.count);
	jw_uint(&w, "bytes", s->plan.bytes);
	if (o->file)
		jw_uint(&w, "file_bytes", o->file);
	jw_double(&w, "bits_per_weight", o->bits);
	if (s->calibrated.row)
		jw_string(&w, "method", s->calibrated.row->name);
	if (o->trained) {
		jw_object(&w, "distilled");
		jw_double(&w, "held_out_kl_before", o->trained->before);
		jw_double(&w, "held_out_kl", o->trained->after);
		jw_uint(&w, "passes_kept", o->trained->kept);
		jw_uint(&w, "codes", o->trained->codes);
		jw_uint(&w, "codes_moved", o->trained->moved);
		jw_end_object(&w);
	}
	const struct expert_report *experts = s->calibrated.q ? quantizer_experts(s->calibrated.q) : NULL;
	if (experts && experts->matrices) {
		jw_object(&w, "experts");
		jw_uint(&w, "matrices", experts->matrices);
		jw_uint(&w, "few_tokens", experts->few);
		jw_uint(&w, "least_tokens", experts->least);
		jw_end_object(&w);
	}
	if (s->proof) {
		jw_object(&w, "proof");
		jw_uint(&w, "tensors", s->proved.tensors);
		jw_uint(&w, "bytes", s->proved.bytes);
		jw_uint(&w, "blocks", s->proved.blocks);
		jw_uint(&w, "constant_blocks", s->proved.constant);
		if (s->proved.constant)
			jw_string(&w, "first_constant", s->proved.first);
		jw_uint(&w, "constant_in_source", s->proved.same);
		jw_uint(&w, "tokens", s->cut.tokens);
		jw_uint(&w, "texts", s->cut.strings);
		jw_uint(&w, "texts_that_differ", s->cut.differ);
		jw_end_object(&w);
	}
	json_notes(&s->notes, &w);
	jw_double(&w, "seconds", o->seconds);
	jw_int(&w, "peak_kib", peak_kib());
	if (s->p->say)
		s->p->say(s->p->say_arg, NULL, &w);
	jw_end_object(&w);
	strbuf_putc(out, '\n');
}

static void proof_text(const struct state *s, struct strbuf *out)
{
	strbuf_printf(out, "proof: %zu tensors%s read back as meant", s->proved.tensors, s->cut.tokens ? " and the tokenizer" : "");
	if (s->proved.quantized)
		strbuf_printf(out, ", values of %zu looked at, %llu alarms", s->proved.quantized, (unsigned long long)s->proved.constant);
	if (s->proved.same)
		strbuf_printf(out, ", %llu block%s of one value as in the source", (unsigned long long)s->proved.same,
			      s->proved.same == 1 ? "" : "s");
	strbuf_putc(out, '\n');
}

static void outcome_text(const struct state *s, const struct outcome *o, struct strbuf *out)
{
	const struct distill_report *t = o->trained;
	char size[32];
	if (s->p->say)
		s->p->say(s->p->say_arg, out, NULL);
	safe_text(out, s->p->out.path);
	strbuf_printf(out, ": %zu tensors, %s, %.3f bits per weight, %.1f s", s->plan.count,
		      size_text(o->file ? o->file : s->plan.bytes, size), o->bits, o->seconds);
	if (s->p->common->verbose)
		strbuf_printf(out, ", peak memory %s", size_text((uint64_t)peak_kib() * 1024, size));
	strbuf_putc(out, '\n');
	if (t && t->kept)
		strbuf_printf(out, "training: %u passes, %llu of %llu codes moved, KL on held-out windows %.3g -> %.3g\n", t->kept,
			      (unsigned long long)t->moved, (unsigned long long)t->codes, t->before, t->after);
	else if (t)
		strbuf_puts(out, "training: no pass lowered the KL on held-out windows; the codes stay as they were\n");
	if (s->proof)
		proof_text(s, out);
}

static int summary(const struct state *s, struct err *e)
{
	struct strbuf out = { 0 };
	struct outcome o = { .seconds = s->p->seconds + clock_seconds() - s->start, .bits = plan_bits_per_weight(&s->plan),
			     .trained = s->calibrated.q ? quantizer_trained(s->calibrated.q) : NULL };
	struct mapped m;
	if (!file_is_dir(s->p->out.path) && !mapped_open(&m, s->p->out.path, NULL)) {
		o.file = m.size;
		mapped_close(&m);
	}
	if (s->p->common->json)
		outcome_json(s, &o, &out);
	else if (!s->p->common->quiet)
		outcome_text(s, &o, &out);
	int rc = out.failed ? err_nomem(e) : out_print(&out, e);
	strbuf_release(&out);
	return rc;
}

int produce_check(const struct produce *p, struct err *e)
{
	struct state s = { .p = p };
	int rc = produce_format(p->out.path, p->out.to, &s.format, e);
	return rc ? rc : check_output(&s, e);
}

int produce(const struct produce *p, struct err *e)
{
	struct state s = { .p = p, .start = clock_seconds() };
	int rc = produce_format(p->out.path, p->out.to, &s.format, e);
	if (!rc)
		rc = check_output(&s, e);
	if (!rc)
		rc = checkpoint_open(p->input, &s.in, e);
	if (!rc)
		rc = checkpoint_tokenizer_known(s.in, e);
	if (!rc)
		rc = read_config(&s, e);
	if (!rc && described(&s))
		rc = checkpoint_check(s.in, described(&s), s.source, e);
	if (!rc)
		rc = make_plan(&s, e);
	if (!rc)
		rc = foresee(&s, e);
	if (!rc && p->calibration)
		rc = calibrated_open(&s.calibrated, p, s.have_config ? &s.config : NULL, s.in, e);
	if (!rc && p->calibration)
		rc = calibrated_plan(&s.calibrated, p, &s.config, s.in, &s.plan, e);
	if (!rc && s.calibrated.q)
		tell_method(&s, quantizer_notes(s.calibrated.q));
	if (!rc && p->out.dry_run)
		rc = print_plan(&s, e);
	else if (!rc && !(rc = write_all(&s, e)) && !(rc = examine(&s, e)))
		rc = summary(&s, e);
	if (s.sink)
		s.sink->close(s.sink);
	proof_free(s.proof);
	calibrated_close(&s.calibrated);
	source_hash_free(s.hash);
	notes_release(&s.notes);
	plan_release(&s.plan);
	if (s.have_config)
		config_release(&s.config);
	checkpoint_close(s.in);
	return rc;
}

int produce_recipe(struct recipe *r, const char *file, const struct string_list *overrides, struct err *e)
{
	int rc = ERR_OK;
	if (file) {
		struct strbuf text = { 0 };
		rc = stream_read(file, &text, 1 << 20, e);
		if (!rc && recipe_read(r, text.data ? text.data : "", text.len, e))
			rc = err_prefix(e, "%.600s", file);
		strbuf_release(&text);
	}
	for (size_t i = 0; i < overrides->count && !rc; i++)
		rc = recipe_override(r, overrides->item[i], e);
	return rc;
}
