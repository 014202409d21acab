#include "codec/regrid.h"

#include <string.h>

/* A scale a block, and levels that are whole numbers. */
static bool plain_grid(const struct codec *c)
{
	return codec_quantizes(c) && !c->levels && c->store && (!c->sub || c->sub == c->block);
}

/* Offsets: none, whole steps, or any float. */
static int offsets(const struct codec *c)
{
	return !c->has_offset ? 0 : c->kind == CODEC_GROUP && !c->group_bias ? 1 : 2;
}

enum regrid codec_regrid(const struct codec *from, const struct codec *to, uint64_t cols)
{
	uint64_t a = from->block ? from->block : cols, b = to->block ? to->block : cols;
	if (!plain_grid(from) || !plain_grid(to) || from->bits != to->bits || !b || a % b || !codec_row_bytes(to, cols))
		return REGRID_NEVER;
	/* a whole number of steps, as a float, has more digits than a scale unless it is a power of two */
	if (offsets(to) < offsets(from) || (offsets(from) == 1 && offsets(to) == 2))
		return REGRID_NEVER;
	return from->group_scale == to->group_scale ? REGRID_ALWAYS : REGRID_MAYBE;
}

bool codec_regrid_row(const struct codec *from, const struct codec *to, const uint8_t *src, uint64_t cols, uint8_t *codes, uint8_t *dst)
{
	for (uint64_t at = 0, n, m; at < cols; at += n) {
		struct block_params p, q;
		n = codec_block_len(from, at, cols);
		from->unpack(from, src, &p, codes, (size_t)n);
		float offset = p.offset[0] + p.scale[0] * (float)(from->code_bias - to->code_bias);
		for (uint64_t i = 0; i < n; i += m) {
			m = codec_block_len(to, i, n);
			memset(&q, 0, sizeof q);
			q.scale[0] = p.scale[0];
			q.offset[0] = offset;
			to->store(to, &q, (size_t)m);
			if (offsets(from) == 1) /* of a group of nothing, it is not to be seen in its offset */
				q.mn[0] = p.mn[0];
			if (q.scale[0] != p.scale[0] || (p.scale[0] != 0 && q.offset[0] != offset))
				return false;
			to->pack(to, &q, codes + i, (size_t)m, dst);
			dst += codec_row_bytes(to, m);
		}
		src += codec_row_bytes(from, n);
	}
	return true;
}
