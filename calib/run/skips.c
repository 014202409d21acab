#include "calib/run/skips.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void skips_name(const struct group *g, char out[64])
{
	size_t at = 0;
	out[0] = '\0';
	for (unsigned i = 0; i < g->count && at < 64; i++) {
		int n = snprintf(out + at, 64 - at, "%s%s", i ? ", " : "", role_rows[g->role[i]].name);
		at += n > 0 ? (size_t)n : 0;
	}
}

const char *skips_source(const struct source_of *source, char out[160])
{
	snprintf(out, 160, "what they read comes from %s", source->why);
	return out;
}

void skips_see(struct skips *s, const char *method, const char *what, const char *why)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->count; i++) {
		struct skip *x = &s->item[i];
		if (strcmp(x->method, method) || strcmp(x->what, what) || strcmp(x->why, why ? why : ""))
			continue;
		x->count++;
		return;
	}
	if (s->count == s->room) {
		size_t room = s->room ? 2 * s->room : 8;
		struct skip *item = realloc(s->item, room * sizeof *item);
		if (!item) {
			s->failed = true;
			return;
		}
		s->item = item;
		s->room = room;
	}
	struct skip *x = &s->item[s->count++];
	*x = (struct skip){ .method = method, .count = 1 };
	snprintf(x->what, sizeof x->what, "%s", what);
	snprintf(x->why, sizeof x->why, "%s", why ? why : "");
}

void skips_tell(const struct skips *s, struct notes *n)
{
	for (size_t i = 0; i < s->count; i++) {
		const struct skip *x = &s->item[i];
		size_t all = 0;
		for (size_t k = 0; k < s->count; k++)
			if (!strcmp(s->item[k].method, x->method) && !strcmp(s->item[k].what, x->what))
				all += s->item[k].count;
		if (*x->why)
			notes_add(n, "%s: %zu of %zu %s left as they are: %s", x->method, x->count, all, x->what, x->why);
	}
	n->failed |= s->failed;
}

void skips_release(struct skips *s)
{
	free(s->item);
	*s = (struct skips){ 0 };
}
