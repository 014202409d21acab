/* What verify keeps on disk: every way in which a baseline or a part can be wrong is refused, with its code and reason. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/zip.h"
#include "calib/judge/baseline.h"
#include "calib/judge/verify_part.h"
#include "check.h"
#include "scratch.h"

#define HASH "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define HEADER \
	"{\"format\":\"quire-baseline\",\"version\":1,\"tool\":\"t\",\"model\":\"" HASH "\",\"tokenizer\":\"" HASH "\",\"merges\":\"" HASH \
	"\",\"tokens\":\"" HASH "\",\"protocol\":\"llama\",\"ctx\":8,\"windows\":2,\"scored\":4,\"vocab\":10,\"from\":0,\"to\":2,\"fields\":0}"

static void refused(int rc, enum err_code code, const char *reason)
{
	if (rc != (int)code || !strstr(e.message, reason))
		fail_msg("got %d '%s', want %d '%s'", rc, rc ? e.message : "", code, reason);
}

static void put_header(struct strbuf *out, const char *magic, const char *header)
{
	uint8_t fixed[16];
	memcpy(fixed, magic, 8);
	store_u32(fixed + 8, (uint32_t)strlen(header));
	store_u32(fixed + 12, zip_crc32(0, header, strlen(header)));
	strbuf_add(out, fixed, sizeof fixed);
	strbuf_puts(out, header);
}

static void put_block(struct strbuf *out, const char *raw, uint32_t claimed)
{
	uint8_t packed[256], fixed[12];
	size_t n = sizeof packed;
	ok(zip_deflate(raw, strlen(raw), ZIP_BYTES, packed, &n, &e));
	store_u32(fixed, (uint32_t)n);
	store_u32(fixed + 4, claimed);
	store_u32(fixed + 8, zip_crc32(0, packed, n));
	strbuf_add(out, fixed, sizeof fixed);
	strbuf_add(out, packed, n);
}

static void sound(struct strbuf *out)
{
	put_header(out, "quirebas", HEADER);
	put_block(out, "abcd", 4);
	put_block(out, "efgh", 4);
	assert_false(out->failed);
}

static int parse(const struct strbuf *b)
{
	struct records r;
	int rc = records_parse(&r, (const uint8_t *)b->data, b->len, RECORDS_BASELINE, &e);
	if (!rc)
		records_close(&r);
	return rc;
}

/* HEADER with one piece of text for another. */
static void changed(struct strbuf *out, const char *from, const char *to)
{
	char text[1024];
	const char *at = strstr(HEADER, from);
	assert_non_null(at);
	snprintf(text, sizeof text, "%.*s%s%s", (int)(at - HEADER), HEADER, to, at + strlen(from));
	put_header(out, "quirebas", text);
	put_block(out, "abcd", 4);
	put_block(out, "efgh", 4);
}

static void headers(void **state)
{
	(void)state;
	static const char no_hash[] = "a hash in the header", no_number[] = "a number in the header";
	static const struct {
		const char *from, *to;
		enum err_code code;
		const char *reason;
	} rows[] = {
		{ "quire-baseline", "quire-part", ERR_INPUT, "the header is not that of a baseline" },
		{ "\"version\":1", "\"version\":2", ERR_UNSUPPORTED, "version 2; this program reads version 1" },
		{ "\"version\":1,", "", ERR_INPUT, "the header is not that of a baseline" },
		{ "llama", "other", ERR_INPUT, "protocol is missing or unknown" },
		{ "\"protocol\":\"llama\",", "", ERR_INPUT, "protocol is missing or unknown" },
		{ "\"model\":\"0", "\"model\":\"x", ERR_INPUT, no_hash },
		{ "\"tokenizer\":\"0", "\"tokenizer\":\"", ERR_INPUT, no_hash },
		{ "\"merges\":\"0", "\"merges\":\"X", ERR_INPUT, no_hash },
		{ "\"tokens\":\"" HASH "\",", "", ERR_INPUT, no_hash },
		{ "\"ctx\":8", "\"ctx\":1", ERR_INPUT, no_number },
		{ "\"ctx\":8", "\"ctx\":4", ERR_INPUT, no_number },
		{ "\"ctx\":8", "\"ctx\":\"8\"", ERR_INPUT, no_number },
		{ "\"windows\":2", "\"windows\":0", ERR_INPUT, no_number },
		{ "\"windows\":2", "\"windows\":1e30", ERR_INPUT, no_number },
		{ "\"scored\":4", "\"scored\":-4", ERR_INPUT, no_number },
		{ "\"scored\":4", "\"scored\":0", ERR_INPUT, no_number },
		{ "\"vocab\":10", "\"vocab\":1", ERR_INPUT, no_number },
		{ "\"from\":0,\"to\":2", "\"from\":2,\"to\":1", ERR_INPUT, no_number },
		{ "\"to\":2", "\"to\":3", ERR_INPUT, no_number },
		{ "\"fields\":0", "\"fields\":256", ERR_INPUT, no_number },
		{ "\"to\":2", "\"to\":1", ERR_INPUT, "a baseline must hold every window" },
		{ "\"windows\":2,\"scored\":4,\"vocab\":10,\"from\":0,\"to\":2", "\"windows\":4000000000,\"scored\":4,\"vocab\":10,\"from\":0,\"to\":4000000000",
		  ERR_INPUT, "cut short: 4000000000 windows cannot be in" },
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct strbuf b = { 0 };
		changed(&b, rows[i].from, rows[i].to);
		refused(parse(&b), rows[i].code, rows[i].reason);
		strbuf_release(&b);
	}
}

static void files(void **state)
{
	(void)state;
	struct strbuf b = { 0 };
	struct records r;
	sound(&b);
	ok(parse(&b));
	size_t whole = b.len, header = 16 + strlen(HEADER);
	refused(records_parse(&r, (const uint8_t *)b.data, b.len, RECORDS_PART, &e), ERR_INPUT, "not a part of a run");
	/* cut anywhere */
	for (size_t n = 0; n < whole; n++) {
		b.len = n;
		refused(parse(&b), ERR_INPUT, n < 8 ? "not a baseline" : n < header ? "cut short in the header" : "cut short");
	}
	b.len = whole;
	/* any byte bent; what a block unpacks to is told when it is unpacked */
	for (size_t n = 0; n < whole; n++) {
		b.data[n] = (char)(b.data[n] ^ 1);
		if (records_parse(&r, (const uint8_t *)b.data, b.len, RECORDS_BASELINE, &e)) {
			refused(ERR_INPUT, ERR_INPUT, n < 8 ? "not a baseline" : n >= 16 && n < header ? "damaged: the checksum of the header is wrong" : "");
		} else {
			uint8_t *raw[2];
			int rc = records_block(&r, 0, &raw[0], &e), other = records_block(&r, 1, &raw[1], &e);
			assert_true(rc || other);
			free(raw[0]);
			free(raw[1]);
			records_close(&r);
		}
		b.data[n] = (char)(b.data[n] ^ 1);
	}
	b.data[whole - 1] = (char)(b.data[whole - 1] ^ 1);
	refused(parse(&b), ERR_INPUT, "damaged: the checksum of window 1 is wrong");
	b.data[whole - 1] = (char)(b.data[whole - 1] ^ 1);
	strbuf_puts(&b, "more");
	refused(parse(&b), ERR_INPUT, "4 bytes follow the last window");
	strbuf_clear(&b);
	put_header(&b, "quirebas", HEADER);
	put_block(&b, "abcd", 1 << 20);
	put_block(&b, "efgh", 4);
	refused(parse(&b), ERR_INPUT, "the block of window 0 claims an impossible size");
	strbuf_clear(&b);
	put_header(&b, "quirebas", "{");
	refused(parse(&b), ERR_INPUT, "");
	/* a block that unpacks to another size than it says */
	strbuf_clear(&b);
	put_header(&b, "quirebas", HEADER);
	put_block(&b, "abcd", 5);
	put_block(&b, "efgh", 3);
	ok(records_parse(&r, (const uint8_t *)b.data, b.len, RECORDS_BASELINE, &e));
	for (size_t i = 0; i < 2; i++) {
		uint8_t *raw;
		refused(records_block(&r, i, &raw, &e), ERR_INPUT, i ? "window 1: " : "window 0: ");
		assert_null(raw);
	}
	records_close(&r);
	strbuf_release(&b);
}

/* A window has at most 256 MiB of records, to write and to read. */
static void large_windows(void **state)
{
	(void)state;
	const size_t most = (size_t)1 << 28, packed = most / 1000;
	struct run_id id = { .model = HASH, .tokenizer = HASH, .tokens = HASH, .ctx = 8, .windows = 1, .scored = 4, .vocab = 10, .to = 1 };
	struct records_writer w;
	uint8_t fixed[12];
	ok(records_create(&w, scratch("large"), RECORDS_PART, &id, &e));
	refused(records_add(&w, "a", most + 1, &e), ERR_UNSUPPORTED, "a window of 268435457 bytes of records is too large; use a smaller --ctx");
	records_abort(&w);
	/* as many bytes as deflate could make so much of */
	char *bytes = some(packed, 1);
	for (size_t over = 0; over < 2; over++) {
		struct strbuf b = { 0 };
		put_header(&b, "quirebas", HEADER);
		store_u32(fixed, (uint32_t)packed);
		store_u32(fixed + 4, (uint32_t)(most + over));
		store_u32(fixed + 8, zip_crc32(0, bytes, packed));
		strbuf_add(&b, fixed, sizeof fixed);
		strbuf_add(&b, bytes, packed);
		put_block(&b, "efgh", 4);
		if (over)
			refused(parse(&b), ERR_INPUT, "the block of window 0 claims an impossible size");
		else
			ok(parse(&b));
		strbuf_release(&b);
	}
	free(bytes);
}

/* One row of a vocabulary of two, both in its top: loss[4], top, sampled, tail[2], codes [2 + 2], ids [2 + 2]. */
static void rows_of_a_baseline(void **state)
{
	(void)state;
	static const struct {
		size_t at;
		uint8_t value;
		size_t size;
		const char *reason;
	} rows[] = {
		{ 4, 0, 16, "row 0 has 0 tokens and 0 samples" },
		{ 4, 3, 16, "row 0 has 3 tokens and 0 samples" },
		{ 4, 65, 16, "row 0 has 65 tokens" },
		{ 4, 1, 16, "row 0 has 1 tokens and 0 samples" },
		{ 5, 97, 16, "row 0 has 2 tokens and 97 samples" },
		{ 5, 1, 16, "16 bytes do not hold 1 rows of 3 entries" },
		{ 0, 0, 15, "15 bytes do not hold 1 rows of 2 entries" },
		{ 0, 0, 7, "7 bytes are too few for 1 rows" },
		{ 12, 2, 16, "row 0 names token 2 of a vocabulary of 2" },
		{ 15, 1, 16, "row 0 names token 257 of a vocabulary of 2" },
		{ 3, 0xff, 16, "the loss of row 0 makes no sense" },
		{ 3, 0xbf, 16, "the loss of row 0 makes no sense" },
	};
	uint8_t good[16] = { 0, 0, 0x80, 0x3f, 2, 0, 0, 0, 1, 2, 0, 0, 0, 1, 0, 0 };
	struct baseline_row r;
	ok(baseline_decode(&r, 1, 2, good, sizeof good, &e));
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		uint8_t bad[16];
		memcpy(bad, good, sizeof bad);
		bad[rows[i].at] = rows[i].value;
		refused(baseline_decode(&r, 1, 2, bad, rows[i].size, &e), ERR_INPUT, rows[i].reason);
	}
}

static void comparable(void **state)
{
	(void)state;
	const struct run_id kept = { .tokenizer = "t", .merges = "m", .tokens = "x", .protocol = PROTOCOL_LLAMA, .ctx = 8, .windows = 2, .scored = 4, .vocab = 10 };
	struct run_id now = kept;
	ok(run_id_match(&kept, &now, "base", &e));
	now.merges[0] = '\0'; /* a container that lists none */
	ok(run_id_match(&kept, &now, "base", &e));
	/* the last difference first: an earlier one is what is named */
	strcpy(now.tokens, "y");
	refused(run_id_match(&kept, &now, "base", &e), ERR_NOT_COMPARABLE, "not comparable with base: it was made on other tokens (another text)");
	now.scored = 7;
	refused(run_id_match(&kept, &now, "base", &e), ERR_NOT_COMPARABLE, "its number of scored tokens per window is 4, this run's 7");
	now.windows = 3;
	refused(run_id_match(&kept, &now, "base", &e), ERR_NOT_COMPARABLE, "its number of windows is 2, this run's 3");
	now.ctx = 9;
	refused(run_id_match(&kept, &now, "base", &e), ERR_NOT_COMPARABLE, "its context is 8, this run's 9");
	now.vocab = 11;
	refused(run_id_match(&kept, &now, "base", &e), ERR_NOT_COMPARABLE, "its vocabulary is 10, this run's 11");
	now.protocol = PROTOCOL_FULL;
	refused(run_id_match(&kept, &now, "base", &e), ERR_NOT_COMPARABLE, "it was made with protocol llama, this run uses full");
	strcpy(now.merges, "n");
	refused(run_id_match(&kept, &now, "base", &e), ERR_NOT_COMPARABLE, "it was made with another tokenizer (other merges)");
	strcpy(now.tokenizer, "u");
	refused(run_id_match(&kept, &now, "base", &e), ERR_NOT_COMPARABLE, "it was made with another tokenizer");
}

/* A part of `windows` windows that holds [from, to). */
static const char *part(const char *name, size_t windows, size_t from, size_t to, bool reference, const char *kv)
{
	struct run_id id = { .model = HASH, .tokenizer = HASH, .tokens = HASH, .protocol = PROTOCOL_LLAMA, .ctx = 8, .windows = windows,
			     .scored = 4, .vocab = 10, .from = from, .to = to };
	struct measurement m;
	snprintf(id.kv, sizeof id.kv, "%s", kv);
	snprintf(id.kv_v, sizeof id.kv_v, "%s", kv);
	ok(measurement_init(&m, to - from, 4, reference, &e));
	ok(verify_part_write(scratch(name), &id, &m, &e));
	measurement_release(&m);
	return name;
}

static int merge(const char *a, const char *b)
{
	const char *paths[] = { scratch(a), b ? scratch(b) : NULL };
	struct run_id id;
	struct measurement m;
	int rc = verify_part_merge(paths, b ? 2 : 1, &id, &m, &e);
	if (!rc)
		measurement_release(&m);
	return rc;
}

static void parts(void **state)
{
	(void)state;
	const char *a = part("a", 3, 0, 2, true, ""), *b = part("b", 3, 2, 3, true, "");
	ok(merge(a, b));
	ok(merge(b, a));
	refused(merge(a, NULL), ERR_INPUT, "window 2 of 3 is in none of the parts");
	refused(merge(a, a), ERR_INPUT, "window 0 is in another part as well");
	refused(merge(a, part("plain", 3, 2, 3, false, "")), ERR_NOT_COMPARABLE, "hold different figures; make all parts with the same options");
	refused(merge(a, part("kv", 3, 2, 3, true, "q8_0")), ERR_NOT_COMPARABLE, "were made with different --kv-cache options");
	refused(merge(a, part("more", 4, 2, 3, true, "")), ERR_NOT_COMPARABLE, "its number of windows is 4, this run's 3");
	refused(merge(part("few", 4000000, 0, 1, true, ""), NULL), ERR_INPUT, "the parts are too small for 4000000 windows; some are missing");
	/* a block that says other figures than the header */
	struct run_id id = { .model = HASH, .tokenizer = HASH, .tokens = HASH, .ctx = 8, .windows = 1, .scored = 4, .vocab = 10, .to = 1 };
	struct records_writer w;
	ok(records_create(&w, scratch("short"), RECORDS_PART, &id, &e));
	ok(records_add(&w, "abcd", 4, &e));
	ok(records_finish(&w, &e));
	refused(merge("short", NULL), ERR_INPUT, "window 0 has 4 bytes where its figures take 16");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(headers),
		cmocka_unit_test(files),
		cmocka_unit_test(large_windows),
		cmocka_unit_test(rows_of_a_baseline),
		cmocka_unit_test(comparable),
		cmocka_unit_test(parts),
	};
	return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
