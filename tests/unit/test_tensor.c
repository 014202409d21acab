#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "codec/codec.h"
#include "tensor/half.h"
#include "tensor/tensor.h"

/* ---- small floats ---- */

static float from_f16(unsigned b) { return f32_from_f16((uint16_t)b); }
static float from_bf16(unsigned b) { return f32_from_bf16((uint16_t)b); }
static float from_e4m3(unsigned b) { return f32_from_e4m3((uint8_t)b); }
static float from_e5m2(unsigned b) { return f32_from_e5m2((uint8_t)b); }
static unsigned to_f16(float f) { return f16_from_f32(f); }
static unsigned to_bf16(float f) { return bf16_from_f32(f); }
static unsigned to_e4m3(float f) { return e4m3_from_f32(f); }
static unsigned to_e5m2(float f) { return e5m2_from_f32(f); }

static const struct small {
	const char *name;
	float (*from)(unsigned);
	unsigned (*to)(float);
	unsigned sign, infinity;   /* infinity: first code that is not finite */
	bool saturates;
	int mant, bias;
} smalls[] = {
	{ "f16", from_f16, to_f16, 0x8000, 0x7c00, false, 10, 15 },
	{ "bf16", from_bf16, to_bf16, 0x8000, 0x7f80, false, 7, 127 },
	{ "e4m3", from_e4m3, to_e4m3, 0x80, 0x7f, true, 3, 7 },
	{ "e5m2", from_e5m2, to_e5m2, 0x80, 0x7c, false, 2, 15 },
};

/* Every code has the value of its fields, and comes back. */
static void small_floats_decode(void **state)
{
	(void)state;
	for (size_t t = 0; t < sizeof smalls / sizeof *smalls; t++) {
		const struct small *s = &smalls[t];
		for (unsigned b = 0; b < s->infinity; b++) {
			int e = (int)(b >> s->mant), m = (int)(b & ((1u << s->mant) - 1));
			double want = e ? ldexp(1 + ldexp(m, -s->mant), e - s->bias) : ldexp(m, 1 - s->bias - s->mant);
			assert_true((double)s->from(b) == want && (double)s->from(b | s->sign) == -want);
			assert_int_equal(s->to((float)want), b);
			assert_int_equal(s->to(-(float)want), b | s->sign);
		}
		assert_true(isnan(s->from(s->sign - 1)) && isnan(s->from(s->to(NAN))) && isnan(s->from(s->to(-NAN))));
		if (!s->saturates) {
			assert_true(isinf(s->from(s->infinity)) && isinf(s->from(s->to(INFINITY))));
			assert_true(s->from(s->to(-INFINITY)) < 0);
		} else {
			assert_true(s->from(s->to(INFINITY)) == 448 && s->from(s->to(-1e9f)) == -448);
		}
	}
}

/* Between two neighbours the nearer one wins, and the even one at the middle. */
static void small_floats_round(void **state)
{
	(void)state;
	for (size_t t = 0; t < sizeof smalls / sizeof *smalls; t++) {
		const struct small *s = &smalls[t];
		for (unsigned b = 0; b + 1 < s->infinity; b++) {
			float lo = s->from(b), hi = s->from(b + 1), middle = (float)(((double)lo + (double)hi) / 2);
			if (middle == lo || middle == hi)
				continue; /* bf16 subnormals at the end of f32 */
			assert_int_equal(s->to(middle), b + (b & 1));
			assert_int_equal(s->to(nextafterf(middle, lo)), b);
			assert_int_equal(s->to(nextafterf(middle, hi)), b + 1);
			assert_int_equal(s->to(-nextafterf(middle, lo)), b | s->sign);
		}
	}
	assert_int_equal(f16_from_f32(65519.996f), 0x7bff);
	assert_int_equal(f16_from_f32(65520), 0x7c00);
	assert_int_equal(e5m2_from_f32(61440), 0x7c);
	assert_int_equal(f16_from_f32(1e-45f), 0);
	assert_int_equal(f16_from_f32(-1e-30f), 0x8000);
}

/* ---- shapes ---- */

static void measure(void **state)
{
	struct err e;
	char text[160];
	struct tensor t = { .name = "x", .codec = codec_find("f16"), .ndim = 3, .dim = { 2, 3, 5 } };
	(void)state;
	assert_int_equal(tensor_measure(&t, &e), 0);
	assert_int_equal(t.nbytes, 60);
	assert_int_equal(tensor_rows(&t), 6);
	assert_int_equal(tensor_cols(&t), 5);
	assert_int_equal(tensor_elements(&t), 30);
	assert_string_equal(tensor_shape_text(&t, text), "[2, 3, 5]");
	t.ndim = 0;
	assert_int_equal(tensor_measure(&t, &e), 0);
	assert_int_equal(t.nbytes, 2);
	assert_int_equal(tensor_elements(&t), 1);
	assert_string_equal(tensor_shape_text(&t, text), "[]");
	t = (struct tensor){ .name = "x", .codec = codec_find("q4_0"), .ndim = 2, .dim = { 4, 64 } };
	assert_int_equal(tensor_measure(&t, &e), 0);
	assert_int_equal(t.nbytes, 4 * 2 * 18);
	t.dim[1] = 65;
	assert_int_equal(tensor_measure(&t, &e), ERR_UNSUPPORTED);
	t.dim[1] = 0;
	assert_int_equal(tensor_measure(&t, &e), 0);
	assert_int_equal(t.nbytes, 0);
	t = (struct tensor){ .name = "x", .codec = codec_find("f32"), .ndim = 3, .dim = { 1ull << 40, 1ull << 40, 0 } };
	assert_int_equal(tensor_measure(&t, &e), ERR_INPUT);
	t = (struct tensor){ .name = "x", .codec = codec_find("f32"), .ndim = 2, .dim = { 1, 1ull << 62 } };
	assert_int_equal(tensor_measure(&t, &e), ERR_INPUT);
	t.ndim = 9;
	assert_int_equal(tensor_measure(&t, &e), ERR_UNSUPPORTED);
	t.ndim = 8;
	for (int i = 0; i < 8; i++)
		t.dim[i] = UINT64_MAX;
	assert_int_equal(tensor_measure(&t, &e), ERR_INPUT);
	assert_true(strlen(tensor_shape_text(&t, text)) < 160);
}

/* ---- sources ---- */

static uint8_t bytes_a[16], bytes_b[8], bytes_c[4];
static struct tensor base_tensors[3];
static int drops;

static int base_get(struct tensor_source *s, size_t i, struct tensor_bytes *out, struct err *e)
{
	const uint8_t *const data[] = { bytes_a, bytes_b, bytes_c };
	(void)e;
	*out = (struct tensor_bytes){ .data = data[i], .size = (size_t)s->tensors[i].nbytes };
	return 0;
}

static void base_drop(struct tensor_source *s, const void *data, size_t size)
{
	(void)s;
	(void)size;
	assert_true(data == bytes_a || data == bytes_b || data == bytes_c);
	drops++;
}

static struct tensor tensor_f32(const char *name, uint64_t n)
{
	struct tensor t = { .name = name, .codec = codec_find("f32"), .ndim = 1, .dim = { n } };
	assert_int_equal(tensor_measure(&t, NULL), 0);
	return t;
}

static struct tensor_source base_source(void)
{
	const float a[4] = { 1, 2, 3, 4 }, b[2] = { 5, 6 }, c[1] = { 7 };
	memcpy(bytes_a, a, 16);
	memcpy(bytes_b, b, 8);
	memcpy(bytes_c, c, 4);
	base_tensors[0] = tensor_f32("a", 4);
	base_tensors[1] = tensor_f32("b", 2);
	base_tensors[2] = tensor_f32("c", 1);
	drops = 0;
	return (struct tensor_source){ .tensors = base_tensors, .count = 3, .get = base_get, .drop = base_drop };
}

static void source(void **state)
{
	struct err e;
	struct tensor_source s = base_source();
	const struct tensor *meta;
	float *f;
	(void)state;
	assert_int_equal(source_index(&s, &e), 0);
	assert_ptr_equal(source_find(&s, "b"), &base_tensors[1]);
	assert_int_equal(source_position(&s, source_find(&s, "c")), 2);
	assert_null(source_find(&s, "d"));
	assert_int_equal(source_read_f32(&s, "a", &f, &meta, &e), 0);
	assert_ptr_equal(meta, &base_tensors[0]);
	assert_true(f[0] == 1 && f[3] == 4 && drops == 1);
	free(f);
	assert_int_equal(source_read_f32(&s, "d", &f, NULL, &e), ERR_INPUT);
	assert_null(f);
	base_tensors[2].name = "a";
	assert_int_equal(source_index(&s, &e), ERR_INPUT);
	map_release(&s.index);
}

static void *floats(size_t n, float first)
{
	float *f = malloc(n * sizeof *f);
	assert_non_null(f);
	for (size_t i = 0; i < n; i++)
		f[i] = first + (float)i;
	return f;
}

static float first_of(struct tensor_source *s, const char *name)
{
	struct err e;
	float *f, x;
	assert_int_equal(source_read_f32(s, name, &f, NULL, &e), 0);
	x = f[0];
	free(f);
	return x;
}

static void overlay(void **state)
{
	struct err e;
	struct tensor_source base = base_source(), *s;
	struct overlay *o = overlay_new(&base, &e);
	char name[] = "new";
	(void)state;
	assert_non_null(o);
	s = overlay_source(o);
	assert_int_equal(s->count, 3);
	assert_true(first_of(s, "a") == 1 && drops == 1);

	struct tensor t = tensor_f32("b", 3);
	assert_int_equal(overlay_put(o, &t, floats(3, 50), &e), 0);
	t = tensor_f32(name, 2);
	assert_int_equal(overlay_put(o, &t, floats(2, 90), &e), 0);
	name[0] = '?'; /* the overlay has its own copy */
	assert_int_equal(overlay_remove(o, "a", &e), 0);
	assert_int_equal(overlay_remove(o, "a", &e), ERR_INPUT);
	assert_int_equal(overlay_remove(o, "nothing", &e), ERR_INPUT);
	s = overlay_source(o);
	assert_int_equal(s->count, 3);
	assert_null(source_find(s, "a"));
	assert_string_equal(s->tensors[0].name, "b");
	assert_string_equal(s->tensors[1].name, "c");
	assert_string_equal(s->tensors[2].name, "new");
	drops = 0;
	assert_true(first_of(s, "b") == 50 && first_of(s, "new") == 90);
	assert_int_equal(drops, 0); /* what was put here must not be dropped as if it were mapped */
	assert_int_equal(source_find(s, "b")->dim[0], 3);
	assert_true(first_of(s, "c") == 7 && drops == 1);

	t = tensor_f32("a", 1);
	assert_int_equal(overlay_put(o, &t, floats(1, -1), &e), 0); /* back again, in its old place */
	t = tensor_f32("new", 1);
	assert_int_equal(overlay_put(o, &t, floats(1, -2), &e), 0);
	s = overlay_source(o);
	assert_int_equal(s->count, 4);
	assert_string_equal(s->tensors[0].name, "a");
	assert_true(first_of(s, "a") == -1 && first_of(s, "new") == -2);

	/* an overlay of an overlay */
	struct overlay *p = overlay_new(s, &e);
	assert_non_null(p);
	assert_true(first_of(overlay_source(p), "new") == -2 && first_of(overlay_source(p), "c") == 7);
	overlay_free(p);
	overlay_free(o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(small_floats_decode), cmocka_unit_test(small_floats_round), cmocka_unit_test(measure),
		cmocka_unit_test(source), cmocka_unit_test(overlay),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
