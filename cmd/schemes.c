/* quire help schemes: what --scheme and --tensor take, from the tables of presets, codecs and formats. */
#include <stdio.h>
#include <string.h>

#include "cmd/command.h"
#include "formats/checkpoint.h"
#include "model/arch.h"
#include "plan/recipe.h"

/* "q4_k, q6_k": the codecs of a preset, each once. Its output head has a codec that no rule names. */
static void preset_codecs(const struct recipe_row *row, struct strbuf *out)
{
	const char *seen[16] = { row->codec };
	size_t n = 1, k;
	const struct codec *c = codec_find(row->codec);
	for (const struct recipe_rule *r = row->rules; r && r->codec; r++) {
		for (k = 0; k < n && strcmp(seen[k], r->codec); k++)
			;
		if (k == n && n < sizeof seen / sizeof *seen)
			seen[n++] = r->codec;
	}
	const char *head = recipe_head(c);
	for (k = 0; k < n && strcmp(seen[k], head); k++)
		;
	for (size_t i = 0; i < n; i++)
		strbuf_printf(out, "%s%s", i ? ", " : "", seen[i]);
	if (k == n)
		strbuf_printf(out, "; head %s", head);
}

/* The formats that hold a codec, and who loads them. */
static void holders(const struct codec *c, struct strbuf *out)
{
	bool first = true;
	for (unsigned i = 0; i < format_row_count; i++) {
		const struct format *f = format_rows[i];
		if (!f->create || !f->holds || !f->holds(c))
			continue;
		strbuf_printf(out, "%s%s", first ? "" : ", ", f->name);
		if (f->loaded_by)
			strbuf_printf(out, " (%s)", f->loaded_by);
		first = false;
	}
}

static void block_text(const struct codec *c, char out[16])
{
	if (c->kind == CODEC_FLOAT)
		snprintf(out, 16, "-");
	else if (c->block)
		snprintf(out, 16, "%u", (unsigned)c->block);
	else
		snprintf(out, 16, "row");
}

/* Wide enough that a row's one scale does not show in its bits per weight. */
enum { ROW = 4096 };

void schemes_print(struct strbuf *out)
{
	struct strbuf text = { 0 };
	char block[16];
	strbuf_printf(out, "presets: mixtures named after llama.cpp's; every linear layer, embedding and head\n\n  %-12s %6s %6s  %-28s %s\n", "name",
		      "bits", "block", "codecs", "what it is");
	for (unsigned i = 0; i < recipe_row_count; i++) {
		const struct codec *c = codec_find(recipe_rows[i].codec);
		strbuf_clear(&text);
		preset_codecs(&recipe_rows[i], &text);
		block_text(c, block);
		strbuf_printf(out, "  %-12s %6.4g %6s  %-28s %s\n", recipe_rows[i].name, codec_bits_per_weight(c, ROW), block,
			      text.data ? text.data : "", recipe_rows[i].summary);
	}
	strbuf_printf(out, "\ncodecs: one for all linear layers, embedding and head in 8 bits; also for --tensor. bits: per weight, block: weights\n"
		      "that share a scale's bytes (bits of 'row' are of rows of %d). Where a name is also a preset's, write pure-NAME.\n\n"
		      "  %-18s %6s %6s  %s\n", ROW, "name", "bits", "block", "what holds it (and other programs that load that)");
	for (unsigned i = 0; i < codec_row_count; i++) {
		const struct codec *c = codec_rows[i];
		if (c->kind == CODEC_INTEGER)
			continue;
		strbuf_clear(&text);
		holders(c, &text);
		block_text(c, block);
		strbuf_printf(out, "  %-18s %6.4g %6s  %s\n", c->name, codec_bits_per_weight(c, ROW), block, text.data ? text.data : "");
	}
	out->failed |= text.failed;
	strbuf_release(&text);
}

static void word(struct strbuf *out, const char *name, const char *end)
{
	strbuf_printf(out, "%s%s%s", out->len && out->data[out->len - 1] == '\'' ? "" : " ", name, end);
}

void schemes_words(enum scheme_words what, struct strbuf *out)
{
	const char *name;
	switch (what) {
	case WORDS_SCHEMES:
		for (size_t i = 0; (name = scheme_name(i)); i++)
			word(out, name, "");
		break;
	case WORDS_CODECS:
		for (unsigned i = 0; i < codec_row_count; i++)
			if (codec_rows[i]->kind != CODEC_INTEGER)
				word(out, codec_rows[i]->name, "");
		break;
	case WORDS_ROLES:
		for (unsigned i = 0; i < ROLE_COUNT; i++)
			if (role_rows[i].linear || i == ROLE_EMBED || i == ROLE_HEAD)
				word(out, role_rows[i].name, "=");
		break;
	}
}
