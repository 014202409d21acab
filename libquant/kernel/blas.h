#ifndef QUIRE_KERNEL_BLAS_H
#define QUIRE_KERNEL_BLAS_H
/*
 * Dense f32 and f64 algebra through OpenBLAS and LAPACK (the only place that sees their headers).
 * All matrices are row-major. Called inside thread_for, a product runs on the calling worker alone.
 */
#include <stdbool.h>
#include <stddef.h>

/* C[m,n] = alpha * op(A) op(B) + beta * C; ta / tb transpose. lda, ldb, ldc are row strides in elements. */
void blas_gemm(bool ta, bool tb, size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
	       const float *b, size_t ldb, float beta, float *c, size_t ldc);
void blas_dgemm(bool ta, bool tb, size_t m, size_t n, size_t k, double alpha, const double *a, size_t lda,
		const double *b, size_t ldb, double beta, double *c, size_t ldc);
/* Lower triangle of C[n,n] += alpha * A^T A, A is [k,n]. */
void blas_syrk(size_t n, size_t k, float alpha, const float *a, size_t lda, float beta, float *c, size_t ldc);
/* In place, f64: lower Cholesky factor (returns 0, or the order of the minor that is not positive). */
int blas_cholesky(size_t n, double *a, size_t lda);
/* In place, f64: inverse of the matrix whose lower Cholesky factor is given; both triangles filled. */
int blas_cholesky_inverse(size_t n, double *a, size_t lda);
/* Solves A X = B for symmetric positive A given its lower Cholesky factor; B is [n, nrhs] row-major, overwritten. */
int blas_cholesky_solve(size_t n, size_t nrhs, const double *l, size_t lda, double *b, size_t ldb);
/* These two ask for memory: BLAS_NOMEM where there is none. */
enum { BLAS_NOMEM = -1000 };
/* Symmetric eigenproblem, f64: a becomes eigenvectors as ROWS, w ascending eigenvalues. */
int blas_eigen(size_t n, double *a, size_t lda, double *w);
/* Thin SVD of A[m,n]: u [m,k], s [k], vt [k,n], k = min(m,n). A is destroyed. */
int blas_svd(size_t m, size_t n, double *a, double *u, double *s, double *vt);
/* Threads that a product outside thread_for may use. */
void blas_set_threads(int n);
/* Its version and how it was built, and the processor that it works for. */
void blas_describe(char *out, size_t size);
/*
 * The name of the processor that OpenBLAS should be told to work for (OPENBLAS_CORETYPE): one newer than itself it does not
 * know, and then computes as for one of 2004. NULL: it knows the machine's own.
 */
const char *blas_better_core(void);

#endif
