#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/sha256.h"
#include "cmd/produce.h"
#include "formats/file.h"
#include "formats/quire.h"

enum { PIECE = 1 << 20, MAX_FILES = 100000 };

struct source_hash {
	struct fact *facts;      /* read by others while the thread runs: digests come in when it is joined */
	char **paths, (*digests)[65];
	size_t count;
	struct arena arena;
	pthread_t thread;
	bool running;
	atomic_bool stop;
	struct err e;
	int rc;
};

static int hash_file(struct source_hash *h, const char *path, char text[65])
{
	struct sha256 s;
	uint8_t digest[32];
	uint8_t *buf = malloc(PIECE);
	int fd = buf ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	ssize_t n = -1;
	sha256_init(&s);
	while (fd >= 0 && !atomic_load(&h->stop) && ((n = read(fd, buf, PIECE)) > 0 || (n < 0 && errno == EINTR)))
		sha256_add(&s, buf, n < 0 ? 0 : (size_t)n);
	int rc = !buf ? err_nomem(&h->e) : n < 0 && !atomic_load(&h->stop)
			? err_system(&h->e, "cannot read '%.600s'", path) : ERR_OK;
	if (fd >= 0)
		close(fd);
	free(buf);
	sha256_finish(&s, digest);
	sha256_hex(digest, text);
	return rc;
}

static void *hash_all(void *arg)
{
	struct source_hash *h = arg;
	for (size_t i = 0; i < h->count && !h->rc && !atomic_load(&h->stop); i++)
		h->rc = hash_file(h, h->paths[i], h->digests[i]);
	return NULL;
}

static int add_file(struct source_hash *h, const char *path, struct err *e)
{
	const char *name = path_basename(path);
	size_t room = strlen(name) + sizeof QUIRE_SOURCE_FACT;
	char *key = arena_alloc(&h->arena, room), *value = arena_alloc(&h->arena, 65);
	struct fact *facts = realloc(h->facts, (h->count + 1) * sizeof *facts);
	h->facts = facts ? facts : h->facts;
	char **paths = realloc(h->paths, (h->count + 1) * sizeof *paths);
	h->paths = paths ? paths : h->paths;
	char *copy = arena_strdup(&h->arena, path);
	if (!key || !value || !facts || !paths || !copy)
		return err_nomem(e);
	snprintf(key, room, "%s%s", QUIRE_SOURCE_FACT, name);
	memset(value, '0', 64);   /* the length is what counts until the digest is there */
	h->paths[h->count] = copy;
	h->facts[h->count++] = (struct fact){ key, value };
	return ERR_OK;
}

static int is_shard(const struct dirent *d)
{
	size_t n = strlen(d->d_name);
	return d->d_name[0] != '.' && n > 12 && !strcmp(d->d_name + n - 12, ".safetensors");
}

static int add_folder(struct source_hash *h, const char *path, struct err *e)
{
	struct dirent **list;
	int rc = ERR_OK, n = scandir(path, &list, is_shard, alphasort);
	if (n < 0)
		return err_system(e, "cannot read folder '%.600s'", path);
	for (int i = 0; i < n; i++) {
		char *file = rc ? NULL : path_join(path, list[i]->d_name);
		if (!rc)
			rc = file ? add_file(h, file, e) : err_nomem(e);
		free(file);
		free(list[i]);
	}
	free(list);
	return rc;
}

int source_hash_start(const char *input, struct source_hash **out, struct err *e)
{
	struct source_hash *h = calloc(1, sizeof *h);
	*out = NULL;
	if (!h)
		return err_nomem(e);
	atomic_init(&h->stop, false);
	int rc = file_is_dir(input) ? add_folder(h, input, e) : add_file(h, input, e);
	h->digests = rc ? NULL : calloc(h->count + 1, sizeof *h->digests);
	if (!rc && !h->digests)
		rc = err_nomem(e);
	if (rc) {
		source_hash_free(h);
		return rc;
	}
	h->running = !pthread_create(&h->thread, NULL, hash_all, h); /* no thread: when it is joined */
	*out = h;
	return ERR_OK;
}

const struct fact *source_hash_facts(const struct source_hash *h, size_t *count)
{
	*count = h->count;
	return h->facts;
}

int source_hash_join(struct source_hash *h, struct err *e)
{
	if (h->running)
		pthread_join(h->thread, NULL);
	else
		hash_all(h);
	h->running = false;
	if (h->rc)
		*e = h->e;
	for (size_t i = 0; i < h->count && !h->rc; i++)
		memcpy((char *)(uintptr_t)h->facts[i].value, h->digests[i], sizeof *h->digests);
	return h->rc;
}

void source_hash_free(struct source_hash *h)
{
	if (!h)
		return;
	atomic_store(&h->stop, true);
	if (h->running)
		pthread_join(h->thread, NULL);
	free(h->facts);
	free(h->paths);
	free(h->digests);
	arena_release(&h->arena);
	free(h);
}
