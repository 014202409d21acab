/* Training takes the memory that was stated. */
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buffers.h"
#include "base/rng.h"
#include "calib/quant/distill.h"
#include "codec/codec.h"
#include "formats/checkpoint.h"
#include "check.h"

enum { CTX = 24, WINDOWS = 72 };

/* Bytes that are taken now; 0 where an allocator of its own, as under a sanitizer, does not say. */
static uint64_t taken(void)
{
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 33)
	struct mallinfo2 m = mallinfo2();
	return (uint64_t)m.uordblks + (uint64_t)m.hblkhd;
#else
	return 0; /* not known */
#endif
}

static bool look(void *most, uint64_t done, uint64_t total)
{
	uint64_t now = taken();
	(void)done, (void)total;
	if (now > *(uint64_t *)most)
		*(uint64_t *)most = now;
	return true;
}

/* Every matrix of the plan as plain rounding has it. */
static struct overlay *rounded(const struct plan *p, struct tensor_source *source)
{
	struct overlay *o = overlay_new(source, &e);
	uint8_t scratch[1024];
	assert_non_null(o);
	for (size_t i = 0; i < p->count; i++) {
		const struct tensor *t = &p->items[i].out, *meta;
		size_t cols = (size_t)tensor_cols(t);
		float *w;
		if (t->codec->kind == CODEC_FLOAT)
			continue;
		ok(source_read_f32(source, t->name, &w, &meta, &e));
		uint8_t *bytes = some(t->nbytes, 1);
		for (size_t r = 0; r < tensor_rows(t); r++)
			codec_encode_row(t->codec, &(struct row_job){ w + r * cols, NULL, cols, FIT_RTN }, scratch,
					 bytes + r * codec_row_bytes(t->codec, cols));
		ok(overlay_put(o, t, bytes, &e));
		free(w);
	}
	return o;
}

static void stated_is_taken(void **state)
{
	static const char *const models[] = { "tests/golden/model/qwen3", "tests/golden/model/mixtral" };
	(void)state;
	for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
		struct checkpoint *c;
		struct config config;
		struct recipe *r;
		struct plan p;
		struct rng rng = { 3 };
		struct windows text = { some(WINDOWS * CTX, sizeof(int32_t)), WINDOWS, CTX, 0 };
		struct distill_options o = distill_defaults;
		struct distill_report report;
		o.passes = 4;
		ok(checkpoint_open(models[i], &c, &e));
		ok(checkpoint_config(c, &config, &e));
		ok(recipe_new("int4-g32", &r, &e));
		ok(plan_make(&p, &(struct plan_request){ .config = &config, .source = c->source, .recipe = r, .method = method_find("rtn") }, &e));
		for (size_t k = 0; k < WINDOWS * CTX; k++)
			text.tokens[k] = (int32_t)rng_below(&rng, config.vocab);
		struct overlay *out = rounded(&p, c->source);
		uint64_t most = 0, before = taken(), stated = distill_memory(&config, &p, &(struct distill_text){ WINDOWS * CTX, 0, CTX });
		const struct progress watch = { look, &most };
		const struct quant_job job = { .config = &config, .source = c->source, .plan = &p, .text = &text, .progress = &watch };
		ok(distill(&job, &o, out, &report, &e));
		if (taken() && !(most - before <= stated + stated / 20 && most - before >= stated / 2))
			fail_msg("%s: %llu bytes were stated, %llu taken", models[i], (unsigned long long)stated,
				 (unsigned long long)(most - before));
		overlay_free(out);
		plan_release(&p);
		recipe_free(r);
		config_release(&config);
		windows_release(&text);
		checkpoint_close(c);
	}
}

static void all_or_none(void **state)
{
	char *a = NULL, *b = NULL;
	float *none;
	const struct buffer rows[] = { { &a, 5, 1 }, { &none, SIZE_MAX / 8, sizeof *none }, { &b, 7, 1 } };
	(void)state;
	assert_int_equal(buffers_take(rows, 3, &e), ERR_NOMEM);
	assert_true(a && !none && !b);
	free(a);
	assert_int_equal(buffers_size(rows, 1), 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(stated_is_taken), cmocka_unit_test(all_or_none) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
