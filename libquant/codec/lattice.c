#include "codec/lattice.h"

#include <math.h>
#include <stdatomic.h>

#include "base/thread.h"
#include "codec/gather.h"
#include "tensor/half.h"

/* Codes of magnitude q: half + q, and half - 1 - q when negative; where there are three magnitudes the end codes are not used. */
const float lattice_iq2_levels[8] = { -43, -43, -25, -8, 8, 25, 43, 43 };
const float lattice_iq3_xxs_levels[16] = { -62, -52, -44, -36, -28, -20, -12, -4, 4, 12, 20, 28, 36, 44, 52, 62 };
const float lattice_iq3_s_levels[16] = { -15, -13, -11, -9, -7, -5, -3, -1, 1, 3, 5, 7, 9, 11, 13, 15 };
const float lattice_iq1_levels[4] = { -1, 0, 1, 1 };

/* All codebooks as floats: of 256, 512, 1024 and 2048 entries of eight, and of 256 and 512 of four. */
enum { TABLE_ROOM = 8 * (256 + 512 + 1024 + 2048) + 4 * (256 + 512) };

/* Filled once, each part when it is first needed. */
static struct {
	_Alignas(64) float room[TABLE_ROOM];
	size_t used;
	_Atomic(const float *) table[LATTICE_TABLES];
} books;

static unsigned field_of(const struct lattice *l, unsigned index, int k)
{
	return (unsigned)l->grid[index] >> k * l->field & ((1u << l->field) - 1);
}

static const float *make_table(const struct lattice *l)
{
	thread_lock();
	const float *found = atomic_load(&books.table[l->table]);
	if (!found) {
		float *to = books.room + books.used;
		for (int k = 0; k < l->width; k++)
			for (unsigned g = 0; g < l->count; g++)
				to[(size_t)k * l->count + g] = l->magnitude[field_of(l, g, k)];
		books.used += (size_t)l->width * l->count;
		atomic_store(&books.table[l->table], found = to);
	}
	thread_unlock();
	return found;
}

struct lattice_table lattice_table(const struct lattice *l, float shift)
{
	const float *level = atomic_load_explicit(&books.table[l->table], memory_order_acquire);
	return (struct lattice_table){ .level = level ? level : make_table(l), .count = l->count, .width = l->width, .shift = shift };
}

static unsigned magnitude_of(const struct lattice *l, uint8_t code)
{
	unsigned half = 1u << l->field;
	if (l->signs == SIGNS_IN_GRID)
		return code;
	return code < half ? half - 1 - code : code - half;
}

unsigned lattice_index(const struct lattice *l, const uint8_t *codes)
{
	unsigned entry = 0, lo = 0, hi = l->count - 1u;
	for (int k = 0; k < l->width; k++)
		entry |= magnitude_of(l, codes[k]) << k * l->field;
	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;
		if (l->grid[mid] < entry)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

void lattice_codes(const struct lattice *l, unsigned index, unsigned negative, uint8_t *codes)
{
	unsigned half = 1u << l->field;
	for (int k = 0; k < l->width; k++) {
		unsigned q = field_of(l, index, k);
		codes[k] = (uint8_t)(l->signs == SIGNS_IN_GRID ? q : negative >> k & 1 ? half - 1 - q : half + q);
	}
}

unsigned lattice_negative(const struct lattice *l, const uint8_t *codes)
{
	unsigned negative = 0;
	for (int i = 0; i < LATTICE_TOGETHER; i++)
		negative |= (unsigned)(codes[i] < 1u << l->field) << i;
	return negative;
}

void lattice_expand(const struct codec *c, struct block_params *p)
{
	const struct lattice *l = c->lattice;
	float d = f32_from_f16(p->d);
	for (unsigned j = 0; j < c->block / c->sub; j++) {
		p->scale[j] = d * (l->first + l->step * (float)p->sc[j]);
		/* -0: adding it changes nothing, not even the sign of a zero */
		p->offset[j] = l->delta == 0 ? -0.0f : p->scale[j] * (p->mn[j] ? -l->delta : l->delta);
	}
}

/*
 * Eight numbers as the codebook sees them: magnitudes with their signs apart. Where the signs must be even the one that
 * costs least is turned: its magnitude counts as negative.
 */
unsigned lattice_magnitudes(const struct lattice *l, float *x, const float *w)
{
	unsigned negative = 0, odd = 0;
	int least = 0;
	if (l->signs == SIGNS_IN_GRID)
		return 0;
	for (int i = 0; i < LATTICE_TOGETHER; i++) {
		bool below = x[i] < 0;
		negative |= (unsigned)below << i;
		odd ^= below;
		x[i] = fabsf(x[i]);
		if (w[i] * x[i] < w[least] * x[least])
			least = i;
	}
	if (l->signs == SIGNS_EVEN && odd) {
		negative ^= 1u << least;
		x[least] = -x[least];
	}
	return negative;
}

static void tame_weights(const float *w, float *out)
{
	float top = 0;
	for (int i = 0; w && i < LATTICE_TOGETHER; i++)
		top = w[i] > top ? w[i] : top;
	top = top > 1e30f ? 1e30f : top;
	for (int i = 0; i < LATTICE_TOGETHER; i++) {
		float v = top > 1e-30f ? w[i] / top : 1;
		out[i] = v > 1e-6f ? (v < 1 ? v : 1) : 1e-6f;
	}
}

void lattice_round(const struct codec *c, const struct code_target *t, uint8_t *codes)
{
	const struct lattice *l = c->lattice;
	struct lattice_table table = lattice_table(l, 0);
	_Alignas(64) float a[2048], b[2048];
	float w[LATTICE_TOGETHER], x[LATTICE_TOGETHER], xw[LATTICE_TOGETHER];
	float turn = t->scale < 0 ? -1 : 1;
	tame_weights(t->w, w);
	for (int i = 0; i < LATTICE_TOGETHER; i++)
		x[i] = turn * gather_tame(t->x[i] - t->offset);
	unsigned negative = lattice_magnitudes(l, x, w);
	for (int i = 0; i < LATTICE_TOGETHER; i++)
		xw[i] = w[i] * x[i];
	for (int i = 0; i < LATTICE_TOGETHER; i += l->width) {
		kernels()->lattice_sums(&table, xw + i, w + i, a, b);
		lattice_codes(l, kernels()->lattice_at(a, b, l->count, turn * t->scale), negative >> i, codes + i);
	}
}
