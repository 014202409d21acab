/* Statistics files: everything that an accepted file offers can be read, and it can be merged with nothing lost. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "model/family/family.h"
#include "calib/stats/stats_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct err e;
	struct stats *s;
	struct windows w;
	if (stats_parse(data, size, &s, &e))
		return 0;
	/* entries are found by role once a model is bound; a fuzzed file has none, so one is made up */
	struct layer_config layer = { 0 };
	struct config c = { .arch = &family_llama, .layers = 1, .layer = &layer, .head_dim = 1 };
	s->config = &c;
	for (int r = 0; r < ROLE_COUNT; r++) {
		size_t n = 0;
		uint32_t at = role_rows[r].per_layer ? 0 : UINT32_MAX;
		float *largest, *mean;
		double *moment;
		const float *v = stats_importance(s, (enum role)r, at, &n);
		for (size_t i = 0; v && i < n; i++)
			if (!(v[i] >= 0))
				abort();
		if (stats_magnitudes(s, (enum role)r, at, &largest, &mean, &n)) {
			free(largest);
			free(mean);
		}
		if (!stats_moment(s, (enum role)r, at, &moment, &n, &e))
			free(moment);
	}
	if (!stats_windows(s, &w, &e))
		windows_release(&w);
	stats_close(s);
	return 0;
}
