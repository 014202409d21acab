#ifndef QUIRE_CALIB_STATS_STATS_FILE_H
#define QUIRE_CALIB_STATS_STATS_FILE_H
/* The layout of a statistics file, shared by those that write and read it. docs/formats/stats.md specifies it. */
#include "base/json.h"
#include "calib/run/identity.h"
#include "calib/stats/stats.h"
#include "formats/file.h"
#include "formats/safetensors.h"

enum { STATS_VERSION = 1, STATS_MAX_SOURCES = 4096, STATS_ALIGN = 64 };
#define STATS_FORMAT "quire-statistics"

/* A text and the choice of windows from it. */
struct stats_source {
	char data[IDENTITY_SIZE];   /* of the text */
	uint64_t seed;              /* 0 when every window of the text was chosen */
	uint32_t total;             /* windows chosen; a shard holds some of them */
};

/* Which window: sources in order, then position among the chosen ones. */
struct stats_window {
	int32_t source, index;
};

struct stats_head {
	char model[IDENTITY_SIZE], tokenizer[IDENTITY_SIZE];
	const char *tool;
	enum collect collect;
	size_t ctx, windows;
	struct stats_source *sources;
	size_t source_count;
};
/* All windows of all sources are there. */
bool stats_complete(const struct stats_head *h);

/* The tensors of one entry. */
enum field { FIELD_SUM_SQUARES, FIELD_ABS_SUM, FIELD_ABS_MAX, FIELD_COUNT, FIELD_MOMENT, FIELDS };
struct field_row {
	const char *suffix, *dtype;
};
extern const struct field_row field_rows[FIELDS];
/* Does an entry have it? Moments are kept with `full`, and with `kv` of keys and values. */
bool field_present(enum field f, enum collect collect, enum role r);
/* Elements of a field for an input of n channels; false on overflow. */
bool field_elements(enum field f, uint64_t n, uint64_t *out);

struct stats_layout {
	struct st_entry *entries;     /* sorted as they lie */
	size_t count;
	size_t *place;                /* [inputs * FIELDS]: position in entries, SIZE_MAX when not there */
	size_t tokens, windows;       /* positions in entries */
	bool wide;                    /* moments in f64: parts, so that their sum is rounded once */
	uint64_t bytes;
	struct arena arena;
};
int stats_layout_make(struct stats_layout *l, const struct stats_input *inputs, size_t count, const struct stats_head *h,
		      struct err *e);
void stats_layout_release(struct stats_layout *l);
/* The bytes in front of the data. */
int stats_header(const struct stats_layout *l, const struct stats_head *h, struct strbuf *out, struct err *e);

static inline const struct st_entry *stats_field(const struct stats_layout *l, size_t input, enum field f)
{
	size_t at = l->place[input * FIELDS + f];
	return at == SIZE_MAX ? NULL : &l->entries[at];
}

/* Elements of a packed lower triangle; row i begins at i (i + 1) / 2. */
static inline size_t triangle(size_t n)
{
	return n * (n + 1) / 2;
}

/* Opened files, for merging. */
struct stats_entry {
	const char *key;
	size_t n;
	uint64_t count;
	const struct st_entry *field[FIELDS];
	float *importance;        /* [n] mean squares, filled up where an expert's own are of too few tokens */
	float *own;               /* [n] before that; NULL: the same */
	size_t mats;              /* of an importance matrix: so many, one behind the other; else 1 */
	float *counts;            /* their counts; NULL: one */
};
struct stats {
	struct stats_info info;
	struct stats_head head;
	struct st_file file;
	struct mapped *map;
	const struct st_entry *tokens, *windows;
	struct stats_entry *entries;
	size_t count;
	struct map index;
	const struct config *config; /* set by stats_check */
	struct stats_entry **at;      /* by site_id: what serves it, or NULL */
	struct pooled { uint32_t layer; enum role role; double *m; } pooled[2]; /* moments over all experts of a layer, that came last */
	struct arena arena;
};
/* What serves each site of s->config, and what experts that saw too few tokens borrow (stats_sites.c). */
int stats_index(struct stats *s, struct err *e);
const struct stats_entry *stats_site(const struct stats *s, enum role r, uint32_t place);
/* Mean squares as they were gathered. */
const float *stats_own(const struct stats_entry *x);
/* The packed triangle of an entry: *out += scale times it, as a full matrix; NULL: is made. */
int stats_add_moment(const struct stats *s, const struct stats_entry *x, double scale, double **out, struct err *e);
/* Fills up *m, the means of an expert's moments. */
int stats_borrow(struct stats *s, const struct stats_entry *x, enum role r, uint32_t place, double *m, struct err *e);
const struct stats_entry *stats_find(const struct stats *s, const char *key);
static inline const uint8_t *stats_data(const struct stats *s, const struct st_entry *t)
{
	return s->file.data + t->begin;
}

#endif
