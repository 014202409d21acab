#include "calib/judge/verify_part.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

void verify_part_range(const struct windows *w, size_t i, size_t n, size_t *from, size_t *to)
{
	size_t batch = evaluate_batch(w), batches = (w->count + batch - 1) / batch;
	*from = batches * i / n * batch;
	*to = batches * (i + 1) / n * batch;
	*from = *from < w->count ? *from : w->count;
	*to = *to < w->count ? *to : w->count;
}

enum { FLOATS = 5 };

/* The f32 arrays that the fields say are there, in their order in a block; NULL for those that are not. */
static void arrays(const struct measurement *m, float *out[FLOATS])
{
	out[0] = m->nll;
	out[1] = m->has_reference ? m->reference_nll : NULL;
	out[2] = m->has_reference ? m->kl : NULL;
	out[3] = m->kl_variance;
	out[4] = m->accept;
}

static void put_floats(const float *v, size_t n, struct strbuf *out)
{
	for (unsigned plane = 0; plane < 4; plane++)
		for (size_t i = 0; i < n; i++) {
			uint32_t bits;
			memcpy(&bits, &v[i], sizeof bits);
			strbuf_putc(out, (char)(bits >> 8 * plane));
		}
}

static void get_floats(const uint8_t *data, size_t n, float *v)
{
	for (size_t i = 0; i < n; i++) {
		uint32_t bits = data[i] | (uint32_t)data[n + i] << 8 | (uint32_t)data[2 * n + i] << 16 | (uint32_t)data[3 * n + i] << 24;
		memcpy(&v[i], &bits, sizeof bits);
	}
}

int verify_part_write(const char *path, struct run_id *id, const struct measurement *m, struct err *e)
{
	struct records_writer w;
	struct strbuf raw = { 0 };
	float *array[FLOATS];
	id->fields = measurement_fields(m);
	arrays(m, array);
	int rc = records_create(&w, path, RECORDS_PART, id, e);
	for (size_t k = 0; k < m->windows && !rc; k++) {
		strbuf_clear(&raw);
		for (int a = 0; a < FLOATS; a++)
			if (array[a])
				put_floats(array[a] + k * m->scored, m->scored, &raw);
		if (m->has_reference)
			strbuf_add(&raw, m->same_top + k * m->scored, m->scored);
		rc = raw.failed ? err_nomem(e) : records_add(&w, raw.data, raw.len, e);
	}
	if (!rc)
		rc = records_finish(&w, e);
	records_abort(&w);
	strbuf_release(&raw);
	return rc;
}

static int same_run(const struct run_id *a, const struct run_id *b, const char *path, const char *first, struct err *e)
{
	int rc = run_id_match(b, a, path, e);
	if (!rc && (strcmp(a->model, b->model) || strcmp(a->reference, b->reference)))
		rc = err_set(e, ERR_NOT_COMPARABLE, "%s and %s are parts of runs of different models", first, path);
	if (!rc && strcmp(a->as, b->as))
		rc = err_set(e, ERR_NOT_COMPARABLE, "%s and %s were made with different --as options", first, path);
	if (!rc && (strcmp(a->kv, b->kv) || strcmp(a->kv_v, b->kv_v) || a->kv_rotate != b->kv_rotate))
		rc = err_set(e, ERR_NOT_COMPARABLE, "%s and %s were made with different --kv-cache options", first, path);
	if (!rc && a->fields != b->fields)
		rc = err_set(e, ERR_NOT_COMPARABLE, "%s and %s hold different figures; make all parts with the same options", first, path);
	return rc;
}

static int take_blocks(const struct records *r, struct measurement *m, uint8_t *seen, struct err *e)
{
	float *array[FLOATS];
	size_t n = m->scored, size = m->has_reference ? n : 0;
	int rc = ERR_OK;
	arrays(m, array);
	for (int a = 0; a < FLOATS; a++)
		size += array[a] ? 4 * n : 0;
	for (size_t i = 0; i < r->id.to - r->id.from && !rc; i++) {
		size_t w = r->id.from + i;
		uint8_t *raw;
		if (r->block[i].raw != size)
			return err_set(e, ERR_INPUT, "window %zu has %u bytes where its figures take %zu", w, r->block[i].raw, size);
		if (seen[w]++)
			return err_set(e, ERR_INPUT, "window %zu is in another part as well", w);
		rc = records_block(r, i, &raw, e);
		if (rc)
			break;
		const uint8_t *at = raw;
		for (int a = 0; a < FLOATS; a++)
			if (array[a]) {
				get_floats(at, n, array[a] + w * n);
				at += 4 * n;
			}
		if (m->has_reference)
			memcpy(m->same_top + w * n, at, n);
		free(raw);
	}
	return rc;
}

/* Room for the whole run; what the parts hold vouches for the header's numbers. bytes: of figures, in all parts. */
static int merge_init(const struct run_id *id, uint64_t bytes, struct measurement *m, uint8_t **seen, struct err *e)
{
	if ((uint64_t)id->windows * id->scored > 4 * bytes)
		return err_set(e, ERR_INPUT, "the parts are too small for %zu windows; some are missing", id->windows);
	int rc = measurement_init(m, id->windows, id->scored, id->fields & MEASURE_REFERENCE, e);
	if (!rc && (id->fields & MEASURE_VARIANCE))
		rc = measurement_add(m, MEASURE_VARIANCE, e);
	if (!rc && (id->fields & MEASURE_ACCEPT))
		rc = measurement_add(m, MEASURE_ACCEPT, e);
	*seen = rc ? NULL : calloc(id->windows, 1);
	return rc ? rc : *seen ? ERR_OK : err_nomem(e);
}

int verify_part_merge(const char *const *paths, size_t count, struct run_id *id, struct measurement *m, struct err *e)
{
	struct records *r = calloc(count ? count : 1, sizeof *r);
	uint8_t *seen = NULL;
	uint64_t bytes = 0;
	int rc = r ? ERR_OK : err_nomem(e);
	*m = (struct measurement){ 0 };
	for (size_t i = 0; i < count && !rc; i++) {
		rc = records_open(&r[i], paths[i], RECORDS_PART, e);
		if (!rc)
			rc = same_run(&r[0].id, &r[i].id, paths[i], paths[0], e);
		for (size_t k = 0; !rc && k < r[i].id.to - r[i].id.from; k++)
			bytes += r[i].block[k].raw;
	}
	if (!rc)
		rc = merge_init(&r[0].id, bytes, m, &seen, e);
	for (size_t i = 0; i < count && !rc; i++)
		if ((rc = take_blocks(&r[i], m, seen, e)))
			err_prefix(e, "%s", paths[i]);
	for (size_t w = 0; !rc && w < m->windows; w++)
		if (!seen[w])
			rc = err_set(e, ERR_INPUT, "window %zu of %zu is in none of the parts", w, m->windows);
	if (!rc) {
		*id = r[0].id;
		id->from = 0;
		id->to = id->windows;
	} else {
		measurement_release(m);
	}
	for (size_t i = 0; r && i < count; i++)
		records_close(&r[i]);
	free(r);
	free(seen);
	return rc;
}
