#include "cmd/fold_budget.h"

#include <stdlib.h>
#include <string.h>

#include "cmd/command.h"

int budgeting_options(struct budgeting *b, const char *spec, bool has_text, bool alone, bool shares, struct err *e)
{
	char size[64], *end = NULL;
	const char *at = spec ? strchr(spec, '@') : NULL;
	b->spec = spec;
	b->shares = shares;
	if (!spec)
		return ERR_OK;
	if (!alone && !shares)
		return err_set(e, ERR_USAGE, "--kv-budget plans heads and layers itself; give it without --kv-heads, --share-layers and --window, "
			       "or with --share-layers auto");
	size_t n = at ? (size_t)(at - spec) : sizeof size;
	if (n < sizeof size) {
		memcpy(size, spec, n);
		size[n] = '\0';
		b->tokens = at[1] >= '0' && at[1] <= '9' ? strtoull(at + 1, &end, 10) : 0;
	}
	if (n >= sizeof size || !size_parse(size, &b->bytes) || !b->tokens || *end || b->tokens > UINT32_MAX)
		return err_set(e, ERR_USAGE, "--kv-budget '%.60s': give BYTES@TOKENS, for example 64MiB@8192", spec);
	return has_text ? ERR_OK : err_set(e, ERR_USAGE, "--kv-budget needs a text to measure on: --data TEXT");
}

int budgeting_check(const struct budgeting *b, const struct config *c, struct err *e)
{
	char want[32], least[32];
	uint64_t smallest = b->spec && !b->shares ? budget_smallest(c, b->tokens) : 0;
	if (!b->spec || b->bytes >= smallest)
		return ERR_OK;
	return err_set(e, ERR_USAGE, "a KV cache of %s at %llu tokens cannot be reached; the smallest is %s (%llu bytes, f16)",
		       size_text(b->bytes, want), (unsigned long long)b->tokens, size_text(smallest, least), (unsigned long long)smallest);
}

void budgeting_text(const struct budgeting *b, struct strbuf *out)
{
	char size[32], before[32];
	if (!b->spec || b->shares)
		return;
	double kl = 0;
	for (size_t i = 0; i < b->plan.count; i++) {
		const struct budget_step *s = &b->plan.step[i];
		kl += s->kl;
		strbuf_printf(out, "step %-3zu layer %-3u ", i + 1, s->layer);
		if (s->source != s->layer)
			strbuf_printf(out, "reads layer %-3u", s->source);
		else
			strbuf_printf(out, "%3u KV heads   ", s->kv_heads);
		strbuf_printf(out, "  KL +%.5f, %.5f in all  cache %s\n", s->kl, kl, size_text(s->bytes, size));
	}
	strbuf_printf(out, "KV budget         %s -> %s at %llu tokens (f16), KL %.4f predicted by closed forms, step by step\n",
		      size_text(b->plan.before, before), size_text(b->plan.after, size), (unsigned long long)b->tokens, b->plan.kl);
}

void budgeting_json(const struct budgeting *b, struct json_writer *j)
{
	if (!b->spec || b->shares)
		return;
	jw_object(j, "kv_budget");
	jw_uint(j, "bytes", b->bytes);
	jw_uint(j, "at_tokens", b->tokens);
	jw_uint(j, "bytes_before", b->plan.before);
	jw_uint(j, "bytes_after", b->plan.after);
	jw_double(j, "kl_predicted", b->plan.kl);
	jw_array(j, "steps");
	for (size_t i = 0; i < b->plan.count; i++) {
		const struct budget_step *s = &b->plan.step[i];
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
