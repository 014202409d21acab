/* The portable version of split.h: for machines without the instructions it is slower than sgemm, and there to be compared with. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "kernel/split.h"
#include "tensor/half.h"

static float flush(float x)
{
	return fabsf(x) < FLT_MIN ? copysignf(0, x) : x;
}

/* Where the number at row i, column k of a step lies in a tile. */
static size_t place(bool right, size_t i, size_t k)
{
	return right ? k / 2 * SPLIT_STEP + 2 * i + k % 2 : i * SPLIT_STEP + k;
}

static size_t steps_of(size_t k)
{
	return (k + SPLIT_STEP - 1) / SPLIT_STEP;
}

static float number(const struct split_source *s, size_t i, size_t k)
{
	if (s->bf16)
		return f32_from_bf16(load_u16(s->bf16 + (i * s->ld + k) * 2));
	return s->at[i * s->ld + k];
}

static unsigned take_apart(const struct split_source *s, bool right, uint16_t *out, uint32_t *most)
{
	size_t steps = steps_of(s->k);
	int parts = s->bf16 ? 1 : SPLIT_PARTS;
	unsigned has = 0;
	memset(out, 0, steps * (size_t)parts * SPLIT_TILE * sizeof *out);
	for (size_t i = 0; i < s->rows; i++)
		for (size_t k = 0; k < s->k; k++) {
			float x = number(s, i, k);
			uint32_t size = f32_bits(x) & 0x7fffffff;
			most[i] = size > most[i] ? size : most[i];
			for (int p = 0; p < parts; p++) {
				uint16_t h = bf16_from_f32(flush(x));
				out[((size_t)p * steps + k / SPLIT_STEP) * SPLIT_TILE + place(right, i, k % SPLIT_STEP)] = h;
				has |= h & 0x7fff && p ? (p == 1 ? SPLIT_SECOND : SPLIT_THIRD) : 0;
				x -= f32_from_bf16(h);
			}
		}
	return has;
}

static unsigned left(const struct split_source *s, uint16_t *out, uint32_t *most)
{
	return take_apart(s, false, out, most);
}

static unsigned right(const struct split_source *s, uint16_t *out, uint32_t *most)
{
	return take_apart(s, true, out, most);
}

/* Adds what one step of a part of the left and one of the right give. */
static void step(const uint16_t *l, const uint16_t *r, float *c)
{
	for (size_t i = 0; i < SPLIT_SIDE; i++)
		for (size_t j = 0; j < SPLIT_SIDE; j++) {
			float sum[2] = { 0, 0 };
			for (size_t k = 0; k < SPLIT_STEP; k++)
				sum[k % 2] = flush(fmaf(flush(f32_from_bf16(l[place(false, i, k)])), flush(f32_from_bf16(r[place(true, j, k)])), sum[k % 2]));
			c[i * SPLIT_SIDE + j] = flush(flush(c[i * SPLIT_SIDE + j]) + flush(sum[0] + sum[1]));
		}
}

static void tile(const struct split_block *b, const uint16_t *l, const uint16_t *r, float *c)
{
	float sum[SPLIT_SIDE * SPLIT_SIDE] = { 0 };
	for (size_t s = 0; s < b->steps; s++)
		for (size_t p = 0; p < (size_t)b->parts; p++)
			for (size_t q = !p; q < SPLIT_PARTS - p; q++)
				step(l + (q * b->steps + s) * SPLIT_TILE, r + (p * b->steps + s) * SPLIT_TILE, sum);
	for (size_t s = 0; s < b->steps; s++)
		step(l + s * SPLIT_TILE, r + s * SPLIT_TILE, sum);
	for (size_t i = 0; i < SPLIT_SIDE; i++)
		for (size_t k = 0; k < SPLIT_SIDE; k++)
			c[i * b->ld + k] = sum[i * SPLIT_SIDE + k] + (b->first ? 0 : c[i * b->ld + k]);
}

static void block(const struct split_block *b)
{
	for (int i = 0; i < 2 && b->left[i]; i++)
		for (int j = 0; j < 2 && b->right[j]; j++)
			tile(b, b->left[i], b->right[j], b->c + i * SPLIT_SIDE * b->ld + j * SPLIT_SIDE);
}

static void nothing(void)
{
}

static bool usable(void)
{
	return true;
}

static const struct split_ops ops = { left, right, block, nothing, nothing };

static void weights(const struct product_job *job)
{
	split_weights(&ops, job);
}

const struct product_row product_split = { "split", "what amx does, in portable C (slow)", usable, split_floats, weights, split_gemm };
