/* Which layer reads whose cache: a number of layers, then the map. What is accepted has owners that come first and own. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "calib/fold/share.h"
#include "model/arch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { LAYERS = 64 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct layer_config layer[LAYERS] = { { 0 } };
	struct config c = { .layer = layer, .arch = arch_rows[0], .hidden = 16, .heads = 4, .kv_heads = 4, .head_dim = 4, .ffn = 16 };
	struct tensor_source empty = { 0 };
	struct err e;
	if (!size)
		return 0;
	c.layers = 1 + data[0] % LAYERS;
	uint32_t *map = malloc(c.layers * sizeof *map); /* exactly so many, for the address sanitizer */
	char *spec = malloc(size);
	if (!map || !spec)
		abort();
	memcpy(spec, data + 1, size - 1);
	spec[size - 1] = '\0';
	for (uint32_t i = 0; i < c.layers; i++)
		layer[i] = (struct layer_config){ .heads = 4, .kv_heads = 4, .kv_source = i };
	int rc = share_map_parse(spec, c.layers, map, &e);
	if (rc && rc != ERR_USAGE)
		abort();
	if (!rc && !share_check(&c, &empty, map, &e))
		for (uint32_t i = 0; i < c.layers; i++)
			if (map[i] > i || map[map[i]] != map[i])
				abort();
	free(map);
	free(spec);
	return 0;
}
