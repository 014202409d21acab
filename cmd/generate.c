/* quire generate: continues a text with the reference forward pass. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/rng.h"
#include "cmd/running.h"
#include "formats/checkpoint.h"
#include "formats/file.h"
#include "formats/generation.h"
#include "model/model.h"

struct generate_options {
	struct common common;
	int64_t tokens, top_k, seed;
	double temperature, top_p;
	struct string_list stop;
	bool no_prompt, no_special;
	struct running running;
};

static const struct generate_options generate_defaults = { .tokens = 128, .seed = 1, .temperature = -1, .top_p = 1 };

static const struct option_row generate_rows[] = {
	{ "tokens", 0, OPT_INT, "N", "write at most N tokens (default 128)", offsetof(struct generate_options, tokens) },
	{ "temperature", 0, OPT_DOUBLE, "T", "sample at temperature T; 0 takes the likeliest token (default)", offsetof(struct generate_options, temperature) },
	{ "top-k", 0, OPT_INT, "K", "sample from the K likeliest tokens (0: all)", offsetof(struct generate_options, top_k) },
	{ "top-p", 0, OPT_DOUBLE, "P", "sample from the likeliest tokens that together have probability P", offsetof(struct generate_options, top_p) },
	{ "seed", 0, OPT_INT, "N", "seed of the sampling (default 1)", offsetof(struct generate_options, seed) },
	{ "stop", 0, OPT_LIST, "TEXT", "end before TEXT; may be given several times", offsetof(struct generate_options, stop) },
	RUNNING_OPTIONS(offsetof(struct generate_options, running), "it for GGUF", "keys and values"),
	{ "no-prompt", 0, OPT_FLAG, NULL, "print only what is new", offsetof(struct generate_options, no_prompt) },
	{ "no-special", 0, OPT_FLAG, NULL, "put no BOS before the prompt", offsetof(struct generate_options, no_special) },
	/* older spellings, still taken */
	{ "tokens", 'n', OPT_INT, "N", NULL, offsetof(struct generate_options, tokens) },
	{ "temperature", 't', OPT_DOUBLE, "T", NULL, offsetof(struct generate_options, temperature) },
	{ "top-k", 'k', OPT_INT, "K", NULL, offsetof(struct generate_options, top_k) },
	{ "top-p", 'p', OPT_DOUBLE, "P", NULL, offsetof(struct generate_options, top_p) },
	{ "seed", 's', OPT_INT, "N", NULL, offsetof(struct generate_options, seed) },
};

enum { PREFILL = 256 }; /* tokens per batch of the prompt */

/* --- sampling --- */

struct candidate {
	float logit;
	int32_t id;
};

static int by_logit(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;
	if (x->logit != y->logit)
		return x->logit < y->logit ? 1 : -1;
	return x->id < y->id ? -1 : x->id > y->id;
}

static int32_t likeliest(const float *logits, size_t n)
{
	size_t best = 0;
	for (size_t i = 1; i < n; i++)
		if (logits[i] > logits[best])
			best = i;
	return (int32_t)best;
}

static int32_t sample(const struct generate_options *o, const float *logits, size_t n, struct candidate *c, struct rng *rng)
{
	for (size_t i = 0; i < n; i++)
		c[i] = (struct candidate){ logits[i], (int32_t)i };
	qsort(c, n, sizeof *c, by_logit);
	size_t keep = o->top_k > 0 && (uint64_t)o->top_k < n ? (size_t)o->top_k : n;
	double t = o->temperature < 0 ? 1 : o->temperature, sum = 0, part = 0;
	for (size_t i = 0; i < keep; i++)
		sum += exp(((double)c[i].logit - (double)c[0].logit) / t);
	if (o->top_p < 1) {
		size_t i = 0;
		while (i < keep && part < o->top_p * sum)
			part += exp(((double)c[i++].logit - (double)c[0].logit) / t);
		keep = i ? i : 1;
		sum = i ? part : 1;
	}
	double at = rng_unit(rng) * sum;
	part = 0;
	for (size_t i = 0; i + 1 < keep; i++) {
		part += exp(((double)c[i].logit - (double)c[0].logit) / t);
		if (at < part)
			return c[i].id;
	}
	return c[keep - 1].id;
}

/* --- text as it comes --- */

/*
 * A token's text depends on its neighbours (leading spaces, characters cut in
 * two), so new text is what decoding ids[from..] gives beyond ids[from..known].
 */
struct stream {
	const struct generate_options *o;
	const struct tokenizer *t;
	int32_t *id;
	size_t count, from, known, prompt;
	struct strbuf text;     /* all new text */
	size_t printed;         /* bytes of it that are out */
	bool stopped;
};

static int write_out(const char *text, size_t n, struct err *e)
{
	errno = 0;
	if ((n && fwrite(text, 1, n, stdout) != n) || fflush(stdout))
		return err_system(e, "cannot write to standard output");
	return ERR_OK;
}

/* Bytes at the end of text that may be the start of a stop text. */
static size_t held_back(const struct stream *s)
{
	size_t most = 0;
	for (size_t i = 0; i < s->o->stop.count; i++) {
		const char *stop = s->o->stop.item[i];
		size_t len = strlen(stop);
		for (size_t n = len && s->text.len >= len - 1 ? len - 1 : s->text.len; n > most; n--)
			if (!memcmp(s->text.data + s->text.len - n, stop, n)) {
				most = n;
				break;
			}
	}
	return most;
}

static void cut_at_stop(struct stream *s)
{
	for (size_t i = 0; i < s->o->stop.count && s->text.data; i++) {
		char *hit = *s->o->stop.item[i] ? strstr(s->text.data + s->printed, s->o->stop.item[i]) : NULL;
		if (hit) {
			s->text.len = (size_t)(hit - s->text.data);
			*hit = '\0';
			s->stopped = true;
		}
	}
}

static int stream_text(struct stream *s, bool last, struct err *e)
{
	struct strbuf before = { 0 }, now = { 0 };
	int rc = tokenizer_decode(s->t, s->id + s->from, s->known - s->from, true, &before, e);
	if (!rc)
		rc = tokenizer_decode(s->t, s->id + s->from, s->count - s->from, true, &now, e);
	bool cut = now.len >= 3 && !memcmp(now.data + now.len - 3, "\xef\xbf\xbd", 3); /* a character may still be completed */
	if (!rc && now.len > before.len && (!cut || last)) {
		strbuf_add(&s->text, now.data + before.len, now.len - before.len);
		rc = s->text.failed ? err_nomem(e) : ERR_OK;
		s->from = s->known;
		s->known = s->count;
	}
	strbuf_release(&before);
	strbuf_release(&now);
	if (rc)
		return rc;
	cut_at_stop(s);
	size_t ready = s->text.len - (last || s->stopped ? 0 : held_back(s));
	if (!s->o->common.json && ready > s->printed) {
		rc = write_out(s->text.data + s->printed, ready - s->printed, e);
		s->printed = ready;
	}
	return rc;
}

/* --- the run --- */

struct generation {
	const struct generate_options *o;
	struct running running;
	struct checkpoint *ckpt;
	struct config config;
	struct tokenizer *tokenizer;
	struct model *model;
	struct model_run *run;
	struct kv_cache *cache;
	float *hidden, *logits;
	struct candidate *candidates;
	struct stream stream;
	struct token_ids prompt;
	double prompt_seconds, new_seconds;
	struct end_tokens ends;
	const char *end;           /* "eos", "stop", "length", "context" */
};

static double seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool is_eos(const struct generation *g, int32_t id)
{
	for (uint32_t i = 0; i < g->ends.count; i++)
		if (g->ends.id[i] == id)
			return true;
	return id == tokenizer_eos(g->tokenizer);
}

static int feed(struct generation *g, const int32_t *ids, size_t n, struct err *e)
{
	for (size_t at = 0, len; at < n; at += len) {
		len = n - at < PREFILL ? n - at : PREFILL;
		if (model_forward(g->run, ids + at, &(struct model_batch){ 1, len, g->cache, NULL }, g->hidden, e))
			return e->code;
		if (at + len == n)
			return model_logits(g->run, g->hidden + (len - 1) * g->config.hidden, 1, g->logits, e);
	}
	return ERR_OK;
}

static int next_token(struct generation *g, struct rng *rng, int32_t *id, struct err *e)
{
	const struct generate_options *o = g->o;
	for (uint32_t i = 0; i < g->config.vocab; i++)
		if (!isfinite(g->logits[i]))
			return err_set(e, ERR_INPUT, "%s: the model gives a logit that is not finite", g->ckpt->path);
	bool greedy = o->temperature == 0 || (o->temperature < 0 && o->top_k == 0 && o->top_p >= 1);
	*id = greedy ? likeliest(g->logits, g->config.vocab) : sample(o, g->logits, g->config.vocab, g->candidates, rng);
	return ERR_OK;
}

static int continue_text(struct generation *g, size_t limit, struct err *e)
{
	struct stream *s = &g->stream;
	struct rng rng = { .state = (uint64_t)g->o->seed };
	double start = seconds();
	int rc = feed(g, s->id, s->count, e);
	g->prompt_seconds = seconds() - start;
	start = seconds();
	g->end = limit < (size_t)g->o->tokens ? "context" : "length";
	for (size_t i = 0; i < limit && !rc; i++) {
		int32_t id;
		if (next_token(g, &rng, &id, e))
			return e->code;
		if (is_eos(g, id)) {
			g->end = "eos";
			break;
		}
		s->id[s->count++] = id;
		rc = stream_text(s, false, e);
		if (s->stopped) {
			g->end = "stop";
			break;
		}
		if (!rc && i + 1 < limit)
			rc = feed(g, &id, 1, e);
	}
	g->new_seconds = seconds() - start;
	return rc ? rc : s->stopped ? ERR_OK : stream_text(s, true, e);
}

static int prepare(struct generation *g, const char *text, size_t len, size_t *limit, struct err *e)
{
	const struct config *c = &g->config;
	if (tokenizer_encode(g->tokenizer, text, len, !g->o->no_special, &g->prompt, e))
		return e->code;
	size_t n = g->prompt.count;
	if (!n)
		return err_set(e, ERR_USAGE, "the prompt is empty, and this model has no BOS to start from");
	for (size_t i = 0; i < n; i++)
		if (g->prompt.id[i] < 0 || (uint32_t)g->prompt.id[i] >= c->vocab)
			return err_set(e, ERR_INPUT, "%s: the tokenizer gives id %d, the model has %u embeddings", g->ckpt->path,
				       g->prompt.id[i], c->vocab);
	if (n >= c->context)
		return err_set(e, ERR_USAGE, "the prompt has %zu tokens, the context of this model holds %u", n, c->context);
	*limit = (uint64_t)g->o->tokens < c->context - n ? (size_t)g->o->tokens : c->context - n;
	g->stream.id = calloc(n + *limit, sizeof *g->stream.id);
	g->hidden = calloc((size_t)PREFILL * c->hidden, sizeof *g->hidden);
	g->logits = calloc(c->vocab, sizeof *g->logits);
	g->candidates = calloc(c->vocab, sizeof *g->candidates);
	if (!g->stream.id || !g->hidden || !g->logits || !g->candidates)
		return err_nomem(e);
	memcpy(g->stream.id, g->prompt.id, n * sizeof *g->prompt.id);
	g->stream.t = g->tokenizer;
	g->stream.o = g->o;
	g->stream.count = g->stream.known = g->stream.prompt = n;
	g->stream.from = n > 4 ? n - 4 : 0;
	if (model_open(c, g->ckpt->source, &g->model, e))
		return err_prefix(e, "%s", g->ckpt->path);
	if (running_set(&g->running, g->model, g->ckpt->path, e))
		return e->code;
	g->run = model_run_new(g->model, 1, PREFILL, e);
	if (!g->run)
		return e->code;
	g->cache = kv_cache_new_in(c, n + *limit, model_kv(g->model), e);
	return g->cache ? ERR_OK : e->code;
}

static int print_json(const struct generation *g, const char *prompt, size_t len, struct err *e)
{
	struct strbuf out = { 0 };
	struct json_writer w = { .out = &out, .indent = 2 };
	jw_document(&w, "quire-generate/1");
	jw_string_n(&w, "prompt", prompt, len);
	jw_string_n(&w, "text", g->stream.text.data ? g->stream.text.data : "", g->stream.text.len);
	jw_uint(&w, "prompt_tokens", g->stream.prompt);
	jw_uint(&w, "tokens", g->stream.count - g->stream.prompt);
	jw_string(&w, "end", g->end);
	jw_string(&w, "as", g->running.as);
	jw_uint(&w, "kv_cache_bytes", kv_cache_bytes(g->cache));
	jw_end_object(&w);
	strbuf_putc(&out, '\n');
	int rc = out_print(&out, e);
	strbuf_release(&out);
	return rc;
}

static int generate_text(struct generation *g, const char *text, size_t len, struct err *e)
{
	size_t limit = 0;
	int rc = prepare(g, text, len, &limit, e);
	if (rc)
		return rc;
	if (!g->o->common.json && !g->o->no_prompt && write_out(text, len, e))
		return e->code;
	rc = continue_text(g, limit, e);
	if (!g->o->common.json) {
		struct err ignored;
		int last = write_out("\n", 1, rc ? &ignored : e);
		rc = rc ? rc : last;
	} else if (!rc)
		rc = print_json(g, text, len, e);
	size_t made = g->stream.count - g->stream.prompt;
	if (!rc && g->o->common.verbose)
		note(&g->o->common, "prompt %zu tokens, %.1f tokens/s; new %zu tokens, %.1f tokens/s; as %s; KV cache %zu bytes; ended by %s",
		     g->stream.prompt, (double)g->stream.prompt / (g->prompt_seconds + 1e-9), made,
		     (double)made / (g->new_seconds + 1e-9), g->running.as, kv_cache_bytes(g->cache), g->end);
	return rc;
}

static void release(struct generation *g)
{
	kv_cache_free(g->cache);
	model_run_free(g->run);
	model_close(g->model);
	tokenizer_close(g->tokenizer);
	config_release(&g->config);
	checkpoint_close(g->ckpt);
	token_ids_release(&g->prompt);
	strbuf_release(&g->stream.text);
	free(g->stream.id);
	free(g->hidden);
	free(g->logits);
	free(g->candidates);
}

static int generate_run(const void *options, const char *const *args, size_t count, struct err *e)
{
	const struct generate_options *o = options;
	struct generation g = { .o = o, .running = o->running };
	struct strbuf in = { 0 };
	if (o->tokens < 1)
		return err_set(e, ERR_USAGE, "--tokens needs a number above 0");
	if (o->top_k < 0 || o->top_p <= 0 || o->top_p > 1 || (o->temperature < 0 && o->temperature != generate_defaults.temperature))
		return err_set(e, ERR_USAGE, "%s", o->top_k < 0 ? "--top-k needs a number from 0" :
					   o->top_p <= 0 || o->top_p > 1 ? "--top-p needs a number above 0 and up to 1" :
									   "--temperature needs a number from 0");
	if (checkpoint_open(args[0], &g.ckpt, e))
		return e->code;
	warn_notes(&g.ckpt->notes);
	if (!g.running.as) /* as what will run the file */
		g.running.as = strcmp(g.ckpt->format->name, "gguf") ? "exact" : "llama.cpp";
	int rc = checkpoint_config(g.ckpt, &g.config, e);
	if (!rc)
		rc = checkpoint_ends(g.ckpt, &g.config, &g.ends, e);
	if (!rc)
		rc = checkpoint_tokenizer(g.ckpt, &g.tokenizer, e);
	if (!rc)
		rc = count > 1 ? (strbuf_puts(&in, args[1]), in.failed ? err_nomem(e) : ERR_OK) : file_read_stdin(&in, false, e);
	if (!rc && count < 2) /* the line break that echo adds is not meant */
		while (in.len && (in.data[in.len - 1] == '\n' || in.data[in.len - 1] == '\r'))
			in.data[--in.len] = '\0';
	if (!rc)
		rc = generate_text(&g, in.data ? in.data : "", in.len, e);
	strbuf_release(&in);
	release(&g);
	return rc;
}

const struct command generate_command = {
	.name = "generate",
	.summary = "continues a text with the model",
	.synopsis = "MODEL [PROMPT] [--tokens N] [--temperature T] [--top-k K] [--top-p P] [--seed N]",
	.description = "Continues PROMPT (without it, standard input) token by token with a KV cache, and prints the text as it "
		       "comes. Takes the likeliest token each time unless --temperature, --top-k or --top-p ask for sampling. GGUF files are "
		       "run as llama.cpp runs them, which is also faster, all others in f32 (--as).",
	.example = "quire generate examples/demo \"Once upon a time\" --tokens 60\n"
		   "quire generate model.quire \"The\" --temperature 0.8 --top-p 0.95 --seed 7",
	.options = generate_rows,
	.option_count = sizeof generate_rows / sizeof *generate_rows,
	.min_args = 1,
	.max_args = 2,
	.file_args = 1,
	.options_size = sizeof(struct generate_options),
	.defaults = &generate_defaults,
	.run = generate_run,
};
