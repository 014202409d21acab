/* config.json from any text: parse, print, parse again; both must describe the same model. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "model/arch.h"
#include "model/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct err e;
	struct config a, b;
	if (config_parse(&a, (const char *)data, size, &e))
		return 0;
	struct strbuf once = { 0 };
	if (config_print(&a, (const char *)data, size, &once, &e))
		abort();
	if (config_parse(&b, once.data, once.len, &e))
		abort();
	if (a.arch != b.arch || a.layers != b.layers || a.rope.theta != b.rope.theta || a.norm_eps != b.norm_eps ||
	    memcmp(a.layer, b.layer, a.layers * sizeof *a.layer) || config_parameters(&a) != config_parameters(&b) ||
	    config_kv_bytes(&a, 1000, 2) != config_kv_bytes(&b, 1000, 2))
		abort();
	strbuf_release(&once);
	config_release(&a);
	config_release(&b);
	return 0;
}
