#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "base/sha256.h"
#include "base/sha256_blocks.h"

static void expect(const char *text, size_t repeat, size_t piece, const char *want)
{
	struct sha256 s;
	uint8_t digest[32];
	char hex[65];
	size_t n = strlen(text);
	sha256_init(&s);
	for (size_t r = 0; r < repeat; r++)
		for (size_t at = 0; at < n; at += piece)
			sha256_add(&s, text + at, n - at < piece ? n - at : piece);
	sha256_finish(&s, digest);
	sha256_hex(digest, hex);
	assert_string_equal(hex, want);
}

/* FIPS 180-4 example vectors, and lengths around the padding border (digests from coreutils' sha256sum). */
static void vectors(void **state)
{
	(void)state;
	for (size_t piece = 1; piece < 70; piece += 7) {
		expect("", 1, piece, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
		expect("abc", 1, piece, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
		expect("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 1, piece,
		       "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
		expect("a", 1000, piece, "41edece42d63e8d9bf515a9ba6932e1c20cbc9f5a5d134645adb5db1b9737ea3");
		expect("a", 55, piece, "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318");
		expect("a", 56, piece, "b35439a4ac6f0948b6d6f9e3c6af0f5f590ce20f1bde7090ef7970686ec6738a");
		expect("a", 64, piece, "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb");
	}
}

/* The processor's instructions and the portable rounds give the same state. */
static void accelerated(void **state)
{
	uint8_t data[64 * 9];
	struct rng r = { 3 };
	sha256_blocks *fast = sha256_accelerated();
	(void)state;
	if (!fast)
		skip();
	for (size_t count = 0; count <= 9; count++) {
		uint32_t a[8], b[8];
		for (size_t i = 0; i < sizeof data; i++)
			data[i] = (uint8_t)rng_u64(&r);
		for (int i = 0; i < 8; i++)
			a[i] = b[i] = (uint32_t)rng_u64(&r);
		fast(a, data, count, sha256_k);
		sha256_portable(b, data, count, sha256_k);
		assert_memory_equal(a, b, sizeof a);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(vectors),
		cmocka_unit_test(accelerated) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
