/* include/quire_read.h, the reader for devices, against the library: files that the writer made, every codec, any rows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define QUIRE_READ_ZLIB
#define QUIRE_READ_STATIC
#define QUIRE_READ_IMPLEMENTATION
#include "include/quire_read.h"

#include "base/rng.h"
#include "codec/codec.h"
#include "formats/checkpoint.h"
#include "formats/file.h"
#include "formats/quire.h"
#include "plan/plan.h"
#include "scratch.h"
#include "sides.h"

static struct err e;

/* Tensors of random bytes: every code, every scale, infinities and NaN among them. */
enum { MOST_NOISE = 700 };

struct noise {
	struct tensor_source source;
	struct tensor tensors[MOST_NOISE];
	char names[MOST_NOISE][64];
	uint8_t *data[MOST_NOISE];
};

static int noise_get(struct tensor_source *s, size_t i, struct tensor_bytes *out, struct err *unused)
{
	const struct noise *x = (const struct noise *)s;
	(void)unused;
	*out = (struct tensor_bytes){ .data = x->data[i], .size = (size_t)x->tensors[i].nbytes };
	return ERR_OK;
}

static void add(struct noise *x, const struct codec *c, uint32_t ndim, const uint64_t *dim, struct rng *r)
{
	size_t i = x->source.count;
	struct tensor *t = &x->tensors[i];
	assert_true(i < MOST_NOISE);
	snprintf(x->names[i], sizeof x->names[i], "%s \"%zu\" \xc3\xa9", c->name, i);
	*t = (struct tensor){ .name = x->names[i], .codec = c, .ndim = ndim };
	memcpy(t->dim, dim, ndim * sizeof *dim);
	if (tensor_measure(t, &e))
		return; /* these rows are not for this codec */
	x->data[i] = malloc((size_t)t->nbytes + 1);
	assert_non_null(x->data[i]);
	for (uint64_t k = 0; k < t->nbytes; k++) /* the first of a kind is noise, the others repeat, so that planes shrink */
		x->data[i][k] = i % 3 ? (uint8_t)(k % 61 < 40 ? k % 7 * 40 : k * k >> 9) : (uint8_t)rng_u64(r);
	x->source.count++;
}

static struct noise *noise_new(void)
{
	static const struct { uint32_t ndim; uint64_t dim[3]; } shapes[] = {
		{ 2, { 3, 512 } }, { 1, { 256 } }, { 3, { 2, 3, 77 } }, { 0, { 0 } }, { 2, { 0, 256 } }, { 2, { 2, 0 } }, { 1, { 33 } },
	};
	struct noise *x = calloc(1, sizeof *x);
	struct rng r = { 17 };
	assert_non_null(x);
	x->source.get = noise_get;
	x->source.tensors = x->tensors;
	for (unsigned c = 0; c < codec_row_count; c++)
		for (unsigned s = 0; s < sizeof shapes / sizeof *shapes; s++)
			if (s < 4 || c % 8 == 0)
				add(x, codec_rows[c], shapes[s].ndim, shapes[s].dim, &r);
	/* planes of more than one chunk, the last one short, and rows that lie over the cut */
	static const char *const planed[] = { "f32", "f16", "bf16" };
	for (unsigned i = 0; i < 3; i++) {
		add(x, codec_find(planed[i]), 2, (const uint64_t[]){ 3001, 501 }, &r);
		add(x, codec_find(planed[i]), 2, (const uint64_t[]){ 1000, 300 }, &r);
	}
	assert_int_equal(source_index(&x->source, &e), ERR_OK);
	return x;
}

static void noise_free(struct noise *x)
{
	for (size_t i = 0; i < sizeof x->data / sizeof *x->data; i++)
		free(x->data[i]);
	map_release(&x->source.index);
	free(x);
}

/* The tensors, and the side files of the demo. */
static void write_noise(struct noise *x, const char *path, bool compress)
{
	struct checkpoint *c;
	struct recipe *r;
	struct plan p;
	struct tensor_sink *k;
	struct write_options o = { .recipe = "a \"recipe\" \\ with\tescapes", .tool_version = "test", .compress = compress };
	assert_int_equal(checkpoint_open("examples/demo", &c, &e), ERR_OK);
	assert_int_equal(recipe_new(NULL, &r, &e), ERR_OK);
	assert_int_equal(plan_make(&p, &(struct plan_request){ .source = &x->source, .recipe = r }, &e), ERR_OK);
	for (size_t i = 0; i < p.count; i++)
		p.items[i].out = x->tensors[i]; /* a plan gives rows of no elements another codec */
	int rc = quire_create(path, &(struct write_request){ c, NULL, &p, &o }, &k, &e);
	/* by hand: executing a plan refuses NaN */
	for (size_t i = 0; i < p.count && !rc; i++)
		if (!(rc = k->item(k, i, &e)))
			rc = k->bytes(k, x->data[i], (size_t)p.items[i].out.nbytes, &e);
	if (rc || k->finish(k, &e))
		fail_msg("%s", e.message);
	k->close(k);
	plan_release(&p);
	recipe_free(r);
	checkpoint_close(c);
}

static void same_floats(const char *name, const float *got, const float *want, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++) {
		uint32_t a, b;
		memcpy(&a, &got[i], 4);
		memcpy(&b, &want[i], 4);
		if (a != b && !(got[i] != got[i] && want[i] != want[i]))
			fail_msg("%s: element %u is %a, %a by the library", name, (unsigned)i, (double)got[i], (double)want[i]);
	}
}

static void same_tensor(const struct quire_read_tensor *t, const struct tensor *u, const uint8_t *data, struct rng *r)
{
	uint64_t rows = tensor_elements(u) ? tensor_rows(u) : 0, cols = tensor_cols(u), row = rows ? codec_row_bytes(u->codec, cols) : 0;
	assert_string_equal(t->codec, u->codec->name);
	assert_int_equal(t->ndim, u->ndim);
	assert_memory_equal(t->shape, u->dim, u->ndim * sizeof *u->dim);
	assert_int_equal(t->rows, rows);
	assert_int_equal(t->row_bytes, row);
	assert_int_equal(t->bytes, u->nbytes);
	float *want = malloc((size_t)(rows * cols) * sizeof *want + 1), *got = malloc((size_t)(rows * cols) * sizeof *got + 1);
	uint8_t *bytes = malloc((size_t)t->bytes + 1);
	assert_true(want && got && bytes);
	for (uint64_t i = 0; i < rows; i++)
		u->codec->decode(u->codec, data + i * row, want + i * cols, (size_t)cols);
	assert_int_equal(quire_read_rows(t, 0, rows, got), QUIRE_READ_OK);
	same_floats(t->name, got, want, rows * cols);
	assert_int_equal(quire_read_bytes(t, 0, rows, bytes), QUIRE_READ_OK);
	assert_memory_equal(bytes, data, (size_t)t->bytes);
	for (int k = 0; k < 4; k++) {
		uint64_t first = rng_u64(r) % (rows + 1), count = rng_u64(r) % (rows - first + 1);
		assert_int_equal(quire_read_rows(t, first, count, got), QUIRE_READ_OK);
		same_floats(t->name, got, want + first * cols, count * cols);
		assert_int_equal(quire_read_bytes(t, first, count, bytes), QUIRE_READ_OK);
		assert_memory_equal(bytes, data + first * row, (size_t)(count * row));
	}
	assert_int_equal(quire_read_rows(t, 0, rows + 1, got), QUIRE_READ_USAGE);
	assert_int_equal(quire_read_rows(t, rows + 1, 0, got), QUIRE_READ_USAGE);
	assert_int_equal(quire_read_rows(t, 1, UINT64_MAX, got), QUIRE_READ_USAGE);
	assert_int_equal(quire_read_check_tensor(t), QUIRE_READ_OK);
	free(want);
	free(got);
	free(bytes);
}

static void every_codec_decodes(void **state)
{
	(void)state;
	struct noise *x = noise_new();
	struct rng r = { 3 };
	for (int compress = 0; compress < 2; compress++) {
		struct quire_read q;
		write_noise(x, scratch("a.quire"), compress);
		if (quire_read_open(&q, scratch("a.quire")))
			fail_msg("%s %s", q.culprit, q.error);
		assert_int_equal(q.tensor_count, x->source.count);
		bool seen[MOST_NOISE] = { false };
		unsigned codecs = 0, planed = 0;
		for (size_t i = 0; i < q.tensor_count; i++) {
			const struct quire_read_tensor *t = quire_read_find(&q, x->names[i]);
			assert_ptr_equal(t, &q.tensors[i]);
			assert_int_equal((t->stored - q.bytes) % 64, 0);
			planed += t->planes != 0;
			same_tensor(t, &x->tensors[i], x->data[i], &r);
			for (unsigned c = 0; c < codec_row_count; c++)
				if (codec_rows[c] == x->tensors[i].codec)
					seen[c] = true;
		}
		for (unsigned c = 0; c < codec_row_count; c++)
			codecs += seen[c];
		assert_int_equal(codecs, codec_row_count);
		assert_int_equal(planed > 0, compress);
		assert_null(quire_read_find(&q, "no such tensor"));
		assert_null(quire_read_find(&q, "__pad__.0"));
		assert_int_equal(quire_read_check(&q), QUIRE_READ_OK);
		quire_read_close(&q);
		quire_read_close(&q);
	}
	noise_free(x);
}

static void side_files(void **state)
{
	(void)state;
	struct noise *x = noise_new();
	struct checkpoint *c;
	struct quire_read q;
	write_noise(x, scratch("a.quire"), true);
	assert_int_equal(checkpoint_open("examples/demo", &c, &e), ERR_OK);
	assert_int_equal(quire_read_open(&q, scratch("a.quire")), QUIRE_READ_OK);
	assert_int_equal(q.file_count, side_count(c));
	for (size_t i = 0; i < q.file_count; i++) {
		const struct side_file *f = side_of(c, q.files[i].name);
		assert_int_equal(q.files[i].size, f->size);
		assert_ptr_equal(quire_read_find_file(&q, f->name), &q.files[i]);
		char *text = malloc(f->size + 1);
		assert_int_equal(quire_read_inflate(&q.files[i], text), QUIRE_READ_OK);
		assert_memory_equal(text, f->data, f->size);
		free(text);
	}
	assert_null(quire_read_find_file(&q, "config"));
	quire_read_close(&q);
	checkpoint_close(c);
	noise_free(x);
}

/* A byte of each entry flipped: the check names the tensor or file. Each cut is refused. */
static void damage(void **state)
{
	(void)state;
	struct noise *x = noise_new();
	struct quire_read q;
	struct mapped m;
	x->source.count = 40;
	write_noise(x, scratch("a.quire"), true);
	assert_int_equal(mapped_open(&m, scratch("a.quire"), &e), ERR_OK);
	uint8_t *copy = malloc(m.size);
	memcpy(copy, m.data, m.size);
	assert_int_equal(quire_read_memory(&q, copy, m.size), QUIRE_READ_OK);
	for (size_t i = 0; i < q.entry_count; i++) {
		struct qrd_entry at = q.entries[i];
		if (at.end == at.begin)
			continue;
		uint8_t *byte = copy + (q.data - copy) + (at.begin + at.end) / 2;
		*byte ^= 0x10;
		assert_int_equal(quire_read_check(&q), QUIRE_READ_DAMAGED);
		assert_memory_equal(q.culprit, at.name, strlen(q.culprit));
		assert_true(q.culprit[0]);
		*byte ^= 0x10;
	}
	assert_int_equal(quire_read_check(&q), QUIRE_READ_OK);
	size_t header = (size_t)(q.data - copy);
	quire_read_close(&q);
	for (size_t n = 0; n < m.size; n += n < 300 ? 1 : 97)
		assert_int_not_equal(quire_read_memory(&q, copy, n), QUIRE_READ_OK);
	/* the manifest has its checksum, the header none: what opens nevertheless can be decoded without harm */
	for (size_t i = 0; i < header; i += 3) {
		copy[i] ^= (uint8_t)(1 << i % 7);
		if (!quire_read_memory(&q, copy, m.size))
			quire_read_check(&q);
		quire_read_close(&q);
		copy[i] = m.data[i];
	}
	free(copy);
	mapped_close(&m);
	noise_free(x);
	assert_int_equal(quire_read_open(&q, scratch("none.quire")), QUIRE_READ_IO);
	assert_int_equal(quire_read_open(&q, "examples/demo"), QUIRE_READ_IO);
	assert_int_equal(quire_read_open(&q, "examples/demo/model.safetensors"), QUIRE_READ_DAMAGED);
}

#define WITH_FILES(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = { WITH_FILES(every_codec_decodes), WITH_FILES(side_files), WITH_FILES(damage) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
