#ifndef QUIRE_BASE_RNG_H
#define QUIRE_BASE_RNG_H
/* SplitMix64 (Steele, Lea, Flood 2014): small, seedable, the same on every machine. */
#include <stdint.h>

struct rng {
	uint64_t state;
};

static inline uint64_t rng_u64(struct rng *r)
{
	uint64_t z = r->state += 0x9e3779b97f4a7c15ull;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

/* Uniform in [0, 1). */
static inline double rng_unit(struct rng *r)
{
	return (double)(rng_u64(r) >> 11) * 0x1p-53;
}

/* Uniform in [0, n), n > 0; the bias is below n / 2^64. */
static inline uint64_t rng_below(struct rng *r, uint64_t n)
{
	return (uint64_t)(__extension__(unsigned __int128)rng_u64(r) * n >> 64);
}

/* Standard normal (sum-free polar method needs state; Box-Muller spends two draws). */
double rng_normal(struct rng *r);

#endif
