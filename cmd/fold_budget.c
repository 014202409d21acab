#include "cmd/fold_budget.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/command.h"

int budgeting_options(struct budgeting *b, const struct budgeting_options *o, struct err *e)
{
	const char *spec = o->spec, *codecs = o->codecs;
	char size[64], *end = NULL;
	const char *at = spec ? strchr(spec, '@') : NULL;
	b->spec = spec;
	b->codecs = codecs;
	b->shares = o->shares && spec;
	if (codecs && (!spec || b->shares) && (!strcmp(codecs, "auto") || strchr(codecs, ',')))
		return err_set(e, ERR_USAGE, "--kv-cache %.40s: only a plan chooses between codecs (--kv-budget); name one", codecs);
	if (!spec)
		return ERR_OK;
	if (!o->alone && !o->shares)
		return err_set(e, ERR_USAGE, "--kv-budget plans heads and layers itself; give it without --kv-heads and --share-layers, or with "
			       "--share-layers auto");
	size_t n = at ? (size_t)(at - spec) : sizeof size;
	if (n < sizeof size) {
		memcpy(size, spec, n);
		size[n] = '\0';
		b->tokens = at[1] >= '0' && at[1] <= '9' ? strtoull(at + 1, &end, 10) : 0;
	}
	if (n >= sizeof size || !size_parse(size, &b->bytes) || !b->tokens || *end || b->tokens > UINT32_MAX)
		return err_set(e, ERR_USAGE, "--kv-budget '%.60s': give BYTES@TOKENS, for example 64MiB@8192", spec);
	return o->has_text ? ERR_OK : err_set(e, ERR_USAGE, "--kv-budget needs a text to measure on: --data TEXT");
}

/* Those of `auto`, from near nothing lost to a quarter of the bytes; heads of odd sizes have fewer. */
static const char *const known[] = { "f16", "q8_0", "q8_0+q4_0", "q4_0" };

static int find_caches(struct budgeting *b, size_t dim, struct err *e)
{
	struct err ignored;
	bool all = b->codecs && !strcmp(b->codecs, "auto");
	for (size_t i = 0; i < (all ? sizeof known / sizeof *known : b->codecs ? 0 : 1); i++)
		b->caches += !budget_cache_find(known[i], dim, &b->cache[b->caches], &ignored);
	for (const char *at = b->codecs; at && !all;) {
		char name[48];
		size_t n = strcspn(at, ",");
		if (b->caches == BUDGET_CACHES || n >= sizeof name)
			return err_set(e, ERR_USAGE, "--kv-cache '%.60s': auto, or up to %d names with commas between", b->codecs, (int)BUDGET_CACHES);
		snprintf(name, sizeof name, "%.*s", (int)n, at);
		int rc = budget_cache_find(name, dim, &b->cache[b->caches++], e);
		if (rc)
			return err_prefix(e, "--kv-cache");
		at = at[n] ? at + n + 1 : NULL;
	}
	return ERR_OK;
}

int budgeting_check(struct budgeting *b, const struct config *c, bool windows, struct err *e)
{
	char want[32], least[32];
	int rc = find_caches(b, c->head_dim, e);
	uint64_t smallest = b->spec && !b->shares && !windows ? budget_smallest(c, b->cache, b->caches, b->tokens) : 0;
	if (rc || !b->spec || b->bytes >= smallest)
		return rc;
	const struct budget_cache *cache = &b->cache[0];
	for (size_t i = 1; i < b->caches; i++)
		cache = b->cache[i].element < cache->element ? &b->cache[i] : cache;
	return err_set(e, ERR_USAGE, "a KV cache of %s at %llu tokens cannot be reached; the smallest is %s (%llu bytes, %s)%s",
		       size_text(b->bytes, want), (unsigned long long)b->tokens, size_text(smallest, least), (unsigned long long)smallest,
		       cache->name, b->codecs ? "" : "; --kv-cache auto may store it in fewer bytes");
}

const struct budget_cache *budgeting_cache(const struct budgeting *b)
{
	return b->plan.cache ? b->plan.cache : b->codecs && b->caches ? &b->cache[0] : NULL;
}

static void say_codec(const struct budget_cache *cache, struct strbuf *out)
{
	const char *plus = strchr(cache->name, '+');
	if (!strcmp(cache->name, "f16"))
		return;
	strbuf_printf(out, "run it with       --kv-cache %.*s", (int)(plus ? plus - cache->name : (long)strlen(cache->name)), cache->name);
	if (plus)
		strbuf_printf(out, " --kv-cache-v %s", plus + 1);
	strbuf_puts(out, " (verify, generate)\n");
}

static void say_plan(const struct budgeting *b, const struct change_cost *cost, struct strbuf *out)
{
	const struct budget_plan *p = &b->plan;
	const struct budget_cache *cache = p->cache;
	char size[32], before[32];
	double kl = p->windows + cache->kl;
	bool f16 = !strcmp(cache->name, "f16");
	if (p->windows > 0 && !f16)
		strbuf_printf(out, "windows                      KL +%.5f by themselves\n", p->windows);
	for (size_t i = 0; i < b->caches && b->caches > 1; i++)
		strbuf_printf(out, "cache in %-10s%s  KL +%.5f by itself\n", b->cache[i].name, cache == &b->cache[i] ? " (taken)" : "        ",
			      b->cache[i].kl);
	if (p->stored != p->before)
		strbuf_printf(out, "step 0   %s%-*s  KL +%.5f, %.5f in all  cache %s\n", f16 ? "" : "cache in ", f16 ? 22 : 13,
			      f16 ? "windows" : cache->name, f16 ? kl : cache->kl, kl, size_text(p->stored, size));
	for (size_t i = 0; i < p->count; i++) {
		const struct budget_step *s = &p->step[i];
		kl += s->kl;
		strbuf_printf(out, "step %-3zu layer %-3u ", i + 1, s->layer);
		if (s->source != s->layer)
			strbuf_printf(out, "reads layer %-3u", s->source);
		else
			strbuf_printf(out, "%3u KV heads   ", s->kv_heads);
		strbuf_printf(out, "  KL +%.5f, %.5f in all  cache %s\n", s->kl, kl, size_text(s->bytes, size));
	}
	strbuf_printf(out, "KV budget         %s -> %s at %llu tokens (%s%s)\n", size_text(p->before, before), size_text(p->after, size),
		      (unsigned long long)b->tokens, f16 ? "" : "f16 -> ", cache->name);
	strbuf_printf(out, "KL                %.4f predicted as the sum of steps, %.4f all steps together, in closed forms", p->kl, p->together);
	if (cost)
		strbuf_printf(out, "; %.4f measured as written", cost->kl);
	strbuf_putc(out, '\n');
}

void budgeting_text(const struct budgeting *b, const struct change_cost *cost, struct strbuf *out)
{
	if (b->plan.cache)
		say_plan(b, cost, out);
	if (budgeting_cache(b))
		say_codec(budgeting_cache(b), out);
}

void budgeting_json(const struct budgeting *b, struct json_writer *j)
{
	const struct budget_plan *p = &b->plan;
	if (budgeting_cache(b))
		jw_string(j, "kv_cache", budgeting_cache(b)->name);
	if (!p->cache)
		return;
	jw_object(j, "kv_budget");
	jw_uint(j, "bytes", b->bytes);
	jw_uint(j, "at_tokens", b->tokens);
	jw_uint(j, "bytes_before", p->before);
	jw_uint(j, "bytes_after", p->after);
	if (p->windows > 0)
		jw_double(j, "kl_windows", p->windows);
	jw_double(j, "kl_predicted", p->kl);
	jw_double(j, "kl_together", p->together);
	jw_array(j, "caches");
	for (size_t i = 0; i < b->caches; i++) {
		jw_object(j, NULL);
		jw_string(j, "name", b->cache[i].name);
		jw_double(j, "bytes_per_element", b->cache[i].element);
		jw_double(j, "kl", b->cache[i].kl);
		jw_end_object(j);
	}
	jw_end_array(j);
	jw_array(j, "steps");
	for (size_t i = 0; i < p->count; i++) {
		const struct budget_step *s = &p->step[i];
		jw_object(j, NULL);
		jw_uint(j, "layer", s->layer);
		jw_uint(j, "kv_heads", s->kv_heads);
		jw_uint(j, "kv_source", s->source);
		jw_double(j, "kl", s->kl);
		jw_uint(j, "cache_bytes", s->bytes);
		jw_end_object(j);
	}
	jw_end_array(j);
	jw_end_object(j);
}
