#include "cmd/groups.h"

/* Whole numbers that JSON keeps. */
#define SEED_MAX ((int64_t)1 << 53)

static bool given(int64_t n)
{
	return n != OPT_NOT_GIVEN;
}

bool text_chosen(const struct text_choice *t)
{
	return given(t->windows) || given(t->ctx) || given(t->seed);
}

static bool is_wrong(int64_t n, int64_t most)
{
	return given(n) && (n < 0 || n > most);
}

int text_check(const struct text_choice *t, struct err *e)
{
	if (is_wrong(t->windows, INT64_MAX) || is_wrong(t->ctx, TEXT_CTX_MAX) || is_wrong(t->seed, SEED_MAX))
		return err_set(e, ERR_USAGE, "--windows, --ctx and --seed must not be negative (nor --ctx above %d)", (int)TEXT_CTX_MAX);
	return ERR_OK;
}

size_t text_windows(const struct text_choice *t, size_t otherwise)
{
	return given(t->windows) ? (size_t)t->windows : otherwise;
}

size_t text_ctx(const struct text_choice *t)
{
	return given(t->ctx) ? (size_t)t->ctx : 0;
}

uint64_t text_seed(const struct text_choice *t)
{
	return given(t->seed) ? (uint64_t)t->seed : 0;
}
