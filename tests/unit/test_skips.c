/* Places that methods leave as they are: one line for each reason, none where there is nothing to say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "calib/fold/refit_down.h"
#include "calib/quant/equalize.h"
#include "calib/run/skips.h"
#include "formats/checkpoint.h"
#include "check.h"

static void open_golden(const char *name, struct checkpoint **c, struct config *config)
{
	char path[128];
	snprintf(path, sizeof path, "tests/golden/model/%s", name);
	ok(checkpoint_open(path, c, &e));
	ok(checkpoint_config(*c, config, &e));
}

static void counts_and_lines(void **state)
{
	struct skips s = { 0 };
	struct notes n = { 0 };
	struct group g = { .role = { ROLE_Q, ROLE_K, ROLE_V }, .count = 3 };
	char what[64];
	(void)state;
	skips_name(&g, what);
	assert_string_equal(what, "attn_q, attn_k, attn_v");
	for (int i = 0; i < 30; i++) {
		skips_see(&s, "awq", what, i % 5 ? NULL : i ? "of one thing" : "of another");
		skips_see(&s, "awq", "attn_o", NULL);
	}
	skips_see(NULL, "awq", what, "nobody counts");
	skips_tell(&s, &n);
	assert_int_equal(n.count, 2);
	assert_string_equal(n.line[0], "awq: 1 of 30 attn_q, attn_k, attn_v left as they are: of another");
	assert_string_equal(n.line[1], "awq: 5 of 30 attn_q, attn_k, attn_v left as they are: of one thing");
	skips_release(&s);
	notes_release(&n);
}

/* What the layer graphs say of each family; a model without such a place gives no line. */
static void equalization(void **state)
{
	static const struct {
		const char *model, *line[2];
	} cases[] = {
		{ "llama-mha", { NULL } },
		{ "llama-tied", { NULL } },
		{ "qwen2-bias", { NULL } },
		{ "qwen3", { NULL } },
		{ "gemma", { "equalization: 2 of 2 attn_q, attn_k, attn_v left as they are: the norm before them multiplies by one more than its weight",
			     "equalization: 2 of 2 ffn_gate, ffn_up left as they are: the norm before them multiplies by one more than its weight" } },
		{ "mixtral", { "equalization: 8 of 8 ffn_gate_exps, ffn_up_exps left as they are: what they read comes from a norm that the "
			       "router and all experts read" } },
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct checkpoint *c;
		struct config config;
		struct skips s = { 0 };
		struct notes n = { 0 };
		open_golden(cases[i].model, &c, &config);
		struct overlay *o = overlay_new(c->source, &e);
		ok(equalize(&config, c->source, o, &s, &e));
		skips_tell(&s, &n);
		assert_int_equal(n.count, (cases[i].line[0] != NULL) + (cases[i].line[1] != NULL));
		for (size_t k = 0; k < n.count; k++)
			assert_string_equal(n.line[k], cases[i].line[k]);
		overlay_free(o);
		skips_release(&s);
		notes_release(&n);
		config_release(&config);
		checkpoint_close(c);
	}
}

static void refits_of_down(void **state)
{
	static const struct {
		const char *model, *why;
	} cases[] = {
		{ "llama-mha", NULL }, { "qwen3", NULL }, { "gemma", NULL },
		{ "gemma2", "it does not go to the stream as it is" }, { "mixtral", "the layer is a mixture of experts" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct checkpoint *c;
		struct config config;
		open_golden(cases[i].model, &c, &config);
		const char *why = refit_down_obstacle(&config, 0);
		if (!cases[i].why)
			assert_null(why);
		else
			assert_string_equal(why, cases[i].why);
		config_release(&config);
		checkpoint_close(c);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(counts_and_lines), cmocka_unit_test(equalization), cmocka_unit_test(refits_of_down) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
