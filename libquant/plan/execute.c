/*
 * Streaming. An item is cut into chunks (written in order, source pages let go
 * after each) and a chunk into slices (workers). Slices are whole rows, so
 * where they are cut cannot change a byte; plain floats have no rows that
 * matter and are cut anywhere.
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "codec/codec.h"
#include "codec/regrid.h"
#include "plan/plan.h"
#include "tensor/half.h"

enum {
	CHUNK = 2 << 20,      /* elements per chunk: a few MiB in and out, so that resident memory stays small */
	SLICE = 32 << 10,     /* elements per slice: 128 KiB of f32, which stays in a core's L2 */
	FLAT = 4096,          /* the "row" of tensors that may be cut anywhere */
	COPY = 4 << 20,       /* bytes per chunk of a plain copy */
};

/* Exponent bits of plain floats: all set means NaN or infinity. Copies are checked without decoding. */
static const struct float_bits { const char *codec; uint32_t width, mask; } float_bits[] = {
	{ "f32", 4, 0x7f800000 }, { "f16", 2, 0x7c00 }, { "bf16", 2, 0x7f80 },
};

/* Largest magnitudes (as f32 bits) that survive: half-precision values and half-precision scales. */
static uint32_t limit_bits(const struct codec *c)
{
	if (!strcmp(c->name, "f16"))
		return f32_bits(65520.0f);   /* from here rounding gives infinity */
	if (codec_quantizes(c))
		return f32_bits(65504.0f);
	return strcmp(c->name, "bf16") ? 0x7f800000 : 0x7f7f8000;
}

/* A finished chunk on its way to the sink, beside the work on the next one. */
struct pending {
	struct tensor_sink *sink;
	const uint8_t *data;
	uint64_t size;                       /* 0: nothing to write */
	struct err e;
	int rc;
};

struct job {
	const struct plan_item *item;
	const struct tensor *in;
	const uint8_t *src;
	uint64_t cols, elements;             /* row length used for cutting; elements in total */
	uint64_t in_row, out_row;            /* bytes per row */
	uint64_t first, rows;                /* the chunk, in rows */
	uint64_t slice_rows;
	const float *importance;
	float **scratch;                     /* per worker, slice_rows * cols */
	float *whole;                        /* decode here instead (methods that need the whole matrix) */
	uint8_t *out;
	struct pending write;
	uint32_t limit;
	_Atomic uint64_t bad;                /* lowest element that must not be; UINT64_MAX: none */
	atomic_flag failed;
	struct err *e;
	atomic_int rc;
};

static void report_bad(struct job *j, uint64_t element)
{
	uint64_t old = atomic_load(&j->bad);
	while (element < old && !atomic_compare_exchange_weak(&j->bad, &old, element))
		;
}

/* Index of the first value with magnitude bits >= limit (NaN and infinity included), or n. */
static size_t first_bad(const float *x, size_t n, uint32_t limit)
{
	size_t i = 0;
	for (; i + 64 <= n; i += 64) {
		uint32_t top = 0, u[64];
		memcpy(u, x + i, sizeof u);
		for (int k = 0; k < 64; k++)
			top |= (uint32_t)((u[k] & 0x7fffffff) >= limit);
		if (top)
			break;
	}
	while (i < n && (f32_bits(x[i]) & 0x7fffffff) < limit)
		i++;
	return i;
}

static uint64_t row_elements(const struct job *j, uint64_t row, uint64_t rows)
{
	uint64_t at = row * j->cols, n = rows * j->cols;
	return n < j->elements - at ? n : j->elements - at;
}

static void fail(struct job *j, const struct err *e)
{
	if (!atomic_flag_test_and_set(&j->failed)) {
		if (j->e)
			*j->e = *e;
		atomic_store(&j->rc, e->code);
	}
}

/* Codes to another codec of the same grid. */
static void regrid_rows(struct job *j, uint64_t at, uint64_t rows)
{
	struct err e = { 0 };
	uint8_t *codes = malloc((size_t)j->cols);
	if (!codes) {
		err_nomem(&e);
		fail(j, &e);
		return;
	}
	for (uint64_t r = at; r < at + rows; r++)
		if (!codec_regrid_row(j->in->codec, j->item->out.codec, j->src + (j->first + r) * j->in_row, j->cols, codes,
				      j->out + r * j->out_row)) {
			err_set(&e, ERR_UNSUPPORTED, "row %llu has a scale or an offset that %s would round", (unsigned long long)(j->first + r),
				j->item->out.codec->name);
			fail(j, &e);
			break;
		}
	free(codes);
}

static bool regrids(const struct job *j)
{
	return !j->item->method && codec_quantizes(j->in->codec) && codec_quantizes(j->item->out.codec);
}

static void convert_slice(void *arg, size_t slice, int worker)
{
	struct job *j = arg;
	uint64_t r = slice * j->slice_rows, rows = j->rows - r < j->slice_rows ? j->rows - r : j->slice_rows;
	uint64_t n = row_elements(j, j->first + r, rows);
	float *x = j->whole ? j->whole + r * j->cols : j->scratch[worker];
	const struct codec *in = j->in->codec, *c = j->item->out.codec;
	uint64_t len;
	if (regrids(j)) {
		regrid_rows(j, r, rows);
		return;
	}
	for (uint64_t i = 0; i < rows; i++) {
		len = n - i * j->cols < j->cols ? n - i * j->cols : j->cols;
		in->decode(in, j->src + (j->first + r + i) * j->in_row, x + i * j->cols, len);
	}
	size_t bad = first_bad(x, n, j->limit);
	if (bad < n) {
		report_bad(j, (j->first + r) * j->cols + bad);
		return;
	}
	uint8_t *dst = j->out + r * j->out_row;
	if (j->whole)
		return;
	if (!j->item->method) {
		c->encode(c, x, dst, n);
		return;
	}
	struct quantize_job q = { .codec = c, .x = x, .rows = rows, .cols = j->cols, .importance = j->importance, .dst = dst };
	struct err e = { 0 };
	if (j->item->method->run(&q, &e))
		fail(j, &e);
}

static void write_pending(struct pending *w)
{
	if (w->size)
		w->rc = w->sink->bytes(w->sink, w->data, w->size, &w->e);
}

/* Item 0 writes what the last chunk gave; the others are the slices of this one. */
static void write_or_convert(void *arg, size_t i, int worker)
{
	struct job *j = arg;
	if (i)
		convert_slice(arg, i - 1, worker);
	else
		write_pending(&j->write);
}

static void check_slice(void *arg, size_t slice, int worker)
{
	struct job *j = arg;
	uint64_t at = j->first + slice * SLICE, end = j->first + j->rows, n = end - at < SLICE ? end - at : SLICE;
	const struct float_bits *f = float_bits;
	(void)worker;
	while (strcmp(f->codec, j->in->codec->name))
		f++;
	for (uint64_t i = 0; i < n; i += 64) {
		uint64_t m = n - i < 64 ? n - i : 64;
		const uint8_t *p = j->src + (at + i) * f->width;
		uint32_t hit = 0, u32[64] = { 0 };
		uint16_t u16[64] = { 0 };
		if (f->width == 4) {
			memcpy(u32, p, m * 4);
			for (int k = 0; k < 64; k++)
				hit |= (uint32_t)((u32[k] & f->mask) == f->mask);
		} else {
			memcpy(u16, p, m * 2);
			for (int k = 0; k < 64; k++)
				hit |= (uint32_t)((u16[k] & f->mask) == f->mask);
		}
		if (hit) {
			for (uint64_t k = 0; k < m; k++)
				if (((f->width == 4 ? u32[k] : u16[k]) & f->mask) == f->mask) {
					report_bad(j, at + i + k);
					return;
				}
		}
	}
}

static int bad_value(struct job *j, struct err *e)
{
	uint64_t at = atomic_load(&j->bad), cols = tensor_cols(j->in);
	uint64_t row = cols ? at / cols : 0, col = cols ? at % cols : 0;
	const struct codec *in = j->in->codec;
	float buf[CODEC_MAX_BLOCK], value = 0;
	/* decode the block around it to say what it is; groups longer than the buffer go without */
	if (in->block && in->block <= CODEC_MAX_BLOCK) {
		uint64_t start = col / in->block * in->block, n = cols - start < in->block ? cols - start : in->block;
		in->decode(in, j->src + row * codec_row_bytes(in, cols) + start / in->block * in->block_bytes, buf, n);
		value = buf[col - start];
	}
	const char *kind = (f32_bits(value) & 0x7fffffff) > 0x7f800000 ? "NaN" : "infinite";
	if ((f32_bits(value) & 0x7fffffff) < 0x7f800000 && value != 0)
		return err_set(e, ERR_INPUT, "tensor %s: the value %g at row %llu, column %llu is too large for %s", j->in->name,
			       (double)value, (unsigned long long)row, (unsigned long long)col, j->item->out.codec->name);
	return err_set(e, ERR_INPUT, "tensor %s: the value at row %llu, column %llu is %s", j->in->name, (unsigned long long)row,
		       (unsigned long long)col, value != 0 ? kind : "not a finite number");
}

struct run {
	const struct plan *plan;
	struct tensor_source *source;
	struct tensor_sink *sink;
	const struct plan_stats *stats;
	const struct progress *progress;
	uint64_t done, total;
	uint8_t *out;                 /* a chunk of output */
	size_t out_cap;
	float **scratch;              /* per worker */
	size_t scratch_cap;
	int workers;
};

static int step(struct run *r, uint64_t bytes, struct err *e)
{
	r->done += bytes;
	if (!progress_tell(r->progress, r->done, r->total))
		return err_set(e, ERR_IO, "interrupted");
	return ERR_OK;
}

static int reserve(struct run *r, size_t out, size_t floats, struct err *e)
{
	if (out > r->out_cap) {
		free(r->out);
		r->out = malloc(out);
		r->out_cap = r->out ? out : 0;
		if (!r->out)
			return err_nomem(e);
	}
	for (int i = 0; i < r->workers && floats > r->scratch_cap; i++) {
		free(r->scratch[i]);
		r->scratch[i] = malloc(floats * sizeof(float));
		if (!r->scratch[i]) {
			r->scratch_cap = 0;
			return err_nomem(e);
		}
	}
	if (floats > r->scratch_cap)
		r->scratch_cap = floats;
	return ERR_OK;
}

static int copy_item(struct run *r, struct job *j, struct err *e)
{
	uint64_t size = j->item->out.nbytes;
	const struct float_bits *f = NULL;
	for (size_t i = 0; i < sizeof float_bits / sizeof *float_bits; i++)
		if (!strcmp(float_bits[i].codec, j->in->codec->name))
			f = &float_bits[i];
	for (uint64_t at = 0; at < size;) {
		uint64_t n = size - at < COPY ? size - at : COPY;
		if (f) {
			j->first = at / f->width;
			j->rows = n / f->width;
			thread_for((j->rows + SLICE - 1) / SLICE, check_slice, j);
			if (atomic_load(&j->bad) != UINT64_MAX)
				return bad_value(j, e);
		}
		int rc = r->sink->bytes(r->sink, j->src + at, n, e);
		if (rc)
			return rc;
		source_drop(r->source, j->src + at, n);
		at += n;
		if ((rc = step(r, n, e)))
			return rc;
	}
	return ERR_OK;
}

/* Plain floats on both sides may be cut anywhere; everything else at rows. */
static bool is_flat(const struct codec *in, const struct codec *out)
{
	return in->block == 1 && out->block == 1;
}

static uint64_t slice_rows_for(uint64_t cols)
{
	return cols < SLICE ? SLICE / (cols ? cols : 1) : 1;
}

static int write_failed(struct job *j, struct err *e)
{
	if (j->write.rc && e)
		*e = j->write.e;
	j->write.size = 0;
	return j->write.rc;
}

/*
 * Where quantizing takes the time, writing a chunk (checksum, copying, waiting for
 * the disk) is one more item of work beside the next chunk's. A conversion of
 * plain types leaves the threads to the sink, which may deflate.
 */
static int chunk_loop(struct run *r, struct job *j, uint64_t total_rows, uint64_t chunk_rows, struct err *e)
{
	bool beside = j->item->method != NULL;
	uint8_t *halves[2] = { j->out, j->out + chunk_rows * j->out_row };
	int turn = 0;
	j->write = (struct pending){ .sink = r->sink };
	for (j->first = 0; j->first < total_rows; j->first += j->rows) {
		j->rows = total_rows - j->first < chunk_rows ? total_rows - j->first : chunk_rows;
		j->out = halves[turn];
		size_t slices = (j->rows + j->slice_rows - 1) / j->slice_rows;
		if (j->write.size)
			thread_for(slices + 1, write_or_convert, j);
		else /* a small tensor is one item, which wakes no thread */
			thread_for(slices, convert_slice, j);
		if (write_failed(j, e))
			return j->write.rc;
		if (atomic_load(&j->bad) != UINT64_MAX)
			return bad_value(j, e);
		if (atomic_load(&j->rc))
			return err_prefix(e, "tensor %s", j->in->name);
		uint64_t n = row_elements(j, j->first, j->rows), in = j->rows * j->in_row, out = j->rows * j->out_row;
		if (n < j->rows * j->cols) {
			in = n * j->in->codec->block_bytes;
			out = n * j->item->out.codec->block_bytes;
		}
		j->write.data = j->out;
		j->write.size = out;
		if (beside)
			turn = !turn;
		else
			write_pending(&j->write);
		if (!beside && write_failed(j, e))
			return j->write.rc;
		source_drop(r->source, j->src + j->first * j->in_row, in);
		int rc = step(r, in, e);
		if (rc)
			return rc;
	}
	write_pending(&j->write);
	return write_failed(j, e);
}

/* Methods that look at the whole matrix: decode it all, run once, write once. */
static int whole_item(struct run *r, struct job *j, uint64_t total_rows, struct err *e)
{
	const struct plan_item *item = j->item;
	int rc = reserve(r, item->out.nbytes, 0, e);
	if (rc)
		return rc;
	j->out = r->out;
	j->whole = j->elements <= SIZE_MAX / sizeof(float) ? malloc(j->elements * sizeof(float)) : NULL;
	if (!j->whole)
		return err_nomem(e);
	j->rows = total_rows;
	thread_for((total_rows + j->slice_rows - 1) / j->slice_rows, convert_slice, j);
	if (atomic_load(&j->bad) != UINT64_MAX)
		rc = bad_value(j, e);
	struct quantize_job q = { .codec = item->out.codec, .x = j->whole, .rows = total_rows, .cols = j->cols,
				  .importance = j->importance, .dst = r->out };
	source_drop(r->source, j->src, j->in->nbytes);
	if (!rc && (r->stats && r->stats->quantize ? r->stats->quantize(r->stats->arg, item, &q, e) : item->method->run(&q, e)))
		rc = err_prefix(e, "tensor %s", j->in->name);
	free(j->whole);
	if (!rc)
		rc = r->sink->bytes(r->sink, r->out, item->out.nbytes, e);
	return rc ? rc : step(r, j->in->nbytes, e);
}

static int convert_item(struct run *r, struct job *j, struct err *e)
{
	const struct codec *in = j->in->codec, *out = j->item->out.codec;
	uint64_t total_rows = tensor_rows(j->in);
	j->cols = tensor_cols(j->in);
	if (is_flat(in, out)) {
		j->cols = FLAT;
		total_rows = (j->elements + FLAT - 1) / FLAT;
	}
	j->in_row = codec_row_bytes(in, j->cols);
	j->out_row = codec_row_bytes(out, j->cols);
	j->slice_rows = slice_rows_for(j->cols);
	j->limit = limit_bits(out);
	if (r->stats && r->stats->importance && j->item->method)
		j->importance = r->stats->importance(r->stats->arg, j->item);
	if (!j->elements)
		return ERR_OK;
	if (j->item->method && !j->item->method->by_rows)
		return whole_item(r, j, total_rows, e);
	uint64_t chunk_rows = CHUNK / j->cols / j->slice_rows * j->slice_rows;
	if (chunk_rows < j->slice_rows * (uint64_t)r->workers)
		chunk_rows = j->slice_rows * (uint64_t)r->workers;
	if (chunk_rows > total_rows)
		chunk_rows = total_rows;
	int rc = reserve(r, chunk_rows * j->out_row * (j->item->method ? 2 : 1), j->slice_rows * j->cols, e);
	if (rc)
		return rc;
	j->out = r->out;
	j->scratch = r->scratch;
	return chunk_loop(r, j, total_rows, chunk_rows, e);
}

static int run_item(struct run *r, size_t index, struct err *e)
{
	const struct plan_item *item = &r->plan->items[index];
	struct tensor_bytes b = { 0 };
	struct job j = { .item = item, .in = &r->source->tensors[item->source], .e = e, .failed = ATOMIC_FLAG_INIT };
	atomic_init(&j.bad, UINT64_MAX);
	atomic_init(&j.rc, 0);
	int rc = r->source->get(r->source, item->source, &b, e);
	if (!rc && b.size != j.in->nbytes)
		rc = err_set(e, ERR_BUG, "tensor %s has %zu bytes, %llu expected", j.in->name, b.size, (unsigned long long)j.in->nbytes);
	if (!rc)
		rc = r->sink->item(r->sink, index, e);
	if (!rc) {
		j.src = b.data;
		j.elements = tensor_elements(j.in);
		rc = item->out.codec == j.in->codec ? copy_item(r, &j, e) : convert_item(r, &j, e);
	}
	tensor_bytes_release(&b);
	return rc;
}

uint64_t plan_item_scratch(const struct plan_item *item, const struct tensor *source)
{
	uint64_t cols = tensor_cols(source), n = tensor_elements(source), workers = (uint64_t)thread_count();
	if (item->out.codec == source->codec)
		return 0;
	if (item->method && !item->method->by_rows)
		return n * sizeof(float) + item->out.nbytes;
	if (is_flat(source->codec, item->out.codec))
		cols = FLAT;
	uint64_t slice = slice_rows_for(cols) * cols, chunk = CHUNK > slice * workers ? CHUNK : slice * workers;
	if (chunk > n)
		chunk = n;
	double per = n ? (double)item->out.nbytes / (double)n : 0;
	return slice * sizeof(float) * workers + (uint64_t)((double)chunk * per * (item->method ? 2 : 1)) + 1;
}

int plan_execute(const struct plan *p, struct tensor_source *s, struct tensor_sink *k, const struct plan_stats *stats,
		 const struct progress *progress, struct err *e)
{
	struct run r = { .plan = p, .source = s, .sink = k, .stats = stats, .progress = progress,
			 .workers = thread_count() };
	for (size_t i = 0; i < p->count; i++)
		r.total += s->tensors[p->items[i].source].nbytes;
	r.scratch = calloc((size_t)r.workers, sizeof *r.scratch);
	int rc = r.scratch ? step(&r, 0, e) : err_nomem(e);
	for (size_t i = 0; i < p->count && !rc; i++)
		rc = run_item(&r, i, e);
	for (int i = 0; r.scratch && i < r.workers; i++)
		free(r.scratch[i]);
	free(r.scratch);
	free(r.out);
	return rc;
}
