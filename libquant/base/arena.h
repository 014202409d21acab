#ifndef QUIRE_BASE_ARENA_H
#define QUIRE_BASE_ARENA_H
/* A bump allocator: everything taken from it is freed at once by arena_release. Zero-initialise before use. */
#include <stddef.h>

struct arena_chunk;
struct arena {
	struct arena_chunk *head;
};

/* Zeroed memory aligned to 16 bytes, or NULL when out of memory. */
void *arena_alloc(struct arena *a, size_t size);
/* count * size with an overflow check. */
void *arena_array(struct arena *a, size_t count, size_t size);
char *arena_strdup(struct arena *a, const char *s);
char *arena_strndup(struct arena *a, const char *s, size_t n);
void arena_release(struct arena *a);

#endif
