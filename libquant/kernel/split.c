#include "kernel/split.h"

#include <stdatomic.h>

#include "base/thread.h"
#include "kernel/blas.h"

/*
 * LEFT_BYTES, RIGHT_BYTES: what of the left and of the right lies taken apart at once, block by block, in a block strip by
 * strip. ITEM_ROWS of the right (fewer where they have several parts) by ITEM_LEFT of the left are one worker's item: a
 * block of so much of the right, and the sums, stay in a core's own cache (1 MB) while the left goes by.
 */
enum { LEFT_BYTES = 64 << 20, RIGHT_BYTES = 32 << 20, LEFT_LEAST = 256, RIGHT_LEAST = 128, ITEM_ROWS = 768, ITEM_LEFT = 256,
	PAIR = 2 * SPLIT_SIDE, LINE = 64, SMALL = 1 << 19 };

static size_t steps_of(size_t k)
{
	return (k + SPLIT_STEP - 1) / SPLIT_STEP;
}

static size_t strips_of(size_t rows)
{
	return (rows + SPLIT_SIDE - 1) / SPLIT_SIDE;
}

/* Rows that lie taken apart at once: whole items. */
static size_t fitting(size_t rows, size_t cols, size_t bytes, size_t least)
{
	size_t n = bytes / (steps_of(cols) * SPLIT_STEP * SPLIT_PARTS * sizeof(uint16_t) + 1) / least * least;
	n = n < least ? least : n;
	return rows < n ? rows : n;
}

static size_t left_rows(size_t n, size_t cols)
{
	return fitting(n, cols, LEFT_BYTES, LEFT_LEAST);
}

static size_t right_rows(size_t rows, size_t cols)
{
	return fitting(rows, cols, RIGHT_BYTES, RIGHT_LEAST);
}

/* uint16_t of rows taken apart. */
static size_t apart(size_t rows, size_t cols)
{
	return strips_of(rows) * steps_of(cols) * SPLIT_PARTS * SPLIT_TILE;
}

static void *aligned(void *p)
{
	return (void *)(((uintptr_t)p + LINE - 1) & ~(uintptr_t)(LINE - 1));
}

size_t split_floats(size_t n, size_t rows, size_t cols)
{
	size_t l = left_rows(n, cols), r = right_rows(rows, cols), plain = product_sgemm.floats(n, rows, cols);
	size_t mine = apart(l, cols) / 2 + apart(r, cols) / 2 + strips_of(r) + (size_t)thread_count() * SPLIT_SIDE * cols + 2 * LINE;
	return mine > plain ? mine : plain;
}

/* Small loops are run where they are: to wake other threads takes longer. */
static void each(size_t count, size_t work, void (*fn)(void *, size_t, int), void *arg)
{
	if (work >= SMALL) {
		thread_for(count, fn, arg);
		return;
	}
	for (size_t i = 0; i < count; i++)
		fn(arg, i, 0);
}

/* Left times right, both taken apart, into c. */
struct multiply {
	const struct split_ops *ops;
	const uint16_t *left, *right;
	const uint8_t *has;             /* of each strip of the right; those with SPLIT_OUT are left alone */
	size_t m, n, steps, item_rows;
	float *c;                       /* [m, n] */
	size_t ld;
	bool first;                     /* c begins with 0 */
};

/* A block that is cut at the edge of c, by way of one that is not. */
static void ragged(const struct multiply *j, struct split_block *b, size_t rows, size_t cols)
{
	float whole[PAIR * PAIR], *c = b->c;
	size_t ld = b->ld;
	for (size_t i = 0; i < PAIR && !b->first; i++)
		for (size_t k = 0; k < PAIR; k++)
			whole[i * PAIR + k] = i < rows && k < cols ? c[i * ld + k] : 0;
	b->c = whole;
	b->ld = PAIR;
	j->ops->block(b);
	for (size_t i = 0; i < rows; i++)
		for (size_t k = 0; k < cols; k++)
			c[i * ld + k] = whole[i * PAIR + k];
}

static int parts_of(unsigned has)
{
	return has & SPLIT_THIRD ? 3 : has & SPLIT_SECOND ? 2 : 1;
}

static size_t block_steps(size_t steps, size_t from)
{
	return steps - from < SPLIT_BLOCK ? steps - from : SPLIT_BLOCK;
}

/* Where a strip lies among so many: block by block, the one that begins with step `from`. */
static size_t strip_at(size_t strips, size_t steps, size_t from, size_t strip)
{
	return (strips * from + strip * block_steps(steps, from)) * SPLIT_PARTS * SPLIT_TILE;
}

/* The block of steps from `from` on, of row i of the left and row r of the right. */
static void one_block(const struct multiply *j, size_t i, size_t r, size_t from)
{
	size_t rows = j->m - i < PAIR ? j->m - i : PAIR, cols = j->n - r < PAIR ? j->n - r : PAIR;
	const uint16_t *left = j->left + strip_at(strips_of(j->m), j->steps, from, i / SPLIT_SIDE);
	const uint16_t *right = j->right + strip_at(strips_of(j->n), j->steps, from, r / SPLIT_SIDE);
	size_t steps = block_steps(j->steps, from), strip = steps * SPLIT_PARTS * SPLIT_TILE;
	unsigned has = j->has[r / SPLIT_SIDE] | (cols > SPLIT_SIDE ? j->has[r / SPLIT_SIDE + 1] : 0);
	if (has & SPLIT_OUT)
		return;
	struct split_block b = { .left = { left, rows > SPLIT_SIDE ? left + strip : NULL },
				 .right = { right, cols > SPLIT_SIDE ? right + strip : NULL }, .steps = steps,
				 .parts = parts_of(has), .c = j->c + i * j->ld + r, .ld = j->ld, .first = j->first && !from };
	if (rows % SPLIT_SIDE || cols % SPLIT_SIDE)
		ragged(j, &b, rows, cols);
	else
		j->ops->block(&b);
}

static size_t items_across(const struct multiply *j)
{
	return (j->n + j->item_rows - 1) / j->item_rows;
}

static void multiply_item(void *arg, size_t item, int worker)
{
	const struct multiply *j = arg;
	size_t r0 = item % items_across(j) * j->item_rows, i0 = item / items_across(j) * ITEM_LEFT;
	size_t r1 = j->n - r0 < j->item_rows ? j->n : r0 + j->item_rows, i1 = j->m - i0 < ITEM_LEFT ? j->m : i0 + ITEM_LEFT;
	(void)worker;
	j->ops->begin();
	for (size_t from = 0; from < j->steps; from += SPLIT_BLOCK)
		for (size_t i = i0; i < i1; i += PAIR)
			for (size_t r = r0; r < r1; r += PAIR)
				one_block(j, i, r, from);
	j->ops->end();
}

static void multiply(const struct multiply *j, unsigned has)
{
	struct multiply copy = *j;
	copy.item_rows = ITEM_ROWS / (size_t)parts_of(has) / PAIR * PAIR;
	each(items_across(&copy) * ((j->m + ITEM_LEFT - 1) / ITEM_LEFT), j->m * j->n * j->steps, multiply_item, &copy);
}

/* Takes matrices apart, strip by strip. */
struct apart {
	const struct split_ops *ops;
	struct split_source source;     /* of the whole; rows: all of them */
	const struct product_weights *weights;  /* or these, from row `first` on */
	size_t first;
	bool right;
	uint16_t *out;
	uint8_t *has;                   /* of each strip, or NULL */
	float *decoded;                 /* per worker, [16, k] */
	atomic_uint all;
};

/* The rows that an item takes, wherever they come from. */
static struct split_source rows_of(const struct apart *a, size_t at, int worker)
{
	const struct product_weights *w = a->weights;
	struct split_source s = a->source;
	s.rows = a->source.rows - at < SPLIT_SIDE ? a->source.rows - at : SPLIT_SIDE;
	if (!w) {
		s.at += at * s.ld;
	} else if (w->form == PRODUCT_BF16) {
		s.bf16 = (const uint8_t *)w->data + (a->first + at) * s.k * 2;
	} else if (w->form == PRODUCT_F32) {
		s.at = (const float *)w->data + (a->first + at) * s.k;
	} else {
		float *d = a->decoded + (size_t)worker * SPLIT_SIDE * s.k;
		w->decode(w->arg, a->first + at, s.rows, d);
		s.at = d;
	}
	return s;
}

/* The largest of each row, as bits: 0, or within 2^-40 and 2^40? */
static unsigned in_range(const uint32_t most[SPLIT_SIDE])
{
	bool out = false;
	for (int i = 0; i < SPLIT_SIDE; i++)
		out |= most[i] && (most[i] < 0x2b800000 || most[i] > 0x53800000);
	return out ? SPLIT_OUT : 0;
}

static void apart_strip(void *arg, size_t item, int worker)
{
	struct apart *a = arg;
	size_t strips = strips_of(a->source.rows), steps = steps_of(a->source.k), k = a->source.k;
	struct split_source s = rows_of(a, item * SPLIT_SIDE, worker), part = s;
	uint32_t most[SPLIT_SIDE] = { 0 };
	unsigned has = 0;
	for (size_t from = 0; from < steps; from += SPLIT_BLOCK) {
		size_t at = from * SPLIT_STEP;
		part.k = k - at < SPLIT_BLOCK * SPLIT_STEP ? k - at : SPLIT_BLOCK * SPLIT_STEP;
		part.bf16 = s.bf16 ? s.bf16 + at * 2 : NULL;
		part.at = s.bf16 ? NULL : s.at + at;
		has |= (a->right ? a->ops->right : a->ops->left)(&part, a->out + strip_at(strips, steps, from, item), most);
	}
	has |= in_range(most);
	if (a->has)
		a->has[item] = (uint8_t)has;
	atomic_fetch_or_explicit(&a->all, has, memory_order_relaxed);
}

static unsigned take_apart(struct apart *a)
{
	atomic_init(&a->all, 0);
	each(strips_of(a->source.rows), 8 * a->source.rows * a->source.k, apart_strip, a);
	return atomic_load(&a->all);
}

struct rooms {
	uint16_t *left, *right;
	uint8_t *has;
	float *decoded;
};

/* Weights of which some are out of range, a pair of strips at a time. */
struct others {
	const struct product_term *t;
	const struct multiply *j;
	size_t first;
	const float *x;
	float *decoded;
};

static void by_sgemm(void *arg, size_t item, int worker)
{
	const struct others *o = arg;
	const struct multiply *j = o->j;
	size_t cols = o->t->w.cols, r = item * SPLIT_SIDE, pair = item / 2 * 2, rows = j->n - r < SPLIT_SIDE ? j->n - r : SPLIT_SIDE;
	unsigned has = j->has[pair] | (pair + 1 < strips_of(j->n) ? j->has[pair + 1] : 0);
	float *decoded = o->decoded + (size_t)worker * SPLIT_SIDE * cols;
	if (!(has & SPLIT_OUT))
		return;
	o->t->w.decode(o->t->w.arg, o->first + r, rows, decoded);
	blas_gemm(false, true, j->m, rows, cols, 1, o->x, cols, decoded, cols, 0, j->c + r, j->ld);
}

static void add_bias(const struct product_term *t, float *y, size_t n)
{
	for (size_t i = 0; t->bias && i < n; i++)
		for (size_t r = 0; r < t->w.rows; r++)
			y[i * t->w.rows + r] += t->bias[r];
}

/* The rows of x that lie taken apart, times a term. */
static void one_term(const struct split_ops *ops, const struct product_term *t, const struct multiply *left, const float *x, float *y,
		     const struct rooms *room)
{
	size_t cols = t->w.cols, most = right_rows(t->w.rows, cols);
	for (size_t first = 0; first < t->w.rows; first += most) {
		struct multiply j = *left;
		j.n = t->w.rows - first < most ? t->w.rows - first : most;
		j.c = y + first;
		j.ld = t->w.rows;
		struct apart a = { .ops = ops, .source = { .rows = j.n, .k = cols, .ld = cols }, .weights = &t->w, .first = first,
				   .right = true, .out = room->right, .has = room->has, .decoded = room->decoded };
		unsigned has = take_apart(&a);
		multiply(&j, has);
		if (has & SPLIT_OUT)
			thread_for(strips_of(j.n), by_sgemm, &(struct others){ t, &j, first, x, room->decoded });
	}
	add_bias(t, y, left->m);
}

void split_weights(const struct split_ops *ops, const struct product_job *job)
{
	size_t cols = job->term[0].w.cols, most = left_rows(job->n, cols), widest = 0;
	for (unsigned i = 0; i < job->count; i++)
		widest = right_rows(job->term[i].w.rows, cols) > widest ? right_rows(job->term[i].w.rows, cols) : widest;
	struct rooms room = { .left = aligned(job->scratch) };
	room.right = room.left + apart(most, cols);
	room.decoded = (float *)aligned(room.right + apart(widest, cols));
	room.has = (uint8_t *)(room.decoded + (size_t)thread_count() * SPLIT_SIDE * cols);
	for (size_t at = 0; at < job->n; at += most) {
		size_t n = job->n - at < most ? job->n - at : most;
		const float *x = job->x + at * cols;
		struct apart a = { .ops = ops, .source = { .at = x, .rows = n, .k = cols, .ld = cols }, .out = room.left };
		struct multiply left = { .ops = ops, .left = room.left, .right = room.right, .has = room.has, .m = n,
					 .steps = steps_of(cols), .first = true };
		bool out = take_apart(&a) & SPLIT_OUT;
		for (unsigned i = 0; i < job->count; i++) {
			struct product_term t = job->term[i];
			t.y += at * t.w.rows;
			if (out)
				product_sgemm.weights(&(struct product_job){ &t, 1, x, n, job->scratch, job->floats });
			else
				one_term(ops, &t, &left, x, t.y, &room);
		}
	}
}

void split_gemm(const struct gemm *g)
{
	product_sgemm.gemm(g);
}
