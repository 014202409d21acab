#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "plan/recipe.h"

static struct err e;
static struct config config;

static struct recipe *recipe(const char *scheme)
{
	struct recipe *r;
	if (recipe_new(scheme, &r, &e))
		fail_msg("%s: %s", scheme ? scheme : "keep", e.message);
	return r;
}

static const char *chosen_as(const struct recipe *r, enum role role, uint32_t layer, uint64_t rows, uint64_t cols, const char *source)
{
	char name[96];
	struct tensor t = { .codec = codec_find(source), .ndim = rows ? 2 : 1, .dim = { rows ? rows : cols, cols } };
	t.name = role == ROLE_UNKNOWN ? "mystery.table" : role_hf_name(arch_find("llama"), role, layer, name);
	struct recipe_query q = { &config, &t, role, layer, false };
	const char *why = NULL;
	const struct codec *c = recipe_choose(r, &q, &why);
	assert_non_null(c);
	assert_non_null(why);
	return c->name;
}

static const char *chosen(const struct recipe *r, enum role role, uint32_t layer)
{
	return chosen_as(r, role, layer, 256, 256, "f16");
}

static int set_up(void **state)
{
	(void)state;
	config = (struct config){ .arch = arch_find("llama"), .layers = 32, .heads = 32, .kv_heads = 32 };
	return 0;
}

/* What llama.cpp's quantizer gives a 32-layer model: attn_v and ffn_down per layer, '.' for the default type. */
static void presets_mix_as_llama_cpp(void **state)
{
	(void)state;
	static const struct { const char *scheme, *type, *high, *v, *down; } rows[] = {
		{ "Q4_K_M", "q4_k", "q6_k", "6666..6..6..6..6..6..6..6..66666", "6666..6..6..6..6..6..6..6..66666" },
		{ "Q5_K_M", "q5_k", "q6_k", "6666..6..6..6..6..6..6..6..66666", "6666..6..6..6..6..6..6..6..66666" },
		{ "Q4_K_S", "q4_k", "q5_k", "6666............................", "6666............................" },
		{ "Q5_K_S", "q5_k", "q6_k", "................................", "................................" },
		{ "Q6_K", "q6_k", "q6_k", "................................", "................................" },
		{ "Q3_K_L", "q3_k", "q5_k", "66666666666666666666666666666666", "66666666666666666666666666666666" },
		{ "Q4_0", "q4_0", "q4_1", "................................", "................................" },
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct recipe *r = recipe(rows[i].scheme);
		for (uint32_t l = 0; l < 32; l++) {
			assert_string_equal(chosen(r, ROLE_V, l), rows[i].v[l] == '.' ? rows[i].type : rows[i].high);
			assert_string_equal(chosen(r, ROLE_DOWN, l), rows[i].down[l] == '.' ? rows[i].type : rows[i].high);
			assert_string_equal(chosen(r, ROLE_Q, l), rows[i].type);
			assert_string_equal(chosen(r, ROLE_GATE, l), rows[i].type);
		}
		assert_string_equal(chosen(r, ROLE_EMBED, UINT32_MAX), rows[i].type);
		assert_string_equal(chosen(r, ROLE_HEAD, UINT32_MAX), "q6_k");
		assert_string_equal(chosen_as(r, ROLE_ATTN_NORM, 0, 0, 256, "bf16"), "f32");
		recipe_free(r);
	}
}

static void mixed_presets(void **state)
{
	(void)state;
	struct recipe *r = recipe("q3-k-m");   /* case and dashes do not matter */
	assert_string_equal(recipe_name(r), "q3_k_m");
	assert_string_equal(chosen(r, ROLE_V, 1), "q5_k");
	assert_string_equal(chosen(r, ROLE_V, 2), "q4_k");
	assert_string_equal(chosen(r, ROLE_DOWN, 1), "q5_k");
	assert_string_equal(chosen(r, ROLE_DOWN, 2), "q4_k");
	assert_string_equal(chosen(r, ROLE_O, 5), "q4_k");
	recipe_free(r);
	r = recipe("Q2_K");
	assert_string_equal(chosen(r, ROLE_V, 1), "q3_k");
	config.kv_heads = 8;
	assert_string_equal(chosen(r, ROLE_V, 1), "q4_k");
	recipe_free(r);
	r = recipe("Q4_K_S");
	config.layers = 80;
	assert_string_equal(chosen(r, ROLE_V, 50), "q5_k");   /* the 70B shape */
	recipe_free(r);
}

static void tied_embedding_is_the_output(void **state)
{
	(void)state;
	struct recipe *r = recipe("Q4_K_M");
	config.tied = true;
	assert_string_equal(chosen(r, ROLE_EMBED, UINT32_MAX), "q6_k");
	/* rows that the default type cannot hold: eight bits */
	assert_string_equal(chosen_as(r, ROLE_EMBED, UINT32_MAX, 100, 288, "f16"), "q8_0");
	recipe_free(r);
	r = recipe("Q8_0");
	assert_string_equal(chosen(r, ROLE_EMBED, UINT32_MAX), "q8_0");
	recipe_free(r);
	r = recipe("f16");
	assert_string_equal(chosen(r, ROLE_EMBED, UINT32_MAX), "f16");
	recipe_free(r);
}

static void rows_that_do_not_divide_fall_back(void **state)
{
	(void)state;
	static const struct { const char *scheme, *by32, *odd; } rows[] = {
		{ "pure-q2_k", "q4_0", "f16" }, { "pure-q3_k", "q4_0", "f16" },
		{ "pure-q4_k", "q5_0", "f16" }, { "pure-q5_k", "q5_1", "f16" }, { "pure-q6_k", "q8_0", "f16" },
		{ "pure-iq4_xs", "iq4_nl", "f16" },
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct recipe *r = recipe(rows[i].scheme);
		assert_string_equal(chosen_as(r, ROLE_GATE, 0, 4, 96, "f32"), rows[i].by32);
		assert_string_equal(chosen_as(r, ROLE_GATE, 0, 4, 100, "f32"), rows[i].odd);
		recipe_free(r);
	}
}

static void codecs_are_schemes(void **state)
{
	(void)state;
	static const struct { const char *scheme, *linear, *embed, *norm; int type; } rows[] = {
		{ "q4_k", "q4_k", "q8_0", "f32", 14 }, { "pure-Q4_0", "q4_0", "q8_0", "f32", 2 }, { "W4A16", "int4-g128", "int8-g128", "bf16", -1 },
		{ "int4-g32", "int4-g32", "int8-g32", "bf16", -1 }, { "W8A16", "int8-row", "int8-row", "bf16", -1 },
		{ "mxfp4", "mxfp4", "q8_0", "f32", 38 },
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct recipe *r = recipe(rows[i].scheme);
		assert_string_equal(chosen(r, ROLE_UP, 3), rows[i].linear);
		assert_string_equal(chosen(r, ROLE_EMBED, UINT32_MAX), rows[i].embed);
		assert_string_equal(chosen(r, ROLE_HEAD, UINT32_MAX), rows[i].embed);
		assert_string_equal(chosen_as(r, ROLE_FINAL_NORM, UINT32_MAX, 0, 256, "bf16"), rows[i].norm);
		assert_int_equal(recipe_file_type(r), rows[i].type);
		recipe_free(r);
	}
}

static void keep_keeps(void **state)
{
	(void)state;
	struct recipe *r = recipe(NULL);
	assert_string_equal(chosen_as(r, ROLE_UP, 3, 256, 256, "q4_k"), "q4_k");
	assert_string_equal(chosen_as(r, ROLE_ATTN_NORM, 3, 0, 256, "bf16"), "bf16");
	recipe_vectors(r, codec_find("f32"));
	assert_string_equal(chosen_as(r, ROLE_ATTN_NORM, 3, 0, 256, "bf16"), "f32");
	assert_string_equal(chosen_as(r, ROLE_UP, 3, 256, 256, "bf16"), "bf16");
	recipe_free(r);
}

static void unknown_tensors_and_integers(void **state)
{
	(void)state;
	struct recipe *r = recipe("Q4_K_M");
	assert_string_equal(chosen_as(r, ROLE_UNKNOWN, UINT32_MAX, 256, 256, "f16"), "f32");
	assert_string_equal(chosen_as(r, ROLE_UNKNOWN, UINT32_MAX, 256, 256, "i32"), "i32");
	struct tensor t = { .name = "h.0.mlp.weight", .codec = codec_find("f16"), .ndim = 2, .dim = { 256, 256 } };
	struct recipe_query q = { NULL, &t, ROLE_UNKNOWN, UINT32_MAX, false };
	assert_string_equal(recipe_choose(r, &q, NULL)->name, "q4_k");
	t.name = "ln.norm.weight";
	assert_string_equal(recipe_choose(r, &q, NULL)->name, "f32");
	t.name = "lm_head.weight";
	assert_string_equal(recipe_choose(r, &q, NULL)->name, "q6_k");
	recipe_free(r);
}

static void overrides(void **state)
{
	(void)state;
	static const char text[] = "# comment\n\n attn_v = q8_0   # values\n*.layers.[0-2].mlp.down_proj.weight=q6_k\r\n"
				   "*layers.1.mlp.*=keep\n*norm*=q8_0\nattn_norm = f16";
	struct recipe *r = recipe("q4_k");
	if (recipe_read(r, text, sizeof text - 1, &e))
		fail_msg("%s", e.message);
	assert_string_equal(chosen(r, ROLE_V, 3), "q8_0");
	assert_string_equal(chosen(r, ROLE_DOWN, 0), "q6_k");
	assert_string_equal(chosen(r, ROLE_DOWN, 1), "f16");           /* keep, and the later line wins */
	assert_string_equal(chosen(r, ROLE_DOWN, 2), "q6_k");
	assert_string_equal(chosen(r, ROLE_DOWN, 3), "q4_k");
	assert_string_equal(chosen(r, ROLE_DOWN, 12), "q4_k");
	assert_string_equal(chosen_as(r, ROLE_FFN_NORM, 0, 0, 256, "bf16"), "f32");   /* vectors are never quantized */
	assert_string_equal(chosen_as(r, ROLE_ATTN_NORM, 0, 0, 256, "bf16"), "f16");
	assert_int_equal(recipe_override(r, "attn_v=int8-g32", &e), ERR_OK);
	assert_string_equal(chosen(r, ROLE_V, 3), "int8-g32");
	assert_int_equal(recipe_override(r, "attn_?=q6_k", &e), ERR_OK);
	assert_string_equal(chosen(r, ROLE_K, 3), "q6_k");
	assert_int_equal(recipe_override(r, "[!a]*up*=f16", &e), ERR_OK);
	assert_string_equal(chosen(r, ROLE_UP, 3), "f16");
	assert_string_equal(recipe_name(r), "q4_k,attn_v=q8_0,*.layers.[0-2].mlp.down_proj.weight=q6_k,*layers.1.mlp.*=keep,*norm*=q8_0,"
					    "attn_norm=f16,attn_v=int8-g32,attn_?=q6_k,[!a]*up*=f16");
	recipe_free(r);
}

/* A pattern of many stars must not take exponential time. */
static void stars_are_cheap(void **state)
{
	(void)state;
	struct recipe *r = recipe(NULL);
	char rule[200], name[2001];
	for (int i = 0; i < 60; i++)
		memcpy(rule + 2 * i, "*a", 2);
	strcpy(rule + 120, "b=f32");
	memset(name, 'a', 2000);
	name[2000] = '\0';
	assert_int_equal(recipe_override(r, rule, &e), ERR_OK);
	struct tensor t = { .name = name, .codec = codec_find("f16"), .ndim = 2, .dim = { 4, 4 } };
	struct recipe_query q = { NULL, &t, ROLE_UNKNOWN, UINT32_MAX, false };
	assert_string_equal(recipe_choose(r, &q, NULL)->name, "f16");
	recipe_free(r);
}

static void bad_recipes(void **state)
{
	(void)state;
	static const char *const schemes[] = { "Q9_K", "", "pure-", "i32", "q4_k_", "pure-pure-q4_0" };
	static const struct { const char *rule, *says; } rules[] = {
		{ "attn_v", "PATTERN=CODEC" }, { "", "PATTERN=CODEC" }, { "=q4_k", "no pattern" }, { " = q4_k", "no pattern" },
		{ "attn_v=", "unknown codec ''" }, { "attn_v=q9", "unknown codec 'q9'" }, { "attn_v=i64", "unknown codec 'i64'" },
		{ "a=b=c", "unknown codec 'b=c'" },
	};
	struct recipe *r;
	for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
		if (recipe_new(schemes[i], &r, &e) != ERR_USAGE)
			fail_msg("scheme '%s' was accepted", schemes[i]);
		assert_null(r);
	}
	r = recipe(NULL);
	for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
		assert_int_equal(recipe_override(r, rules[i].rule, &e), ERR_USAGE);
		assert_non_null(strstr(e.message, rules[i].says));
	}
	assert_int_equal(recipe_read(r, "embed=q8_0\n\nhead q8_0\n", 22, &e), ERR_INPUT);
	assert_non_null(strstr(e.message, "line 3: "));
	assert_int_equal(recipe_read(r, "a=\0", 3, &e), ERR_INPUT);
	recipe_free(r);
}

static void every_row_is_usable(void **state)
{
	(void)state;
	for (unsigned i = 0; i < recipe_row_count; i++) {
		struct recipe *r = recipe(recipe_rows[i].name);
		assert_int_equal(recipe_file_type(r), recipe_rows[i].gguf_file_type);
		for (enum role role = 0; role < ROLE_COUNT; role++)
			if (role_rows[role].linear)
				assert_non_null(chosen(r, role, 3));
		recipe_free(r);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(presets_mix_as_llama_cpp, set_up),
		cmocka_unit_test_setup(mixed_presets, set_up),
		cmocka_unit_test_setup(tied_embedding_is_the_output, set_up),
		cmocka_unit_test_setup(rows_that_do_not_divide_fall_back, set_up),
		cmocka_unit_test_setup(codecs_are_schemes, set_up),
		cmocka_unit_test_setup(keep_keeps, set_up),
		cmocka_unit_test_setup(unknown_tensors_and_integers, set_up),
		cmocka_unit_test_setup(overrides, set_up),
		cmocka_unit_test_setup(stars_are_cheap, set_up),
		cmocka_unit_test_setup(bad_recipes, set_up),
		cmocka_unit_test_setup(every_row_is_usable, set_up),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
