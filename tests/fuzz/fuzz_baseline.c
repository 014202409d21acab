/* A baseline or a part from any file: header, blocks, and the rows of small windows, which must encode to the same bytes. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "calib/judge/baseline.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void rows_of(const struct run_id *id, const uint8_t *raw, size_t size)
{
	struct err e;
	struct strbuf again = { 0 };
	struct baseline_row *rows = id->scored <= 4096 ? calloc(id->scored, sizeof *rows) : NULL;
	float *logits = rows && id->vocab <= 65536 ? calloc(id->vocab, sizeof *logits) : NULL;
	if (rows && !baseline_decode(rows, id->scored, id->vocab, raw, size, &e)) {
		if (baseline_encode(rows, id->scored, id->vocab, &again, &e) || again.len != size || memcmp(again.data, raw, size))
			abort();
		for (size_t i = 0; logits && i < id->scored; i++) {
			struct row_figures f;
			double variance;
			if (!baseline_row_figures(&rows[i], logits, id->vocab, 0, &f, &variance))
				abort();
		}
	}
	strbuf_release(&again);
	free(rows);
	free(logits);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct records r;
	struct err e;
	for (int kind = RECORDS_BASELINE; kind <= RECORDS_PART; kind++) {
		if (records_parse(&r, data, size, (enum records_kind)kind, &e))
			continue;
		for (size_t i = 0; i < r.id.to - r.id.from; i++) {
			uint8_t *raw;
			if (r.block[i].raw > 1 << 20 || records_block(&r, i, &raw, &e))
				continue;
			if (kind == RECORDS_BASELINE)
				rows_of(&r.id, raw, r.block[i].raw);
			free(raw);
		}
		records_close(&r);
	}
	/* checksums stop most mutations: the rows themselves, too */
	if (size > 1) {
		struct run_id id = { .scored = data[0] % 16 + 1, .vocab = 40 };
		rows_of(&id, data + 1, size - 1);
	}
	return 0;
}
