#include "kernel/blas.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cblas.h>

/*
 * LAPACK by its Fortran names: OpenBLAS carries them even where LAPACKE is
 * split off. Fortran is column-major, so a row-major lower triangle is its
 * upper one and every matrix it sees is our transpose.
 */
void dpotrf_(const char *uplo, const blasint *n, double *a, const blasint *lda, blasint *info);
void dpotri_(const char *uplo, const blasint *n, double *a, const blasint *lda, blasint *info);
void dsyevd_(const char *jobz, const char *uplo, const blasint *n, double *a, const blasint *lda, double *w,
	     double *work, const blasint *lwork, blasint *iwork, const blasint *liwork, blasint *info);
void dgesdd_(const char *jobz, const blasint *m, const blasint *n, double *a, const blasint *lda, double *s, double *u,
	     const blasint *ldu, double *vt, const blasint *ldvt, double *work, const blasint *lwork, blasint *iwork,
	     blasint *info);

static CBLAS_TRANSPOSE flip(bool t)
{
	return t ? CblasTrans : CblasNoTrans;
}

void blas_gemm(bool ta, bool tb, size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
	       const float *b, size_t ldb, float beta, float *c, size_t ldc)
{
	if (!m || !n)
		return;
	cblas_sgemm(CblasRowMajor, flip(ta), flip(tb), (blasint)m, (blasint)n, (blasint)k, alpha, a, (blasint)lda, b,
		    (blasint)ldb, beta, c, (blasint)ldc);
}

void blas_dgemm(bool ta, bool tb, size_t m, size_t n, size_t k, double alpha, const double *a, size_t lda,
		const double *b, size_t ldb, double beta, double *c, size_t ldc)
{
	if (!m || !n)
		return;
	cblas_dgemm(CblasRowMajor, flip(ta), flip(tb), (blasint)m, (blasint)n, (blasint)k, alpha, a, (blasint)lda, b,
		    (blasint)ldb, beta, c, (blasint)ldc);
}

void blas_syrk(size_t n, size_t k, float alpha, const float *a, size_t lda, float beta, float *c, size_t ldc)
{
	if (n)
		cblas_ssyrk(CblasRowMajor, CblasLower, CblasTrans, (blasint)n, (blasint)k, alpha, a, (blasint)lda, beta,
			    c, (blasint)ldc);
}

int blas_cholesky(size_t n, double *a, size_t lda)
{
	blasint order = (blasint)n, ld = (blasint)lda, info = 0;
	if (n)
		dpotrf_("U", &order, a, &ld, &info);
	return (int)info;
}

int blas_cholesky_inverse(size_t n, double *a, size_t lda)
{
	blasint order = (blasint)n, ld = (blasint)lda, info = 0;
	if (!n)
		return 0;
	dpotri_("U", &order, a, &ld, &info);
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < i; j++)
			a[j * lda + i] = a[i * lda + j];
	return (int)info;
}

int blas_cholesky_solve(size_t n, size_t nrhs, const double *l, size_t lda, double *b, size_t ldb)
{
	if (!n || !nrhs)
		return 0;
	cblas_dtrsm(CblasRowMajor, CblasLeft, CblasLower, CblasNoTrans, CblasNonUnit, (blasint)n, (blasint)nrhs, 1.0, l,
		    (blasint)lda, b, (blasint)ldb);
	cblas_dtrsm(CblasRowMajor, CblasLeft, CblasLower, CblasTrans, CblasNonUnit, (blasint)n, (blasint)nrhs, 1.0, l,
		    (blasint)lda, b, (blasint)ldb);
	return 0;
}

int blas_eigen(size_t n, double *a, size_t lda, double *w)
{
	blasint order = (blasint)n, ld = (blasint)lda, info = 0, lwork = -1, liwork = -1, isize;
	double size;
	if (!n)
		return 0;
	dsyevd_("V", "U", &order, a, &ld, w, &size, &lwork, &isize, &liwork, &info);
	lwork = (blasint)size;
	liwork = isize;
	double *work = malloc(sizeof *work * (size_t)lwork);
	blasint *iwork = malloc(sizeof *iwork * (size_t)liwork);
	info = BLAS_NOMEM;
	if (work && iwork)
		dsyevd_("V", "U", &order, a, &ld, w, work, &lwork, iwork, &liwork, &info);
	free(work);
	free(iwork);
	return (int)info;
}

int blas_svd(size_t m, size_t n, double *a, double *u, double *s, double *vt)
{
	/* Fortran sees A^T = V S U^T, [n, m] */
	blasint rows = (blasint)n, cols = (blasint)m, k = rows < cols ? rows : cols, info = 0, lwork = -1;
	double size;
	if (!m || !n)
		return 0;
	blasint *iwork = malloc(sizeof *iwork * 8 * (size_t)k);
	if (!iwork)
		return BLAS_NOMEM;
	dgesdd_("S", &rows, &cols, a, &rows, s, vt, &rows, u, &k, &size, &lwork, iwork, &info);
	lwork = (blasint)size;
	double *work = malloc(sizeof *work * (size_t)lwork);
	info = BLAS_NOMEM;
	if (work)
		dgesdd_("S", &rows, &cols, a, &rows, s, vt, &rows, u, &k, work, &lwork, iwork, &info);
	free(work);
	free(iwork);
	return (int)info;
}

void blas_set_threads(int n)
{
#ifndef _OPENMP
	/* OpenBLAS then cannot see that it is called from a worker; cutting products differently would change their bits */
	n = 1;
#endif
	openblas_set_num_threads(n < 1 ? 1 : n);
}

void blas_describe(char *out, size_t size)
{
	snprintf(out, size, "%s for %s", openblas_get_config(), openblas_get_corename());
}

const char *blas_better_core(void)
{
#if defined(__x86_64__)
	if (strcmp(openblas_get_corename(), "Prescott"))
		return NULL;
	if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
	    __builtin_cpu_supports("avx512dq"))
		return "SkylakeX";
	if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
		return "Haswell";
#endif
	return NULL;
}
