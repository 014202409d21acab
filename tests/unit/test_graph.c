#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "model/family/family.h"
#include "check.h"

static struct layer_config layers[] = { { .heads = 4, .kv_heads = 2, .rope = true, .ffn = 24 },
					{ .heads = 4, .kv_heads = 2, .rope = true, .ffn = 24 } };

static struct config small(const struct arch *a)
{
	layers[1].kv_source = 1;
	return (struct config){ .arch = a, .vocab = 30, .hidden = 12, .layers = 2, .heads = 4, .kv_heads = 2, .head_dim = 4,
				.ffn = 24, .rope.dims = 4, .layer = layers };
}

/* Both halves read one norm. */
static void side_by_side(struct build *b)
{
	value x = op_norm(b, STREAM, ROLE_ATTN_NORM), y = common_attention(b, x, false);
	op_add(b, y);
	op_add(b, op_linear(b, op_act(b, op_linear(b, x, ROLE_UP)), ROLE_DOWN));
}

static const char *const kinds[] = { [OP_NORM] = "norm",     [OP_HEAD_NORM] = "heads", [OP_LINEAR] = "linear", [OP_ROPE] = "rope",
				     [OP_ATTEND] = "attend", [OP_ACT] = "act",         [OP_GLU] = "glu",       [OP_ADD] = "add" };

static void list_is(const struct block *b, const char *want)
{
	char text[512] = "";
	for (unsigned i = 0; i < b->ops; i++)
		snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s%s%s", i ? " " : "", kinds[b->op[i].kind],
			 b->op[i].role < ROLE_COUNT ? ":" : "", b->op[i].role < ROLE_COUNT ? role_rows[b->op[i].role].name : "");
	assert_string_equal(text, want);
}

static void lists(void **state)
{
	struct config c = small(&family_qwen3);
	struct block b;
	(void)state;
	block_make(&c, 1, &b);
	list_is(&b, "norm:attn_norm linear:attn_q linear:attn_k linear:attn_v heads:attn_q_norm heads:attn_k_norm rope rope attend "
		    "linear:attn_o add norm:ffn_norm linear:ffn_gate linear:ffn_up glu linear:ffn_down add");
	assert_int_equal(b.parts, 2);
	assert_int_equal(b.op[1].group, 3);
	layers[1].kv_source = 0; /* its keys and values are then taken, and not read */
	block_make(&c, 1, &b);
	list_is(&b, "norm:attn_norm linear:attn_q heads:attn_q_norm rope attend linear:attn_o add norm:ffn_norm linear:ffn_gate "
		    "linear:ffn_up glu linear:ffn_down add");
	assert_false(block_site(&b, ROLE_K)->required);
	assert_int_equal(block_site(&b, ROLE_K)->dim[0], 8);
	assert_string_equal(block_source(&c, &b, ROLE_O).why, "values of another layer");
	block_make(&c, OUTSIDE, &b);
	list_is(&b, "norm:final_norm linear:head");
}

/* Both halves read the stream itself, which is another value in each. */
static void on_the_stream(void **state)
{
	struct config c = small(&family_olmo2);
	struct block b;
	struct group g[BLOCK_GROUPS];
	(void)state;
	block_make(&c, 0, &b);
	list_is(&b, "linear:attn_q linear:attn_k linear:attn_v norm:attn_q_norm norm:attn_k_norm rope rope attend linear:attn_o "
		    "norm:post_attn_norm add linear:ffn_gate linear:ffn_up glu linear:ffn_down norm:post_ffn_norm add");
	assert_int_equal(b.parts, 2);
	assert_int_equal(block_groups(&b, g), 4);
	assert_true(g[0].count == 3 && g[2].count == 2 && g[2].role[0] == ROLE_GATE && g[2].part == 2);
	assert_int_equal(block_leader(&b, ROLE_V), ROLE_Q);
	assert_int_equal(block_leader(&b, ROLE_UP), ROLE_GATE);
	assert_non_null(strstr(block_source(&c, &b, ROLE_UP).why, "the stream"));
	assert_int_equal(block_source(&c, &b, ROLE_DOWN).role, ROLE_UP);
	assert_int_equal(block_site(&b, ROLE_Q_NORM)->dim[0], 16);
	assert_int_equal(block_site(&b, ROLE_K_NORM)->dim[0], 8);
	layers[0].kv_source = 1; /* not its own: a norm of keys is taken, and not read */
	block_make(&c, 0, &b);
	assert_int_equal(block_site(&b, ROLE_K_NORM)->dim[0], 8);
	assert_false(block_site(&b, ROLE_K_NORM)->required);
	layers[0].kv_source = 0;
}

/* Values that live at the same time lie apart. */
static void rooms(void **state)
{
	(void)state;
	for (unsigned a = 0; a < arch_row_count; a++) {
		struct config c = small(arch_rows[a]);
		struct block b;
		block_make(&c, 0, &b);
		assert_false(b.full);
		for (unsigned i = 1; i < b.values; i++) {
			assert_true(b.value[i].width <= b.room[b.value[i].room]);
			for (unsigned k = i + 1; k < b.values; k++)
				if (b.value[k].maker < b.value[i].last)
					assert_int_not_equal(b.value[i].room, b.value[k].room);
		}
	}
}

static void what_takes_a_scale(void **state)
{
	struct config c = small(&family_llama);
	struct arch parallel = family_llama;
	struct block b;
	struct group g[BLOCK_GROUPS];
	(void)state;
	block_make(&c, 0, &b);
	struct source_of s = block_source(&c, &b, ROLE_V);
	assert_true(s.role == ROLE_ATTN_NORM && s.norm);
	assert_int_equal(block_groups(&b, g), 4);
	assert_true(g[0].count == 3 && g[0].role[2] == ROLE_V && g[0].part == 1 && !g[0].ends && !g[0].adds);
	assert_true(g[1].count == 1 && g[1].role[0] == ROLE_O && g[1].part == 1 && g[1].ends && g[1].adds);
	assert_true(g[2].count == 2 && g[2].role[0] == ROLE_GATE && g[2].part == 2 && !g[2].ends);
	assert_int_equal(block_leader(&b, ROLE_UP), ROLE_GATE);
	s = block_source(&c, &b, ROLE_O);
	assert_true(s.role == ROLE_V && s.heads && !s.norm);
	s = block_source(&c, &b, ROLE_DOWN);
	assert_true(s.role == ROLE_UP && !s.heads && !s.norm);
	assert_true(block_adds(&b, ROLE_DOWN) && block_adds(&b, ROLE_O) && !block_adds(&b, ROLE_UP));
	assert_true(block_has(&b, 1, OP_ATTEND) && !block_has(&b, 2, OP_ATTEND));

	parallel.layer = side_by_side;
	c.arch = &parallel;
	block_make(&c, 0, &b);
	assert_int_equal(b.parts, 1); /* x passes where the first half ends */
	assert_int_equal(block_groups(&b, g), 3);
	assert_true(g[0].count == 4 && !g[1].ends && g[2].ends);
	assert_int_equal(block_leader(&b, ROLE_UP), ROLE_Q);
	assert_string_equal(block_source(&c, &b, ROLE_DOWN).why, "an activation");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lists),
		cmocka_unit_test(on_the_stream),
		cmocka_unit_test(rooms),
		cmocka_unit_test(what_takes_a_scale),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
