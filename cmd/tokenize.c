/* quire tokenize: text to token ids and back, as Hugging Face's tokenizers do it. */
#include <stdlib.h>
#include <string.h>

#include "cmd/command.h"
#include "formats/checkpoint.h"
#include "formats/file.h"

struct tokenize_options {
	struct common common;
	bool pieces, decode, count, no_special, lines;
	const char *file;
};

static const struct option_row tokenize_rows[] = {
	{ "file", 0, OPT_INPUT, "FILE", "read the text from FILE ('-': standard input)", offsetof(struct tokenize_options, file) },
	{ "lines", 'l', OPT_FLAG, NULL, "every line of the file or of standard input is a text of its own", offsetof(struct tokenize_options, lines) },
	{ "pieces", 'p', OPT_FLAG, NULL, "a line for each token: id, tab, piece as in the vocabulary", offsetof(struct tokenize_options, pieces) },
	{ "decode", 0, OPT_FLAG, NULL, "ids to text: arguments, or each line of input, are ids", offsetof(struct tokenize_options, decode) },
	{ "count", 0, OPT_FLAG, NULL, "print only how many tokens each text has", offsetof(struct tokenize_options, count) },
	{ "no-special", 0, OPT_FLAG, NULL, "add no special tokens such as BOS; with --decode leave them out", offsetof(struct tokenize_options, no_special) },
	/* older spellings, still taken */
	{ "file", 'f', OPT_INPUT, "FILE", NULL, offsetof(struct tokenize_options, file) },
	{ "decode", 'd', OPT_FLAG, NULL, NULL, offsetof(struct tokenize_options, decode) },
	{ "count", 'n', OPT_FLAG, NULL, NULL, offsetof(struct tokenize_options, count) },
};

struct job {
	const struct tokenize_options *o;
	const struct tokenizer *t;
	struct strbuf out;
	struct json_writer json;
};

static void print_ids(struct job *j, const struct token_ids *ids)
{
	if (j->o->count) {
		strbuf_printf(&j->out, "%zu\n", ids->count);
		return;
	}
	for (size_t i = 0; i < ids->count; i++) {
		size_t len = 0;
		const char *piece = j->o->pieces ? tokenizer_piece(j->t, ids->id[i], &len) : NULL;
		strbuf_printf(&j->out, "%s%d", i && !j->o->pieces ? " " : "", ids->id[i]);
		if (j->o->pieces) {
			strbuf_putc(&j->out, '\t');
			/* a piece may hold a line break of its own, which must not break the table */
			for (size_t k = 0; piece && k < len; k++)
				if (piece[k] == '\n' || piece[k] == '\t' || piece[k] == '\r' || piece[k] == '\\')
					strbuf_printf(&j->out, "\\%c", piece[k] == '\n' ? 'n' : piece[k] == '\t' ? 't' : piece[k] == '\r' ? 'r' : '\\');
				else
					strbuf_putc(&j->out, piece[k]);
			strbuf_putc(&j->out, '\n');
		}
	}
	if (!j->o->pieces)
		strbuf_putc(&j->out, '\n');
}

static void json_ids(struct job *j, const struct token_ids *ids)
{
	struct json_writer *w = &j->json;
	jw_object(w, NULL);
	jw_uint(w, "count", ids->count);
	if (!j->o->count) {
		jw_array(w, "ids");
		for (size_t i = 0; i < ids->count; i++)
			jw_int(w, NULL, ids->id[i]);
		jw_end_array(w);
	}
	if (j->o->pieces) {
		jw_array(w, "pieces");
		for (size_t i = 0; i < ids->count; i++) {
			size_t len = 0;
			const char *piece = tokenizer_piece(j->t, ids->id[i], &len);
			if (piece)
				jw_string_n(w, NULL, piece, len);
			else
				jw_null(w, NULL);
		}
		jw_end_array(w);
	}
	jw_end_object(w);
}

static int encode_text(struct job *j, const char *text, size_t len, struct err *e)
{
	struct token_ids ids = { 0 };
	int rc = tokenizer_encode(j->t, text, len, !j->o->no_special, &ids, e);
	if (!rc) {
		if (j->o->common.json)
			json_ids(j, &ids);
		else
			print_ids(j, &ids);
	}
	token_ids_release(&ids);
	return rc;
}

/* Ids separated by spaces, commas or brackets, so that a JSON list works too. */
static int read_ids(const struct job *j, const char *text, size_t len, struct token_ids *ids, struct err *e)
{
	for (size_t i = 0; i < len;) {
		if (strchr(" \t\r\n,[]", text[i]) && text[i]) {
			i++;
			continue;
		}
		int64_t id = 0;
		size_t start = i;
		for (; i < len && text[i] >= '0' && text[i] <= '9' && id < 1000000000; i++)
			id = id * 10 + (text[i] - '0');
		if (i == start || (i < len && !strchr(" \t\r\n,[]", text[i])))
			return err_set(e, ERR_USAGE, "'%.*s' is not a list of token ids", (int)(len - start < 20 ? len - start : 20), text + start);
		if (id >= (int64_t)tokenizer_size(j->t))
			return err_set(e, ERR_INPUT, "token id %lld is outside the vocabulary of %zu", (long long)id, tokenizer_size(j->t));
		if (ids->count == ids->cap) {
			size_t cap = ids->cap ? ids->cap * 2 : 64;
			int32_t *p = realloc(ids->id, cap * sizeof *p);
			if (!p)
				return err_nomem(e);
			ids->id = p;
			ids->cap = cap;
		}
		ids->id[ids->count++] = (int32_t)id;
	}
	return ERR_OK;
}

static int decode_text(struct job *j, const char *text, size_t len, struct err *e)
{
	struct token_ids ids = { 0 };
	struct strbuf plain = { 0 };
	int rc = read_ids(j, text, len, &ids, e);
	if (!rc)
		rc = tokenizer_decode(j->t, ids.id, ids.count, j->o->no_special, &plain, e);
	if (!rc && j->o->common.json) {
		jw_object(&j->json, NULL);
		jw_uint(&j->json, "count", ids.count);
		jw_string_n(&j->json, "text", plain.data ? plain.data : "", plain.len);
		jw_end_object(&j->json);
	} else if (!rc) {
		strbuf_add(&j->out, plain.data, plain.len);
		strbuf_putc(&j->out, '\n');
	}
	strbuf_release(&plain);
	token_ids_release(&ids);
	return rc;
}

static int one_text(struct job *j, const char *text, size_t len, struct err *e)
{
	return j->o->decode ? decode_text(j, text, len, e) : encode_text(j, text, len, e);
}

static int input_texts(struct job *j, struct err *e)
{
	struct strbuf in = { 0 };
	const char *name = j->o->file ? j->o->file : "-";
	int rc = strcmp(name, "-") ? stream_read(name, &in, 0, e) : file_read_stdin(&in, false, e);
	const char *at = in.data ? in.data : "", *end = at + in.len;
	if (!rc && !j->o->lines && !j->o->decode)
		rc = one_text(j, at, in.len, e);
	else
		while (!rc && at < end) {
			const char *nl = memchr(at, '\n', (size_t)(end - at)), *stop = nl ? nl : end;
			rc = one_text(j, at, (size_t)(stop - at), e);
			at = stop + 1;
		}
	strbuf_release(&in);
	return rc;
}

/* With --decode all arguments are one list of ids. */
static int argument_texts(struct job *j, const char *const *args, size_t count, struct err *e)
{
	struct strbuf all = { 0 };
	int rc = ERR_OK;
	if (!j->o->decode) {
		for (size_t i = 0; i < count && !rc; i++)
			rc = one_text(j, args[i], strlen(args[i]), e);
		return rc;
	}
	for (size_t i = 0; i < count; i++) {
		strbuf_puts(&all, args[i]);
		strbuf_putc(&all, ' ');
	}
	rc = all.failed ? err_nomem(e) : one_text(j, all.data, all.len, e);
	strbuf_release(&all);
	return rc;
}

static int tokenize_run(const void *options, const char *const *args, size_t count, struct err *e)
{
	struct job j = { .o = options, .json = { .indent = 0 } };
	struct checkpoint *c;
	struct tokenizer *t = NULL;
	if (count > 1 && j.o->file)
		return err_set(e, ERR_USAGE, "give the text as arguments or with --file, not both");
	if (checkpoint_open(args[0], &c, e))
		return e->code;
	int rc = checkpoint_tokenizer(c, &t, e);
	j.t = t;
	j.json.out = &j.out;
	if (!rc && j.o->common.json) {
		jw_document(&j.json, "quire-tokenize/1");
		jw_array(&j.json, "texts");
	}
	if (!rc)
		rc = count > 1 ? argument_texts(&j, args + 1, count - 1, e) : input_texts(&j, e);
	if (!rc && j.o->common.json) {
		jw_end_array(&j.json);
		jw_end_object(&j.json);
		strbuf_putc(&j.out, '\n');
	}
	if (!rc)
		rc = out_print(&j.out, e);
	strbuf_release(&j.out);
	tokenizer_close(t);
	checkpoint_close(c);
	return rc;
}

const struct command tokenize_command = {
	.name = "tokenize",
	.summary = "turns text into token ids and back",
	.synopsis = "MODEL [TEXT...] [--file FILE] [--lines] [--pieces] [--count] [--decode]",
	.description = "Prints the token ids of each TEXT, one line per text; without TEXT, of standard input. The ids are those "
		       "of Hugging Face's tokenizers.",
	.example = "quire tokenize examples/demo \"Once upon a time\" --pieces\n"
		   "quire tokenize examples/demo \"Hello\" | quire tokenize examples/demo --decode --no-special",
	.options = tokenize_rows,
	.option_count = sizeof tokenize_rows / sizeof *tokenize_rows,
	.min_args = 1,
	.max_args = SIZE_MAX,
	.file_args = 1,
	.options_size = sizeof(struct tokenize_options),
	.run = tokenize_run,
};
