#ifndef QUIRE_BASE_MAP_H
#define QUIRE_BASE_MAP_H
/*
 * A hash map from byte strings to 64-bit integers (indices, ids). Keys are
 * borrowed: the caller keeps them alive. Zero-initialise before use. The hash
 * is seeded per map, so that a file cannot be written to collide in it.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct map_slot;
struct map {
	struct map_slot *slots;
	size_t count, cap;
	uint64_t seed;
};

/* Returns 1 when the key is new, 0 when it was there (its value is left alone), -1 when out of memory. */
int map_add(struct map *m, const char *key, size_t len, uint64_t value);
/* Adds or replaces; 0, or -1 when out of memory. */
int map_set(struct map *m, const char *key, size_t len, uint64_t value);
bool map_get(const struct map *m, const char *key, size_t len, uint64_t *value);
void map_release(struct map *m);

#endif
