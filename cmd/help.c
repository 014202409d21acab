/* Help for people: -h, man pages and shell completion, all made from the tables of commands and options. */
#include <stdio.h>
#include <string.h>

#include "cmd/command.h"

enum { WIDTH = 98 };

/* Words of text in lines of at most WIDTH columns; the first line goes on at column `at`. */
static void wrap(struct strbuf *out, const char *text, size_t at, size_t indent)
{
	for (bool first = true; *(text += strspn(text, " \n")); first = false) {
		size_t len = strcspn(text, " \n");
		if (!first && at + 1 + len > WIDTH) {
			strbuf_printf(out, "\n%*s", (int)indent, "");
			at = indent;
		} else if (!first) {
			strbuf_putc(out, ' ');
			at++;
		}
		strbuf_add(out, text, len);
		at += len;
		text += len;
	}
	strbuf_putc(out, '\n');
}

static bool is_common(const struct option_row *o)
{
	return o >= common_rows && o < common_rows + common_row_count;
}

static void example_lines(struct strbuf *out, const char *text, const char *indent)
{
	while (*text) {
		size_t len = strcspn(text, "\n");
		strbuf_puts(out, indent);
		strbuf_add(out, text, len);
		strbuf_putc(out, '\n');
		text += len + (text[len] == '\n');
	}
}

static void synopsis_line(const struct command *c, struct strbuf *out)
{
	strbuf_printf(out, "quire %s %s", c->name, c->synopsis);
}

static void option_spelling(const struct option_row *o, struct strbuf *out)
{
	if (o->letter)
		strbuf_printf(out, "-%c, ", o->letter);
	strbuf_printf(out, "--%s", o->name);
	if (o->value)
		strbuf_printf(out, " %s", o->value);
}

static void option_lines(const struct command *c, struct strbuf *out)
{
	struct strbuf left = { 0 };
	size_t column = 0;
	const struct option_row *o;
	for (size_t i = 0; (o = option_visible(c, i)) && !is_common(o); i++) {
		strbuf_clear(&left);
		option_spelling(o, &left);
		column = left.len > column && left.len <= 30 ? left.len : column;
	}
	for (size_t i = 0; (o = option_visible(c, i)) && !is_common(o); i++) {
		strbuf_clear(&left);
		option_spelling(o, &left);
		strbuf_printf(out, "  %-*s  ", (int)column, left.data ? left.data : "");
		wrap(out, o->help, (left.len > column ? left.len : column) + 4, column + 4);
	}
	/* the common ones share a line */
	strbuf_clear(&left);
	for (size_t i = 0; (o = option_visible(c, i)); i++)
		if (is_common(o)) {
			strbuf_puts(&left, left.len ? "; " : "  ");
			option_spelling(o, &left);
		}
	strbuf_printf(out, "%s\n", left.data ? left.data : "");
	out->failed |= left.failed;
	strbuf_release(&left);
}

static void command_help(const struct command *c, struct strbuf *out)
{
	/* the wrap is only for the eye; the man page has the same words */
	strbuf_printf(out, "usage: quire %s ", c->name);
	wrap(out, c->synopsis, 14 + strlen(c->name), 13);
	wrap(out, c->description, 0, 0);
	strbuf_putc(out, '\n');
	option_lines(c, out);
	if (c->example) {
		strbuf_puts(out, "\nexample:\n");
		example_lines(out, c->example, "  ");
	}
}

static void overview(struct strbuf *out)
{
	strbuf_puts(out, "usage: quire COMMAND [OPTION...]\n"
			 "Prepares language models for devices: converts, quantizes, folds and verifies checkpoints.\n\n");
	for (unsigned i = 0; i < command_row_count; i++)
		strbuf_printf(out, "  %-10s  %s\n", command_rows[i]->name, command_rows[i]->summary);
	strbuf_puts(out, "\n'quire help COMMAND' or 'quire COMMAND -h' explains a command, 'quire help schemes' what to quantize to;\n"
			 "'quire help models', 'formats' and 'methods' list those. 'quire --version' tells the version.\n"
			 "QUIRE_CPU=scalar|avx2|avx512|avx512vnni|neon|auto chooses the instruction set,\n"
			 "QUIRE_CPU=sgemm|amx how matrices are multiplied, QUIRE_CPU=avx2,sgemm both.\n"
			 "exit codes:");
	for (unsigned i = 0; i < err_row_count; i++)
		strbuf_printf(out, "%s %d %s", i ? "," : "", err_rows[i].code, err_rows[i].name);
	strbuf_putc(out, '\n');
}

void help_print(const struct command *c, struct strbuf *out)
{
	if (c)
		command_help(c, out);
	else
		overview(out);
}

/* troff: a backslash and a leading dot or quote are special, and '-' would become a hyphen. */
static void troff(struct strbuf *out, const char *text)
{
	bool line_start = true;
	for (; *text; text++) {
		if (line_start && (*text == '.' || *text == '\''))
			strbuf_puts(out, "\\&");
		if (*text == '\\')
			strbuf_puts(out, "\\e");
		else if (*text == '-')
			strbuf_puts(out, "\\-");
		else
			strbuf_putc(out, *text);
		line_start = *text == '\n';
	}
}

static void man_head(struct strbuf *out, const char *page, const char *summary)
{
	strbuf_puts(out, ".TH \"");
	for (const char *s = page; *s; s++)
		strbuf_putc(out, *s >= 'a' && *s <= 'z' ? (char)(*s - 'a' + 'A') : *s);
	strbuf_puts(out, "\" 1 \"\" \"quire " QUIRE_VERSION "\" \"quire\"\n.SH NAME\n");
	troff(out, page);
	strbuf_puts(out, " \\- ");
	troff(out, summary);
	strbuf_puts(out, "\n.SH SYNOPSIS\n");
}

static void man_exit_codes(struct strbuf *out)
{
	strbuf_puts(out, ".SH EXIT STATUS\n");
	for (unsigned i = 0; i < err_row_count; i++)
		strbuf_printf(out, ".TP\n%d\n%s\n", err_rows[i].code, err_rows[i].meaning);
}

static void man_environment(struct strbuf *out)
{
	strbuf_puts(out, ".SH ENVIRONMENT\n.TP\nQUIRE_CPU\nscalar, avx2, avx512, avx512vnni, neon or auto: the instruction set to use;\nsgemm, amx or split: how to multiply matrices;\none of each with a comma between\n");
}

static void man_overview(struct strbuf *out)
{
	man_head(out, "quire", "prepares language models for devices");
	strbuf_puts(out, "quire COMMAND [OPTION...]\n.SH DESCRIPTION\n"
			 "A suite of commands that convert, quantize, fold and verify checkpoints of language models.\n"
			 ".SH COMMANDS\n");
	for (unsigned i = 0; i < command_row_count; i++) {
		strbuf_printf(out, ".TP\n.BR quire\\-%s (1)\n", command_rows[i]->name);
		troff(out, command_rows[i]->summary);
		strbuf_putc(out, '\n');
	}
	man_environment(out);
	man_exit_codes(out);
}

void help_man(const struct command *c, struct strbuf *out)
{
	char page[64];
	const struct option_row *o;
	struct strbuf text = { 0 };
	if (!c) {
		man_overview(out);
		return;
	}
	snprintf(page, sizeof page, "quire-%s", c->name);
	man_head(out, page, c->summary);
	synopsis_line(c, &text);
	troff(out, text.data ? text.data : "");
	strbuf_puts(out, "\n.SH DESCRIPTION\n");
	troff(out, c->description);
	strbuf_puts(out, "\n.SH OPTIONS\n");
	for (size_t i = 0; (o = option_visible(c, i)); i++) {
		strbuf_clear(&text);
		option_spelling(o, &text);
		strbuf_puts(out, ".TP\n");
		troff(out, text.data ? text.data : "");
		strbuf_putc(out, '\n');
		troff(out, o->help);
		strbuf_putc(out, '\n');
	}
	if (c->example) {
		strbuf_puts(out, ".SH EXAMPLE\n.nf\n");
		troff(out, c->example);
		strbuf_puts(out, "\n.fi\n");
	}
	man_environment(out);
	man_exit_codes(out);
	strbuf_puts(out, ".SH SEE ALSO\n.BR quire (1)\n");
	out->failed |= text.failed;
	strbuf_release(&text);
}

static void completion_pattern(const struct command *c, const struct option_row *o, const char *end, struct strbuf *out)
{
	strbuf_printf(out, "\t%s:--%s%s", c->name, o->name, end);
	if (o->letter)
		strbuf_printf(out, "|%s:-%c%s", c->name, o->letter, end);
	strbuf_puts(out, ") words='");
}

/* Values written "a|b|c" are offered, and names of schemes and codecs; others complete to files. */
static void completion_values(const struct command *c, struct strbuf *out)
{
	static const char done[] = "'; value=1 ;;\n";
	const struct option_row *o;
	for (size_t i = 0; (o = option_visible(c, i)); i++) {
		if (!o->value)
			continue;
		bool rule = !strcmp(o->value, "PATTERN=CODEC"), list = !strcmp(o->value, "SCHEME,SCHEME,...");
		completion_pattern(c, o, "", out);
		if (rule)
			schemes_words(WORDS_ROLES, out);
		else if (list || !strcmp(o->value, "SCHEME"))
			schemes_words(WORDS_SCHEMES, out);
		else if (!strcmp(o->value, "CODEC"))
			schemes_words(WORDS_CODECS, out);
		else if (strchr(o->value, '|'))
			for (const char *s = o->value; *s; s++)
				strbuf_putc(out, *s == '|' || *s == '\'' ? ' ' : *s);
		if (list)
			strbuf_puts(out, "'; [[ $cur == *,* ]] && list=${cur%,*}, && cur=${cur##*,}");
		strbuf_puts(out, list ? "; value=1 ;;\n" : done);
		if (rule) {
			completion_pattern(c, o, "=", out);
			schemes_words(WORDS_CODECS, out);
			strbuf_puts(out, done);
		}
	}
}

void help_completion(struct strbuf *out)
{
	const struct option_row *o;
	strbuf_puts(out, "# bash completion for quire; made by 'quire help --completion bash'\n"
			 "_quire()\n{\n"
			 "\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command words= value= list= at=$COMP_CWORD\n"
			 "\tCOMPREPLY=()\n"
			 /* bash makes a word of '=': --scheme = Q4, --tensor attn_v = q8 */
			 "\tif [[ $cur == = ]]; then cur= at=$((at + 1)); fi\n"
			 "\tif [[ $at -gt 2 && ${COMP_WORDS[at-1]} == = ]]; then prev=${COMP_WORDS[at-2]}\n"
			 "\t\t[[ $prev == -* ]] || prev=${COMP_WORDS[at-3]}=\n\tfi\n"
			 "\tcommand=${COMP_WORDS[0]##*/}\n"
			 "\tif [[ $command == quire-* ]]; then command=${command#quire-}\n"
			 "\telif ((COMP_CWORD > 1)); then command=${COMP_WORDS[1]}\n"
			 "\telse command=; fi\n"
			 "\tcase $command:$prev in\n");
	for (unsigned i = 0; i < command_row_count; i++)
		completion_values(command_rows[i], out);
	strbuf_puts(out, "\tesac\n\tif [[ -z $value ]]; then\n\t\tcase $command in\n\t\t'') words='--version");
	for (unsigned i = 0; i < command_row_count; i++)
		strbuf_printf(out, " %s", command_rows[i]->name);
	strbuf_puts(out, "' ;;\n");
	for (unsigned i = 0; i < command_row_count; i++) {
		const struct command *c = command_rows[i];
		strbuf_printf(out, "\t\t%s) [[ $cur == -* ]] && words='", c->name);
		for (size_t j = 0; (o = option_visible(c, j)); j++) {
			strbuf_printf(out, "%s--%s", j ? " " : "", o->name);
			if (o->letter)
				strbuf_printf(out, " -%c", o->letter);
		}
		if (c == &help_command) {
			strbuf_puts(out, "'; [[ $cur != -* ]] && words='");
			for (unsigned j = 0; j < help_topic_count; j++)
				strbuf_printf(out, "%s%s", j ? " " : "", help_topics[j].name);
			for (unsigned j = 0; j < command_row_count; j++)
				strbuf_printf(out, " %s", command_rows[j]->name);
		}
		strbuf_puts(out, "' ;;\n");
	}
	strbuf_puts(out, "\t\tesac\n\tfi\n"
			 "\tif [[ -n $words ]]; then COMPREPLY=($(compgen -P \"$list\" -W \"$words\" -- \"$cur\"))\n"
			 "\t\t[[ ${COMPREPLY[0]} != *= ]] || compopt -o nospace 2>/dev/null\n"
			 "\telse COMPREPLY=($(compgen -f -- \"$cur\")); fi\n"
			 "}\ncomplete -o filenames -F _quire quire");
	for (unsigned i = 0; i < command_row_count; i++)
		strbuf_printf(out, " quire-%s", command_rows[i]->name);
	strbuf_putc(out, '\n');
}

struct help_options {
	struct common common;
	bool man, list;
	const char *completion;
};

static const struct option_row help_rows[] = {
	{ "man", 0, OPT_FLAG, NULL, NULL, offsetof(struct help_options, man) },
	{ "completion", 0, OPT_STRING, "bash", NULL, offsetof(struct help_options, completion) },
	{ "list", 0, OPT_FLAG, NULL, NULL, offsetof(struct help_options, list) }, /* names only, for make install */
};

static const struct help_topic *topic_find(const char *name)
{
	for (unsigned i = 0; i < help_topic_count; i++)
		if (!strcmp(help_topics[i].name, name))
			return &help_topics[i];
	return NULL;
}

static int help_run(const void *options, const char *const *args, size_t count, struct err *e)
{
	const struct help_options *o = options;
	const struct help_topic *topic = count ? topic_find(args[0]) : NULL;
	const struct command *c = count && !topic ? command_find(args[0]) : NULL;
	if (count && !topic && !c) {
		const char *near = command_nearest(args[0]);
		return err_set(e, ERR_USAGE, "unknown command '%.40s'%s%s%s", args[0], near ? "; did you mean '" : "; 'quire help' lists the commands",
			       near ? near : "", near ? "'?" : "");
	}
	if (o->completion && strcmp(o->completion, "bash"))
		return err_set(e, ERR_USAGE, "--completion knows bash, not '%.40s'", o->completion);
	struct strbuf text = { 0 };
	if (topic)
		topic->print(&text);
	else if (o->completion)
		help_completion(&text);
	else if (o->list)
		for (unsigned i = 0; i < command_row_count; i++)
			strbuf_printf(&text, "%s\n", command_rows[i]->name);
	else if (o->man)
		help_man(c, &text);
	else
		help_print(c, &text);
	int rc = out_print(&text, e);
	strbuf_release(&text);
	return rc;
}

const struct command help_command = {
	.name = "help",
	.summary = "explains the commands",
	.synopsis = "[COMMAND | schemes | models | formats | methods]",
	.description = "Lists the commands, or explains one of them: what it does, its options and an example; or lists the schemes and codecs "
		       "to quantize to, with their bits per weight and what loads them; families of models; formats; methods.",
	.example = "quire help inspect\nquire help models",
	.options = help_rows,
	.option_count = sizeof help_rows / sizeof *help_rows,
	.max_args = 1,
	.options_size = sizeof(struct help_options),
	.run = help_run,
	.no_json = true,
};
