#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "base/thread.h"
#include "base/zip.h"

static struct err e;

static void crc_of_the_check_string(void **state)
{
	(void)state;
	assert_int_equal(zip_crc32(0, "123456789", 9), 0xcbf43926);
	assert_int_equal(zip_crc32(zip_crc32(0, "1234", 4), "56789", 5), 0xcbf43926);
	assert_int_equal(zip_crc32_combine(zip_crc32(0, "1234", 4), zip_crc32(0, "56789", 5), 5), 0xcbf43926);
	assert_int_equal(zip_crc32(0, "", 0), 0);
}

static void crc_in_pieces_is_the_same(void **state)
{
	(void)state;
	size_t n = (5 << 20) + 77;
	uint8_t *p = malloc(n);
	struct rng r = { 1 };
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)rng_u64(&r);
	thread_set(1);
	uint32_t one = zip_crc32(7, p, n);
	thread_set(3);
	assert_int_equal(zip_crc32(7, p, n), one);
	thread_set(0);
	free(p);
}

static void round_trip(void **state)
{
	(void)state;
	static uint8_t in[10000], packed[12000], out[10000];
	struct rng r = { 3 };
	for (size_t i = 0; i < sizeof in; i++)
		in[i] = (uint8_t)(rng_below(&r, 4) * rng_below(&r, 3));
	size_t sizes[] = { 0, 1, 100, sizeof in };
	for (int kind = ZIP_TEXT; kind <= ZIP_BYTES; kind++)
		for (size_t k = 0; k < 4; k++) {
			size_t n = sizeof packed;
			assert_int_equal(zip_deflate(in, sizes[k], (enum zip_kind)kind, packed, &n, &e), ERR_OK);
			assert_true(n <= zip_bound(sizes[k]));
			memset(out, 0xee, sizeof out);
			assert_int_equal(zip_inflate(packed, n, out, sizes[k], &e), ERR_OK);
			assert_memory_equal(in, out, sizes[k]);
			/* any other size is refused, and nothing is written behind it */
			assert_int_equal(zip_inflate(packed, n, out, sizes[k] + 1, &e), ERR_INPUT);
			if (sizes[k]) {
				memset(out, 0xee, sizeof out);
				assert_int_equal(zip_inflate(packed, n, out, sizes[k] - 1, &e), ERR_INPUT);
				assert_int_equal(out[sizes[k] - 1], 0xee);
			}
			assert_int_equal(zip_inflate(packed, n - 1, out, sizes[k], &e), ERR_INPUT);
			packed[n] = 0;
			assert_int_equal(zip_inflate(packed, n + 1, out, sizes[k], &e), ERR_INPUT);
			packed[n / 2] ^= 0x55;
			assert_int_equal(zip_inflate(packed, n, out, sizes[k], &e), ERR_INPUT);
		}
	size_t small = 3;
	assert_int_not_equal(zip_deflate(in, sizeof in, ZIP_TEXT, packed, &small, &e), ERR_OK);
}

/* `printf hello | gzip -n`, twice in a row is "hellohello". */
static void gzip_members(void **state)
{
	(void)state;
	static const uint8_t hello[] = { 0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xcb, 0x48, 0xcd, 0xc9, 0xc9, 7, 0, 0x86, 0xa6, 0x10, 0x36, 5, 0, 0, 0 };
	uint8_t twice[2 * sizeof hello];
	memcpy(twice, hello, sizeof hello);
	memcpy(twice + sizeof hello, hello, sizeof hello);
	struct strbuf b = { 0 };
	strbuf_puts(&b, "> ");
	assert_int_equal(zip_gunzip(twice, sizeof twice, &b, 10, &e), ERR_OK);
	assert_string_equal(b.data, "> hellohello");
	strbuf_clear(&b);
	assert_int_equal(zip_gunzip(twice, sizeof twice, &b, 9, &e), ERR_INPUT);
	strbuf_clear(&b);
	assert_int_equal(zip_gunzip(twice, sizeof twice - 1, &b, 100, &e), ERR_INPUT);
	twice[sizeof hello - 6] ^= 1;
	strbuf_clear(&b);
	assert_int_equal(zip_gunzip(twice, sizeof twice, &b, 100, &e), ERR_INPUT);
	assert_int_equal(zip_gunzip("plain", 5, &b, 100, &e), ERR_INPUT);
	assert_int_equal(zip_gunzip("", 0, &b, 100, &e), ERR_INPUT);
	strbuf_release(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(crc_of_the_check_string),
		cmocka_unit_test(crc_in_pieces_is_the_same),
		cmocka_unit_test(round_trip),
		cmocka_unit_test(gzip_members),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
