#ifndef QUIRE_BASE_BYTES_H
#define QUIRE_BASE_BYTES_H
/*
 * Little-endian loads and stores at any alignment, overflow-checked size
 * arithmetic, and a cursor over untrusted bytes: a read past the end sets
 * `bad` and yields zero, so that a parser checks once per record.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint16_t load_u16(const void *p)
{
	const uint8_t *b = p;
	return (uint16_t)(b[0] | b[1] << 8);
}

static inline uint32_t load_u32(const void *p)
{
	const uint8_t *b = p;
	return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static inline uint64_t load_u64(const void *p)
{
	return load_u32(p) | (uint64_t)load_u32((const uint8_t *)p + 4) << 32;
}

static inline void store_u16(void *p, uint16_t v)
{
	uint8_t *b = p;
	b[0] = (uint8_t)v;
	b[1] = (uint8_t)(v >> 8);
}

static inline void store_u32(void *p, uint32_t v)
{
	store_u16(p, (uint16_t)v);
	store_u16((uint8_t *)p + 2, (uint16_t)(v >> 16));
}

static inline void store_u64(void *p, uint64_t v)
{
	store_u32(p, (uint32_t)v);
	store_u32((uint8_t *)p + 4, (uint32_t)(v >> 32));
}

/* True on overflow, as the compiler's builtins. */
static inline bool mul_overflows(uint64_t a, uint64_t b, uint64_t *out)
{
	return __builtin_mul_overflow(a, b, out);
}

static inline bool add_overflows(uint64_t a, uint64_t b, uint64_t *out)
{
	return __builtin_add_overflow(a, b, out);
}

/* Rounds n up to a power of two `to`; the caller knows that n + to does not overflow. */
static inline uint64_t round_up(uint64_t n, uint64_t to)
{
	return (n + to - 1) & ~(to - 1);
}

struct cursor {
	const uint8_t *at, *end;
	bool bad;
};

static inline const uint8_t *cursor_take(struct cursor *c, uint64_t n)
{
	if (c->bad || n > (uint64_t)(c->end - c->at)) {
		c->bad = true;
		return NULL;
	}
	const uint8_t *p = c->at;
	c->at += n;
	return p;
}

static inline uint8_t cursor_u8(struct cursor *c)
{
	const uint8_t *p = cursor_take(c, 1);
	return p ? *p : 0;
}

static inline uint32_t cursor_u32(struct cursor *c)
{
	const uint8_t *p = cursor_take(c, 4);
	return p ? load_u32(p) : 0;
}

static inline uint64_t cursor_u64(struct cursor *c)
{
	const uint8_t *p = cursor_take(c, 8);
	return p ? load_u64(p) : 0;
}

/* The value of a hexadecimal digit, or -1. */
static inline int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The i-th of an array. */
static inline double load_f64_at(const uint8_t *p, size_t i)
{
	uint64_t u = load_u64(p + 8 * i);
	double d;
	memcpy(&d, &u, sizeof d);
	return d;
}

static inline float load_f32_at(const uint8_t *p, size_t i)
{
	uint32_t u = load_u32(p + 4 * i);
	float f;
	memcpy(&f, &u, sizeof f);
	return f;
}

#endif
