#include "base/map.h"

#include <stdlib.h>
#include <string.h>

struct map_slot {
	const char *key; /* NULL: empty */
	size_t len;
	uint64_t hash, value;
};

static uint64_t mix(uint64_t h)
{
	h ^= h >> 32;
	h *= 0xd6e8feb86659fd93ull;
	h ^= h >> 32;
	h *= 0xd6e8feb86659fd93ull;
	return h ^ h >> 32;
}

static uint64_t hash_bytes(uint64_t seed, const char *p, size_t n)
{
	uint64_t h = seed ^ mix(n + 0x9e3779b97f4a7c15ull);
	for (; n >= 8; p += 8, n -= 8) {
		uint64_t w;
		memcpy(&w, p, 8);
		h = mix(h ^ w) + seed;
	}
	uint64_t w = 0;
	if (n)
		memcpy(&w, p, n);
	return mix(h ^ w);
}

static struct map_slot *slot_for(const struct map *m, const char *key, size_t len, uint64_t hash)
{
	size_t i = hash & (m->cap - 1);
	for (;; i = (i + 1) & (m->cap - 1)) {
		struct map_slot *s = &m->slots[i];
		if (!s->key || (s->hash == hash && s->len == len && memcmp(s->key, key, len) == 0))
			return s;
	}
}

static bool grow(struct map *m)
{
	struct map bigger = { .cap = m->cap ? m->cap * 2 : 64, .count = m->count, .seed = m->seed };
	bigger.slots = calloc(bigger.cap, sizeof *bigger.slots);
	if (!bigger.slots)
		return false;
	if (!m->cap)
		bigger.seed = mix((uint64_t)(uintptr_t)bigger.slots);
	for (size_t i = 0; i < m->cap; i++)
		if (m->slots[i].key) {
			struct map_slot *s = &m->slots[i];
			*slot_for(&bigger, s->key, s->len, s->hash) = *s;
		}
	free(m->slots);
	*m = bigger;
	return true;
}

static int put(struct map *m, const char *key, size_t len, uint64_t value, bool replace)
{
	if (m->count * 2 >= m->cap && !grow(m))
		return -1;
	uint64_t hash = hash_bytes(m->seed, key, len);
	struct map_slot *s = slot_for(m, key, len, hash);
	bool fresh = !s->key;
	if (fresh || replace)
		*s = (struct map_slot){ fresh ? key : s->key, len, hash, value };
	m->count += fresh;
	return fresh;
}

int map_add(struct map *m, const char *key, size_t len, uint64_t value)
{
	return put(m, key, len, value, false);
}

int map_set(struct map *m, const char *key, size_t len, uint64_t value)
{
	return put(m, key, len, value, true) < 0 ? -1 : 0;
}

bool map_get(const struct map *m, const char *key, size_t len, uint64_t *value)
{
	if (!m->count)
		return false;
	const struct map_slot *s = slot_for(m, key, len, hash_bytes(m->seed, key, len));
	if (s->key && value)
		*value = s->value;
	return s->key != NULL;
}

void map_release(struct map *m)
{
	free(m->slots);
	*m = (struct map){ 0 };
}
