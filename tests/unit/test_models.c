/*
 * docs/models.md and README's list of architectures are what the rows say and what tests/golden holds.
 * `build/tests/test_models docs/models.md` writes the table anew.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "calib/fold/attention_fit.h"
#include "formats/checkpoint.h"
#include "formats/file.h"
#include "model/config_rope.h"
#include "model/graph.h"
#include "model/tape.h"
#include "check.h"
#include "goldens.h"

#define MARK "<!-- made of the rows by tests/unit/test_models.c -->\n"

static void config_of(const char *golden, struct config *c)
{
	struct strbuf text = { 0 };
	char path[160];
	snprintf(path, sizeof path, "tests/golden/model/%s/config.json", golden);
	ok(file_read(path, &text, 0, &e));
	ok(config_parse(c, text.data, text.len, &e));
	strbuf_release(&text);
}

/* The golden models of a family: how many, and the config of the first. */
static int goldens_of(const struct arch *a, const struct goldens *all, struct config *first)
{
	int n = 0;
	for (int i = 0; i < all->count; i++) {
		struct config c;
		config_of(all->name[i], &c);
		if (c.arch == a && !n++)
			*first = c;
		else
			config_release(&c);
	}
	return n;
}

static bool published(const struct arch *a)
{
	struct strbuf list = { 0 };
	bool found = false;
	char name[80];
	int used;
	ok(file_read("tests/golden/config/parameters.txt", &list, 0, &e));
	for (const char *s = list.data; !found && sscanf(s, "%79s %*u\n%n", name, &used) == 1; s += used) {
		struct strbuf text = { 0 };
		struct config c;
		char path[160];
		snprintf(path, sizeof path, "tests/golden/config/%s.json", name);
		ok(file_read(path, &text, 0, &e));
		ok(config_parse(&c, text.data, text.len, &e));
		found = c.arch == a;
		config_release(&c);
		strbuf_release(&text);
	}
	strbuf_release(&list);
	return found;
}

static bool converted(const struct arch *a)
{
	const struct goldens all = goldens_with("converter.txt");
	struct config c;
	if (!goldens_of(a, &all, &c))
		return false;
	config_release(&c);
	return true;
}

static void put_layer(struct strbuf *out, const struct config *c)
{
	static const char *const norms[] = { [NORM_RMS] = "RMS norms", [NORM_RMS_PLUS_ONE] = "RMS norms plus one", [NORM_LAYER] = "layer norms" };
	static const char *const turning[] = { [TURN_ALL] = "", [TURN_NONE] = "", [TURN_WINDOWED] = " under windows only", [TURN_LISTED] = " in some layers" };
	const struct arch *a = c->arch;
	struct block b;
	block_make(c, c->layers - 1, &b);
	strbuf_printf(out, "%s%s, ", norms[a->norm], a->plain_norms ? " without bias" : "");
	if (a->turning == TURN_NONE)
		strbuf_puts(out, a->learned_positions ? "learned positions, " : "alibi, ");
	else
		strbuf_printf(out, "%s%s, ", a->partial_rotary ? "rotary in part" : "rotary", turning[a->turning]);
	if (a->window != WINDOW_NONE)
		strbuf_puts(out, "windows, ");
	strbuf_printf(out, "%s%s%s", activation_name(a->act), block_has(&b, 0, OP_GLU) ? ", gated" : "", a->mixture ? ", experts" : "");
	if (b.parts < 2)
		strbuf_puts(out, ", halves side by side");
}

static void put_family(struct strbuf *out, const struct arch *a, const struct goldens *all)
{
	struct config c;
	int n = goldens_of(a, all, &c);
	strbuf_printf(out, "| %s | ", a->name);
	if (a->gguf)
		strbuf_printf(out, "`%s` | ", a->gguf);
	else
		strbuf_puts(out, "no | ");
	if (!n) {
		strbuf_puts(out, "what folded models are written as for other programs | | | |\n");
		return;
	}
	put_layer(out, &c);
	strbuf_printf(out, " | %s | %s | ", tape_check(&c, &e) ? "all, without training" : "all",
		      attention_fit_possible(&c, c.layers - 1, &e) ? "windows" : "heads, layers, windows");
	strbuf_printf(out, "transformers (%d)%s%s |\n", n, converted(a) ? ", llama.cpp" : "", published(a) ? ", a published size" : "");
	config_release(&c);
}

static void put_table(struct strbuf *out)
{
	const struct goldens all = goldens_with("logits.bin");
	strbuf_puts(out, MARK "\n| model_type | GGUF | a layer | methods | folds | compared with |\n|---|---|---|---|---|---|\n");
	for (unsigned i = 0; i < arch_row_count; i++)
		put_family(out, arch_rows[i], &all);
}

static void table_is_what_the_rows_say(void **state)
{
	struct strbuf doc = { 0 }, want = { 0 };
	(void)state;
	ok(file_read("docs/models.md", &doc, 0, &e));
	put_table(&want);
	const char *table = strstr(doc.data, MARK);
	assert_non_null(table);
	if (strcmp(table, want.data))
		fail_msg("docs/models.md is not what the rows say; build/tests/test_models docs/models.md writes it");
	strbuf_release(&doc);
	strbuf_release(&want);
}

static void readme_names_every_family(void **state)
{
	struct strbuf text = { 0 };
	(void)state;
	ok(file_read("README.md", &text, 0, &e));
	char *from = strstr(text.data, "- Architectures: "), *to = from ? strstr(from, "\n- ") : NULL;
	assert_true(from && to);
	*to = '\0';
	for (unsigned i = 0; i < arch_row_count; i++)
		if (!strstr(from, arch_rows[i]->name))
			fail_msg("README.md does not name %s", arch_rows[i]->name);
	strbuf_release(&text);
}

static int write_table(const char *path)
{
	struct strbuf doc = { 0 };
	ok(file_read(path, &doc, 0, &e));
	char *table = strstr(doc.data, MARK);
	if (!table)
		return 1;
	doc.len = (size_t)(table - doc.data);
	put_table(&doc);
	FILE *f = fopen(path, "wb");
	bool good = f && fwrite(doc.data, 1, doc.len, f) == doc.len;
	strbuf_release(&doc);
	return f && !fclose(f) && good ? 0 : 1;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(table_is_what_the_rows_say),
		cmocka_unit_test(readme_names_every_family),
	};
	return argc > 1 ? write_table(argv[1]) : cmocka_run_group_tests(tests, NULL, NULL);
}
