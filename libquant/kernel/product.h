#ifndef QUIRE_KERNEL_PRODUCT_H
#define QUIRE_KERNEL_PRODUCT_H
/*
 * Products of f32 matrices, by a table of rows: one per way to compute them, chosen once at start. All are as exact as
 * sgemm or better; they sum in different orders, so that results differ between rows in the last digits, but never by
 * the number of threads. All matrices are row-major.
 *
 * A product with weights is one call for whatever shares its input, because a row may do work on the input once (split it,
 * carry it to a device) and wants to cut the weights itself.
 */
#include <stdbool.h>
#include <stddef.h>

/* How weights lie; what is in neither form has to be decoded. */
enum product_form { PRODUCT_CODED, PRODUCT_F32, PRODUCT_BF16 };

/* Weights [rows, cols]. */
struct product_weights {
	size_t rows, cols;
	enum product_form form;
	const void *data;       /* [rows, cols] in that form, without gaps; bf16 as bytes, little-endian */
	/* Any rows as f32, whatever the form. Called from several threads at once. */
	void (*decode)(const void *arg, size_t first, size_t n, float *out);
	const void *arg;
};

/* y[n, rows] = x[n, cols] W^T + bias */
struct product_term {
	struct product_weights w;
	const float *bias;      /* [rows] or NULL */
	float *y;
};

struct product_job {
	const struct product_term *term;
	unsigned count;
	const float *x;         /* of all terms, which have the same cols */
	size_t n;
	float *scratch;         /* for all workers together */
	size_t floats;          /* at least row->floats of n (or fewer rows of x at a time: then of 1) and the widest term */
};

/* C[m,n] = alpha op(A) op(B) + beta C; ta and tb transpose. lda, ldb, ldc: from a row to the next. */
struct gemm {
	bool ta, tb;
	size_t m, n, k;
	float alpha;
	const float *a;
	size_t lda;
	const float *b;
	size_t ldb;
	float beta;
	float *c;
	size_t ldc;
};

struct product_row {
	const char *name, *summary;
	bool (*usable)(void);
	/* Floats of scratch for a term of rows x cols with n rows of x, with thread_count() workers. */
	size_t (*floats)(size_t n, size_t rows, size_t cols);
	/* Uses thread_for. */
	void (*weights)(const struct product_job *job);
	/* Uses thread_for, or is called inside it. */
	void (*gemm)(const struct gemm *g);
};

/* The active row, never NULL. */
const struct product_row *products(void);
/* By name, or the best usable one where name is NULL or "auto"; false when unknown or not usable here. */
bool products_select(const char *name);
/* Every row that is compiled in, the slowest first; NULL past the end. */
const struct product_row *products_row(unsigned i);

/* A product by the active row, its arguments as those of blas_gemm (kernel/blas.h). */
static inline void product_gemm(bool ta, bool tb, size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
				const float *b, size_t ldb, float beta, float *c, size_t ldc)
{
	products()->gemm(&(struct gemm){ ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc });
}

/* The rows. To add one: a file with its row, and lines here and in product.c. */
extern const struct product_row product_sgemm, product_split;
#ifdef __x86_64__
extern const struct product_row product_amx;
#endif

#endif
